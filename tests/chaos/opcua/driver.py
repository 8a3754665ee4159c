"""Kills a whole box at random that reads an OPC UA server, breaks the line to the server, kills,
stops and overruns the server itself; then asks whether anything is missing: of the messages
(tests/chaos/kills), and of the changes, for the server counts.
"""

from __future__ import annotations

import contextlib
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from tests.chaos.kills.driver import Driver, Verdict
from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.counters import Course, course, in_order
from tests.kit.opcua import NodeServer, place
from tests.kit.proxy import Proxy

PLC = "forno-01"
# Group -> its keys, and its counters: where each begins (apart, so that none is taken for another)
# and its period. ``short`` has no room for a burst, ``deep`` has; of ``polled`` nobody is promised
# every change.
GROUPS: dict[str, tuple[dict[str, Any], dict[str, tuple[int, int]]]] = {
    "fast": ({"scan": "200ms"}, {"fast_a": (0, 50), "fast_b": (100_000, 70)}),
    "short": ({"scan": "1s", "queue": 20}, {"short": (200_000, 150)}),
    "deep": ({"scan": "500ms", "queue": 1_000}, {"deep": (300_000, 100)}),
    "polled": ({"scan": "250ms", "mode": "scan"}, {"polled": (400_000, 100)}),
}
COUNTERS = {name: told for _, counters in GROUPS.values() for name, told in counters.items()}
BURST = 60
LINE = ["refuse", "reset", "cut", "blackhole", "half_open"]
SERVER = ["server_killed", "server_stopped", "server_suspended", "burst"]
FAULT_S = 2.5


@dataclass
class Counted:
    """What a run has shown of the counters."""

    faults: Counter[str] = field(default_factory=Counter)
    courses: dict[str, Course] = field(default_factory=dict)
    wrong: list[tuple[str, int]] = field(default_factory=list)
    """(counter, a number that it never had)."""
    doubts: Counter[str] = field(default_factory=Counter)
    """What ``bad["*"]`` said -> messages."""

    @property
    def untold(self) -> list[tuple[str, int, int]]:
        """(counter, last number before a hole that nobody told, first one after it)."""
        promised = {n: c for n, c in self.courses.items() if n != "polled"}
        return [(n, a, b) for n, c in promised.items() for a, b in c.untold]

    @property
    def back(self) -> list[tuple[str, int, int]]:
        """(counter, a number, a lower one after it)."""
        return [(n, a, b) for n, c in self.courses.items() for a, b in c.back]

    @property
    def good(self) -> bool:
        """Every number is delivered or told of, none is wrong, none out of order."""
        return not (self.untold or self.back or self.wrong)


class Plant:
    """A server that counts, a line to it that breaks, a box that reads it."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            counters = {n: {"from": a, "period_ms": ms} for n, (a, ms) in COUNTERS.items()}
            keep = str(folder / "numbers")
            server = NodeServer(folder, counters=counters, keep=keep)
            self.server = stack.enter_context(server)
            self.line = stack.enter_context(Proxy(self.server.port))
            groups = [
                {"name": name, **keys, "fields": [
                    {"name": n, "node": place(n), "type": "DINT"} for n in counters
                ]}
                for name, (keys, counters) in GROUPS.items()
            ]  # fmt: skip
            self.box = Box(plcs=0)
            self.box.real_plcs = [
                # The second address is the same line: a lost connection is made anew at once.
                {"id": PLC, "protocol": "opcua", "hosts": ["127.0.0.1", "localhost"],
                 "port": self.line.port, "timeout": "1s", "heartbeat": "1s", "groups": groups}
            ]  # fmt: skip
            stack.enter_context(self.box)
            trusted = self.box.site.run("trust", PLC, "--fingerprint", self.server.fingerprint)
            assert trusted.returncode == 0, trusted.stderr
            self.box.wait_for_messages(PLC, 10)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def messages(self) -> list[dict[str, Any]]:
        """Data and gap messages of the PLC, in the order of their numbers."""
        topics = (["plc", "acme", PLC], ["plc", "acme", PLC, "gap"])
        received = list(self.box.subscriber.received)
        return in_order(orjson.loads(p) for t, p, _ in received if t.split("/") in topics)


class Chaos:
    """Faults of one plant. ``seed`` repeats the same choices."""

    def __init__(self, plant: Plant, seed: int) -> None:
        self.counted = Counted()
        self._plant = plant
        self._dice = random.Random(seed)
        self._driver = Driver(plant.box, seed)

    def draw(self, count: int) -> list[str]:
        """So many faults of the line and the server, every second one none."""
        return [self._dice.choice([*LINE, *SERVER]) if n % 2 else "" for n in range(count)]

    def run(self, faults: Sequence[str]) -> Verdict:
        """One kill of the box under each."""
        begin_s = time.monotonic()
        for fault in faults:
            if fault:
                self.counted.faults[fault] += 1
            with getattr(self, f"_{fault}")() if fault in SERVER else self._broken(fault):
                self._driver.kill_some(self._dice.choice(["one"] * 8 + ["pair", "all"]))
                time.sleep(self._dice.uniform(0.1, FAULT_S))
            time.sleep(self._dice.uniform(0.5, FAULT_S))
        self._driver._drain()
        self._count(self._plant.server("halt"))
        self._driver.judge()
        self._driver.verdict.seconds = time.monotonic() - begin_s
        return self._driver.verdict

    # -- faults --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _broken(self, fault: str) -> Iterator[None]:
        self._plant.line.fault = fault or None
        yield
        self._plant.line.fault = None

    @contextlib.contextmanager
    def _server_killed(self) -> Iterator[None]:
        self._plant.server.kill()
        yield
        self._plant.server.start()

    @contextlib.contextmanager
    def _server_stopped(self) -> Iterator[None]:
        process = self._plant.server.process
        process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def _server_suspended(self) -> Iterator[None]:
        """It says that it does not run, and counts on."""
        self._plant.server("state", state="Suspended")
        self._overrun()
        yield
        self._overrun()
        self._plant.server("state", state="Running")

    @contextlib.contextmanager
    def _burst(self) -> Iterator[None]:
        self._overrun()
        yield
        self._overrun()

    def _overrun(self) -> None:
        """More numbers at once than one queue holds."""
        for counter in ("short", "deep"):
            self._plant.server("burst", counter=counter, count=BURST)

    # -- judging -------------------------------------------------------------------------

    def _count(self, last: dict[str, int]) -> None:
        """``last``: the counters have stopped at these numbers."""
        with contextlib.suppress(AssertionError):  # what has not come by then is lost
            until(lambda: self._newest() == last, 20, "")
        messages = self._plant.messages()
        self.counted.doubts.update(m["bad"]["*"] for m in messages if "*" in m.get("bad", {}))
        for group, (_, counters) in GROUPS.items():
            of_group = [m for m in messages if m.get("group", group) == group]
            for name, (before, _) in counters.items():
                c = self.counted.courses[name] = course(of_group, name)
                if c.last < last[name]:
                    c.untold.append((c.last, last[name] + 1))
                had = range(before, last[name] + 1)
                numbers = {m["values"][name] for m in of_group if name in m.get("values", {})}
                self.counted.wrong += [(name, n) for n in numbers if n not in had]

    def _newest(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for m in self._plant.messages():
            newest |= m.get("values", {})
        return newest
