"""Servers that the tests of a worker share: each takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.opcua import MiloServer, NodeServer


@pytest.fixture(scope="session")
def node_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeServer]:
    with NodeServer(tmp_path_factory.mktemp("pki"), users={"edge": "segredo"}) as server:
        yield server


@pytest.fixture(scope="session")
def milo_server() -> Iterator[MiloServer]:
    with MiloServer() as server:
        yield server
