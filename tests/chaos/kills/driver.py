"""Kills processes of a whole box at random moments and then asks whether anything is missing.

The box is real: supervisord, simulated PLCs read every 50 ms, Mosquitto with TLS. ``kill -9`` goes
to one process, to two at once, to all services at once, to supervisord or its parent. What is then
asked is in ``judge``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import orjson
import psutil

from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.judge import Judge

# Of ten kills: six of one process, two of a pair, one of everything, one of supervisord.
KINDS = ["one"] * 6 + ["pair"] * 2 + ["all", "supervisord"]
# Rows that may come twice for each time the publisher or the store dies: the output's window.
WINDOW = 1_000
BACK_S = 3.0


@dataclass
class Verdict:
    """What a run has shown."""

    kills: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    acquired: int = 0
    delivered: int = 0
    repeats: int = 0
    repeats_allowed: int = 0
    lost: list[tuple[str, int, int]] = field(default_factory=list)
    disordered: list[tuple[str, int, int]] = field(default_factory=list)
    changed: int = 0
    """Repeats that are not equal to the first delivery."""
    gap_rows: int = 0
    epochs: int = 0
    plcs: int = 0
    drained_s: float = 0.0
    back_s: list[float] = field(default_factory=list)
    memory_mb: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Process -> resident memory of a fresh one, and of the one at the end."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Nothing lost, nothing out of order, nothing changed, repeats within bounds, and every
        sequence went on: a new one would hide the end of the one before."""
        flaws = self.lost or self.disordered or self.changed or self.epochs != self.plcs
        return not flaws and self.repeats <= self.repeats_allowed


class Driver:
    """Kills ``count`` times in a box of ``plcs`` PLCs. ``seed`` repeats the same choices."""

    def __init__(self, box: Box, seed: int) -> None:
        self._box = box
        self._site = box.site
        self._random = random.Random(seed)
        self.verdict = Verdict()

    def run(self, count: int) -> Verdict:
        """Kills, waits until all has arrived, judges."""
        begin_s = time.monotonic()
        first = self._memory()
        for _ in range(count):
            self.kill_some(self._random.choice(KINDS))
            time.sleep(self._random.uniform(0.02, 1.2))
        self._drain()
        last = self._memory()
        self.verdict.memory_mb = {n: (first[n], last[n]) for n in first if n in last}
        self.judge()
        self.verdict.seconds = time.monotonic() - begin_s
        return self.verdict

    # -- killing -------------------------------------------------------------------------

    def kill_some(self, kind: str) -> None:
        alive = self._alive()
        while not alive:
            time.sleep(0.05)
            alive = self._alive()
        self.verdict.kills[kind] += 1
        if kind == "supervisord":
            self._kill_supervisord()
            return
        count = {"one": 1, "pair": 2, "all": len(alive)}[kind]
        names = self._random.sample(sorted(alive), min(count, len(alive)))
        for name in names:
            with contextlib.suppress(ProcessLookupError):
                os.kill(alive[name], signal.SIGKILL)
                self.verdict.victims[name] += 1
        if kind == "one" and self._random.random() < 0.2:
            killed_s = time.monotonic()
            until(lambda: self._is_back(names[0], alive[names[0]]), 20, self._site.logs)
            self.verdict.back_s.append(time.monotonic() - killed_s)

    def _is_back(self, name: str, old_pid: int) -> bool:
        """The process that runs now is another, and the one that said READY last."""
        pid = self._site.pid(name)
        return pid not in (0, old_pid) and self._site.ready_pid(name) == pid

    def _alive(self) -> dict[str, int]:
        rows = self._site.table()
        return {n: int(r["pid"]) for n, r in rows.items() if r["pid"]}

    def _kill_supervisord(self) -> None:
        """Or its parent; both die together, and their children. Then what systemd would do."""
        parent = self._site.process
        assert parent is not None
        children = psutil.Process(parent.pid).children()
        victim = self._random.choice([psutil.Process(parent.pid), *children])
        victim.kill()
        self.verdict.victims["supervisord"] += 1
        parent.wait(10)
        until(lambda: not self._site.descendants(), 10, "children end with supervisord")
        self._site.start()

    def _memory(self) -> dict[str, float]:
        return {n: psutil.Process(p).memory_info().rss / 1e6 for n, p in self._alive().items()}

    # -- judging -------------------------------------------------------------------------

    def _drain(self) -> None:
        """Everything runs again, and for every PLC a new message comes through with nothing
        pending before it."""
        self._site.wait_running(60)
        begin_s = time.monotonic()
        for plc in self._box.config["plcs"]:
            self.wait_current(plc["id"])
        self.verdict.drained_s = time.monotonic() - begin_s

    def wait_current(self, plc: str, timeout_s: float = 60) -> None:
        """Returns when a message of ``plc`` has come that was read less than a second ago."""

        def current() -> bool:
            for topic, payload, _ in reversed(list(self._box.subscriber.received)):
                if topic.split("/")[2:] == [plc]:
                    return bool(time.time() * 1_000 - orjson.loads(payload)["ts"] < 1_000)
            return False

        until(current, timeout_s, lambda: f"{plc} current\n{self._site.logs()}")

    def judge(self) -> None:
        """Asks whether all that was acquired has come, once and in order (tests/kit/judge.py)."""
        v, judge = self.verdict, Judge()
        for topic, payload, _ in list(self._box.subscriber.received):
            judge.take(topic, payload)
        v.acquired, v.delivered, v.gap_rows = judge.acquired, judge.delivered, judge.told
        v.lost, v.disordered = judge.lost, judge.disordered
        v.repeats, v.changed = judge.repeats, judge.changed
        v.epochs, v.plcs = judge.epochs, len(self._box.config["plcs"])
        deaths = sum(v.victims[n] for n in ("publisher-central", "store_forward", "supervisord"))
        v.repeats_allowed = WINDOW * deaths
