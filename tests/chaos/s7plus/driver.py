"""Kills a whole box at random that reads a CPU by S7CommPlus, breaks the line to the CPU and kills
the CPU itself; then asks whether anything is missing (tests/chaos/kills).
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import Any, Self

from tests.chaos.kills.driver import Driver, Verdict
from tests.kit.box import Box
from tests.kit.common import ROOT, free_port, until
from tests.kit.proxy import Proxy

TAGS = 100
FAULTS = ["refuse", "reset", "blackhole", "half_open", "delay"]
FAULT_S = 1.5


class Plant:
    """A CPU in a process of its own, a line to it that breaks, a box that reads 100 of its tags
    every 50 ms.
    """

    def __init__(self) -> None:
        self._port = free_port()
        self._cpu = self._start()
        self.line = Proxy(self._port)

    def __enter__(self) -> Self:
        self.line.__enter__()
        until(self._listens, 20, "the CPU does not listen")
        fields = [{"name": "ciclos", "symbol": "Prensa.ciclos", "type": "DINT"}]
        fields += [
            {"name": f"t{n:04d}", "symbol": f"Prensa.t{n:04d}", "type": "REAL"} for n in range(TAGS)
        ]
        group: dict[str, Any] = {
            "name": "tudo", "scan": "50ms", "publish": "always", "fields": fields
        }  # fmt: skip
        self.box = Box(plcs=0)
        self.box.real_plcs = [
            {"id": "prensa-01", "protocol": "s7plus", "host": "127.0.0.1", "port": self.line.port,
             "timeout": "1s", "heartbeat": "1s", "groups": [group]}
        ]  # fmt: skip
        self.box.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.box.__exit__(*error)
        self.line.__exit__(*error)
        self._cpu.kill()
        self._cpu.wait(10)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.kit.s7plus_cpu", str(self._port), str(TAGS)]
        return subprocess.Popen(command, cwd=ROOT)

    def _listens(self) -> bool:
        import socket

        socket.create_connection(("127.0.0.1", self._port), 1).close()
        return True

    def restart_cpu(self) -> None:
        """As its power fails."""
        self._cpu.kill()
        self._cpu.wait(10)
        self._cpu = self._start()


def run(plant: Plant, kills: int, seed: int) -> tuple[Verdict, dict[str, int]]:
    """So many kills of the box; before every third the line breaks or the CPU dies. What was seen,
    and how often each fault was.
    """
    dice = random.Random(seed)
    driver = Driver(plant.box, seed)
    begin_s = time.monotonic()
    plant.box.wait_for_messages("prensa-01", 10)
    faults: dict[str, int] = {}
    for n in range(kills):
        if n % 3 == 2:
            fault = dice.choice([*FAULTS, "cpu_killed"])
            faults[fault] = faults.get(fault, 0) + 1
            if fault == "cpu_killed":
                plant.restart_cpu()
            else:
                plant.line.fault = fault
                time.sleep(dice.uniform(0.2, FAULT_S))
        driver.kill_some(dice.choice(["one"] * 8 + ["pair", "all"]))
        time.sleep(dice.uniform(0.05, 1.2))
        plant.line.fault = None
    driver._drain()
    driver.judge()
    driver.verdict.seconds = time.monotonic() - begin_s
    return driver.verdict, faults
