"""An MQTT broker (3.1.1 and 5) that misbehaves as it is told, until it is told to be healthy.

Its parser is its own, written from the standard: a mistake in ours must not hide in a shared one.
It also checks the client: protocol errors of the client are collected in ``complaints``.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HEALTHY: dict[str, Any] = {}


@dataclass
class Script:
    """What is wrong. Reason codes are those of MQTT 5, translated by the caller for 3.1.1."""

    refuse_connect: int = 0
    """Reason code of CONNACK."""
    silent_connect: bool = False
    half_connack: bool = False
    garbage: bytes = b""
    """Sent instead of CONNACK."""
    garbage_after: int = 0
    """After that many PUBLISHes, bytes that are no MQTT."""
    receive_maximum: int = 0
    maximum_packet: int = 0
    maximum_qos: int | None = None
    retain_available: bool = True
    server_keepalive: int | None = None
    swallow_every: int = 0
    """No PUBACK for each n-th row."""
    swallow_all: bool = False
    puback_code: int = 0
    """For rows; retained messages are acknowledged."""
    puback_code_every: int = 1
    puback_twice: bool = False
    stray_pubacks: bool = False
    reverse_pubacks: bool = False
    """In batches of ten, last one first."""
    puback_delay_s: float = 0.0
    lazy: bool = False
    """Answers nothing before the client has nothing more to say."""
    byte_by_byte: bool = False
    drop_after: int = 0
    """Closes after that many rows, before the PUBACK of the last."""
    drop_on: bytes = b""
    """Closes when a payload contains it."""
    disconnect_after: int = 0
    disconnect_code: int = 0x8B
    no_pingresp: bool = False
    drop_idle_s: float = 0.0
    """Closes, without a word, what has been silent for so long."""
    stop_reading_after: int = 0
    """Rows, after which nothing is read any more."""
    suback_code: int = 1
    """For each topic of a SUBSCRIBE."""
    oversize_length: bool = False
    """Announces a packet of 200 MB after CONNACK."""


@dataclass
class Received:
    """One PUBLISH."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool


@dataclass
class _Client:
    """State of one connection."""

    sock: socket.socket
    version: int = 0
    rows: int = 0
    flying: set[int] = field(default_factory=set)
    held: list[int] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)


