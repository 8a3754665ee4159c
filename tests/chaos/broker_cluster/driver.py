"""Takes a node away, in one way after the other, and then asks whether anything is missing.

What is asked: every row that a publisher's store has given arrived at a subscriber with a session,
unchanged; first arrivals in order per PLC; no dead letters; every node knows every box's state. And
how long nothing came, and until everything that had waited was there.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.broker_cluster.plant import Plant
from tests.kit.common import until
from tests.kit.namespaces import Net

# A message that takes longer waited for the cluster.
LATE_MS = 1_000
BACK_S = 60.0


@dataclass
class Fault:
    """One loss of a node, and what it did to the stream of messages."""

    what: str
    at_ms: int
    back_s: float = 0.0
    """From when it was let back until it said that it is whole."""
    states_s: float = 0.0
    """And until every node told every box's state as it is."""
    silence_s: float = 0.0
    """The longest time in which nothing arrived."""
    late_s: float = 0.0
    """From the fault to the last arrival that had waited longer than LATE_MS."""
    disordered: int = 0
    """First arrivals after a newer message of their PLC."""


@dataclass
class Verdict:
    """What a run has shown."""

    seconds: float = 0.0
    acquired: int = 0
    delivered: int = 0
    lost: list[tuple[str, int]] = field(default_factory=list)
    disordered: list[tuple[str, int]] = field(default_factory=list)
    changed: int = 0
    repeats: int = 0
    refused: int = 0
    """Dead letters."""
    sessions_lost: int = 0
    """Reconnections at which the cluster had no session of the subscriber."""
    calm_ms: tuple[float, float] = (0.0, 0.0)
    """Median and p99 from the store to the subscriber, before the first fault."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Nothing lost, changed or given up, and the session is there."""
        return not (self.lost or self.changed or self.refused or self.sessions_lost)


class Driver:
    """On a plant whose cluster runs."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._cluster = plant.cluster
        self.verdict = Verdict()
        self._begin_s = time.monotonic()
        self._begin_ms = _now_ms()

    def kill(self, *hosts: str, away_s: float, wipe: bool = False) -> None:
        """``kill -9``, and started again; ``wipe``: as a new machine, with nothing on its disk."""

        def take() -> None:
            for host in hosts:
                self._cluster.kill(host)
                if wipe:
                    self._cluster.wipe(host)

        def give() -> None:
            for host in hosts:
                self._cluster.start(host)

        new = " with an empty disk" if wipe else ""
        what = f"kill -9 {self._name(hosts)}, back{new} after {away_s:.0f} s"
        self._fault(what, hosts, take, away_s, give)

    def part(self, net: Net, host: str, away_s: float, whole: bool) -> None:
        """Cut off from everybody, or from the other nodes only."""
        end, begin = (net.mend, net.cut) if whole else (net.join, net.part)
        from_whom = "everybody" if whole else "the other nodes"
        what = f"{self._name([host])} cut off from {from_whom} for {away_s:.0f} s"
        self._fault(what, [host], lambda: begin(host), away_s, lambda: end(host))

    def _name(self, hosts: Sequence[str]) -> str:
        """Nodes by number, and whether one decides what comes after what."""
        names = " and ".join(f"node {self._cluster.hosts.index(host) + 1}" for host in hosts)
        return f"{names} (leader)" if self._cluster.leader() in hosts else names

    def _fault(
        self,
        what: str,
        hosts: Sequence[str],
        take: Callable[[], None],
        away_s: float,
        give: Callable[[], None],
    ) -> None:
        fault = Fault(what, _now_ms())
        self.verdict.faults.append(fault)
        take()
        time.sleep(away_s)
        give()
        begin_s = time.monotonic()
        for host in hosts:
            self._cluster.wait(host, BACK_S)
        fault.back_s = time.monotonic() - begin_s
        self._wait_states()
        fault.states_s = time.monotonic() - begin_s

    def _wait_states(self) -> None:
        due = self._plant.states_due

        def right() -> bool:
            for host in self._cluster.hosts:
                states = self._plant.states(host)
                if set(states) != due or any(b'"online"' not in s for s in states.values()):
                    return False
            return True

        until(right, BACK_S, "every node tells every box's state")

    def judge(self, drain_s: float = 60) -> Verdict:
        """Waits until all is settled and has come, and says what was wrong."""
        plant, v = self._plant, self.verdict
        plant.drain(drain_s)
        given = {
            (row[2], row[6]): zlib.crc32(row[7]) for box in plant.boxes for row in box.peer.rows
        }
        deadline_s = time.monotonic() + drain_s
        while len({(a.plc, a.seq) for a in plant.witness.arrivals()}) < len(given):
            if time.monotonic() > deadline_s:
                break  # what has not come by now is lost
            time.sleep(1)
        v.acquired = len(given)
        v.refused = sum(len(box.peer.refused) for box in plant.boxes)
        sessions = plant.witness.said("session")
        v.sessions_lost = sum(" new " in text for _, text in sessions[1:])
        v.seconds = time.monotonic() - self._begin_s
        first: Counter[tuple[str, int]] = Counter()
        newest: dict[str, int] = {}
        arrivals: list[tuple[int, int]] = []
        disordered_ms: list[int] = []
        for a in plant.witness.arrivals():
            key = (a.plc, a.seq)
            first[key] += 1
            v.changed += given.get(key) != a.crc32
            if first[key] > 1:
                v.repeats += 1
                continue
            arrivals.append((a.arrival_ms, a.ts_ms))
            if a.seq < newest.get(a.plc, 0):
                v.disordered.append(key)
                disordered_ms.append(a.arrival_ms)
            newest[a.plc] = max(a.seq, newest.get(a.plc, 0))
        v.delivered = len(first)
        v.lost = sorted(set(given) - set(first))
        self._time(arrivals, disordered_ms)
        return v

    def _time(self, arrivals: list[tuple[int, int]], disordered_ms: list[int]) -> None:
        faults = self.verdict.faults
        ends = [f.at_ms for f in faults[1:]] + [_now_ms()]
        for fault, end_ms in zip(faults, ends, strict=True):
            within = [(at, ts) for at, ts in arrivals if fault.at_ms <= at < end_ms]
            times = [fault.at_ms, *(at for at, _ in within)]
            gaps = [after - before for before, after in itertools.pairwise(times)]
            fault.silence_s = max(gaps, default=0) / 1_000
            late = [at for at, ts in within if at - ts > LATE_MS]
            fault.disordered = sum(fault.at_ms <= at < end_ms for at in disordered_ms)
            fault.late_s = (max(late, default=fault.at_ms) - fault.at_ms) / 1_000
        calm_end = faults[0].at_ms if faults else _now_ms()
        calm = sorted(at - ts for at, ts in arrivals if at < calm_end)
        if calm:
            self.verdict.calm_ms = (calm[len(calm) // 2], calm[len(calm) * 99 // 100])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
