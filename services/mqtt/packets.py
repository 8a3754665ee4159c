"""The MQTT packets of a client that publishes, 3.1.1 and 5. Pure: bytes in, bytes out.

Section numbers are those of the OASIS standards "MQTT Version 5.0" and "MQTT Version 3.1.1".
Why not paho-mqtt here: with v5 user properties it takes 105 µs of CPU a message (52 µs without),
one system call per packet sent and three per PUBACK; it resends by itself on reconnect, takes a
PUBACK with a failure code for success, and its connect blocks the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 13, 14
PINGREQ_BYTES = b"\xc0\x00"
RETAIN, QOS1 = 0x01, 0x02

# Nothing that we subscribe to (commands of Sparkplug) is larger; told to the broker in CONNECT.
MAX_INCOMING_BYTES = 65_536
# §3.3.2.3.2: the payload is UTF-8.
PAYLOAD_IS_TEXT = b"\x01\x01"

# What a reason code means and what a person can do, for those that a publisher can meet (§2.4).
REASONS = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "protocol version not supported: set `version: 3.1.1`",
    0x85: "client identifier not valid: set another `client_id`",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8D: "keep alive timeout",
    0x8E: "session taken over: another client uses the same client id or account; give each "
    "connection its own (`accounts:`)",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
}
# CONNACK of 3.1.1 (§3.2.2.3) in terms of 5.
_CONNACK_311 = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
# Lengths of the properties that are no strings; 0: UTF-8 string or binary, -1: variable byte
# integer, -2: string pair (§2.2.2.2).
_PROPERTY_BYTES = {
    0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x0B: -1, 0x11: 4, 0x12: 0, 0x13: 2, 0x15: 0,
    0x16: 0, 0x17: 1, 0x18: 4, 0x19: 1, 0x1A: 0, 0x1C: 0, 0x1F: 0, 0x21: 2, 0x22: 2, 0x23: 2,
    0x24: 1, 0x25: 1, 0x26: -2, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_REASON_STRING = 0x1F


class Malformed(ValueError):
    """The broker sent what is no MQTT."""


def reason_text(code: int, said: str = "") -> str:
    """A reason code in words, with what the broker said of it."""
    words = REASONS.get(code, "unknown reason")
    return f"{words} (0x{code:02x}{', ' + said if said else ''})"


def varint(value: int) -> bytes:
    """Variable byte integer, 0 … 268,435,455 (§1.5.5)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """UTF-8 string with its length, at most 65,535 bytes."""
    data = value.encode()
    return len(data).to_bytes(2) + data


