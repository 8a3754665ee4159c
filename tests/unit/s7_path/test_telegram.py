"""Telegrams: golden bytes, and replies that are not what they should be."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.s7 import telegram as t
from services.s7.telegram import GoodReply, Item

REFERENCE = 0x1234


def reply(items: list[Item], datas: list[bytes], reference: int = REFERENCE) -> bytes:
    """What a CPU answers, TPKT and all."""
    body = b""
    for item, data in zip(items, datas, strict=True):
        body += b"\0" * (len(body) % 2)
        timers = item.area in ("T", "C")
        size, length = (9, len(data)) if timers else (4, len(data) * 8)
        body += struct.pack(">BBH", 0xFF, size, length) + data
    head = struct.pack(">BBHHHHBB", 0x32, 3, 0, reference, 2, len(body), 0, 0)
    pdu = head + bytes((4, len(items))) + body
    return struct.pack(">BBH", 3, 0, len(pdu) + 7) + b"\x02\xf0\x80" + pdu


def test_requests_are_what_step_7_sends() -> None:
    # Captured forms: CR with both TSAPs; setup; read of DB500 bytes 14 to 27, MB10, T5.
    assert t.connection_request(0x0100, 0x0201).hex() == (
        "0300001611e00000000100c0010ac1020100c2020201"
    )
    assert t.setup_request(1, 8, 960).hex() == (
        "0300001902f08032010000000100080000f0000008000803c0"
    )
    items = [Item("DB", 500, 14, 14), Item("M", 0, 10, 1), Item("T", 0, 10, 2)]
    assert t.read_request(2, items).hex() == (
        "0300003702f080" "32010000000200260000" "0403"
        "120a1002000e01f484000070" "120a1002000100008300" "0050" "120a101d000100001d000005"
    )  # fmt: skip
    assert t.szl_request(3, 0x0424).hex() == (
        "0300002102f080" "32070000000300080008" "0001120411440100" "ff09000404240000"
    )  # fmt: skip


@pytest.mark.parametrize(("calling", "called"), [(8, 3), (3, 8), (3, 3)])
def test_the_smaller_number_of_jobs_counts(calling: int, called: int) -> None:
    head = struct.pack(">BBHHHHBB", 0x32, 3, 0, 1, 8, 0, 0, 0)
    pdu = head + struct.pack(">BBHHH", 0xF0, 0, calling, called, 240)
    assert t.parse_setup(pdu) == (3, 240)


def test_refused_items_are_told_apart_and_the_others_taken() -> None:
    items = [Item("DB", 1, 0, 4), Item("DB", 1, 50, 3), Item("DB", 2, 0, 2)]
    body = bytes.fromhex("ff040020010203040a000000ff0400100506")
    head = struct.pack(">BBHHHHBB", 0x32, 3, 0, 1, 2, len(body), 0, 0)
    out = bytearray(9)
    codes = t.parse_read(head + b"\x04\x03" + body, items, out, [0, 4, 7])
    assert codes == [0xFF, 0x0A, 0xFF]
    assert out.hex() == "010203040000000506"
    assert t.item_error(0x0A) == "object_does_not_exist"
    assert t.item_error(0x77) == "error_0x77"


@pytest.mark.parametrize(
    ("error", "code"), [(0x8104, "function_refused"), (0x8500, "pdu_too_long"),
                        (0xD602, "access_denied"), (0x1234, "request_refused")],
)  # fmt: skip
def test_a_refusal_of_the_whole_is_told_in_words(error: int, code: str) -> None:
    pdu = struct.pack(">BBHHHHH", 0x32, 2, 0, 1, 0, 0, error)
    with pytest.raises(t.ReplyError) as caught:
        t.parse_read(pdu, [Item("DB", 1, 0, 4)], bytearray(4), [0])
    assert caught.value.code == code


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[list[Item], list[int], list[bytes]]:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    items, places, datas = [], [], []
    at = 0
    for n in lengths:
        area = draw(st.sampled_from(["DB", "M", "T"]))
        n += n % 2 if area == "T" else 0
        items.append(Item(area, 7 if area == "DB" else 0, 2 * at, n))
        places.append(at)
        datas.append(draw(st.binary(min_size=n, max_size=n)))
        at += n
    return items, places, datas


@given(exchanges())
def test_a_good_reply_is_taken_either_way(
    exchange: tuple[list[Item], list[int], list[bytes]],
) -> None:
    items, places, datas = exchange
    packet = reply(items, datas)
    short, long = bytearray(places[-1] + len(datas[-1])), bytearray(places[-1] + len(datas[-1]))
    good = GoodReply(items, places)
    assert good.size_bytes == len(packet)
    assert good.take(b"before" + packet + b"behind", 6, short)
    assert t.parse_read(packet[7:], items, long, places) is None
    assert short == long == b"".join(datas)


@given(exchanges(), st.data())
def test_what_is_compared_is_what_would_be_parsed(
    exchange: tuple[list[Item], list[int], list[bytes]], data: st.DataObject
) -> None:
    items, places, datas = exchange
    packet = bytearray(reply(items, datas))
    for _ in range(data.draw(st.integers(1, 3))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        packet = packet[: data.draw(st.integers(0, len(packet)))]
    size = places[-1] + len(datas[-1])
    short, long = bytearray(size), bytearray(size)
    taken = len(packet) == len(reply(items, datas)) and GoodReply(items, places).take(
        bytes(packet), 0, short
    )
    try:
        t.reference_of(bytes(packet[7:]))
        codes = t.parse_read(bytes(packet[7:]), items, long, places)
    except (t.ProtocolError, t.ReplyError):
        codes = []
    if taken:
        assert codes is None
        assert short == long


@pytest.mark.parametrize(
    ("start", "address"), [(65_535, "07fff8"), (8_191, "00fff8"), (8_192, "010000"),
                           (2_097_151, "fffff8")],
)  # fmt: skip
def test_a_bit_address_has_24_bits(start: int, address: str) -> None:
    assert Item("DB", 1, start, 1).encode()[9:].hex() == address


@pytest.mark.parametrize(
    ("cotp", "is_full"),
    [
        ("06800001000081", True),  # congestion at connect request time
        ("06800001000001", True),  # congestion at the TSAP
        ("06800001000087", True),  # reference overflow
        ("06800001000003", False),  # address unknown
        ("06800001000002", False),  # nobody is attached to the TSAP
        ("06800001", False),
        ("", False),
    ],
)
def test_why_a_connection_is_refused(cotp: str, is_full: bool) -> None:
    with pytest.raises(t.ConnectionRefused) as caught:
        t.parse_connection_confirm(bytes.fromhex(cotp))
    assert caught.value.is_full == is_full


@pytest.mark.parametrize(("error", "is_full"), [("8304", True), ("8104", False), ("8500", False)])
def test_why_a_setup_is_refused(error: str, is_full: bool) -> None:
    with pytest.raises(t.ConnectionRefused) as caught:
        t.parse_setup(bytes.fromhex("32020000ffff00000000" + error))
    assert caught.value.is_full == is_full
