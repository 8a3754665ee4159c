"""A mirror process, a source that speaks as a reader does, and where the copy goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from bus import topology
from bus.frames import Raw
from bus.sockets import Bus
from services.runtime.clock import now_ms
from tests.kit.common import until
from tests.kit.procs import Service


class MirrorRig:
    """``size`` bytes of DB500 (from byte 0) of "prensa-01" go to DB600 of the PLC at ``port``."""

    def __init__(self, port: int, size: int, **mirror: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.size = size
        target = {"host": "127.0.0.1", "port": port, "db": 600, "start": 0,
                  "local_tsap": 0x0100, "remote_tsap": 0x0201}  # fmt: skip
        config: dict[str, Any] = {
            "name": "copia", "enabled": True, "source": {"plc": "prensa-01", "group": "db500"},
            "maps": [], "commit": None, "watchdog": None, "full_every": 3_600.0,
            "stale_after": 1.0, "timeout": 1.0, "dry_run": False, "verify": False,
            "max_writes_per_s": None, "consistent_bytes": 960,
        }  # fmt: skip
        config.update(mirror)
        config["target"] = {**target, **mirror.get("target", {})}
        self.config: dict[str, Any] = {
            "process": "mirror-copia", "folder": "mirror", "item": "copia", "site": "s1",
            "locatario": "acme", "runtime": str(self.folder), "state": str(self.folder),
            "mirror": config,
            "source_group": {"db": 500, "start": 0, "length": size, "scan_s": 0.1},
        }  # fmt: skip
        self.service: Service | None = None

    def __enter__(self) -> Self:
        self._bus = Bus(self.folder)
        self._source = self._bus.bind("raw", "prensa-01")
        self._monitor = self._source.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.start()
        return self

    def start(self, **env: str) -> None:
        """Starts the mirror process and waits until it hears the source."""
        self.service = Service(self.config, env or None)
        self.service.wait_ready()
        if self.config["mirror"]["enabled"]:
            assert self._monitor.poll(10_000), "the mirror does not connect to the source"
            self._monitor.recv_multipart()
            # The subscription follows the handshake; PUB has no event for it. Frames are repeated
            # by the callers until they show, as a reader repeats them.

    def send(self, image: bytes, quality: str = "good", age_ms: int = 0, start: int = 0) -> None:
        """One scan of the source."""
        frame = Raw("prensa-01", "db500", 500, start, image, now_ms() - age_ms, quality)
        self._source.send(frame, topology.topic("raw", "db500"))

    def send_until(self, image: bytes, what: Any, timeout_s: float = 10, **how: Any) -> None:
        """Goes on scanning every 20 ms, as a reader does, until ``what()``."""

        def shows() -> bool:
            if what():
                return True
            self.send(image, **how)
            return False

        until(shows, timeout_s, self.explain)

    def explain(self) -> str:
        assert self.service is not None
        return "not copied in time\n" + self.service.stderr()

    @property
    def audit(self) -> str:
        """The audit log's text."""
        file = self.folder / "mirror-copia.audit.jsonl"
        return file.read_text() if file.exists() else ""

    def cpu_s(self) -> float:
        """CPU time of the mirror so far."""
        assert self.service is not None
        ticks = Path(f"/proc/{self.service.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.service is not None:
            self.service.end()
        self._source.socket.disable_monitor()
        self._monitor.close(0)
        with contextlib.suppress(zmq.ZMQError):
            self._bus.close()
        shutil.rmtree(self.folder, ignore_errors=True)