def connect(
    version: int,
    client_id: str,
    keepalive_s: int,
    will: tuple[str, bytes, int, bool] | None,
    username: str | None,
    password: str | None,
    will_is_text: bool = True,
) -> bytes:
    """CONNECT with a clean start. ``version`` 4 (3.1.1) or 5; ``will``: topic, payload, QoS,
    retained.
    """
    flags, last = 0x02, b""
    if will is not None:
        topic, payload, will_qos, will_retained = will
        flags |= 0x04 | will_qos << 3 | (0x20 if will_retained else 0)
        if version == 5:
            last = with_length(PAYLOAD_IS_TEXT if will_is_text else b"")
        last += text(topic) + len(payload).to_bytes(2) + payload
    flags |= (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes((version, flags)) + keepalive_s.to_bytes(2)
    if version == 5:
        body += b"\x05\x27" + MAX_INCOMING_BYTES.to_bytes(4)
    body += text(client_id) + last
    if username is not None:
        body += text(username)
    if password is not None:
        body += text(password)
    return b"\x10" + varint(len(body)) + body


def publish(flags: int, topic: bytes, mid: int, properties: bytes, payload: bytes) -> bytes:
    """PUBLISH. ``topic`` as made by ``text``; ``mid`` 0 for QoS 0; ``properties`` with their
    length in front (``with_length``), b"" for 3.1.1.
    """
    middle = topic + mid.to_bytes(2) if mid else topic
    size = len(middle) + len(properties) + len(payload)
    return b"".join((bytes((0x30 | flags,)), varint(size), middle, properties, payload))


def with_length(properties: bytes) -> bytes:
    """A property list with its length in front (§2.2.2)."""
    return varint(len(properties)) + properties


def user_property(name: str, value: str) -> bytes:
    """One user property (§3.3.2.3.7)."""
    return b"\x26" + text(name) + text(value)


def subscribe(version: int, mid: int, topics: Sequence[str]) -> bytes:
    """SUBSCRIBE to topics, at most QoS 1 of each."""
    body = mid.to_bytes(2) + (b"\x00" if version == 5 else b"")
    body += b"".join(text(topic) + b"\x01" for topic in topics)
    return b"\x82" + varint(len(body)) + body


def puback(mid: int) -> bytes:
    """PUBACK: taken."""
    return b"\x40\x02" + mid.to_bytes(2)


def disconnect(version: int, with_will: bool = False) -> bytes:
    """DISCONNECT: the broker drops the will, unless ``with_will`` (which 3.1.1 cannot ask for)."""
    if version == 5:
        return b"\xe0\x02\x04\x00" if with_will else b"\xe0\x02\x00\x00"
    return b"\xe0\x00"


@dataclass(slots=True)
class Connack:
    """The broker's answer to CONNECT, and its limits (§3.2.2.3)."""

    code: int
    """0, or a reason code ≥ 0x80 (those of 3.1.1 are translated)."""
    said: str = ""
    receive_maximum: int = 65_535
    maximum_qos: int = 2
    retain_available: bool = True
    maximum_packet_bytes: int = 268_435_460
    server_keepalive_s: int | None = None


def parse_connack(version: int, body: bytes) -> Connack:
    """Raises Malformed."""
    if len(body) < 2:
        raise Malformed("CONNACK too short")
    code = body[1]
    # A broker that knows only 3.1.1 refuses 5 in its own, shorter form (3.1.1, §3.1.2.2).
    if version != 5 or (code and len(body) == 2):
        return Connack(_CONNACK_311.get(code, 0x80) if code else 0)
    found = _properties(body, 2)
    return Connack(
        code,
        _string(found.get(_REASON_STRING, b"")),
        int.from_bytes(found.get(0x21, b"\xff\xff")) or 1,
        int.from_bytes(found.get(0x24, b"\x02")),
        found.get(0x25, b"\x01") != b"\x00",
        int.from_bytes(found.get(0x27, b"\x10\x00\x00\x04")),
        int.from_bytes(found[0x13]) if 0x13 in found else None,
    )


def parse_puback(body: bytes) -> tuple[int, int, str]:
    """(packet identifier, reason code, reason in the broker's words); raises Malformed."""
    if len(body) < 2:
        raise Malformed("PUBACK too short")
    mid = body[0] << 8 | body[1]
    if len(body) == 2:
        return mid, 0, ""
    said = _properties(body, 3).get(_REASON_STRING, b"") if len(body) > 3 else b""
    return mid, body[2], _string(said)


def parse_suback(version: int, body: bytes) -> list[int]:
    """Answers, in the order of the topics: the QoS granted, or ≥ 0x80; raises Malformed."""
    at = 2
    if version == 5:
        size, at = _varint_at(body, 2)
        at += size
    if len(body) <= at:
        raise Malformed("SUBACK too short")
    return list(body[at:])


def parse_publish(version: int, flags: int, body: bytes) -> tuple[str, int, bytes]:
    """(topic, packet identifier, payload) of a PUBLISH; the identifier is 0 at QoS 0. Raises
    Malformed.
    """
    at = 2 + int.from_bytes(body[:2])
    topic = body[2:at]
    mid = 0
    if flags & 0x04:
        raise Malformed("PUBLISH of a QoS above 1, which we did not ask for")
    if flags & 0x02:
        mid = int.from_bytes(body[at : at + 2])
        at += 2
    if at > len(body):
        raise Malformed("PUBLISH too short")
    if version == 5:
        size, at = _varint_at(body, at)
        at += size
    return _string(topic), mid, body[at:]


def parse_disconnect(body: bytes) -> tuple[int, str]:
    """(reason code, reason in the broker's words); raises Malformed."""
    if not body:
        return 0, ""
    said = _properties(body, 1).get(_REASON_STRING, b"") if len(body) > 1 else b""
    return body[0], _string(said)


def _string(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    """(value, index after it)."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 21:
            raise Malformed("bad variable byte integer")
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
        shift += 7


def _properties(data: bytes, at: int) -> dict[int, bytes]:
    """The properties that begin at ``at``, the last of each kind."""
    size, at = _varint_at(data, at)
    end = at + size
    if end > len(data):
        raise Malformed("properties longer than their packet")
    found: dict[int, bytes] = {}
    while at < end:
        kind = data[at]
        at += 1
        length = _PROPERTY_BYTES.get(kind)
        if length is None:
            raise Malformed(f"unknown property 0x{kind:02x}")
        if length == -1:
            _, at = _varint_at(data, at)
            continue
        if length > 0:
            found[kind] = data[at : at + length]
            at += length
            continue
        for _ in range(2 if length == -2 else 1):
            size = int.from_bytes(data[at : at + 2])
            found[kind] = data[at + 2 : at + 2 + size]
            at += 2 + size
    if at != end:
        raise Malformed("property longer than its list")
    return found


class Incoming:
    """Cuts the byte stream into packets."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip_bytes = 0
        """What is still to come of a message that is too long for us."""
        self.flags = 0
        """Of the packet that ``feed`` gave last."""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(packet type, body) of each packet that is complete now; raises Malformed.

        A message that is longer than MAX_INCOMING_BYTES is left out and not acknowledged: with
        3.1.1 no broker knows what is too long, and a retained one would end each connection.
        """
        buffer = self._data
        buffer += data
        at, end = min(self._skip_bytes, len(buffer)), len(buffer)
        self._skip_bytes -= at
        try:
            while end - at >= 2:
                size = buffer[at + 1]
                start = at + 2
                if size & 0x80:
                    size, shift = size & 0x7F, 7
                    while True:
                        if start >= end:
                            return
                        byte = buffer[start]
                        start += 1
                        size |= (byte & 0x7F) << shift
                        if not byte & 0x80:
                            break
                        shift += 7
                        if shift > 21:
                            raise Malformed("remaining length has more than four bytes")
                if size > MAX_INCOMING_BYTES and buffer[at] >> 4 == PUBLISH:
                    at, self._skip_bytes = min(start + size, end), max(start + size - end, 0)
                    continue
                if size > MAX_INCOMING_BYTES:
                    raise Malformed(f"a packet of {size} bytes")
                if start + size > end:
                    return
                kind, self.flags = buffer[at] >> 4, buffer[at] & 0x0F
                at = start + size
                yield kind, bytes(buffer[start:at])
        finally:
            del buffer[:at]
