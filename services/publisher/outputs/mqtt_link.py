"""One MQTT connection for one tenant: kept up for ever, rows in order, settled by PUBACK only.

What it never does, each a way to lose or double messages that was measured: publish while not
connected, keep packets over a reconnect (all state of a connection goes with it), take a reason
code ≥ 0x80 for an acknowledgement, or wait for ever for an acknowledgement that does not come.
"""

from __future__ import annotations

import fcntl
import random
import socket
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zmq

from services.consumer.row import Row
from services.publisher.outputs import mqtt_packets as mqtt
from services.publisher.outputs.base import Desk
from services.publisher.outputs.network import dial, explain
from services.runtime import secrets
from services.runtime.background import Background
from services.runtime.clock import now_ms
from services.runtime.errors import ConfigError, Unavailable
from services.runtime.failpoints import hit
from services.runtime.process import Process

TICK_S = 0.25
CONNACK_TIMEOUT_S = 3.0
# No acknowledgement of the oldest message, and nothing left the socket's buffer meanwhile.
ACK_TIMEOUT_S = 6.0
# Pause after a failed connection: 0.2 s, doubling, jittered (a site's boxes come back together).
RETRY_S, RETRY_MAX_S = 0.2, 3.0
# A retained `online` is said again: the will of a connection that half died may come after it.
STATUS_INTERVAL_S = 30.0
# Encoded and not yet taken by the kernel; more rows wait unencoded.
OUT_BUFFER_BYTES = 256 * 1024
# The destination refuses these for ever, whoever asks (§2.4).
DEAD_LETTER_CODES = frozenset((0x90, 0x99))
# Answers to a will that the broker cannot keep: the next CONNECT asks for less.
NO_RETAIN, NO_SUCH_QOS = 0x9A, 0x9B
LOGIN_CODES = frozenset((0x86, 0x87))
MAX_DISCONNECTS = 5
# After so many connections lost over the same message it travels alone.
SUSPECT_DISCONNECTS = 2


@dataclass(slots=True, frozen=True)
class Settings:
    """What a link needs to know."""

    hosts: tuple[str, ...]
    port: int
    version: int
    """4 (3.1.1) or 5."""
    qos: int
    client_id: str
    keepalive_s: int
    window: int
    tls: dict[str, Any] | None
    username: str | None
    password: dict[str, Any] | None
    """A reference (services/runtime/secrets.py)."""
    status_topic: str
    site: str


@dataclass(slots=True, eq=False)
class Retained:
    """A heartbeat or status on its way; a newer one makes it worthless."""

    topic: str
    payload: bytes
    end: int = 0


