"""A box's history for a test: messages of the past, kept by a real historian."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import run_folder


def historian_config(run: Path, state: Path, groups: Sequence[dict[str, Any]] = ()) -> Any:
    """As rendered; wires in ``run``, files in ``state``."""
    return {
        "process": "historian", "folder": "historian", "item": "", "site": "planta-sp",
        "locatario": "acme", "runtime": str(run), "state": str(state), "logs": str(run),
        "max_size_bytes": 2**30, "min_free_bytes": 0, "groups": list(groups),
        "max_age_ms": {"raw": 10**13, "minute": 10**13, "hour": 10**13},
    }  # fmt: skip


@contextmanager
def historian(
    run: Path, said: Sequence[tuple[str, str, bytes]], groups: Sequence[dict[str, Any]] = ()
) -> Iterator[Service]:
    """Has kept what was ``said`` (tenant, PLC, message), and answers questions in ``run``."""
    with (
        run_folder() as other,  # with a store of its own: the one in ``run`` is the output's
        DispatchPeer(other, "historian") as peer,
        service(historian_config(other, run, groups)) as feeding,
    ):
        for tenant, plc, body in said:
            peer.add(1, plc=plc, locatario=tenant, bodies=[body])
        peer.wait_done(20)
        assert feeding.terminate() == 0
    with service(historian_config(run, run, groups)) as answering:
        yield answering
