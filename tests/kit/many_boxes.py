"""``plc-edge simulate --fleet`` for a test: a real process, all its boxes connected.

with ManyBoxes(config, 20) as boxes:
    boxes.tell("away 0.5 5s")
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from services.simulator.control import ask
from services.simulator.fleet.plan import made_up
from tests.kit.broker import Broker
from tests.kit.common import ROOT, until
from tests.kit.site import PLC_EDGE

# A thousand boxes on a machine that others use too.
BUSY_S = 60.0


def box_config(broker: Broker, plcs: int = 2, scan: str = "1s", values: int = 10) -> dict[str, Any]:
    """What every box is like; ``broker`` without accounts."""
    config = made_up(("127.0.0.1", broker.port), plcs, scan, values)
    if broker.authority is not None:
        config["outputs"][0]["tls"] = {"ca": str(broker.authority.ca)}
    return config


class ManyBoxes:
    """``config``: of one box, without ``paths``."""

    def __init__(self, config: dict[str, Any], count: int, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.control, self.account = self.folder / "sock", self.folder / "account"
        file = self.folder / "box.yaml"
        paths = {"state": str(self.folder / "s"), "runtime": str(self.folder / "r")}
        file.write_text(yaml.safe_dump({**config, "paths": paths}))
        self._command = [
            *PLC_EDGE, "simulate", "--fleet", str(count), "-c", str(file),
            "--control", str(self.control), "--account", str(self.account), *options,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._errors = (self.folder / "err").open("w+")
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        guard = threading.Timer(90, self.process.kill)
        guard.start()
        line = self.process.stdout.readline()
        guard.cancel()
        if not line.startswith("READY"):
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no READY but {line!r}\n{self.errors()}")
        return self

    def errors(self) -> str:
        """What it wrote on stderr."""
        return (self.folder / "err").read_text()

    def tell(self, line: str) -> str:
        """``away SHARE [FOR]``, ``back``, ``quiet``, ``account FILE``; its answer."""
        answer = ask(self.control, line, BUSY_S)
        assert answer.startswith("ok"), answer
        return answer

    def status(self) -> dict[str, Any]:
        """Sums over all boxes."""
        found: dict[str, Any] = json.loads(self.tell("status").removeprefix("ok "))
        return found

    def drain(self, timeout_s: float = 30) -> None:
        """No more messages are made; returns when all are acknowledged."""
        self.tell("quiet")
        until(lambda: not self.status()["pending"], timeout_s, lambda: str(self.status()))

    def end(self) -> int:
        """SIGTERM; its exit code. Then ``account`` is there."""
        self.process.terminate()
        return self.process.wait(60)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        said = self.errors()
        self._errors.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert "Traceback" not in said, said
