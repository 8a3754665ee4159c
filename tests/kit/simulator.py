"""``plc-edge simulate`` for a test: a real process, ready when the block begins.

with Simulator(config, "--control", path) as simulator:
    simulator.ports["prensa-01"]
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from services.simulator.control import ask
from tests.kit.common import ROOT
from tests.kit.site import PLC_EDGE


class Simulator:
    """The simulator of a configuration (data, without ``paths``); control and scan log are on."""

    def __init__(self, config: dict[str, Any], *options: str, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self._own_folder = folder is None
        self.file = self.folder / "simulated.yaml"
        self.control = self.folder / "sim.sock"
        self.scans = self.folder / "scans"
        paths = {"state": str(self.folder / "s"), "runtime": str(self.folder / "r")}
        self.file.write_text(yaml.safe_dump({**config, "paths": paths}, allow_unicode=True))
        self.options = options
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._errors = (self.folder / "sim.err").open("w+")
        command = [*PLC_EDGE, "simulate", "-c", str(self.file), "--control", str(self.control)]
        self.process = subprocess.Popen(
            [*command, "--scan-log", str(self.scans), *self.options],
            stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        # A simulator that hangs before READY would hang the test.
        guard = threading.Timer(20, self.process.kill)
        guard.start()
        line = self.process.stdout.readline()
        guard.cancel()
        if not line.startswith("READY"):
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no READY but {line!r}\n{self.errors()}")
        for word in line.split()[1:]:
            name, _, at = word.partition("=")
            self.ports[name] = int(at.rpartition(":")[2])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
        said = self.errors()
        self._errors.close()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        if kind is None:
            assert code == 0, said

    def errors(self) -> str:
        """What it wrote on stderr."""
        return (self.folder / "sim.err").read_text()

    def tell(self, line: str) -> str:
        """``down PLC``, ``up PLC``, ``stop PLC``, ``run PLC``, ``status`` …; its answer."""
        answer = ask(self.control, line)
        assert answer.startswith("ok"), answer
        return answer

    def reads_ns(self, plc: str) -> list[int]:
        """Monotonic time of every read telegram that a PLC has received."""
        raw = (self.scans / f"{plc}.ns").read_bytes()
        return [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw) - 7, 8)]
