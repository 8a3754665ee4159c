"""Runs a consumer that keeps a database of its own: nothing missed and nothing counted twice.

The consumer stores its position in the transaction that holds what it made of the rows. Dead at any
moment, it goes on from there: what came behind the position comes again from the store, what the
store has no receipt for but lies before the position is receipted without being taken again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from bus.frames import Heartbeat
from services.consumer.intake import Intake
from services.consumer.position import Position
from services.consumer.row import Row
from services.consumer.source import Source, Taker
from services.runtime.errors import Unavailable
from services.runtime.failpoints import hit
from services.runtime.process import Process

# After a commit that failed: 0.5 s, doubling.
RETRY_S, RETRY_MAX_S = 0.5, 10.0


class Consumer(Protocol):
    """What a new consumer is."""

    window: int
    """Rows it takes between two commits, at most; ≥ 2."""
    commit_s: float
    """How long rows may wait for a commit; 0: as soon as no more are waiting."""
    target: str
    """What becomes of the rows, in words, without secrets."""

    def begin(self) -> bytes:
        """Forgets what was taken and not committed; the position of the last commit, b"" before
        the first. Raises Unavailable where that must wait.
        """

    def take(self, rows: Sequence[Row]) -> None:
        """Rows, each once, in the order of the store. At the centre in the broker's: replayed
        ones come beside new ones, and Mosquitto 2.0.11 now and then sends one of a resumed session
        behind later ones. Who needs order there goes by (epoch, seq).
        """

    def commit(self, position: bytes) -> None:
        """Keeps ``position`` and what was made of all rows taken, in one transaction. Raises
        Unavailable where that must wait (disk full); ``begin`` follows, and the rows come again.
        """

    def beat(self, beat: Heartbeat) -> None:
        """A PLC's last heartbeat. Live: it may be lost, and is no part of a commit."""


class Progress(Protocol):
    """How far a consumer has come, made of the bytes that its last commit kept."""

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Those that were not taken yet; they count as taken from here on."""

    def pack(self) -> bytes:
        """As bytes, to be kept."""


class Durable:
    """Joins a consumer with the box's store; at the centre with a broker instead (``MqttIntake``,
    ``Seen``). The consumer does not know.
    """

    def __init__(
        self,
        process: Process,
        consumer: Consumer,
        source: Callable[[Process, Taker], Source] = Intake,
        progress: Callable[[bytes], Progress] = Position,
    ) -> None:
        self._process = process
        self._consumer = consumer
        self._open_progress = progress
        self._position = progress(b"")
        self._taken: list[Row] = []
        self._commit_due = False
        self._failures = 0
        self._held = False
        """A commit or a beginning has failed: what comes meanwhile comes again."""
        self.window = consumer.window
        self.target = consumer.target
        self._intake = source(process, self)

    def open(self) -> Callable[[], None]:
        """Starts taking rows; returns ``close``."""
        with suppress(Unavailable):
            self._intake.open()
            self._say_ok()
        return self.close

    def begin(self) -> None:
        """From the last commit on. Raises Unavailable where that must wait: then what comes
        meanwhile is not taken, and ``restart`` follows.
        """
        self._taken = []
        try:
            position = self._consumer.begin()
        except Unavailable as e:
            self._hold(e)
            raise
        self._position = self._open_progress(position)
        self._held = False

    def take(self, rows: Sequence[Row]) -> None:
        """Hands on what the last commit does not hold yet."""
        if self._held:
            return
        fresh = self._position.take(rows)
        if len(fresh) < len(rows):
            new = set(map(id, fresh))
            self._intake.passed([row for row in rows if id(row) not in new])
        if not fresh:
            return
        self._consumer.take(fresh)
        self._taken += fresh
        if len(self._taken) > self._consumer.window // 2:
            self._commit()  # half a window is on its way meanwhile
        elif not self._commit_due:
            self._commit_due = True
            self._process.at(time.monotonic() + self._consumer.commit_s, self._commit_now)

    def beat(self, beat: Heartbeat) -> None:
        """Hands it on."""
        self._consumer.beat(beat)

    def details(self) -> dict[str, object]:
        """Nothing but what all consumers tell."""
        return {}

    def _commit_now(self) -> None:
        self._commit_due = False
        self._commit()

    def _commit(self) -> None:
        if not self._taken or self._held:
            return
        hit("consumer.before_commit")
        try:
            self._consumer.commit(self._position.pack())
        except Unavailable as e:
            self._hold(e)
            return
        hit("consumer.after_commit")
        taken, self._taken = self._taken, []
        self._intake.delivered(taken)
        if self._failures:
            self._failures = 0
            self._say_ok()

    def _hold(self, error: Unavailable) -> None:
        """Nothing is taken until the next attempt to begin."""
        self._held = True
        self._failures += 1
        self._intake.status("degraded", error.code, error.message)
        pause_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._failures - 1, 10))
        self._process.at(time.monotonic() + pause_s, self._restart)

    def _restart(self) -> None:
        with suppress(Unavailable):
            self._intake.restart()

    def _say_ok(self) -> None:
        if self._intake.is_up:
            self._intake.status("ok")

    def close(self) -> None:
        """Commits what was taken and says so."""
        try:
            self._commit()
        finally:
            self._intake.close()
