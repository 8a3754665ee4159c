"""What goes over an edge node's connection: births first, every message numbered, rows settled.

The specification wants QoS 0 for all that an edge node publishes, and nobody acknowledges that. But
a broker reads a connection's packets in their order: when it answers a PINGREQ, it has taken all
that went before. So at QoS 0 a row is settled by the PINGRESP that follows it, at QoS 1 by its
PUBACK. With a primary host, both wait ``grace_s`` more: should the host prove to have been gone,
what it may have missed is sent again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from services.consumer.row import Row
from services.mqtt import packets as mqtt
from services.mqtt.desk import Desk
from services.mqtt.flow import OUT_BUFFER_BYTES, Flow, Outgoing
from services.publisher.sparkplug.node import Message, Node
from services.runtime.clock import now_ms

# No old row for so long: the backlog is through, and what is newest of it is current.
QUIET_S = 0.5


class NodeFlow(Flow):
    """The queues of one edge node, over connections."""

    def __init__(
        self, desk: Desk, version: int, window: int, qos: int,
        note: Callable[[str, str], None], node: Node, grace_s: float,
    ) -> None:  # fmt: skip
        self._node = node
        self._grace_s = grace_s
        self._graced: deque[tuple[float, Row]] = deque()
        """Taken by the broker, and when; kept in case the primary host is gone."""
        self.rebirths = 0
        self.history = 0
        """Rows sent as history."""
        super().__init__(desk, version, window, qos, note)

    def reset(self, out: Outgoing) -> None:
        """A new connection: all that is not settled is sent again, in order."""
        super().reset(out)
        back = [row for _, row in self._graced if not row.done]
        self._graced.clear()
        self._pending = deque(sorted([*back, *self._pending], key=lambda r: r.order))
        self.born = False
        self._born_ms = 0
        """Rows older than this session's birth are history."""
        self._old_s = 0.0
        """When the last of them was sent."""
        self._seq = 0
        self._rebirth_due = False

    def begin(self, answer: mqtt.Connack, first: dict[str, bytes]) -> None:
        """The broker has accepted us, within its limits. Births wait for ``bear``."""
        super().begin(answer, first)
        if not self.qos:
            self._limit = self._window  # the broker's Receive Maximum is about QoS 1
        self._asks = True

    # -- births -----------------------------------------------------------------------------

    def bear(self) -> None:
        """The session begins: NBIRTH, and DBIRTH of each device. Not where the broker would not
        take one: without it no value of that device means anything, and rows are kept.
        """
        births = list(self._node.births(now_ms()))
        largest = max(births, key=_size_bytes)
        if (size := _size_bytes(largest)) > self._packet_bytes:
            text = f"{self.host} takes packets of {self._packet_bytes} bytes, and {largest.topic}"
            self._note("packet", f"{text} has {size}: allow larger ones on the broker")
            return
        if not self.born:
            self.born, self._born_ms = True, now_ms()
        self._put_all(births)

    def rebirth(self) -> None:
        """The same again, before anything else: as commanded, or because there are other metrics
        now. Once, however often it is asked for meanwhile.
        """
        self._rebirth_due = True

    def die(self) -> None:
        """NDEATH, published: the host learns of an end that we intend."""
        if self.born:
            self.born = False
            self._put_packet(mqtt.QOS1, self._new_mid(), self._node.topic("NDEATH"),
                             self._node.will(now_ms()))  # fmt: skip

    def _put_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._put(message, 0)

    def _put(self, message: Message, mid: int) -> int:
        """Numbers and encodes a message; where it ends. ``mid`` 0: QoS 0."""
        self._seq = 0 if message.restarts else (self._seq + 1) % 256
        message.payload.seq = self._seq
        data = message.payload.SerializeToString()
        return self._put_packet(mqtt.QOS1 if mid else 0, mid, message.topic, data)

    def _put_packet(self, flags: int, mid: int, topic: str, data: bytes) -> int:
        properties = b"\x00" if self._version == 5 else b""
        return self._out.put(mqtt.publish(flags, mqtt.text(topic), mid, properties, data))

    # -- rows -------------------------------------------------------------------------------

    def pump(self) -> None:
        """Encodes what may go."""
        if not self.born or self.closing:
            return
        if self._rebirth_due:
            self._rebirth_due = False
            self.rebirths += 1
            self._put_all(self._node.farewells(now_ms()))
            self.bear()
        if not self._hold_s:
            self._pump_rows()
        if not self._pending and time.monotonic() - self._old_s > QUIET_S:
            self._put_all(self._node.catch_up(now_ms()))
            self._put_all(self._node.deaths(now_ms()))

    def _pump_rows(self) -> None:
        pending, flying = self._pending, self._flying
        limit = self._limit
        if self._careful:
            if not self.proven:
                return
            limit = 1
        while pending and len(flying) < limit and len(self._out.data) < OUT_BUFFER_BYTES:
            row = pending.popleft()
            if row.done:
                continue
            # Had this PC's clock been set back, all that is new would be older than the birth.
            self._born_ms = min(self._born_ms, now_ms())
            historical = row.ts_ms < self._born_ms or row.lane == "backfill"
            try:
                *before, own = self._node.take(row, historical, now_ms())
            except ValueError as e:
                self._desk.refused(row, str(e))
                continue
            self._put_all(before)
            if (size := _size_bytes(own)) > self._packet_bytes:
                reason = f"{size} bytes, the broker takes {self._packet_bytes}"
                self._desk.refused(row, reason)
                continue
            if historical:
                self.history += 1
                self._old_s = time.monotonic()
            if not flying:
                self.front_s = time.monotonic()
            # At QoS 0 the number is not sent; it is what the row flies under.
            mid = self._new_mid()
            row.end = self._put(own, mid if self.qos else 0)
            flying[mid] = row

    def _topic(self, row: Row) -> str:
        return self._node.topic("DDATA", row.plc)

    @property
    def wants_answer(self) -> bool:
        """Something went that only a PINGRESP can prove to have arrived."""
        return self.born and (not self.proven or (not self.qos and bool(self._flying)))

    def on_pingresp(self, end: int, acked: list[Row]) -> None:
        """The broker has read up to ``end``; appends to ``acked`` the rows that this settles."""
        self.proven = self.proven or self.born
        if self.qos:
            return
        arrived = []
        for mid, item in self._flying.items():
            if item.end > end:
                break
            arrived.append(mid)
        for mid in arrived:
            item = self._flying.pop(mid)
            if isinstance(item, Row):
                acked.append(item)
        self.front_s = time.monotonic()

    def done(self, rows: Sequence[Row]) -> None:
        """The broker has them."""
        if not self._grace_s or not rows:
            super().done(rows)
            return
        self._suspect, self._careful, self._holds = None, False, 0
        now_s = time.monotonic()
        self._graced.extend((now_s, row) for row in rows)

    def tick(self, now_s: float) -> None:
        """Settles what the primary host has been there for."""
        super().tick(now_s)
        settled = []
        while self._graced and self._graced[0][0] + self._grace_s <= now_s:
            settled.append(self._graced.popleft()[1])
        super().done(settled)


def _size_bytes(message: Message) -> int:
    """Of its packet, at most."""
    return int(message.payload.ByteSize()) + len(message.topic) + 16
