"""The store's side of a consumer: asks for rows, hands them on, says which are settled.

The store gives at most ``window`` rows without a receipt; what is unsettled when this process dies
comes again from the store, to another session. Whoever takes the rows reports back here: a
publisher with each acknowledgement of its destination, a consumer with a database of its own after
each commit (``durable``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Protocol

from bus.frames import Deliver, Heartbeat, Ready
from services.consumer.ledger import Ledger, PositionsChanged
from services.consumer.row import Row
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.runtime.process import Process

READY_S = 1.0
READY_RETRY_S = 0.05
STATE_S = 1.0
# At most one receipt in so long: one for each acknowledgement would cost the store more than the
# rows do.
RECEIPT_S = 0.005


class Taker(Protocol):
    """Who gets the rows. Never blocks for long; keeps the order in which rows come."""

    @property
    def window(self) -> int:
        """Rows it takes without having settled them, ≥ 1."""

    @property
    def target(self) -> str:
        """Where the rows go, in words, without secrets."""

    def begin(self) -> None:
        """A new session: what was taken and not settled comes again."""

    def take(self, rows: Sequence[Row]) -> None:
        """Rows that this session has not given before, in order."""

    def beat(self, beat: Heartbeat) -> None:
        """A PLC's last heartbeat."""

    def details(self) -> dict[str, object]:
        """What else its State frame tells."""


class Intake:
    """One consumer's wires. Its name is its item's (an output's), else its process's."""

    def __init__(self, process: Process, taker: Taker) -> None:
        self._process = process
        self._taker = taker
        self.name = process.item or process.name
        self._receipt_due = False
        self._receipt_s = 0.0
        """When receipts were sent last."""
        self._asking = False
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
        self._sessions = stats.counter("plc_edge_output_sessions_total", output=self.name)

    def open(self) -> None:
        """Connects, registers with the loop and asks the store for rows."""
        process = self._process
        self._ledger = Ledger(self.name, self._taker.window)
        self._dispatch = process.bus.connect("dispatch", self.name)
        self._receipts = process.bus.connect("receipts")
        self._begin()
        process.on_readable(self._dispatch, self._receive)
        process.every(READY_S, self._say_ready, first_s=0.0)
        process.every(STATE_S, self._say_state)

    # -- the store's side ----------------------------------------------------------------

    def restart(self) -> None:
        """A new session: the store gives again what is not settled, from the first."""
        self._begin()
        self._say_ready()

    def _begin(self) -> None:
        self._ledger.begin(int.from_bytes(os.urandom(8)) >> 2 | 1)
        self._sessions.inc()
        self._taker.begin()

    def _say_ready(self) -> None:
        ready = Ready(self.name, self._ledger.session, self._taker.window)
        if not self._receipts.send(ready) and not self._asking:
            # The store is not there yet: its first second is not lost waiting for our next.
            self._asking = True
            self._process.at(time.monotonic() + READY_RETRY_S, self._ask_again)
        self._send_receipts()

    def _ask_again(self) -> None:
        self._asking = False
        self._say_ready()

    def _receive(self) -> None:
        while (frame := self._dispatch.receive()) is not None:
            if isinstance(frame, Heartbeat):
                self._taker.beat(frame)
            elif isinstance(frame, Deliver) and frame.session == self._ledger.session:
                try:
                    rows = self._ledger.take(frame.lane, frame.rows)
                except PositionsChanged:
                    self._process.event(
                        "warning", "store_changed", "the store counts anew: starting a new session"
                    )
                    self.restart()
                    continue
                if rows:
                    hit("consumer.taken")
                    self._taker.take(rows)
                else:
                    self._receipt_soon()

    def _receipt_soon(self) -> None:
        if self._receipt_due:
            return
        due_s = self._receipt_s + RECEIPT_S
        if due_s <= time.monotonic():
            self._send_receipts()
        else:
            self._receipt_due = True
            self._process.at(due_s, self._send_receipts)

    def _send_receipts(self) -> None:
        self._receipt_due = False
        self._receipt_s = time.monotonic()
        for receipt in self._ledger.receipts():
            hit("consumer.before_receipt")
            if self._receipts.send(receipt):  # else with the next Ready
                self._ledger.sent(receipt)

    # -- the taker's side ----------------------------------------------------------------

    def delivered(self, rows: Sequence[Row]) -> None:
        """They are where they belong."""
        now = now_ms()
        observe, settle = self._latency.observe, self._ledger.settle
        for row in rows:
            observe(max(0, now - row.ts_ms) / 1_000)
            settle(row)
        self._ok.value += len(rows)
        self._settled += len(rows)
        self._receipt_soon()

    def passed(self, rows: Sequence[Row]) -> None:
        """They were taken in an earlier life already."""
        for row in rows:
            self._ledger.settle(row)
        self._receipt_soon()

    def refused(self, row: Row, reason: str) -> None:
        """A dead letter: the store keeps it, the others go on."""
        if self._ledger.settle(row, reason):
            self._refused.inc()
            self._settled += 1
            self._process.event(
                "error",
                "message_refused",
                f"{row.topic} refused for ever: {reason}",
                epoch=row.epoch,
                seq=row.seq,
            )
            self._receipt_soon()

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
            "in_flight": self._ledger.flying,
            "rate": self._rate,
            **self._taker.details(),
        }
        if self._status != "ok":
            fields |= {"code": self._code, "message": self._message, "since": self._since_ms}
        self._process.state(self._status, **fields)

    def close(self) -> None:
        """Says what is settled."""
        self._send_receipts()
