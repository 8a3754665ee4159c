"""Hands rows to one output (any consumer: services/consumer), never more than its window unsettled;
one cursor per output.

An output that starts anew (another session) is served again from its durable cursor; what it does
not settle stays. Lanes: ``strict`` sends all in order; ``lanes`` sends new rows beside the backlog.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import apsw

from bus.frames import Deliver, Frame, Heartbeat, Ready, Receipt
from services.runtime.failpoints import hit
from services.store_forward.segment import Row
from services.store_forward.state import Cursor

BATCH_ROWS = 250
BATCH_BYTES = 1_000_000
# An output that has not said Ready for so long gets nothing more until it does.
SILENT_S = 5.0
REPLAY_MARK = b',"replay":true}'
# An output that has settled nothing for so long was cut off from its destination: what has gathered
# meanwhile is backlog, where lanes are wanted.
CUT_OFF_S = 5.0


class Letters(Protocol):
    """Where dead letters are kept."""

    def bury(self, output: str, rows: Iterable[tuple[Row, str]]) -> None:
        """Keeps them."""


class Rows(Protocol):
    """Where rows come from: the outbox, or one without a disk (services/simulator/fleet)."""

    cursors: dict[str, Cursor]

    @property
    def last_pos(self) -> int:
        """Of the newest row."""

    @property
    def state(self) -> Letters:
        """Where dead letters go."""

    def pending(self, output: str) -> int:
        """Rows that an output has not delivered."""

    def fresh(self, output: str, after: int, limit: int) -> list[Row]:
        """What ``read`` of the live lane gives, where it costs nothing."""

    def read(self, output: str, lane: str, after: int, limit: int) -> list[Row]:
        """Rows of a lane behind ``after`` that are meant for this output, in order."""

    def open_lanes(self, output: str) -> None:
        """From here on new rows go to the live lane; what waits is its backlog."""

    def settle(self, output: str, lane: str, position: int) -> None:
        """Takes an output's receipt."""

    def row(self, pos: int) -> Row | None:
        """One row by its position."""


class Wire(Protocol):
    """The way to the output."""

    def send(self, frame: Frame) -> bool:
        """Whether it has taken the frame."""