class ScriptedBroker:
    """Listens on ``port``. Set ``script`` (and use ``drop_clients``) at any time."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.received: list[Received] = []
        self.connects = 0
        self.connected: list[bytes] = []
        """The body of each CONNECT."""
        self.subscribed: list[tuple[str, int]] = []
        """(topic, QoS) of each subscription."""
        self.pings = 0
        self.complaints: list[str] = []
        self._clients: list[socket.socket] = []
        self._stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def rows(self) -> list[bytes]:
        """Payloads that arrived on message topics and were (or would have been) kept."""
        return [r.payload for r in list(self.received) if r.topic.count("/") == 2 and not r.retain]

    def heal(self) -> None:
        """Behaves from now on; connections that are up stay so."""
        self.script = Script()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connects += 1
            self._clients.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        client = _Client(sock)
        try:
            while not self._stop.is_set():
                kind, flags, body = self._packet(client)
                if not self._handle(client, kind, flags, body):
                    break
        except (OSError, ConnectionError):
            pass
        finally:
            sock.close()

    def _take(self, client: _Client, size: int) -> bytes:
        while len(client.data) < size:
            client.sock.settimeout(self.script.drop_idle_s or None)
            data = client.sock.recv(65_536)
            if not data:
                raise ConnectionError
            client.data += data
        taken = bytes(client.data[:size])
        del client.data[:size]
        return taken

    def _packet(self, client: _Client) -> tuple[int, int, bytes]:
        first = self._take(client, 1)[0]
        size = shift = 0
        while True:
            byte = self._take(client, 1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return first >> 4, first & 15, self._take(client, size)

    def _send(self, client: _Client, data: bytes) -> None:
        if self.script.byte_by_byte:
            for i in range(len(data)):
                client.sock.sendall(data[i : i + 1])
                time.sleep(0.0005)
        else:
            client.sock.sendall(data)

    def _handle(self, client: _Client, kind: int, flags: int, body: bytes) -> bool:
        handlers: dict[int, Callable[[_Client, int, bytes], bool]] = {
            1: self._connect,
            3: self._publish,
            4: lambda *_: True,
            8: self._subscribe,
            12: self._ping,
            14: lambda *_: False,
        }
        if kind not in handlers:
            self.complaints.append(f"packet type {kind}")
            return False
        if kind != 1 and not client.version:
            self.complaints.append("a packet before CONNECT")
            return False
        return handlers[kind](client, flags, body)

    def _connect(self, client: _Client, _flags: int, body: bytes) -> bool:
        if client.version:
            self.complaints.append("a second CONNECT")
            return False
        assert body[:6] == b"\0\4MQTT"
        client.version = body[6]
        self.connected.append(body)
        s = self.script
        if s.silent_connect:
            time.sleep(20)
            return False
        if s.garbage:
            client.sock.sendall(s.garbage)
            return True
        code = s.refuse_connect
        if s.maximum_qos is not None and body[7] >> 3 & 3 > s.maximum_qos:
            code = 0x9B
        elif not s.retain_available and body[7] & 0x20:
            code = 0x9A
        if client.version == 5:
            properties = b""
            if s.receive_maximum:
                properties += b"\x21" + struct.pack(">H", s.receive_maximum)
            if s.maximum_packet:
                properties += b"\x27" + struct.pack(">I", s.maximum_packet)
            if s.maximum_qos is not None:
                properties += bytes((0x24, s.maximum_qos))
            if not s.retain_available:
                properties += b"\x25\x00"
            if s.server_keepalive is not None:
                properties += b"\x13" + struct.pack(">H", s.server_keepalive)
            content = bytes((0, code, len(properties))) + properties
        else:
            content = bytes((0, {0x86: 4, 0x87: 5, 0x88: 3}.get(code, 2 if code else 0)))
        packet = bytes((0x20, len(content))) + content
        if s.half_connack:
            client.sock.sendall(packet[:2])
            time.sleep(20)
            return False
        self._send(client, packet)
        if s.oversize_length:
            client.sock.sendall(b"\x30\xff\xff\xff\x5f" + b"x" * 1_000)
        return not code

    def _subscribe(self, client: _Client, _flags: int, body: bytes) -> bool:
        at, count = 2 + (client.version == 5), 0
        while at < len(body):
            end = at + 2 + int.from_bytes(body[at : at + 2])
            self.subscribed.append((body[at + 2 : end].decode(), body[end]))
            at, count = end + 1, count + 1
        content = (
            body[:2] + b"\0" * (client.version == 5) + bytes((self.script.suback_code,)) * count
        )
        self._send(client, bytes((0x90, len(content))) + content)
        return True

    def tell(self, data: bytes) -> None:
        """Sends these bytes to the client that came last."""
        self._clients[-1].sendall(data)

    def _ping(self, client: _Client, _flags: int, _body: bytes) -> bool:
        self.pings += 1
        if not self.script.no_pingresp:
            self._send(client, b"\xd0\x00")
        return True

    def _publish(self, client: _Client, flags: int, body: bytes) -> bool:
        s = self.script
        qos, retain = flags >> 1 & 3, bool(flags & 1)
        length = int.from_bytes(body[:2])
        topic, at, mid = body[2 : 2 + length].decode(), 2 + length, 0
        if qos:
            mid = int.from_bytes(body[at : at + 2])
            at += 2
        if client.version == 5:
            if body[at] & 0x80:
                self.complaints.append("properties longer than 127 bytes")
            at += 1 + body[at]
        payload = body[at:]
        message = Received(topic, payload, qos, retain, bool(flags & 8))
        self._check(client, message, mid, len(body))
        if retain or topic.startswith("edge/"):
            self.received.append(message)
            if s.lazy:
                self._ack_when_idle(client, mid)
            elif qos and not s.swallow_all:
                self._ack(client, mid, 0)
            return True
        client.rows += 1
        if s.drop_on and s.drop_on in payload:
            return False
        if s.drop_after and client.rows >= s.drop_after:
            return False
        if s.stop_reading_after and client.rows >= s.stop_reading_after:
            while self.script is s and not self._stop.is_set():
                time.sleep(0.02)
            return False
        if s.garbage_after and client.rows >= s.garbage_after:
            client.sock.sendall(b"\x00\xff\xff\xff\xff\xff")
            return True
        if s.disconnect_after and client.rows >= s.disconnect_after:
            code = bytes((0xE0, 2, s.disconnect_code, 0))
            client.sock.sendall(code if client.version == 5 else b"")
            return False
        refused = s.puback_code and client.rows % s.puback_code_every == 0
        if not refused:
            self.received.append(message)
        if not qos or s.swallow_all or (s.swallow_every and client.rows % s.swallow_every == 0):
            return True
        if s.lazy:
            self._ack_when_idle(client, mid)
            return True
        if s.puback_delay_s:
            time.sleep(s.puback_delay_s)
        if s.reverse_pubacks:
            client.held.append(mid)
            if len(client.held) == 10:
                for held in reversed(client.held):
                    self._ack(client, held, 0)
                client.held.clear()
            return True
        if s.receive_maximum:
            # As slow as it may be: answers when the client must wait, or has no more.
            client.held.append(mid)
            if len(client.held) < s.receive_maximum and self._more(client, 0.05):
                return True
            if self._more(client, 0.01):
                self.complaints.append("more in flight than the receive maximum")
            mid = client.held.pop()
        for held in client.held:  # healed meanwhile
            self._ack(client, held, 0)
        client.held.clear()
        self._ack(client, mid, s.puback_code if refused else 0)
        if s.puback_twice:
            self._send(client, b"\x40\x02" + mid.to_bytes(2))
        if s.stray_pubacks:
            self._send(client, b"\x40\x02" + (mid + 7 & 0xFFFF or 1).to_bytes(2))
        return True

    def _ack_when_idle(self, client: _Client, mid: int) -> None:
        client.held.append(mid)
        if not self._more(client, 0.05):
            for held in client.held:
                self._ack(client, held, 0)
            client.held.clear()

    def _more(self, client: _Client, wait_s: float) -> bool:
        """Whether the client has sent something that was not read."""
        return bool(client.data or select.select([client.sock], [], [], wait_s)[0])

    def _ack(self, client: _Client, mid: int, code: int) -> None:
        client.flying.discard(mid)
        data = mid.to_bytes(2) + (bytes((code,)) if code and client.version == 5 else b"")
        self._send(client, bytes((0x40, len(data))) + data)

    def _check(self, client: _Client, message: Received, mid: int, size: int) -> None:
        s = self.script
        if message.qos:
            if not mid:
                self.complaints.append("packet identifier 0")
            if mid in client.flying:
                self.complaints.append("packet identifier used twice")
            client.flying.add(mid)
        if message.dup:
            self.complaints.append("DUP on a connection that began clean")
        if s.maximum_packet and size > s.maximum_packet:
            self.complaints.append("larger than the maximum packet size")
        if s.maximum_qos is not None and message.qos > s.maximum_qos:
            self.complaints.append("QoS above the maximum")
        if not s.retain_available and message.retain:
            self.complaints.append("retain where it is not available")

    def drop_clients(self) -> None:
        """Closes every connection."""
        for sock in self._clients:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._clients.clear()

    def close(self) -> None:
        """Ends it."""
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_clients()

    def __enter__(self) -> ScriptedBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
