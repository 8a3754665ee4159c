"""The real historian beside the real store in one process (``tests/kit/store_rig.py``), so that
hundreds of deaths take seconds. Beside it an ordinary output, ``a``, which is given the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from services.consumer import durable as durable_module
from services.consumer import intake as intake_module
from services.consumer import source as source_module
from services.consumer.durable import Durable
from services.historian import work as work_module
from services.historian.keeper import Keeper
from tests.chaos.history.judge import Held, Identity, Plant, check, check_rolled, held
from tests.kit.store_rig import Node, Queue, Rig

NAME = "historian"
CONFIG: dict[str, Any] = {
    "groups": [], "max_size_bytes": 2**40, "min_free_bytes": 0,
    "max_age_ms": {"raw": 2**50, "minute": 2**50, "hour": 2**50},
}  # fmt: skip
FLUSH_ROWS = work_module.FLUSH_ROWS
_MODULES = (durable_module, intake_module, source_module)


class WorkClock:
    """Stands in for the ``time`` of the work beside: a step takes a while, so that a slice of it
    ends in the middle.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._worked_s = 0.0

    def monotonic(self) -> float:
        self._worked_s += 0.003
        return self._rig.clock.now_s + self._worked_s


class HistorianNode(Node):
    """As much of ``Process`` as a consumer uses."""

    item = ""

    def connect(self, wire: str, item: str = "") -> Queue:
        port: Queue = self._rig.wire(f"{wire}-{item}")
        return port


@dataclass
class Abandoned:
    """Connections, and the steps of work that were under way on them."""

    connections: list[Any]
    steps: list[Generator[None, None, None]]

    def close(self) -> None:
        """Nothing of it can write any more."""
        for connection in self.connections:
            connection.close()
        for step in self.steps:
            with suppress(apsw.ConnectionClosedError):
                step.close()


class HistoryRig(Rig):
    """``start``, ``publish``, ``step``, ``drain`` as its base; ``drop_historian`` is its death."""

    def __init__(self, seed: int, step_ms: int = 60_000, **store: Any) -> None:
        super().__init__(seed, outputs=("a",), **store)
        for module in _MODULES:
            vars(module)["time"] = self.clock
        vars(work_module)["time"] = WorkClock(self)
        # Few rows are moved on, so that the files of hours grow in parts.
        vars(work_module)["FLUSH_ROWS"] = self.random.choice((4, 30, FLUSH_ROWS))
        self.config["outputs"].append(
            {"name": NAME, "locatarios": None, "from": "oldest", "strict": True}
        )
        self.plant = Plant(random.Random(seed), self.plcs, step_ms)
        self.historian: HistorianNode | None = None
        self.keeper: Keeper | None = None
        self.said: list[str] = []
        """Events of all its lives."""

    @property
    def history(self) -> Any:
        """Its folder."""
        return self.state / "history"

    def start(self) -> None:
        """Starts whatever does not run."""
        super().start()
        if self.historian is None:
            self.historian = HistorianNode(self, NAME, CONFIG)
            self.historian.events = self.said
            self.keeper = Keeper(self.historian)  # type: ignore[arg-type]
            self._leave = Durable(self.historian, self.keeper).open()  # type: ignore[arg-type]
            self.keeper.open()

    def acquire(self, plc: str, pad: int = 10) -> None:
        """One message, as a reader would make it, and so many bytes more."""
        members = orjson.dumps(self.plant.members(plc)).decode()[1:-1]
        message = self.source.message(plc, pad, f",{members}")
        ts_ms = int(self.clock.now_s * 1_000)
        self.readers[plc][1].publish(ts_ms, lambda e, s: self.plant.take(plc, message(e, s)))

    def step(self, seconds: float = 0.01, lazy: float = 0.0) -> None:
        """The historian has a turn too."""
        super().step(seconds, lazy)
        if self.historian is not None:
            self.historian.turn()

    def work(self, rounds: int, burst: tuple[int, ...] = (0, 1, 1, 5), pad: int = 10) -> None:
        """So many rounds of messages of every PLC."""
        for _ in range(rounds):
            for plc in self.plcs:
                for _ in range(self.random.choice(burst)):
                    self.acquire(plc, pad)
            self.step(self.random.choice((0.002, 0.05, 0.4)), lazy=0.3)

    def drain(self, seconds: float = 120.0) -> None:
        """Until the historian has all too."""
        super().drain(seconds)
        end_s = self.clock.now_s + seconds
        while self.store is None or self.store.outbox.pending(NAME):
            self.step(0.1)
            assert self.clock.now_s < end_s, f"the historian is stuck: {self.said[-5:]}"

    def drop_historian(self) -> None:
        """It is gone, without a word; its files stay, and what was on its wires is lost."""
        self.historian = self.keeper = None
        self.lose_wires(f"dispatch-{NAME}")

    def stop_historian(self) -> None:
        """SIGTERM."""
        assert self.keeper is not None
        self._leave()
        self.keeper.close()
        self.drop_historian()

    def abandoned(self) -> Abandoned:
        """What a dead historian had open."""
        folder = str(self.history)
        assert self.keeper is not None
        work = self.keeper._work
        jobs = (work._flushing, work._condensing) if work is not None else ()
        return Abandoned(
            [c for c in apsw.connections() if c.filename.startswith(folder)],
            [job[0] for job in jobs if job is not None],
        )

    def judge(self) -> Held:
        """What is there is right, and is what the other output was given, gaps apart."""
        found = held(self.history, self.plant, self.plcs)
        oracle = self.oracles["a"]
        assert not oracle.wrong, oracle.wrong[:3]
        delivered: set[Identity] = set(oracle.delivered.values())
        check(found, delivered)
        # What the outbox dropped before one of the two took it is in a gap there.
        gaps = oracle.gaps
        dropped = {i for i in oracle.acquired.values() if i[:2] in gaps and gaps[i[:2]].holds(i[2])}
        more = set(found.messages) - delivered - dropped
        assert not more, f"{len(more)} were never delivered: {sorted(more)[:3]}"
        check_rolled(self.history, found)
        return found

    def close(self) -> None:
        """Ends everything."""
        if self.keeper is not None:
            self.abandoned().close()
        if self.store is not None:
            self.store.close()
        for module in (*_MODULES, work_module):
            vars(module)["time"] = time
        vars(work_module)["FLUSH_ROWS"] = FLUSH_ROWS
        super().close()
