"""The store's side of a consumer: asks for rows, hands them on, says which are settled.

The store gives at most ``window`` rows without a receipt; what is unsettled when this process dies
comes again from the store, to another session. Whoever takes the rows reports back here: a
publisher with each acknowledgement of its destination, a consumer with a database of its own after
each commit (``durable``).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from bus.frames import Deliver, Heartbeat, Ready
from services.consumer.ledger import Ledger, PositionsChanged
from services.consumer.row import Row
from services.consumer.source import STATE_S, Source, Taker
from services.runtime.errors import Unavailable
from services.runtime.failpoints import hit
from services.runtime.process import Process

READY_S = 1.0
READY_RETRY_S = 0.05
# At most one receipt in so long: one for each acknowledgement would cost the store more than the
# rows do.
RECEIPT_S = 0.005


class Intake(Source):
    """One consumer's wires to the store."""

    def __init__(self, process: Process, taker: Taker) -> None:
        super().__init__(process, taker)
        self._receipt_due = False
        self._receipt_s = 0.0
        """When receipts were sent last."""
        self._asking = False
        self._sessions = process.stats.counter("plc_edge_output_sessions_total", output=self.name)

    def open(self) -> None:
        """Connects, registers with the loop and asks the store for rows."""
        process = self._process
        self._ledger = Ledger(self.name, self._taker.window)
        self._dispatch = process.bus.connect("dispatch", self.name)
        self._receipts = process.bus.connect("receipts")
        process.on_readable(self._dispatch, self._receive)
        process.every(READY_S, self._say_ready, first_s=0.0)
        process.every(STATE_S, self._say_state)
        self._begin()

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
                    with suppress(Unavailable):  # the taker asks once more
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

    @property
    def is_up(self) -> bool:
        """The box's own store: it is back within seconds."""
        return True

    @property
    def flying(self) -> int:
        """Rows given and not settled."""
        return self._ledger.flying

    def _settle(self, row: Row, reason: str = "") -> bool:
        return self._ledger.settle(row, reason)

    def _settled_some(self) -> None:
        self._receipt_soon()

    def close(self) -> None:
        """Says what is settled."""
        self._send_receipts()
