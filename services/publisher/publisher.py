"""One output: takes rows from store_forward, hands them on, says which are settled.

Owns no database. The store gives at most ``window`` rows without a receipt; what is unsettled when
this process dies comes again from the store, to another session.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from bus.frames import Deliver, Heartbeat, Ready
from services.publisher.beats import Beats
from services.publisher.ledger import Ledger, PositionsChanged
from services.publisher.outputs import make
from services.publisher.outputs.base import Row
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.runtime.process import Process

READY_S = 1.0
READY_RETRY_S = 0.05
STATE_S = 1.0
# Receipts are gathered so long: one for each acknowledgement would cost the store more than the
# rows do. It adds nothing to the latency of a message.
RECEIPT_S = 0.005


class Publisher:
    """The loop's handlers; the output reports here (``Desk``)."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._name = process.item
        self._receipt_due = False
        self._asking = False
        self._status, self._code, self._message = "down", "", "not connected yet"
        self._since_ms = now_ms()
        self._settled = 0
        self._rate = 0.0
        self._rate_of = (time.monotonic(), 0)
        """When, and how many were settled then: the rate is counted from here."""
        stats = process.stats
        self._ok = stats.counter("plc_edge_published_total", output=self._name, result="ok")
        self._refused = stats.counter(
            "plc_edge_published_total", output=self._name, result="refused"
        )
        self._latency = stats.histogram("plc_edge_publish_latency_seconds", output=self._name)
        self._sessions = stats.counter("plc_edge_output_sessions_total", output=self._name)
        self._output = make(process, self)
        self._ledger = Ledger(self._name, self._output.window)
        site, only = process.config["site"], process.config["output"].get("locatarios")
        self._beats = Beats(site, only, self._output.beat)
        self._beats.configure(process.config["plcs"])
        self._dispatch = process.bus.connect("dispatch", self._name)
        self._receipts = process.bus.connect("receipts")

    def open(self) -> None:
        """Registers with the loop and asks the store for rows."""
        self._begin()
        self._process.on_readable(self._dispatch, self._receive)
        self._process.every(READY_S, self._say_ready, first_s=0.0)
        self._process.every(STATE_S, self._say_state)
        self._process.every(1.0, self._beats.tick)
        self._process.on_config(lambda config: self._beats.configure(config["plcs"]))

    # -- the store's side ----------------------------------------------------------------

    def _begin(self) -> None:
        self._ledger.begin(int.from_bytes(os.urandom(8)) >> 2 | 1)
        self._sessions.inc()

    def _say_ready(self) -> None:
        ready = Ready(self._name, self._ledger.session, self._output.window)
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
                self._beats.receive(frame)
            elif isinstance(frame, Deliver) and frame.session == self._ledger.session:
                try:
                    rows = self._ledger.take(frame.lane, frame.rows)
                except PositionsChanged:
                    self._process.event(
                        "warning", "store_changed", "the store counts anew: starting a new session"
                    )
                    self._begin()
                    self._say_ready()
                    continue
                if rows:
                    hit("publisher.taken")
                    self._output.deliver(rows)
                else:
                    self._receipt_soon()

    def _receipt_soon(self) -> None:
        if not self._receipt_due:
            self._receipt_due = True
            self._process.at(time.monotonic() + RECEIPT_S, self._send_receipts)

    def _send_receipts(self) -> None:
        self._receipt_due = False
        for receipt in self._ledger.receipts():
            hit("publisher.before_receipt")
            if self._receipts.send(receipt):  # else with the next Ready
                self._ledger.sent(receipt)

    # -- the output's side (Desk) --------------------------------------------------------

    def delivered(self, rows: Sequence[Row]) -> None:
        """The destination has them."""
        now = now_ms()
        observe, settle = self._latency.observe, self._ledger.settle
        for row in rows:
            observe(max(0, now - row.ts_ms) / 1_000)
            settle(row)
        self._ok.value += len(rows)
        self._settled += len(rows)
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
        """A row will be tried again."""
        self._process.stats.counter(
            "plc_edge_published_total", output=self._name, result=result
        ).inc()

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """Said once per change; the panel shows it until it changes."""
        if (status, code) == (self._status, self._code):
            self._message = message
            return
        self._status, self._code, self._message = status, code, message
        self._since_ms = now_ms()
        level = "info" if status == "ok" else "warning"
        text = f"{self._output.target}: {message or 'connected'}"
        self._process.event(level, f"output_{code or status}", text)
        self._say_state()

    def _say_state(self) -> None:
        then_s, settled = self._rate_of
        now_s = time.monotonic()
        if now_s - then_s >= STATE_S:
            self._rate = round((self._settled - settled) / (now_s - then_s), 1)
            self._rate_of = (now_s, self._settled)
        fields: dict[str, Any] = {
            "target": self._output.target,
            "in_flight": self._ledger.flying,
            "rate": self._rate,
            **self._output.details(),
        }
        if self._status != "ok":
            fields |= {"code": self._code, "message": self._message, "since": self._since_ms}
        self._process.state(self._status, **fields)

    def close(self) -> None:
        """Waits a moment for what is in flight and says what arrived."""
        self._output.close()
        self._send_receipts()


def setup(process: Process) -> Callable[[], None]:
    """Starts the output that the configuration names."""
    publisher = Publisher(process)
    publisher.open()
    process.ready(output=process.item, type=process.config["output"]["type"])
    return publisher.close
