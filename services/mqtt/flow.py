"""Rows and retained messages on one MQTT connection after the other: in order, settled by PUBACK.

What a lost connection had in flight goes back to its queue. A row is a dead letter only where the
broker refuses it for ever, whoever asks, or where connection after connection is lost over it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.consumer.row import Row
from services.mqtt import packets as mqtt
from services.mqtt.desk import Desk
from services.runtime.failpoints import hit

# Pause after a refusal that may pass: 0.2 s, doubling.
HOLD_S, HOLD_MAX_S = 0.2, 3.0
# Encoded and not yet taken by the kernel; more rows wait unencoded.
OUT_BUFFER_BYTES = 256 * 1024
# The destination refuses these for ever, whoever asks (§2.4).
DEAD_LETTER_CODES = frozenset((0x90, 0x99))
MAX_DISCONNECTS = 5
# After so many connections lost over the same message it travels alone.
SUSPECT_DISCONNECTS = 2


@dataclass(slots=True, eq=False)
class Retained:
    """A heartbeat or status on its way; a newer one makes it worthless."""

    topic: str
    payload: bytes
    end: int = 0


class Outgoing:
    """What the kernel has not taken yet. Places in the stream count from its beginning."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.sent_bytes = 0

    def put(self, packet: bytes) -> int:
        """Appends a packet; where it ends."""
        self.data += packet
        return self.end

    @property
    def end(self) -> int:
        """Where the last packet ends."""
        return self.sent_bytes + len(self.data)

    def send(self, sock: Any) -> None:
        """Gives the socket what it takes now; raises what it raises."""
        while self.data:
            size = sock.send(self.data)
            del self.data[:size]
            self.sent_bytes += size


