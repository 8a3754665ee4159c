"""Every frame: its golden bytes, and what a receiver does with bytes that are not one."""

from __future__ import annotations

import contextlib
import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.frames import (
    KINDS,
    Ack,
    Deliver,
    Event,
    Frame,
    FrameError,
    Heartbeat,
    Hello,
    Raw,
    Ready,
    Receipt,
    Reply,
    Request,
    Sample,
    Scan,
    State,
    Stats,
    UnknownVersion,
    pack,
    unpack,
)

# A change here breaks a box whose processes are restarted one by one: add fields at the end, with
# a default, and leave these bytes alone.
GOLDEN: list[tuple[Frame, str]] = [
    (
        Sample(
            plc="prensa-01",
            locatario="acme",
            epoch=1763999000123,
            seq=4182,
            ts_ms=1764000000123,
            body=b'{"v":1}',
            oldest=True,
        ),
        "99a673616d706c6501a97072656e73612d3031a461636d65cf0000019ab688a63bcd1056cf0000019ab697e87bc4077b2276223a317dc3",
    ),
    (
        Hello(plc="prensa-01", locatario="acme", boot=77),
        "95a568656c6c6f01a97072656e73612d3031a461636d654d",
    ),
    (
        Ack(
            plc="prensa-01",
            epoch=1763999000123,
            seq=4182,
            store_boot=9,
            why="hello",
            reader_boot=77,
        ),
        "98a361636b01a97072656e73612d3031cf0000019ab688a63bcd105609a568656c6c6f4d",
    ),
    (
        Deliver(
            output="central",
            session=5,
            lane="backfill",
            rows=[(12, 0, "prensa-01", "acme", 1764000000123, 1763999000123, 4182, b"{}")],
        ),
        "96a764656c6976657201a763656e7472616c05a86261636b66696c6c91980c00a97072656e73612d3031a461636d65cf0000019ab697e87bcf0000019ab688a63bcd1056c4027b7d",
    ),
    (Ready(output="central", session=5, window=1000), "95a5726561647901a763656e7472616c05cd03e8"),
    (
        Receipt(
            output="central",
            session=5,
            lane="live",
            position=12,
            refused=[(11, "0x99 payload format invalid")],
        ),
        "97a77265636569707401a763656e7472616c05a46c6976650c91920bbb30783939207061796c6f616420666f726d617420696e76616c6964",
    ),
    (
        Heartbeat(
            plc="prensa-01",
            locatario="acme",
            ip="192.168.0.10",
            ts_ms=1764000000123,
            interval_s=10.0,
            status="offline",
            scan_ms=0.5,
            latency_ms=2.25,
            reads_ok=10,
            reads_failed=3,
            uptime_s=60.0,
            pending=7,
            failure={
                "code": "timeout",
                "message": "no answer",
                "since": 1764000000000,
                "attempts": 4,
            },
            removed=False,
        ),
        "dc0010a46265617401a97072656e73612d3031a461636d65ac3139322e3136382e302e3130cf0000019ab697e87bcb4024000000000000a76f66666c696e65cb3fe0000000000000cb40020000000000000a03cb404e0000000000000784a4636f6465a774696d656f7574a76d657373616765a96e6f20616e73776572a573696e6365cf0000019ab697e800a8617474656d70747304c2",
    ),
    (
        Scan(
            plc="prensa-01",
            locatario="acme",
            group="db500",
            ts_ms=1764000000123,
            duration_ms=2.5,
            latency_ms=1.25,
            bodies=[b"{}"],
            quality="good",
        ),
        "9aa47363616e01a97072656e73612d3031a461636d65a56462353030cf0000019ab697e87bcb4004000000000000cb3ff400000000000091c4027b7da4676f6f64",
    ),
    (
        Raw(
            plc="prensa-01",
            group="db500",
            db=500,
            start=0,
            data=b"\x06\x00",
            ts_ms=1764000000123,
            quality="good",
            latency_ms=1.25,
        ),
        "9aa372617701a97072656e73612d3031a56462353030cd01f400c4020600cf0000019ab697e87ba4676f6f64cb3ff4000000000000",
    ),
    (
        Stats(
            process="reader-prensa-01",
            pid=4711,
            started_ms=1763999000123,
            ts_ms=1764000000123,
            samples=[("counter", "plc_edge_reconnects_total", {"plc": "prensa-01"}, 3.0)],
        ),
        "97a5737461747301b07265616465722d7072656e73612d3031cd1267cf0000019ab688a63bcf0000019ab697e87b9194a7636f756e746572b9706c635f656467655f7265636f6e6e656374735f746f74616c81a3706c63a97072656e73612d3031cb4008000000000000",
    ),
    (
        State(
            process="publisher-central",
            ts_ms=1764000000123,
            status="down",
            fields={"host": "broker"},
        ),
        "96a5737461746501b17075626c69736865722d63656e7472616ccf0000019ab697e87ba4646f776e81a4686f7374a662726f6b6572",
    ),
    (
        Event(
            process="reader-prensa-01",
            ts_ms=1764000000123,
            level="warning",
            code="plc_offline",
            text="no answer",
            fields={"plc": "prensa-01"},
        ),
        "98a56576656e7401b07265616465722d7072656e73612d3031cf0000019ab697e87ba77761726e696e67ab706c635f6f66666c696e65a96e6f20616e7377657281a3706c63a97072656e73612d3031",
    ),
    (
        Request(verb="status", args={"output": "central"}),
        "94a77265717565737401a673746174757381a66f7574707574a763656e7472616c",
    ),
    (Reply(result={"pending": 3}, error=""), "94a57265706c790181a770656e64696e6703a0"),
]