class Dispatch:
    """One output: its session, its lanes, its last heartbeats."""

    def __init__(self, name: str, config: dict[str, Any], replay: dict[str, Any]) -> None:
        self.name = name
        self.configure(config)
        self._lanes_wanted = replay["mode"] == "lanes" and not config["strict"]
        self._live_weight: int = replay["live_weight"]
        self._max_rate: int | None = replay["max_rate"]
        self._allowance = 0.0
        self._allowance_s = time.monotonic()
        self.session = 0
        self._window = 0
        self._heard_s = 0.0
        self._sent = {"live": 0, "backfill": 0}
        """How far each lane has been sent."""
        self._open: dict[str, deque[int]] = {"live": deque(), "backfill": deque()}
        """Positions sent and not settled."""
        self._refused: list[tuple[int, str]] = []
        self._held: list[Receipt] = []
        """Receipts that wait for their dead letters to be kept."""
        self._beats: dict[str, Heartbeat] = {}
        self._moved_s = time.monotonic()
        """When rows were settled last, or sent with none before them."""
        self._cut_off = False
        """What is in flight is the last before lanes open."""
        self.must_wait = False
        """Something is left that only time lets go: ``pump`` it again."""

    def configure(self, config: dict[str, Any]) -> None:
        """Takes which tenants the output serves; None is all."""
        self._tenants = set(config["locatarios"]) if config["locatarios"] else None

    @property
    def connected(self) -> bool:
        """The output is there and asks for rows."""
        return self.session != 0 and time.monotonic() - self._heard_s < SILENT_S

    @property
    def in_flight(self) -> int:
        """Rows sent and not settled."""
        return len(self._open["live"]) + len(self._open["backfill"])

    def on_ready(self, frame: Ready, outbox: Rows, beats: dict[str, Heartbeat]) -> None:
        """The output says that it lives; a session we do not know begins at its cursor."""
        self._heard_s = time.monotonic()
        self._window = max(1, frame.window)
        if frame.session == self.session:
            return
        self.session = frame.session
        self._open = {"live": deque(), "backfill": deque()}
        # What the last session refused is refused again by this one, if it stays.
        self._refused, self._held = [], []
        self._beats = {p: b for p, b in beats.items() if self._serves(b)}
        self._begin(outbox)

    def _begin(self, outbox: Rows) -> None:
        """With nothing in flight."""
        self._cut_off = False
        if self._lanes_wanted:
            outbox.open_lanes(self.name)
        cursor = outbox.cursors[self.name]
        self._sent = {"backfill": cursor.done, "live": max(cursor.done, cursor.skip_to)}

    def on_receipt(self, frame: Receipt, outbox: Rows) -> None:
        """Settles rows; what the output refuses for ever becomes dead letters first."""
        if frame.session != self.session or frame.lane not in self._open:
            return
        now_s = time.monotonic()
        self._cut_off |= self._lanes_wanted and now_s - self._moved_s > CUT_OFF_S
        self._moved_s = now_s
        self._refused += frame.refused
        self._held.append(frame)
        self._settle_held(outbox)

    def _settle_held(self, outbox: Rows) -> None:
        """Settles receipts once their dead letters are kept; on a full disk they wait."""
        if self._refused:
            found = [(outbox.row(pos), reason) for pos, reason in self._refused]
            try:
                outbox.state.bury(self.name, [(row, why) for row, why in found if row is not None])
            except (apsw.FullError, apsw.IOError):
                return
            self._refused = []
        held, self._held = self._held, []
        for frame in held:
            self._settle(frame, outbox)

    def _settle(self, frame: Receipt, outbox: Rows) -> None:
        unsettled = self._open[frame.lane]
        while unsettled and unsettled[0] <= frame.position:
            unsettled.popleft()
        # Rows behind the last one sent were not for it: they count as delivered too.
        position = frame.position if unsettled else self._sent[frame.lane]
        outbox.settle(self.name, frame.lane, position)

    def beat(self, frame: Heartbeat) -> None:
        """Keeps the last heartbeat of a PLC until it is passed on."""
        if self._serves(frame):
            self._beats[frame.plc] = frame

    def _serves(self, frame: Heartbeat) -> bool:
        return self._tenants is None or frame.locatario in self._tenants

    def pump(self, outbox: Rows, port: Wire) -> None:
        """Sends what may go: heartbeats, new rows, then backlog."""
        self.must_wait = False
        if not self.connected:
            return
        if self._held:
            self._settle_held(outbox)
            self.must_wait = bool(self._held)
        if self._beats:
            for plc, frame in list(self._beats.items()):
                frame.pending = outbox.pending(self.name)
                if not port.send(frame):
                    self.must_wait = True
                    return
                del self._beats[plc]
        cursor = outbox.cursors[self.name]
        if self._cut_off:
            # Its destination is back, and the output itself was never gone, so no session begins.
            # What it still holds is older than the backlog and arrives first.
            if self.in_flight or self._held:
                return
            self._begin(outbox)
        if not cursor.behind:
            self._send(outbox, port, "live", self._window - self.in_flight)
            return
        # Live rows first; the backlog gets its share of the window, and its rate.
        self.must_wait |= self._max_rate is not None
        share = max(1, self._window // (1 + self._live_weight))
        self._send(outbox, port, "live", self._window - share - len(self._open["live"]))
        self._send(outbox, port, "backfill", self._backfill_room(share))

    def _backfill_room(self, share: int) -> int:
        room = share - len(self._open["backfill"])
        if not self._open["live"]:
            room = self._window - self.in_flight
        if self._max_rate is None:
            return room
        now_s = time.monotonic()
        earned = (now_s - self._allowance_s) * self._max_rate
        self._allowance = min(float(self._max_rate), self._allowance + earned)
        self._allowance_s = now_s
        return min(room, int(self._allowance))

    def _send(self, outbox: Rows, port: Wire, lane: str, room: int) -> None:
        while room > 0:
            before = self._sent[lane]
            # A cursor moved past what was dropped: do not look for it.
            after = max(before, outbox.cursors[self.name].done)
            if after >= outbox.last_pos:
                return
            limit = min(room, BATCH_ROWS)
            rows = outbox.fresh(self.name, after, limit) if lane == "live" else []
            rows = rows or outbox.read(self.name, lane, after, limit)
            if not rows:
                self.must_wait = True  # the backlog's end, or damage that a full disk keeps
                return
            taken, size_bytes = 0, 0
            while taken < len(rows) and (not taken or size_bytes < BATCH_BYTES):
                size_bytes += len(rows[taken].body)
                taken += 1
            rows = rows[:taken]
            mine = [r for r in rows if self._tenants is None or r.locatario in self._tenants]
            last = rows[-1].pos
            if mine:
                sent = [_wire(r, lane) for r in mine]
                if not port.send(Deliver(self.name, self.session, lane, sent)):
                    self.must_wait = True
                    return
                hit("store.after_deliver")
                if not self.in_flight:
                    self._moved_s = time.monotonic()
                self._open[lane].extend([r.pos for r in mine])
                room -= len(mine)
                if lane == "backfill":
                    self._allowance -= len(mine)
            elif not self._open[lane]:
                # Nothing for it in these, nothing of it outstanding: they count as delivered.
                outbox.settle(self.name, lane, last)
            self._sent[lane] = last


def _wire(r: Row, lane: str) -> tuple[int, int, str, str, int, int, int, bytes]:
    return (*r[:7], r.body[:-1] + REPLAY_MARK) if lane == "backfill" else r[:8]
