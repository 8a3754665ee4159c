"""What a library decodes is a value of the declared type, or bad."""

from __future__ import annotations

import datetime
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocols.conform import TYPE_DIFFERS, conform
from services.s7.decode import Record
from services.s7.field import Field
from services.s7.types import ELEMENTARY, BadValue, parse_type

NAMES = [*ELEMENTARY, "STRING[20]", "WSTRING[9]", "INT[1..3]", "BOOL[0..9]", "REAL[0..1,0..2]"]


def made(kind: str, value: Any, **options: Any) -> Any:
    return conform(Field("f", str(parse_type(kind)), "TAG", **options))(value)


def why(kind: str, value: Any, **options: Any) -> str:
    with pytest.raises(BadValue) as e:
        made(kind, value, **options)
    return e.value.reason


@pytest.mark.parametrize("kind", NAMES)
@given(data=st.data())
def test_what_bytes_decode_to_is_left_as_it_is(kind: str, data: st.DataObject) -> None:
    """The two ways of reading one value, its bytes and a library, give the same JSON."""
    size = parse_type(kind).size_bytes
    raw = data.draw(st.binary(min_size=size, max_size=size))
    record = Record([Field("f", str(parse_type(kind)))])
    record.changed(raw)
    if not record.bad:
        assert made(kind, record.values["f"]) == record.values["f"]


@given(st.floats(width=32))
def test_a_real_as_a_library_gives_it(value: float) -> None:
    record = Record([Field("f", "REAL")])
    record.changed(struct.pack(">f", value))
    if math.isfinite(value):
        assert made("REAL", value) == record.values["f"]
    else:
        assert why("REAL", value) == record.bad["f"]


def test_no_value_is_bent_into_another_type() -> None:
    for kind, value in (
        ("BOOL", 1), ("INT", True), ("INT", 1.0), ("INT", 40_000), ("USINT", -1), ("INT", "1"),
        ("REAL", 1), ("REAL", 0.1 + 1e-12), ("REAL", 1e300), ("LREAL", 1), ("STRING", b"a"),
        ("STRING", 5), ("DATE", datetime.datetime(2026, 1, 2)), ("DTL", datetime.date(2026, 1, 2)),
        ("DTL", "yesterday"), ("TIME", 1.5), ("LINT", "12"), ("LINT", "9" * 20), ("BOOL", None),
        ("INT[1..2]", 5), ("INT[1..2]", [1, True]),
    ):  # fmt: skip
        assert why(kind, value) == TYPE_DIFFERS, (kind, value)
    assert why("INT[1..2]", [1, 2, 3]) == "array_length"
    assert why("LREAL", math.nan) == "nan"
    assert why("REAL", -math.inf) == "infinity"
    assert why("WSTRING", "\ud800") == "bad_utf16"


def test_pythons_own_kinds() -> None:
    moment = datetime.datetime(2026, 11, 30, 20, 15, 1, 721_000)
    there = moment.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-3)))
    assert made("DTL", moment) == "2026-11-30T20:15:01.721"
    assert made("LDT", there) == "2026-11-30T23:15:01.721"
    assert made("DT", moment.replace(microsecond=0)) == "2026-11-30T20:15:01"
    assert made("LDT", moment.replace(microsecond=1)) == "2026-11-30T20:15:01.000001"
    assert made("DATE", moment.date()) == "2026-11-30"
    assert made("TOD", moment.time()) == "20:15:01.721"
    assert made("TIME", datetime.timedelta(seconds=-1.5)) == -1_500
    assert made("LTIME", datetime.timedelta(microseconds=2)) == 2_000
    assert made("BYTE[0..2]", b"\x01\x02\xff") == [1, 2, 255]
    assert made("INT[0..1,0..1]", [(1, 2), (3, 4)]) == [[1, 2], [3, 4]]


def test_wide_integers_are_text() -> None:
    assert made("LINT", 2**53) == 2**53
    assert made("ULINT", 2**64 - 1) == "18446744073709551615"
    assert made("LINT", "-9223372036854775808") == "-9223372036854775808"


def test_scaled_as_bytes_are() -> None:
    options: dict[str, Any] = {"scale": (0.1, 0.0)}
    record = Record([Field("f", "INT", **options)])
    record.changed(b"\x00\x03")
    assert made("INT", 3, **options) == record.values["f"] == 0.3
    assert made("INT[0..1]", [3, 5], **options) == [0.3, 0.5]


@pytest.mark.parametrize(
    ("type_", "text"),
    [("LDT", "2024-13-99T00:00:00"), ("DATE", "2023-02-29"), ("LTOD", "25:00:00.123456789")],
)
def test_a_text_that_is_no_moment(type_: str, text: str) -> None:
    with pytest.raises(BadValue, match="type_differs"):
        made(type_, text)


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("LDT", "2024-02-29T23:59:59.123456789"),
        ("DTL", "2024-02-29T00:00:00.1"),
        ("TOD", "23:59:59.12"),
    ],
)
def test_a_text_that_is_one(type_: str, text: str) -> None:
    assert made(type_, text) == text