class Link:
    """Keeps one connection. ``changed()`` is called when ``up``, ``code`` or ``message`` change."""

    def __init__(
        self,
        process: Process,
        desk: Desk,
        background: Background,
        settings: Settings,
        changed: Callable[[], None],
    ) -> None:
        self._process = process
        self._desk = desk
        self._background = background
        self._settings = settings
        self._changed = changed
        self.up = False
        self.code, self.message = "", "not connected yet"
        self.host = settings.hosts[0]
        # Kept over connections:
        self._pending: deque[Row] = deque()
        self._retained: dict[str, bytes] = {}
        """Topic -> last payload, to be sent."""
        self._last_retained: dict[str, bytes] = {}
        """The same, of all times: said again on every new connection."""
        self._next_host = 0
        self._denied: dict[str, str] = {}
        """Retained topics that the broker refuses, and why."""
        self._will_qos, self._will_retained = settings.qos, True
        self._failures = 0
        self._holds = 0
        self._suspect: Row | None = None
        self._suspect_count = 0
        self._careful = False
        """One message at a time, until one arrives: the last one was refused or suspect."""
        self._closing = False
        self._heads: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        """(topic, epoch) -> topic and properties as sent, but for the sequence number."""
        self._reset(None)
        process.every(TICK_S, self._tick)
        self._dial()

    def _reset(self, sock: socket.socket | None) -> None:
        """The state of a connection, new with each one."""
        self._sock = sock
        self._incoming = mqtt.Incoming()
        self._out = bytearray()
        self._sent_bytes = self._queued_bytes = 0
        self._flying: dict[int, Row | Retained] = {}
        self._unsent: deque[Row] = deque()
        """QoS 0: rows that the kernel does not have yet."""
        self._refused: list[Row] = []
        self._mid = 0
        self._greeted = False
        self._proven = False
        """The broker has answered a PUBLISH of this connection."""
        self._since_s = time.monotonic()
        self._front_s = self._since_s
        """Since when the oldest unanswered packet waits for its answer."""
        self._reached = 0
        """Bytes that the peer's kernel had at the last tick."""
        self._sent_s = self._since_s
        self._ping_end: int | None = None
        """Where in the stream the unanswered PINGREQ ends."""
        self._hold_s = 0.0
        self._status_s = self._since_s + STATUS_INTERVAL_S
        self._limit, self._packet_bytes = self._settings.window, 268_435_460
        self._qos, self._may_retain = self._settings.qos, True
        self._keepalive_s = self._settings.keepalive_s
        self._writing = False

    # -- what the output asks ------------------------------------------------------------

    def push(self, rows: Sequence[Row]) -> None:
        """Rows to send, after those that wait."""
        self._pending.extend(rows)
        self._pump()

    def retain(self, topic: str, payload: bytes) -> None:
        """A retained message; only the last one of a topic counts. b"" clears the topic."""
        self._retained[topic] = self._last_retained[topic] = payload
        self._pump()

    @property
    def flying(self) -> int:
        """Sent and unacknowledged."""
        return len(self._flying) + len(self._unsent)

    def finish(self) -> None:
        """Sends no more rows."""
        self._closing = True

    def close(self) -> None:
        """Says offline and goodbye."""
        if self._greeted:
            self._qos = 0  # nobody waits for its answer
            self._send_retained(self._settings.status_topic, self._status("offline"))
            self._put(mqtt.disconnect(self._settings.version))
            self._write()
        if self._sock is not None:
            self._process.forget(self._sock)
            self._sock.close()

    # -- connecting ----------------------------------------------------------------------

    def _dial(self) -> None:
        s = self._settings
        self.host = s.hosts[self._next_host % len(s.hosts)]
        host = self.host

        def work() -> tuple[socket.socket, str | None]:
            # Read each time: a rotated password needs no restart.
            password = secrets.resolve(s.password) if s.password else None
            return dial(host, s.port, s.tls), password

        self._background.run(work, self._dialed)

    def _dialed(self, result: Any) -> None:
        if isinstance(result, ConfigError):
            return self._lost("auth", str(result))
        if isinstance(result, Exception):
            error = explain(result, f"{self.host}:{self._settings.port}")
            return self._lost(error.code, error.message)
        sock, password = result
        s = self._settings
        self._reset(sock)
        offline = self._status("offline", with_ts=False)
        will = (s.status_topic, offline, self._will_qos, self._will_retained)
        self._put(mqtt.connect(s.version, s.client_id, s.keepalive_s, will, s.username, password))
        self._process.on_readable(sock, self._ready)
        self._write()
        return None

    def _status(self, status: str, with_ts: bool = True) -> bytes:
        # The will has no ts: it is written now and sent at an unknown time.
        message: dict[str, Any] = {"v": 1, "site": self._settings.site, "status": status}
        return orjson.dumps(message | ({"ts": now_ms()} if with_ts else {}))

    def _lost(self, code: str, message: str) -> None:
        """The connection is gone or did not come to be: everything back to its queue, in order."""
        if self._sock is not None:
            self._process.forget(self._sock)
            self._sock.close()
            self._blame()
            if self._proven and time.monotonic() - self._since_s > RETRY_MAX_S:
                self._failures = 0
        back = [r for r in self._flying.values() if isinstance(r, Row)]
        back += [*self._unsent, *self._refused]
        for row in sorted(back, key=lambda r: r.order, reverse=True):
            if not row.done:
                self._pending.appendleft(row)
        self._reset(None)
        self.up, self.code, self.message = False, code, message
        self._changed()
        if self._closing:
            return
        self._next_host += 1
        self._failures += 1
        rounds = (self._failures - 1) // len(self._settings.hosts)
        pause_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(rounds, 8)) * random.uniform(0.5, 1.0)
        self._process.at(time.monotonic() + pause_s, self._dial)

    def _blame(self) -> None:
        """Counts connections lost over one message. Only where the broker had answered before:
        else it is the line or the broker, and no message is guilty of that."""
        front = next((r for r in self._flying.values() if isinstance(r, Row)), None)
        if front is None or not self._proven or self._closing:
            return
        if front is not self._suspect:
            self._suspect, self._suspect_count = front, 0
        self._suspect_count += 1
        if self._suspect_count >= SUSPECT_DISCONNECTS:
            self._careful = True
        if self._suspect_count >= MAX_DISCONNECTS:
            self._desk.refused(front, f"{MAX_DISCONNECTS} connections lost over this message")
            self._suspect, self._careful = None, False

    # -- reading -------------------------------------------------------------------------

    def _ready(self) -> None:
        """The socket can be read or written."""
        acked: list[Row] = []
        try:
            self._read(acked)
        except mqtt.Malformed as e:
            acked = self._done(acked)
            self._lost("protocol", f"{self.host} does not speak MQTT: {e}")
        except Unavailable as e:
            acked = self._done(acked)
            self._lost(e.code, e.message)
        except OSError as e:
            acked = self._done(acked)
            error = explain(e, f"{self.host}:{self._settings.port}")
            self._lost(error.code, error.message)
        else:
            self._done(acked)
            self._pump()

    def _done(self, rows: list[Row]) -> list[Row]:
        if rows:
            self._suspect, self._careful, self._holds = None, False, 0
            hit("publisher.acked")
            self._desk.delivered(rows)
            self._clear()
        return []

    def _read(self, acked: list[Row]) -> None:
        sock = self._sock
        if sock is None:
            return
        while True:
            try:
                data = sock.recv(65_536)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                where = f"{self.host}:{self._settings.port}"
                raise Unavailable("lost", f"{where} closed the connection")
            for kind, body in self._incoming.feed(data):
                if kind == mqtt.PUBACK:
                    self._on_puback(body, acked)
                elif kind == mqtt.PINGRESP:
                    self._ping_end = None
                elif kind == mqtt.CONNACK:
                    self._on_connack(body)
                elif kind == mqtt.DISCONNECT:
                    code, said = mqtt.parse_disconnect(body)
                    raise Unavailable(
                        _code_of(code),
                        f"{self.host} ended the connection: {mqtt.reason_text(code, said)}",
                    )
                else:
                    raise mqtt.Malformed(f"packet type {kind} to a client that only publishes")
            if len(data) < 65_536 and not isinstance(sock, ssl.SSLSocket):
                return
            if not self._flying and self._ping_end is None:
                return  # no answer is owed; what comes all the same wakes us again

    def _on_connack(self, body: bytes) -> None:
        if self._greeted:
            raise mqtt.Malformed("a second CONNACK")
        s = self._settings
        answer = mqtt.parse_connack(s.version, body)
        if answer.code:
            words = mqtt.reason_text(answer.code, answer.said)
            code = _code_of(answer.code)
            if answer.code == NO_SUCH_QOS:
                self._will_qos = 0
            elif answer.code == NO_RETAIN:
                self._will_retained = False
            elif answer.code in LOGIN_CODES:
                # Before any topic is named: Mosquitto says "not authorized" for a wrong password.
                text = f"{self.host} refuses the credentials, {words}"
                raise Unavailable("auth", f"{text}: check username, password and certificate")
            raise Unavailable(code, f"{self.host} refuses us: {words}")
        self._greeted = True
        self._limit = min(s.window, answer.receive_maximum)
        self._packet_bytes = answer.maximum_packet_bytes
        self._qos = min(s.qos, answer.maximum_qos)
        self._may_retain = answer.retain_available
        if answer.server_keepalive_s is not None:
            self._keepalive_s = answer.server_keepalive_s
        self.up, self.code, self.message = True, "", ""
        if self._qos < s.qos:
            self.code = "qos"
            self.message = f"{self.host} takes QoS 0 only: it acknowledges nothing"
        self._changed()
        # First, so that its answer proves the connection before any row is blamed for its loss.
        online = {s.status_topic: self._status("online")}
        self._retained = online | self._last_retained

    def _on_puback(self, body: bytes, acked: list[Row]) -> None:
        if len(body) == 2:
            mid, code, said = body[0] << 8 | body[1], 0, ""
        else:
            mid, code, said = mqtt.parse_puback(body)
        first = next(iter(self._flying), 0)
        item = self._flying.pop(mid, None)
        if item is None:
            self._desk.held("stray_ack")
            return
        self._proven = True
        if mid == first:
            self._front_s = time.monotonic()
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
            self._note(_code_of(code), text)
        elif code in DEAD_LETTER_CODES:
            self._desk.refused(item, words)
        else:
            self._hold(item, code, words)

    def _hold(self, row: Row, code: int, words: str) -> None:
        """Refused for a reason that may pass (permission, quota): wait, then try again."""
        self._desk.held("held")
        self._refused.append(row)
        self._holds += 1
        self._careful = True
        pause_s = min(RETRY_MAX_S, RETRY_S * 2 ** min(self._holds, 8))
        self._hold_s = time.monotonic() + pause_s
        self._note(_code_of(code), f"{self.host} refuses {row.topic}: {words}{_hint(code)}")

    def _retained_done(self, item: Retained) -> None:
        if not item.payload and not self._last_retained.get(item.topic):
            self._last_retained.pop(item.topic, None)
        if self._denied.pop(item.topic, None):
            self._clear()

    def _clear(self) -> None:
        """All is well again, unless something else is refused."""
        if self.up and self.code not in ("", "qos") and not self._refused and not self._denied:
            self._note("", "")

    def _note(self, code: str, message: str) -> None:
        if (code, message) != (self.code, self.message):
            self.code, self.message = code, message
            self._changed()

    # -- writing -------------------------------------------------------------------------

    def _pump(self) -> None:
        """Encodes what may go and writes it."""
        if not self._greeted:
            if self._out:
                self._write()
            return
        while self._retained and len(self._flying) < self._limit:
            topic = next(iter(self._retained))
            self._send_retained(topic, self._retained.pop(topic))
        if not self._closing and not self._hold_s:
            self._pump_rows()
        if self._out:
            self._write()

    def _pump_rows(self) -> None:
        pending, flying, out = self._pending, self._flying, self._out
        limit = self._limit
        if self._careful:
            if not self._proven and self._qos:
                return
            limit = min(limit, 1)
        while pending and len(flying) < limit and len(out) < OUT_BUFFER_BYTES:
            row = pending.popleft()
            if row.done:
                continue
            mid = self._new_mid() if self._qos else 0
            packet = self._encode(row, mid)
            if len(packet) > self._packet_bytes:
                reason = f"{len(packet)} bytes, the broker takes {self._packet_bytes}"
                self._desk.refused(row, reason)
                continue
            out += packet
            self._queued_bytes += len(packet)
            row.end = self._queued_bytes
            if mid:
                if not flying:
                    self._front_s = time.monotonic()
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
        if self._settings.version == 5:
            properties = mqtt.with_length(head[1] + mqtt.user_property("seq", str(row.seq)))
        return mqtt.publish(self._qos << 1, head[0], mid, properties, row.body)

    def _send_retained(self, topic: str, payload: bytes) -> None:
        flags = mqtt.RETAIN if self._may_retain else 0
        mid = 0
        item = Retained(topic, payload)
        if self._qos:
            flags |= mqtt.QOS1
            mid = self._new_mid()
            if not self._flying:
                self._front_s = time.monotonic()
            self._flying[mid] = item
        properties = b"\x00" if self._settings.version == 5 else b""
        self._put(mqtt.publish(flags, mqtt.text(topic), mid, properties, payload))
        item.end = self._queued_bytes
        if not mid:
            self._retained_done(item)

    def _put(self, packet: bytes) -> None:
        self._out += packet
        self._queued_bytes += len(packet)

    def _new_mid(self) -> int:
        while True:
            self._mid = self._mid % 65_535 + 1
            if self._mid not in self._flying:
                return self._mid

    def _write(self) -> None:
        """Gives the kernel what it takes now; the loop calls again when it takes more."""
        sock = self._sock
        if sock is None:
            return
        try:
            while self._out:
                size = sock.send(self._out)
                del self._out[:size]
                self._sent_bytes += size
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as e:
            error = explain(e, f"{self.host}:{self._settings.port}")
            # Not from here: a caller may be in the middle of its rows.
            self._out.clear()
            self._process.at(0.0, lambda: self._lost_now(sock, error))
            return
        self._sent_s = time.monotonic()
        if self._unsent:
            self._settle_sent()
        if bool(self._out) != self._writing:
            self._writing = bool(self._out)
            flags = zmq.POLLIN | zmq.POLLOUT if self._writing else zmq.POLLIN
            self._process.on_readable(sock, self._ready, flags)

    def _settle_sent(self) -> None:
        """QoS 0: what the kernel has is as delivered as it will get."""
        gone = []
        while self._unsent and self._unsent[0].end <= self._sent_bytes:
            gone.append(self._unsent.popleft())
        self._done(gone)

    def _lost_now(self, sock: socket.socket, error: Unavailable) -> None:
        if self._sock is sock:
            self._lost(error.code, error.message)

    # -- watching ------------------------------------------------------------------------

    def _tick(self) -> None:
        sock = self._sock
        if sock is None or self._closing:
            return
        now_s = time.monotonic()
        if not self._greeted:
            if now_s - self._since_s > CONNACK_TIMEOUT_S:
                self._lost("timeout", f"{self.host} does not answer CONNECT")
            return
        if self._overdue(sock, now_s):
            self._lost("timeout", f"{self.host} does not answer")
            return
        if self._hold_s and now_s >= self._hold_s:
            self._hold_s = 0.0
            for row in sorted(self._refused, key=lambda r: r.order, reverse=True):
                self._pending.appendleft(row)
            self._refused = []
        if now_s >= self._status_s:
            self._status_s = now_s + STATUS_INTERVAL_S
            self._retained[self._settings.status_topic] = self._status("online")
        idle_s = now_s - self._sent_s
        if self._keepalive_s and idle_s > self._keepalive_s * 0.75 and self._ping_end is None:
            self._put(mqtt.PINGREQ_BYTES)
            self._ping_end = self._queued_bytes
            if not self._flying:
                self._front_s = now_s
        self._pump()

    def _overdue(self, sock: socket.socket, now_s: float) -> bool:
        """Whether an answer is owed for too long. The time counts from when the peer's kernel has
        the packet: over a slow line a window takes longer than ACK_TIMEOUT_S to get there.
        """
        unacknowledged = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        left = len(self._out) + struct.unpack("i", unacknowledged)[0]
        reached, before = self._queued_bytes - left, self._reached
        self._reached = reached
        front = next(iter(self._flying.values()), None)
        if front is not None:
            end = front.end
        elif self._ping_end is not None:
            end = self._ping_end
        elif left:
            end = self._queued_bytes
        else:
            self._front_s = now_s
            return False
        if end > before and reached > before:
            self._front_s = now_s
        return now_s - self._front_s > ACK_TIMEOUT_S


def _code_of(reason: int) -> str:
    """A reason code as the panel's word for it."""
    if reason == 0x86:
        return "auth"
    if reason == 0x87:
        return "acl"
    return "broker"


def _hint(reason: int) -> str:
    """What mends a refused PUBLISH."""
    return ": the account's access rules on the broker must allow it" if reason == 0x87 else ""
