"""A whole box for a test: ``plc-edge run`` with its supervisord and every service, in a folder of
its own, and what a test wants to do to it.

    with Site(config) as site:
        site.wait_running()
        site.kill("publisher-central")
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from services.runtime.supervise import rpc
from tests.kit.common import ROOT, until

PLC_EDGE = [sys.executable, "-P", "-m", "services.cli.main"]
# A bound, no claim: beside six busy processes a box on two cores has taken more than 20.
START_S = 40.0


def alarms(log: str) -> list[str]:
    """The lines of supervisord's log that alarm a person."""
    return [line for line in log.splitlines() if set(line.split()[:4]) & {"CRIT", "ERRO", "WARN"}]


class Site:
    """One box; ``config`` is config.yaml as data, without ``paths``. ``launcher``: words before the
    command that runs it (``setpriv …``).
    """

    def __init__(self, config: dict[str, Any], launcher: Sequence[str] = ()) -> None:
        self._launcher = launcher
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.file = self.folder / "config.yaml"
        self.runtime = self.folder / "r"
        self.state = self.folder / "s"
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        """Writes the file; the running site does not know before ``apply``. Whether this machine's
        clock is synchronised matters only where ``config`` says so.
        """
        paths = {"state": str(self.state), "runtime": str(self.runtime)}
        self.config = {"clock_sync": "ignored", **config, "paths": paths}
        self.file.write_text(yaml.safe_dump(self.config, allow_unicode=True))

    def start(self) -> None:
        """``plc-edge run``; returns when supervisord answers."""
        with (self.folder / "run.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._launcher, *PLC_EDGE, "run", "-c", str(self.file)],
                stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        until(self._answers, START_S, lambda: f"supervisord\n{self.logs()}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.logs()
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            return bool(self.rpc.getState())
        return False

    @property
    def rpc(self) -> Any:
        """supervisord's interface."""
        return rpc(self.runtime / "supervisor.sock")

    def table(self) -> dict[str, dict[str, Any]]:
        """supervisord's row of each process."""
        return {info["name"]: info for info in self.rpc.getAllProcessInfo()}

    def pid(self, name: str) -> int:
        """0 when it does not run."""
        return int(self.table()[name]["pid"])

    def wait_running(self, timeout_s: float = START_S) -> None:
        """Returns when every process has said READY since its start."""

        def all_ready() -> bool:
            rows = self.table()
            running = all(r["statename"] in ("RUNNING", "STARTING") for r in rows.values())
            return running and all(self.ready_pid(n) == r["pid"] for n, r in rows.items())

        until(all_ready, timeout_s, lambda: f"all READY\n{self.logs()}")

    def ready_pid(self, name: str) -> int:
        """The pid in a process's last READY line; 0 when there is none."""
        pid = 0
        with contextlib.suppress(FileNotFoundError):
            for line in self.log(name).splitlines():
                if '"READY"' in line:
                    pid = int(json.loads(line)["pid"])
        return pid

    def kill(self, name: str) -> tuple[int, float]:
        """``kill -9``; returns (the pid that died, when: time.monotonic)."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid, time.monotonic()

    def wait_back(self, name: str, old_pid: int, timeout_s: float = 10) -> None:
        """Returns when another process of that name has said READY."""
        back = lambda: self.ready_pid(name) not in (0, old_pid)  # noqa: E731
        until(back, timeout_s, lambda: f"{name} back\n{self.logs()}")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One ``plc-edge`` command with this configuration."""
        command = [*PLC_EDGE, words[0], "-c", str(self.file), *words[1:]]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT
        )

    def log(self, name: str) -> str:
        """What a process has logged."""
        return (self.state / "log" / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        files = [self.folder / "run.log", *sorted((self.state / "log").glob("*.log"))]
        tails = []
        for file in files:
            if file.exists():
                lines = file.read_text(errors="replace").splitlines()[-8:]
                tails.append("\n".join([f"--- {file.name}", *lines]))
        return "\n".join(tails)

    def descendants(self) -> list[psutil.Process]:
        """Every process of this box that lives."""
        mark = str(self.runtime)
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
            if any(mark in w for w in words) and process.pid != os.getpid():
                found.append(process)
        return found

    def stop(self, timeout_s: float = 20) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())  # what has started would run on, and burden the others
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            sys.stderr.write(self.logs())
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
        finally:
            for process in self.descendants():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
