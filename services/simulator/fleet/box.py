"""One simulated box: the parts of a real one that make and deliver messages, joined without a bus.

Real are the message, the dispatch with its lanes, the ledger, the heartbeats and the MQTT output
with its connections. Left out are PLCs, ring and disk: the rows are made (``rows``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

from bus.frames import Deliver, Frame, Heartbeat, Ready
from services.consumer.ledger import Ledger
from services.consumer.row import Row
from services.publisher.beats import Beats
from services.publisher.outputs.mqtt import MqttOutput
from services.runtime.process import Process
from services.simulator.fleet.line import Line
from services.simulator.fleet.plan import Plan
from services.simulator.fleet.rows import LATENCY_MS
from services.store_forward.dispatch import Dispatch

# Rows are given to it by one store that never dies, so the ledger need not remember them.
REMEMBERED = 1


class Box:
    """Box ``n`` of a fleet; to its dispatch the output's wire, to its output the desk."""

    def __init__(self, process: Process, plan: Plan, n: int, now_ms: int, backlog_ms: int) -> None:
        config = plan.box(n)
        self.site: str = config["site"]
        self._plcs = config["plcs"]
        self._begin_s = time.monotonic()
        self.rows = plan.rows(n, config, now_ms - backlog_ms)
        if backlog_ms:
            self.rows.advance(now_ms)
            self.rows.drop_old(now_ms)
        self.status_now, self.code, self.message = "down", "", "not connected yet"
        self.delivered_rows = 0
        """Rows that the broker has acknowledged; repeats are counted again."""
        self._pumping = self._pump_again = self._finished = False
        self._seconds = 0
        self.line = Line(process)
        name, output = plan.output, config["output"]
        self._ledger = Ledger(name, REMEMBERED)
        self._ledger.begin(1)
        self._dispatch = Dispatch(
            name, {"locatarios": output["locatarios"], "strict": False}, plan.replay
        )
        self._ready = Ready(name, 1, output["window"])
        self._dispatch.on_ready(self._ready, self.rows, {})
        # The loop is the fleet's, the configuration its own.
        seat = copy.copy(process)
        seat.config, seat.item = config, name
        self._output = MqttOutput(seat, self, self.line)
        self._beats = Beats(self.site, output["locatarios"], self._output.beat)
        self._beats.configure(self._plcs)

    # -- over time -----------------------------------------------------------------------

    def read(self, now_ms: int) -> None:
        """Takes what has been read by now."""
        self.rows.advance(now_ms)
        self.pump()

    def look_after(self, now_ms: int) -> None:
        """Once a second."""
        self._dispatch.on_ready(self._ready, self.rows, {})
        for n, plc in enumerate(self._plcs):
            # All at first, then each at its interval, not all at once.
            if not self._seconds or (self._seconds + n) % max(1, round(plc["heartbeat_s"])) == 0:
                self._dispatch.beat(self._heartbeat(n, now_ms))
        self._seconds += 1
        self._beats.tick()
        self.rows.drop_old(now_ms)
        self.pump()

    def pump(self) -> None:
        """Sends what may go; what that settles lets more go."""
        self._pump_again = True
        if self._pumping or self._finished:
            return
        self._pumping = True
        while self._pump_again:
            self._pump_again = False
            self._dispatch.pump(self.rows, self)
        self._pumping = False

    def _heartbeat(self, n: int, now_ms: int) -> Heartbeat:
        plc = self._plcs[n]
        return Heartbeat(
            plc["id"],
            plc["locatario"],
            plc["host"],
            now_ms,
            plc["heartbeat_s"],
            "online",
            LATENCY_MS,
            LATENCY_MS,
            reads_ok=self.rows.schedule.seq(n, self.rows.count),
            uptime_s=round(time.monotonic() - self._begin_s, 1),
        )

    @property
    def pending(self) -> int:
        """Messages that are not delivered."""
        return self.rows.pending(self._dispatch.name)

    @property
    def in_flight(self) -> int:
        """Rows that the output has and the broker has not acknowledged."""
        return self._dispatch.in_flight

    def finish(self) -> None:
        """Sends nothing more."""
        self._finished = True

    def close(self) -> None:
        """Says offline and goodbye."""
        self._output.close()

    # -- the wire ------------------------------------------------------------------------

    def send(self, frame: Frame) -> bool:
        """What the dispatch gives goes to the output at once."""
        if isinstance(frame, Heartbeat):
            self._beats.receive(frame)
        elif isinstance(frame, Deliver):
            self._output.deliver(self._ledger.take(frame.lane, frame.rows))
        return True

    # -- the desk ------------------------------------------------------------------------

    def delivered(self, rows: Sequence[Row]) -> None:
        """The broker has them."""
        self.delivered_rows += len(rows)
        for row in rows:
            self._ledger.settle(row)
        self._receipt()
        if self.pending > self.in_flight:
            self.pump()

    def refused(self, row: Row, reason: str) -> None:
        """A dead letter."""
        self._ledger.settle(row, reason)
        self._receipt()

    def _receipt(self) -> None:
        for receipt in self._ledger.receipts():
            self._dispatch.on_receipt(receipt, self.rows)
            self._ledger.sent(receipt)

    def held(self, result: str) -> None:
        """Tried again by the output itself."""

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """How its connections are."""
        self.status_now, self.code, self.message = status, code, message
