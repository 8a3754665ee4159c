"""One MQTT connection for one tenant, kept up for ever; what goes over it is in ``flow``.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zmq

from services.consumer.row import Row
from services.mqtt import packets as mqtt
from services.mqtt.desk import Desk
from services.mqtt.flow import Flow, Outgoing, code_of
from services.mqtt.network import dial, explain
from services.runtime import secrets
from services.runtime.background import Background
from services.runtime.clock import now_ms
from services.runtime.errors import ConfigError, Unavailable
from services.runtime.process import Process

TICK_S = 0.25
CONNACK_TIMEOUT_S = 3.0
# No acknowledgement of the oldest message, and nothing left the socket's buffer meanwhile.
ACK_TIMEOUT_S = 6.0
# Pause after a failed connection: 0.2 s, doubling, jittered (a site's boxes come back together).
RETRY_S, RETRY_MAX_S = 0.2, 3.0
# The same while another client ends our connections: each login ends the other's.
TAKEN_OVER, TAKEN_OVER_MAX_S = 0x8E, 15.0
# Ends that the broker explains, and no message is the reason: busy, shutting down, keep alive,
# taken over, an administrator, another server.
INNOCENT_CODES = frozenset((0x89, 0x8B, 0x8D, TAKEN_OVER, 0x98, 0x9C, 0x9D))
# A retained `online` is said again: the will of a connection that half died may come after it.
STATUS_INTERVAL_S = 30.0
# Answers to a will that the broker cannot keep: the next CONNECT asks for less.
NO_RETAIN, NO_SUCH_QOS = 0x9A, 0x9B
LOGIN_CODES = frozenset((0x86, 0x87))


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
    """"": this connection says nothing of the box."""
    site: str


class Link:
    """Keeps one connection. ``changed()`` is called when ``up``, ``code`` or ``message`` change."""

    listens = False  # whether packets come that nobody has asked for: a subclass that subscribes

    def __init__(
        self,
        process: Process,
        desk: Desk,
        background: Background,
        settings: Settings,
        changed: Callable[[], None],
        kept: Callable[[str, bytes], None] = lambda topic, payload: None,
    ) -> None:
        """``kept(topic, payload)``: the broker has taken a retained message."""
        self._process = process
        self._background = background
        self._settings = settings
        self._changed = changed
        self.up = False
        self.code, self.message = "", "not connected yet"
        self.host = settings.hosts[0]
        self._flow = self._make_flow(desk, kept)
        self._next_host = 0
        self._will_qos, self._will_retained = settings.qos, True
        self._failures = 0
        self._reset(None)
        process.every(TICK_S, self._tick)
        self._dial()

    def _make_flow(self, desk: Desk, kept: Callable[[str, bytes], None]) -> Flow:
        s = self._settings
        return Flow(desk, s.version, s.window, s.qos, self._flow_note, kept)

    def _reset(self, sock: socket.socket | None) -> None:
        """The state of a connection, new with each one."""
        self._sock = sock
        self._incoming = mqtt.Incoming()
        self._out = Outgoing()
        self._flow.reset(self._out)
        self._greeted = False
        self._ended_with = 0
        """The reason code with which the broker ended it."""
        self._since_s = time.monotonic()
        self._reached = 0
        """Bytes that the peer's kernel had at the last tick."""
        self._sent_s = self._since_s
        self._ping_end: int | None = None
        """Where in the stream the unanswered PINGREQ ends."""
        self._status_s = self._since_s + STATUS_INTERVAL_S
        self._keepalive_s = self._settings.keepalive_s
        self._writing = False

    # -- what the output asks ------------------------------------------------------------

    def push(self, rows: Sequence[Row]) -> None:
        """Rows to send, after those that wait."""
        self._flow.push(rows)
        self._pump()

    def retain(self, topic: str, payload: bytes) -> None:
        """A retained message; only the last one of a topic counts. b"" clears the topic."""
        self._flow.retain(topic, payload)
        self._pump()

    @property
    def flying(self) -> int:
        """Sent and unacknowledged."""
        return self._flow.flying

    def finish(self) -> None:
        """Sends no more rows."""
        self._flow.closing = True

    def close(self) -> None:
        """Says offline and goodbye."""
        if self._greeted:
            self._goodbye()
            self._write()
        if self._sock is not None:
            self._process.forget(self._sock)
            self._sock.close()

    def _goodbye(self) -> None:
        self._flow.qos = 0  # nobody waits for its answer
        if topic := self._settings.status_topic:
            self._flow.send_retained(topic, self._status("offline"))
        self._out.put(mqtt.disconnect(self._settings.version))

    # -- connecting ----------------------------------------------------------------------

    def _dial(self) -> None:
        s = self._settings
        self.host = s.hosts[self._next_host % len(s.hosts)]
        host = self._flow.host = self.host

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
        self._reset(sock)
        self._out.put(self._connect(password))
        self._process.on_readable(sock, self._ready)
        self._write()
        return None

    def _connect(self, password: str | None) -> bytes:
        s = self._settings
        offline = self._status("offline", with_ts=False)
        will = (s.status_topic, offline, self._will_qos, self._will_retained)
        said = will if s.status_topic else None
        return mqtt.connect(s.version, s.client_id, s.keepalive_s, said, s.username, password)

    def _status(self, status: str, with_ts: bool = True) -> bytes:
        # The will has no ts: it is written now and sent at an unknown time.
        message: dict[str, Any] = {"v": 1, "site": self._settings.site, "status": status}
        return orjson.dumps(message | ({"ts": now_ms()} if with_ts else {}))

    def _lost(self, code: str, message: str) -> None:
        """The connection is gone or did not come to be: everything back to its queue, in order."""
        if self._sock is not None:
            self._process.forget(self._sock)
            self._sock.close()
            if self._ended_with not in INNOCENT_CODES:
                self._flow.blame()
            if self._flow.proven and time.monotonic() - self._since_s > RETRY_MAX_S:
                self._failures = 0
        most_s = TAKEN_OVER_MAX_S if self._ended_with == TAKEN_OVER else RETRY_MAX_S
        self._reset(None)
        self.up, self.code, self.message = False, code, message
        self._changed()
        if self._flow.closing:
            return
        self._next_host += 1
        self._failures += 1
        rounds = (self._failures - 1) // len(self._settings.hosts)
        pause_s = min(most_s, RETRY_S * 2 ** min(rounds, 8)) * random.uniform(0.5, 1.0)
        self._process.at(time.monotonic() + pause_s, self._dial)

    # -- reading -------------------------------------------------------------------------

    def _ready(self) -> None:
        """The socket can be read or written."""
        acked: list[Row] = []
        try:
            self._read(acked)
        except mqtt.Malformed as e:
            self._flow.done(acked)
            self._lost("protocol", f"{self.host} does not speak MQTT: {e}")
        except Unavailable as e:
            self._flow.done(acked)
            self._lost(e.code, e.message)
        except OSError as e:
            self._flow.done(acked)
            error = explain(e, f"{self.host}:{self._settings.port}")
            self._lost(error.code, error.message)
        else:
            self._flow.done(acked)
            self._pump()

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
                    self._flow.on_puback(body, acked)
                elif kind == mqtt.PINGRESP:
                    self._on_pingresp(acked)
                elif kind == mqtt.CONNACK:
                    self._on_connack(body)
                elif kind == mqtt.DISCONNECT:
                    code, said = mqtt.parse_disconnect(body)
                    self._ended_with = code
                    raise Unavailable(
                        code_of(code),
                        f"{self.host} ended the connection: {mqtt.reason_text(code, said)}",
                    )
                else:
                    self._on_packet(kind, body)
            if len(data) < 65_536 and not isinstance(sock, ssl.SSLSocket):
                return
            if not self.listens and not self._flow.flying and self._ping_end is None:
                return  # no answer is owed; what comes all the same wakes us again

    def _on_pingresp(self, acked: list[Row]) -> None:
        """Appends to ``acked`` the rows that this proves to have arrived."""
        self._ping_end = None

    def _on_packet(self, kind: int, body: bytes) -> None:
        raise mqtt.Malformed(f"packet type {kind} to a client that only publishes")

    def _on_connack(self, body: bytes) -> None:
        if self._greeted:
            raise mqtt.Malformed("a second CONNACK")
        s = self._settings
        answer = mqtt.parse_connack(s.version, body)
        if answer.code:
            words = mqtt.reason_text(answer.code, answer.said)
            code = code_of(answer.code)
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
        self._flow.begin(answer, {s.status_topic: self._status("online")} if s.status_topic else {})
        if answer.server_keepalive_s is not None:
            self._keepalive_s = answer.server_keepalive_s
        self.up, self.code, self.message = True, "", ""
        if self._flow.qos < s.qos:
            self.code = "qos"
            self.message = f"{self.host} takes QoS 0 only: it acknowledges nothing"
        self._changed()

    def _flow_note(self, code: str, message: str) -> None:
        """What the flow meets; "" takes back what it said, not that the broker knows only QoS 0."""
        if code or self.code not in ("", "qos"):
            self._note(code, message)

    def _note(self, code: str, message: str) -> None:
        if (code, message) != (self.code, self.message):
            self.code, self.message = code, message
            self._changed()

    # -- writing -------------------------------------------------------------------------

    def _pump(self) -> None:
        """Encodes what may go and writes it."""
        if self._greeted:
            self._flow.pump()
        if self._out.data:
            self._write()

    def _write(self) -> None:
        """Gives the kernel what it takes now; the loop calls again when it takes more."""
        sock = self._sock
        if sock is None:
            return
        try:
            self._out.send(sock)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as e:
            error = explain(e, f"{self.host}:{self._settings.port}")
            # Not from here: a caller may be in the middle of its rows.
            self._out.data.clear()
            self._process.at(0.0, lambda: self._lost_now(sock, error))
            return
        self._sent_s = time.monotonic()
        self._flow.settle_sent()
        if bool(self._out.data) != self._writing:
            self._writing = bool(self._out.data)
            flags = zmq.POLLIN | zmq.POLLOUT if self._writing else zmq.POLLIN
            self._process.on_readable(sock, self._ready, flags)

    def _lost_now(self, sock: socket.socket, error: Unavailable) -> None:
        if self._sock is sock:
            self._lost(error.code, error.message)

    # -- watching ------------------------------------------------------------------------

    def _tick(self) -> None:
        sock = self._sock
        if sock is None or self._flow.closing:
            return
        now_s = time.monotonic()
        if not self._greeted:
            if now_s - self._since_s > CONNACK_TIMEOUT_S:
                self._lost("timeout", f"{self.host} does not answer CONNECT")
            return
        if self._overdue(sock, now_s):
            self._lost("timeout", f"{self.host} does not answer")
            return
        self._flow.tick(now_s)
        if now_s >= self._status_s and self._settings.status_topic:
            self._status_s = now_s + STATUS_INTERVAL_S
            self._flow.say(self._settings.status_topic, self._status("online"))
        idle_s = now_s - self._sent_s
        if self._keepalive_s and idle_s > self._keepalive_s * 0.75 and self._ping_end is None:
            self._ping_end = self._out.put(mqtt.PINGREQ_BYTES)
            if self._flow.front_end is None:
                self._flow.front_s = now_s
        self._pump()

    def _overdue(self, sock: socket.socket, now_s: float) -> bool:
        """Whether an answer is owed for too long. The time counts from when the peer's kernel has
        the packet: over a slow line a window takes longer than ACK_TIMEOUT_S to get there.
        """
        unacknowledged = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        left = len(self._out.data) + struct.unpack("i", unacknowledged)[0]
        reached, before = self._out.end - left, self._reached
        self._reached = reached
        end = self._flow.front_end
        if end is None and self._ping_end is not None:
            end = self._ping_end
        elif end is None and left:
            end = self._out.end
        elif end is None:
            self._flow.front_s = now_s
            return False
        if end > before and reached > before:
            self._flow.front_s = now_s
        return now_s - self._flow.front_s > ACK_TIMEOUT_S