class Flow:
    """The queues, over connections. ``note(code, message)`` says what is wrong, "" that nothing
    is.
    """

    def __init__(
        self,
        desk: Desk,
        version: int,
        window: int,
        qos: int,
        note: Callable[[str, str], None],
        kept: Callable[[str, bytes], None] = lambda topic, payload: None,
    ) -> None:
        self._desk = desk
        self._version = version
        self._window = window
        self._wanted_qos = qos
        self._note = note
        self._kept = kept
        """Told of retained messages that the broker has."""
        self.host = ""
        # Kept over connections:
        self._pending: deque[Row] = deque()
        self._retained: dict[str, bytes] = {}
        """Topic -> last payload, to be sent."""
        self._last_retained: dict[str, bytes] = {}
        """The same, of all times: said again on every new connection."""
        self._denied: dict[str, str] = {}
        """Retained topics that the broker refuses, and why."""
        self._holds = 0
        self._suspect: Row | None = None
        self._suspect_count = 0
        self._careful = False
        """One message at a time, until one arrives: the last one was refused or suspect."""
        self._heads: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        """(topic, epoch) -> topic and properties as sent, but for the sequence number."""
        self.closing = False
        """No more rows are sent."""
        self._flying: dict[int, Row | Retained] = {}
        self._unsent: deque[Row] = deque()
        """QoS 0: rows that the kernel does not have yet."""
        self._refused: list[Row] = []
        self.reset(Outgoing())

    def reset(self, out: Outgoing) -> None:
        """A new connection: what the last one did not settle goes back to its queue, in order."""
        back = [r for r in self._flying.values() if isinstance(r, Row)]
        back += [*self._unsent, *self._refused]
        for row in sorted(back, key=lambda r: r.order, reverse=True):
            if not row.done:
                self._pending.appendleft(row)
        self._out = out
        self._flying = {}
        self._unsent = deque()
        self._refused = []
        self._mid = 0
        self._hold_s = 0.0
        self.open = False
        """Packets may be sent."""
        self.proven = False
        """The broker has answered a PUBLISH of this connection."""
        self._asks = False
        """Something went before the rows that the broker is to answer."""
        self.front_s = time.monotonic()
        """Since when the oldest unanswered packet waits for its answer."""
        self._limit, self._packet_bytes = self._window, 268_435_460
        self.qos, self._may_retain = self._wanted_qos, True

    def begin(self, answer: mqtt.Connack, first: dict[str, bytes]) -> None:
        """The broker has accepted us, within its limits. ``first``: what is retained first."""
        self.open = True
        self._limit = min(self._window, answer.receive_maximum)
        self._packet_bytes = answer.maximum_packet_bytes
        self.qos = min(self._wanted_qos, answer.maximum_qos)
        self._may_retain = answer.retain_available
        # First, so that its answer proves the connection before any row is blamed for its loss.
        self._retained = first | self._last_retained
        self._asks = bool(self._retained)

    def blame(self) -> None:
        """Counts connections lost over one message. Only where the broker had answered before:
        else it is the line or the broker, and no message is guilty of that."""
        front = next((r for r in self._flying.values() if isinstance(r, Row)), None)
        if front is None or self.closing:
            return
        if not self.proven:
            # A broker that answers late may end the connection over a row before it has answered
            # anything, each time: the next one is asked for an answer before it is given a row.
            self._careful = self._careful or self._asks
            return
        if front is not self._suspect:
            self._suspect, self._suspect_count = front, 0
        self._suspect_count += 1
        if self._suspect_count >= SUSPECT_DISCONNECTS:
            self._careful = True
        if self._suspect_count >= MAX_DISCONNECTS:
            self._desk.refused(front, f"{MAX_DISCONNECTS} connections lost over this message")
            self._suspect, self._careful = None, False

    # -- in ------------------------------------------------------------------------------

    def push(self, rows: Sequence[Row]) -> None:
        """Rows to send, after those that wait."""
        self._pending.extend(rows)

    def retain(self, topic: str, payload: bytes) -> None:
        """A retained message; only the last one of a topic counts. b"" clears the topic."""
        self._retained[topic] = self._last_retained[topic] = payload

    def say(self, topic: str, payload: bytes) -> None:
        """The same for what is true of this connection only."""
        self._retained[topic] = payload

    @property
    def flying(self) -> int:
        """Sent and unacknowledged."""
        return len(self._flying) + len(self._unsent)

    @property
    def front_end(self) -> int | None:
        """Where the oldest unanswered packet ends in the stream."""
        front = next(iter(self._flying.values()), None)
        return None if front is None else front.end

    def tick(self, now_s: float) -> None:
        """What was refused for a while is tried again."""
        if self._hold_s and now_s >= self._hold_s:
            self._hold_s = 0.0
            for row in sorted(self._refused, key=lambda r: r.order, reverse=True):
                self._pending.appendleft(row)
            self._refused = []

    # -- out -----------------------------------------------------------------------------

    def pump(self) -> None:
        """Encodes what may go."""
        while self._retained and len(self._flying) < self._limit:
            topic = next(iter(self._retained))
            self.send_retained(topic, self._retained.pop(topic))
        if not self.closing and not self._hold_s:
            self._pump_rows()

    def _pump_rows(self) -> None:
        pending, flying, out = self._pending, self._flying, self._out
        limit = self._limit
        if self._careful:
            if not self.proven and self.qos:
                return
            limit = min(limit, 1)
        while pending and len(flying) < limit and len(out.data) < OUT_BUFFER_BYTES:
            row = pending.popleft()
            if row.done:
                continue
            mid = self._new_mid() if self.qos else 0
            packet = self._encode(row, mid)
            if len(packet) > self._packet_bytes:
                reason = f"{len(packet)} bytes, the broker takes {self._packet_bytes}"
                self._desk.refused(row, reason)
                continue
            row.end = out.put(packet)
            if mid:
                if not flying:
                    self.front_s = time.monotonic()
                flying[mid] = row
            else:
                self._unsent.append(row)

    def _encode(self, row: Row, mid: int) -> bytes:
        key = (row.topic, row.epoch)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) > 1_000:
                self._heads.clear()
            properties = mqtt.PAYLOAD_IS_TEXT + mqtt.user_property("plc_id", row.plc)
            properties += mqtt.user_property("epoch", str(row.epoch))
            head = self._heads[key] = (mqtt.text(row.topic), properties)
        properties = b""
        if self._version == 5:
            properties = mqtt.with_length(head[1] + mqtt.user_property("seq", str(row.seq)))
        return mqtt.publish(self.qos << 1, head[0], mid, properties, row.body)

    def send_retained(self, topic: str, payload: bytes) -> None:
        """Encodes one at once."""
        flags = mqtt.RETAIN if self._may_retain else 0
        mid = 0
        item = Retained(topic, payload)
        if self.qos:
            flags |= mqtt.QOS1
            mid = self._new_mid()
            if not self._flying:
                self.front_s = time.monotonic()
            self._flying[mid] = item
        properties = b"\x00" if self._version == 5 else b""
        item.end = self._out.put(mqtt.publish(flags, mqtt.text(topic), mid, properties, payload))
        if not mid:
            self._retained_done(item)

    def _new_mid(self) -> int:
        while True:
            self._mid = self._mid % 65_535 + 1
            if self._mid not in self._flying:
                return self._mid

    # -- answers -------------------------------------------------------------------------

    def settle_sent(self) -> None:
        """QoS 0: what the kernel has is as delivered as it will get."""
        gone = []
        while self._unsent and self._unsent[0].end <= self._out.sent_bytes:
            gone.append(self._unsent.popleft())
        self.done(gone)

    def on_puback(self, body: bytes, acked: list[Row]) -> None:
        """Appends to ``acked`` the row that it is for; raises mqtt.Malformed."""
        if len(body) == 2:
            mid, code, said = body[0] << 8 | body[1], 0, ""
        else:
            mid, code, said = mqtt.parse_puback(body)
        first = next(iter(self._flying), 0)
        item = self._flying.pop(mid, None)
        if item is None:
            self._desk.held("stray_ack")
            return
        self.proven = True
        if mid == first:
            self.front_s = time.monotonic()
        if code < 0x80:
            if isinstance(item, Row):
                acked.append(item)
            else:
                self._retained_done(item)
            return
        words = mqtt.reason_text(code, said)
        if isinstance(item, Retained):
            self._denied[item.topic] = words
            text = f"{self.host} refuses {item.topic}: {words}{_hint(code)}"
            self._note(code_of(code), text)
        elif code in DEAD_LETTER_CODES:
            self._desk.refused(item, words)
        else:
            self._hold(item, code, words)

    def done(self, rows: Sequence[Row]) -> None:
        """They have arrived."""
        if rows:
            self._suspect, self._careful, self._holds = None, False, 0
            hit("publisher.acked")
            self._desk.delivered(rows)
            self._clear()

    def _hold(self, row: Row, code: int, words: str) -> None:
        """Refused for a reason that may pass (permission, quota): wait, then try again."""
        self._desk.held("held")
        self._refused.append(row)
        self._holds += 1
        self._careful = True
        pause_s = min(HOLD_MAX_S, HOLD_S * 2 ** min(self._holds, 8))
        self._hold_s = time.monotonic() + pause_s
        self._note(code_of(code), f"{self.host} refuses {self._topic(row)}: {words}{_hint(code)}")

    def _topic(self, row: Row) -> str:
        return row.topic

    def _retained_done(self, item: Retained) -> None:
        if not item.payload and not self._last_retained.get(item.topic):
            self._last_retained.pop(item.topic, None)
        self._kept(item.topic, item.payload)
        if self._denied.pop(item.topic, None):
            self._clear()

    def _clear(self) -> None:
        """All is well again, unless something else is refused."""
        if self.open and not self._refused and not self._denied:
            self._note("", "")


def code_of(reason: int) -> str:
    """A reason code as the panel's word for it."""
    if reason == 0x86:
        return "auth"
    if reason == 0x87:
        return "acl"
    return "broker"


def _hint(reason: int) -> str:
    """What mends a refused PUBLISH."""
    return ": the account's access rules on the broker must allow it" if reason == 0x87 else ""
