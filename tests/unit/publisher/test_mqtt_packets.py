"""MQTT packets against paho's own parser and packer, and against hostile bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from services.mqtt import packets as mqtt


@given(st.integers(0, 268_435_455))
def test_varint_is_that_of_paho(value: int) -> None:
    assert mqtt.varint(value) == bytes(VariableByteIntegers.encode(value))


@given(
    st.lists(st.tuples(st.integers(1, 15), st.binary(max_size=300)), max_size=20),
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
)
def test_packets_come_out_however_the_stream_is_cut(
    packets: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(bytes((kind << 4,)) + mqtt.varint(len(b)) + b for kind, b in packets)
    incoming, seen, at, turn = mqtt.Incoming(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        seen += list(incoming.feed(stream[at : at + size]))
        at, turn = at + size, turn + 1
    assert seen == packets


@given(st.binary(max_size=400))
def test_hostile_bytes_are_malformed_or_harmless(data: bytes) -> None:
    """Never another exception: it would end the process instead of the connection."""
    try:
        for kind, body in mqtt.Incoming().feed(data):
            if kind == mqtt.CONNACK:
                mqtt.parse_connack(5, body)
            elif kind == mqtt.PUBACK:
                mqtt.parse_puback(body)
            else:
                mqtt.parse_disconnect(body)
    except mqtt.Malformed:
        pass


@given(st.binary(max_size=60))
def test_hostile_bodies(body: bytes) -> None:
    for parse in (
        lambda b: mqtt.parse_connack(5, b),
        lambda b: mqtt.parse_connack(4, b),
        lambda b: mqtt.parse_suback(5, b),
        lambda b: mqtt.parse_suback(4, b),
        lambda b: mqtt.parse_publish(5, 0x02, b),
        lambda b: mqtt.parse_publish(4, 0x00, b),
        mqtt.parse_puback,
        mqtt.parse_disconnect,
    ):
        with contextlib.suppress(mqtt.Malformed):
            parse(body)


def test_a_packet_that_is_too_large_is_refused_before_it_is_kept() -> None:
    with pytest.raises(mqtt.Malformed, match="a packet of"):
        list(mqtt.Incoming().feed(b"\x90\xff\xff\xff\x7f"))
    with pytest.raises(mqtt.Malformed, match="four bytes"):
        list(mqtt.Incoming().feed(b"\x30\xff\xff\xff\xff\x01"))


@pytest.mark.parametrize("step", [1, 1_000, 65_536, 500_000])
def test_a_message_that_is_too_long_is_left_out_and_not_kept(step: int) -> None:
    incoming, seen = mqtt.Incoming(), []
    data = (b"\x30" + mqtt.varint(200_000) + bytes(200_000) + b"\xd0\x00") * 2
    for at in range(0, len(data), step):
        seen += [kind for kind, _ in incoming.feed(data[at : at + step])]
        assert len(incoming._data) < 10
    assert seen == [mqtt.PINGRESP] * 2


def test_connack_limits() -> None:
    p = Properties(PacketTypes.CONNACK)
    p.ReceiveMaximum, p.MaximumQoS, p.RetainAvailable = 20, 1, 0
    p.MaximumPacketSize, p.ServerKeepAlive = 5_000, 30
    p.ReasonString = "só isto"
    p.UserProperty = ("a", "b")
    p.AssignedClientIdentifier = "x"
    p.SharedSubscriptionAvailable = 0
    answer = mqtt.parse_connack(5, b"\0\0" + p.pack())
    assert answer == mqtt.Connack(0, "só isto", 20, 1, False, 5_000, 30)
    assert mqtt.parse_connack(5, b"\0\0\0") == mqtt.Connack(0)


@pytest.mark.parametrize(("old", "new"), [(1, 0x84), (2, 0x85), (3, 0x88), (4, 0x86), (5, 0x87)])
def test_connack_of_3_1_1_in_terms_of_5(old: int, new: int) -> None:
    assert mqtt.parse_connack(4, bytes((0, old))).code == new
    # Also where 5 was asked for: a broker that knows only 3.1.1 answers so.
    assert mqtt.parse_connack(5, bytes((0, old))).code == new
    assert mqtt.parse_connack(4, b"\0\0").code == 0


def test_puback() -> None:
    assert mqtt.parse_puback(b"\x01\x02") == (258, 0, "")
    assert mqtt.parse_puback(b"\x01\x02\x87") == (258, 0x87, "")
    p = Properties(PacketTypes.PUBACK)
    p.ReasonString = "no"
    assert mqtt.parse_puback(b"\x01\x02\x87" + p.pack()) == (258, 0x87, "no")


def test_publish_golden_bytes() -> None:
    """Written out by hand from §3.3."""
    properties = mqtt.with_length(mqtt.PAYLOAD_IS_TEXT + mqtt.user_property("seq", "7"))
    assert mqtt.publish(mqtt.QOS1, mqtt.text("a/b"), 10, properties, b"{}") == (
        b"\x32\x15\x00\x03a/b\x00\x0a\x0b\x01\x01\x26\x00\x03seq\x00\x017{}"
    )
    assert mqtt.publish(0, mqtt.text("a/b"), 0, b"", b"{}") == b"\x30\x07\x00\x03a/b{}"


def test_connect_golden_bytes() -> None:
    will = ("e", b"w", 1, True)
    assert mqtt.connect(4, "c", 15, will, "u", "p") == (
        b"\x10\x19\x00\x04MQTT\x04\xee\x00\x0f\x00\x01c\x00\x01e\x00\x01w\x00\x01u\x00\x01p"
    )
    assert mqtt.connect(5, "c", 15, will, None, None) == (
        b"\x10\x1c\x00\x04MQTT\x05\x2e\x00\x0f\x05\x27\x00\x01\x00\x00"
        b"\x00\x01c\x02\x01\x01\x00\x01e\x00\x01w"
    )


def test_every_reason_that_paho_knows_for_us_has_words() -> None:
    for code in (0x80, 0x83, 0x87, 0x90, 0x97, 0x99, 0x8B, 0x8E):
        assert "unknown" not in mqtt.reason_text(code)
    assert mqtt.reason_text(0xEE, "huh") == "unknown reason (0xee, huh)"
