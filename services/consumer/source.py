"""Where a consumer's rows come from, as far as that is the same for all: who takes them, what is
counted, and how the consumer is said to be.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from bus.frames import Heartbeat
from services.consumer.row import Row
from services.runtime.clock import now_ms
from services.runtime.process import Process

STATE_S = 1.0


class Taker(Protocol):
    """Who gets the rows. Never blocks for long; keeps the order in which rows come."""

    @property
    def window(self) -> int:
        """Rows it takes without having settled them, ≥ 1."""

    @property
    def target(self) -> str:
        """Where the rows go, in words, without secrets."""

    def begin(self) -> None:
        """A new session: what was taken and not settled comes again. Raises Unavailable where it
        cannot begin now: it takes nothing and asks for ``restart`` itself.
        """

    def take(self, rows: Sequence[Row]) -> None:
        """Rows that this session has not given before, in order."""

    def beat(self, beat: Heartbeat) -> None:
        """A PLC's last heartbeat."""

    def details(self) -> dict[str, object]:
        """What else its State frame tells."""


class Source(ABC):
    """One consumer's rows. Its name is its item's (an output's), else its process's."""

    def __init__(self, process: Process, taker: Taker) -> None:
        self._process = process
        self._taker = taker
        self.name = process.item or process.name
        self._status, self._code, self._message = "down", "", "not connected yet"
        self._since_ms = now_ms()
        self._settled = 0
        self._rate = 0.0
        self._rate_of = (time.monotonic(), 0)
        """When, and how many were settled then: the rate is counted from here."""
        stats = process.stats
        self._ok = stats.counter("plc_edge_published_total", output=self.name, result="ok")
        self._refused = stats.counter(
            "plc_edge_published_total", output=self.name, result="refused"
        )
        self._latency = stats.histogram("plc_edge_publish_latency_seconds", output=self.name)

    @abstractmethod
    def open(self) -> None:
        """Registers with the loop and asks for rows. Raises Unavailable, as ``taker.begin``, but
        then it is open none the less.
        """

    @abstractmethod
    def restart(self) -> None:
        """What is not settled comes again, from the first; ``taker.begin`` is called before, and
        what it raises comes out.
        """

    @property
    @abstractmethod
    def is_up(self) -> bool:
        """Whether rows can come; where not, the source says why in ``status``."""

    @property
    @abstractmethod
    def flying(self) -> int:
        """Rows given and not settled."""

    @abstractmethod
    def _settle(self, row: Row, reason: str = "") -> bool:
        """Takes one as settled, or as refused for ever; False where it was before, or nobody waits
        for that any more.
        """

    @abstractmethod
    def _settled_some(self) -> None:
        """Follows ``_settle``, once for several."""

    @abstractmethod
    def close(self) -> None:
        """Says what is settled and leaves."""

    def delivered(self, rows: Sequence[Row]) -> None:
        """They are where they belong."""
        now = now_ms()
        observe, settle = self._latency.observe, self._settle
        for row in rows:
            observe(max(0, now - row.ts_ms) / 1_000)
            settle(row)
        self._ok.value += len(rows)
        self._settled += len(rows)
        self._settled_some()

    def passed(self, rows: Sequence[Row]) -> None:
        """They were taken in an earlier life already."""
        for row in rows:
            self._settle(row)
        self._settled_some()

    def refused(self, row: Row, reason: str) -> None:
        """A dead letter: the store keeps it, the others go on."""
        if self._settle(row, reason):
            self._refused.inc()
            self._settled += 1
            self._process.event(
                "error",
                "message_refused",
                f"{row.topic} refused for ever: {reason}",
                epoch=row.epoch,
                seq=row.seq,
            )
            self._settled_some()

    def held(self, result: str) -> None:
        """A row must be tried again; counted by ``result``, one word."""
        self._process.stats.counter(
            "plc_edge_published_total", output=self.name, result=result
        ).inc()

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """How the taker is: ok, degraded or down, and why. Said once per change; the panel shows it
        until it changes.
        """
        if (status, code) == (self._status, self._code):
            self._message = message
            return
        self._status, self._code, self._message = status, code, message
        self._since_ms = now_ms()
        level = "info" if status == "ok" else "warning"
        text = f"{self._taker.target}: {message or 'connected'}"
        self._process.event(level, f"output_{code or status}", text)
        self._say_state()

    def _say_state(self) -> None:
        then_s, settled = self._rate_of
        now_s = time.monotonic()
        if now_s - then_s >= STATE_S:
            self._rate = round((self._settled - settled) / (now_s - then_s), 1)
            self._rate_of = (now_s, self._settled)
        fields: dict[str, Any] = {
            "target": self._taker.target,
            "in_flight": self.flying,
            "rate": self._rate,
            **self._taker.details(),
        }
        if self._status != "ok":
            fields |= {"code": self._code, "message": self._message, "since": self._since_ms}
        self._process.state(self._status, **fields)
