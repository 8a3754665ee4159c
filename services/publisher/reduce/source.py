"""Where the rows of an output come from that is told sums only: its own queue of reduced messages.

Behind it stands a consumer of the store (``Durable``) with its own wires there; what that one has
to say goes into this source's State, so that the process is one output as any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from services.consumer.durable import Durable
from services.consumer.intake import Intake
from services.consumer.row import Row
from services.consumer.source import STATE_S, Source, Taker
from services.publisher.reduce.memory import Memory, Waiting
from services.publisher.reduce.reducer import TICK_S, Reducer, gap_of
from services.runtime.clock import now_ms
from services.runtime.process import Process

# What has arrived is forgotten so often: each time is an fdatasync.
SETTLE_S = 1.0
BOUND_S = 5.0


class Reduced(Source):
    """One output's reduced messages."""

    def __init__(self, process: Process, taker: Taker) -> None:
        super().__init__(process, taker)
        config = process.config["output"]["reduce"]
        self._max_bytes: int = config["max_size_bytes"]
        self._max_age_ms: int = config["max_age_ms"]
        path = process.state_dir / "reduce" / f"{self.name}.db"
        self._memory = Memory(path, self._damaged)
        self._feed_status = ("ok", "", "")
        self._own_status = ("down", "", "not connected yet")
        self._reducer = Reducer(process, self._memory, self._pull, taker.beat)
        self._durable = Durable(process, self._reducer, source=self._feed)
        self._session = 1
        self._orders = count()
        self._given = 0
        """The highest number that the output was given."""
        self._flying: set[int] = set()
        self._gone: list[int] = []
        self._letters: dict[int, str] = {}

    def _damaged(self, path: Path, why: str) -> None:
        text = f"{self.name}.db was damaged and lies in {path}: what waited in it is lost"
        self._process.event("error", "reduce_damaged", text, error=why)

    def _feed(self, process: Process, taker: Taker) -> Source:
        return _Feed(process, taker, self._fed)

    def open(self) -> None:
        """Begins to take rows, and gives what waits."""
        process = self._process
        self._memory.retry_letters()
        self._durable.open()
        process.every(STATE_S, self._say_state)
        process.every(SETTLE_S, self._forget)
        process.every(TICK_S, self._reducer.tick)
        process.every(BOUND_S, self._bound)
        process.on_config(lambda config: self._reducer.configure(config["plcs"]))
        self.restart()

    def restart(self) -> None:
        """From the first that waits."""
        self._forget()
        self._session += 1
        self._given = 0
        self._flying = set()
        self._taker.begin()
        self._pull()

    # -- the queue -------------------------------------------------------------------------------

    def _pull(self) -> None:
        room = self._taker.window - len(self._flying)
        if room <= 0 or self._given >= self._memory.last:
            return
        rows = [self._row(w) for w in self._memory.after(self._given, room)]
        if rows:
            self._given = rows[-1].position
            self._flying |= {row.position for row in rows}
            self._taker.take(rows)

    def _row(self, w: Waiting) -> Row:
        numbers = (w.ts_ms, w.epoch, w.seq)
        place = (self._session, "live", next(self._orders), w.number)
        return Row(*place, w.kind, w.plc, w.locatario, *numbers, w.body)

    @property
    def is_up(self) -> bool:
        """It is in this process."""
        return True

    @property
    def flying(self) -> int:
        """Rows given and not settled."""
        return len(self._flying)

    def _settle(self, row: Row, reason: str = "") -> bool:
        if row.done or row.session != self._session:
            return False
        row.done = True
        self._flying.discard(row.position)
        if reason:
            self._letters[row.position] = reason
        else:
            self._gone.append(row.position)
        return True

    def _settled_some(self) -> None:
        # Not from here: who reports is in the middle of its rows.
        self._process.at(time.monotonic(), self._pull)

    def _forget(self) -> None:
        gone, letters = self._gone, self._letters
        if (gone or letters) and self._memory.settle(gone, letters):
            self._gone, self._letters = [], {}

    def _bound(self) -> None:
        before_ms = now_ms() - self._max_age_ms
        site = self._process.config["site"]
        dropped = self._memory.drop(
            self._given, self._max_bytes, before_ms, lambda why, some: gap_of(site, why, some)
        )
        for reason, number in dropped.items():
            text = f"{number} reduced messages are lost ({reason})"
            self._process.event("error", "gap", text)
            self._process.stats.counter("plc_edge_reduced_dropped_total", reason=reason).inc(number)

    def close(self) -> None:
        """Keeps what was taken, forgets what has arrived."""
        try:
            self._durable.close()
            self._forget()
        finally:
            self._memory.close()

    # -- how it is -------------------------------------------------------------------------------

    def _fed(self, status: str, code: str, message: str) -> None:
        self._feed_status = (status, code, message)
        self._join()

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """The output's; where that is well, how the reduction is."""
        self._own_status = (status, code, message)
        self._join()

    def _join(self) -> None:
        is_well = self._own_status[0] == "ok"
        super().status(*(self._feed_status if is_well else self._own_status))

    def _say_state(self) -> None:
        gauge, labels = self._process.stats.gauge, {"output": self.name}
        oldest = self._memory.oldest_ms()
        oldest_s = 0.0 if oldest is None else max(0, now_ms() - oldest) / 1_000
        gauge("plc_edge_reduced_pending", **labels).set(self._memory.waiting)
        gauge("plc_edge_reduced_oldest_pending_seconds", **labels).set(oldest_s)
        gauge("plc_edge_reduced_dead_letters", **labels).set(self._memory.letters)
        super()._say_state()


class _Feed(Intake):
    """The raw rows: not counted as delivered, for nobody has been sent them."""

    def __init__(
        self, process: Process, taker: Taker, report: Callable[[str, str, str], None]
    ) -> None:
        super().__init__(process, taker)
        self._report = report

    def delivered(self, rows: Sequence[Row]) -> None:
        """They are kept as sums."""
        self.passed(rows)

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """To the output's own."""
        self._report(status, code, message)

    def _say_state(self) -> None:
        """The output's own does."""