def test_every_kind_has_golden_bytes() -> None:
    assert {type(frame) for frame, _ in GOLDEN} == set(KINDS.values())


@pytest.mark.parametrize(("frame", "golden"), GOLDEN, ids=lambda v: getattr(v, "KIND", ""))
def test_golden_bytes(frame: Frame, golden: str) -> None:
    # An older sender's frame is the beginning of ours: compare what the golden one knew.
    ours = msgpack.unpackb(pack(frame))
    theirs = msgpack.unpackb(bytes.fromhex(golden))
    assert ours[: len(theirs)] == theirs
    assert type(unpack(bytes.fromhex(golden))) is type(frame)
    assert msgpack.unpackb(pack(unpack(bytes.fromhex(golden))))[: len(theirs)] == theirs


@pytest.mark.parametrize("cls", KINDS.values(), ids=lambda c: c.KIND)
def test_unknown_extra_fields_are_ignored_and_missing_ones_defaulted(cls: type[Frame]) -> None:
    default = cls()
    parts = msgpack.unpackb(pack(default))
    assert unpack(msgpack.packb([*parts, "from the future", {"x": 1}])) == default
    assert unpack(msgpack.packb(parts[:2])) == default


@pytest.mark.parametrize("cls", KINDS.values(), ids=lambda c: c.KIND)
def test_another_version_is_refused(cls: type[Frame]) -> None:
    parts = msgpack.unpackb(pack(cls()))
    parts[1] += 1
    with pytest.raises(UnknownVersion, match=cls.KIND):
        unpack(msgpack.packb(parts))


@pytest.mark.parametrize("cls", KINDS.values(), ids=lambda c: c.KIND)
def test_a_field_of_the_wrong_type_is_refused_by_name(cls: type[Frame]) -> None:
    first = dataclasses.fields(cls)[0]
    if first.name == "result":  # anything goes
        return
    with pytest.raises(FrameError, match=rf"{cls.KIND}\.{first.name} is dict"):
        unpack(msgpack.packb([cls.KIND, cls.VERSION, {}]))


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        unpack(data)


@given(st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=6), st.lists, max_leaves=9))
def test_random_structures_never_raise_anything_else(value: object) -> None:
    with contextlib.suppress(FrameError):
        unpack(msgpack.packb(value))
