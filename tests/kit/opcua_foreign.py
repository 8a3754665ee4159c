"""node-opcua's client, which shares no code with ours, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.opcua.certificates import Own
from tests.kit.common import ROOT, until
from tests.kit.node import NODE_OPCUA, package
from tests.kit.opcua_rig import CLIENT_URI, NAMESPACE


class NodeClient:
    """Connects when it is entered; ``said`` is what it told, one dict each."""

    def __init__(self, port: int, folder: Path, own: Own, watch: list[str], **more: Any) -> None:
        self._node, self._packages = package(*NODE_OPCUA)
        self._told = {
            "url": f"opc.tcp://127.0.0.1:{port}/", "pki": str(folder / "node-pki"),
            "cert": str(own.cert), "key": str(own.key), "uri": CLIENT_URI,
            "policy": "Basic256Sha256", "mode": "SignAndEncrypt", "namespace": NAMESPACE,
            "watch": watch, **more,
        }  # fmt: skip
        self.said: list[dict[str, Any]] = []
        self.noise: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._node, str(ROOT / "tests/kit/opcua_client.cjs"), json.dumps(self._told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "NODE_FOLDER": str(self._packages)},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self.said.append(json.loads(line))
            except ValueError:
                self.noise.append(line)

    def all(self, what: str) -> list[dict[str, Any]]:
        """Everything of one kind, as yet."""
        return [s for s in self.said if s["what"] == what]

    def first(self, what: str, timeout_s: float = 30) -> dict[str, Any]:
        """The first of one kind."""
        until(lambda: bool(self.all(what)), timeout_s, self.shown)
        return self.all(what)[0]

    def shown(self) -> str:
        """For a test that fails."""
        return f"{self.said[-5:]}\n{''.join(self.noise[-20:])}"

    def newest(self, path: str) -> dict[str, Any]:
        """The last change of a value."""
        return next((s for s in reversed(self.all("changed")) if s["path"] == path), {})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._reader.join(5)
