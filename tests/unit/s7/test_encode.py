"""The compiled encoder writes what the decoder and orjson write, to the letter."""

from __future__ import annotations

import random
import struct
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.s7 import _native
from services.s7.decode import Record
from services.s7.encode import Encoder, pays_for
from services.s7.field import Field
from tests.unit.s7.test_roundtrip import records


def agree(fields: list[Field], image: bytes) -> Encoder:
    """Both on the same bytes; the encoder for more."""
    record, encoder = Record(fields), Encoder(fields)
    assert record.changed(image)
    assert encoder.changed(image)
    assert encoder.values.json == orjson.dumps(record.values)
    assert encoder.bad == record.bad
    assert dict(encoder.values) == record.values
    assert len(encoder.values) == len(record.values)
    assert not encoder.changed(image)
    return encoder


@settings(max_examples=300, deadline=None)
@given(records(), st.data())
def test_any_record_of_any_bytes(
    made: tuple[list[Field], dict[str, Any]], data: st.DataObject
) -> None:
    fields, _ = made
    size = max(f.byte + f.size_bytes for f in fields)
    agree(fields, data.draw(st.binary(min_size=size, max_size=size)))


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60))
@example([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00001, 1, 0x7F7FFFFF])
def test_any_reals(raws: list[int]) -> None:
    fields = [Field(f"r{i}", "REAL", byte=4 * i) for i in range(len(raws))]
    agree(fields, struct.pack(f">{len(raws)}I", *raws))


def test_reals_of_every_size() -> None:
    draw = random.Random(5)
    floats = [sign * 10.0**e * draw.choice((1, 1.5, 9.999999, draw.uniform(1, 10)))
              for e in range(-44, 38) for sign in (1, -1) for _ in range(20)]  # fmt: skip
    floats += [float(2**e + n) for e in (23, 24, 31, 52, 53) for n in range(-50, 50)]
    floats += [n / 1000 for n in range(2_000)] + [1123456789.0]
    fields = [Field(f"r{i}", "REAL", byte=4 * i) for i in range(len(floats))]
    agree(fields, struct.pack(f">{len(floats)}f", *floats))


def test_integers_at_their_ends() -> None:
    kinds = {"SINT": "b", "USINT": "B", "INT": "h", "UINT": "H", "DINT": "i", "UDINT": "I",
             "LINT": "q", "ULINT": "Q", "LWORD": "Q", "TIME": "i", "LTIME": "q"}  # fmt: skip
    for kind, code in kinds.items():
        bits = 8 * struct.calcsize(code)
        ends = [0, 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1]
        ends += [n for e in (53, 54) for n in (2**e - 1, 2**e, 2**e + 1) if n < 2**bits]
        ends += [2**64 - 2**53 + d for d in (-1, 0, 1) if bits == 64]
        size = bits // 8
        fields = [Field(f"n{i}", kind, byte=size * i) for i in range(len(ends))]
        agree(fields, b"".join(n.to_bytes(size) for n in ends))


def test_names_are_escaped() -> None:
    agree([Field('a"b\\c', "INT"), Field("é°", "BOOL", byte=2, bit=7)], b"\0\1\x80")


def test_scaled_and_other_fields_stand_in_their_place() -> None:
    fields = [Field("a", "REAL"), Field("b", "INT", byte=4, scale=(0.1, 0.0)),
              Field("c", "STRING[2]", byte=6), Field("d", "LREAL", byte=10),
              Field("e", "BOOL", byte=18, bit=3)]  # fmt: skip
    good = struct.pack(">fh4sdB", 0.1, 7, b"\2\1x\0", 1.5, 8)
    assert agree(fields, good).values.json == b'{"a":0.1,"b":0.7,"c":"x","d":1.5,"e":true}'
    bad = struct.pack(">fh4sdB", float("nan"), 7, b"\2\3x\0", float("inf"), 0)
    assert agree(fields, bad).values.json == b'{"b":0.7,"e":false}'


def test_equal_where_every_value_is() -> None:
    fields = [Field("a", "INT"), Field("b", "BOOL", byte=3, bit=1), Field("c", "STRING[2]", byte=4)]
    encoder = Encoder([*fields, Field("d", "INT", byte=8)])
    seen = []
    for image in ("0001ff02 02014100 0002", "0001ff06 02014177 0002", "0001ff02 02014200 0002",
                  "0001ff00 02014100 0002"):  # fmt: skip
        encoder.changed(bytes.fromhex(image))
        seen.append(encoder.values)
    assert seen[0] == seen[1], "neither a bit beside the field nor what follows a text counts"
    assert seen[0] != seen[2]
    assert seen[0] != seen[3]
    assert seen[0] == dict(seen[1])


def test_it_is_used_where_most_is_encoded_as_it_stands() -> None:
    numbers = [Field("a", "INT"), Field("b", "REAL", byte=2)]
    assert pays_for(numbers)
    assert not pays_for([*numbers, *(Field(f"s{i}", "STRING[2]") for i in range(3))])


@pytest.mark.parametrize(
    ("members", "names", "pieces"),
    [
        (struct.pack("=IIcBBx", 1, 4, b"f", 0, 4), b'"a":', []),
        (struct.pack("=IIcBBx", 2**32 - 1, 4, b"h", 0, 2), b'"a":', []),
        (struct.pack("=IIcBBx", 0, 5, b"h", 0, 2), b'"a":', []),
        (struct.pack("=IIcBBx", 0, 4, b"h", 0, 9), b'"a":', []),
        (struct.pack("=IIcBBx", 0, 4, b"f", 0, 2), b'"a":', []),
        (struct.pack("=IIcBBx", 1, 4, b"p", 0, 0), b'"a":', [b"1"]),
        (struct.pack("=IIcBBx", 0, 4, b"p", 0, 0), b'"a":', ["1"]),
    ],
)
def test_nonsense_is_refused(members: bytes, names: bytes, pieces: list[Any]) -> None:
    with pytest.raises((ValueError, IndexError, TypeError)):
        _native.encode(b"1234", members, names, pieces, lambda _: None)


def test_what_the_helper_writes_has_a_bound() -> None:
    member = struct.pack("=IIcBBx", 0, 4, b"f", 0, 4)
    infinity = b"\x7f\x80\0\0"
    assert _native.encode(infinity, member, b'"a":', [], lambda _: b"1e99") == (b'{"a":1e99}', [])
    assert _native.encode(infinity, member, b'"a":', [], lambda _: None) == (b"{}", [0])
    with pytest.raises(ValueError, match="24 bytes"):
        _native.encode(infinity, member, b'"a":', [], lambda _: b"1" * 25)
    with pytest.raises(ZeroDivisionError):
        _native.encode(infinity, member, b'"a":', [], lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
