"""Encode -> place -> decode gives the value back, for every type at every legal offset."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.s7.decode import SAFE_INTEGER, Record
from services.s7.field import Field
from services.s7.types import encode_value, parse_type
from tests.unit.s7.strategies import SCALARS, types, values

WIDE = ("LINT", "ULINT", "LWORD", "LTIME")


def published(value: Any, base: str) -> Any:
    """As messages carry it: 64-bit integers that a double cannot hold are text."""
    if isinstance(value, list):
        return [published(v, base) for v in value]
    return str(value) if base in WIDE and abs(value) > SAFE_INTEGER else value


def place(image: bytearray, f: Field, value: Any) -> None:
    raw = encode_value(f.s7_type, value, f.bit)
    for i, byte in enumerate(raw):
        if f.type == "BOOL":
            image[f.byte + i] = image[f.byte + i] & ~(1 << f.bit) | byte
        else:
            image[f.byte + i] = byte


@pytest.mark.parametrize("base", [*SCALARS, "STRING[7]", "WSTRING[5]"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_type_at_every_legal_offset(base: str, data: st.DataObject) -> None:
    t = parse_type(base)
    value = data.draw(values(t))
    noise = data.draw(st.binary(min_size=64, max_size=64))
    for byte in range(0, 64 - t.size_bytes + 1, t.align):
        for bit in range(8 if base == "BOOL" else 1):
            f = Field("x", base, byte=byte, bit=bit)
            image = bytearray(noise)
            place(image, f, value)
            record = Record([f])
            assert record.changed(bytes(image))
            assert (record.values, record.bad) == ({"x": published(value, t.base)}, {})


@st.composite
def records(draw: st.DrawFn) -> tuple[list[Field], dict[str, Any]]:
    """Fields with gaps between them, BOOLs packed now and then, and their values."""
    fields, wanted, at, bit = [], {}, draw(st.integers(0, 5)), 0
    for i, t in enumerate(draw(st.lists(types(), min_size=1, max_size=12))):
        name = f"f{i}"
        if t.base == "BOOL" and not t.dims:
            f = Field(name, "BOOL", byte=at, bit=bit)
            bit += 1
            at, bit = at + bit // 8, bit % 8
        else:
            at += (bit > 0) + draw(st.sampled_from((0, 0, 1, 4)))
            at += at % t.align
            f, bit = Field(name, str(t), byte=at), 0
            at += t.size_bytes
        fields.append(f)
        wanted[name] = draw(values(t))
    return draw(st.permutations(fields)), wanted


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(records(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_whole_records(
    made: tuple[list[Field], dict[str, Any]], base: int, r: random.Random
) -> None:
    fields, wanted = made
    record = Record(fields, base)
    body = bytearray(r.randbytes(record.size_bytes))
    for f in fields:
        place(body, f, wanted[f.name])
    assert record.changed(r.randbytes(base) + body + r.randbytes(7))
    assert record.bad == {}
    assert record.values == {f.name: published(wanted[f.name], f.s7_type.base) for f in fields}
    assert list(record.values) == [f.name for f in fields], "the order of the layout"


def test_the_example_of_db500() -> None:
    fields = [
        Field("pecas_ruim", "BOOL", bit=0),
        Field("pecas_boas", "BOOL", bit=1),
        Field("maquina_ligada", "BOOL", bit=2),
        Field("AI_Corrente", "REAL", byte=2),
        Field("AI_Vibracao", "REAL", byte=6),
        Field("contador_bom", "INT", byte=10),
        Field("contador_ruim", "INT", byte=12),
    ]
    record = Record(fields)
    record.changed(bytes.fromhex("0600412400003DF5C28F00980003"))
    assert list(record.values.values()) == [False, True, True, 10.25, 0.12, 152, 3]


def test_only_other_bytes_are_decoded() -> None:
    record = Record([Field("x", "INT", byte=2)], base=4)
    assert record.changed(bytes(6) + b"\x00\x01" + bytes(8))
    first = record.values
    assert not record.changed(b"\xff" * 2 + bytes(4) + b"\x00\x01" + b"\xff" * 8)
    assert record.changed(bytes(6) + b"\x00\x02" + bytes(8))
    assert (first, record.values) == ({"x": 1}, {"x": 2})
    assert not record.changed(bytes(6) + b"\x00\x02" + bytes(8))
    record.forget()
    assert record.changed(bytes(6) + b"\x00\x02" + bytes(8))


def test_a_bad_field_costs_no_neighbour_and_recovers() -> None:
    fields = [
        Field("nan", "REAL", byte=0),
        Field("good", "REAL", byte=4),
        Field("infinite", "LREAL", byte=8),
        Field("when", "DT", byte=16),
        Field("text", "STRING[2]", byte=24),
        Field("large", "LREAL", byte=28, scale=(1e10, 0.0)),
        Field("wave", "REAL[0..1]", byte=36),
    ]
    record = Record(fields)
    record.changed(
        struct.pack(">ff d", math.nan, 1.5, -math.inf)
        + bytes(8)
        + b"\x02\x03ab"
        + struct.pack(">d", 1e300)
        + struct.pack(">ff", 1, math.inf)
    )
    assert record.values == {"good": 1.5}
    assert record.bad == {
        "nan": "nan",
        "infinite": "infinity",
        "when": "bad_date",
        "text": "string_length",
        "large": "infinity",
        "wave": "infinity",
    }
    record.changed(
        struct.pack(">ff d", 2, 1.5, 3)
        + bytes.fromhex("9902030102034004")
        + b"\x02\x01ab"
        + struct.pack(">dff", 2, 1, 2)
    )
    assert record.bad == {}
    assert record.values["large"] == 2e10


def test_strings_of_every_kind_cost_no_neighbour() -> None:
    """Never initialised, longer than itself, of another code page: bad by name. Control characters
    are text, and stay what they are on the wire.
    """
    names = ("never", "long", "dash", "named", "wide", "controls")
    fields = [
        Field("never", "STRING[4]", byte=0),
        Field("long", "STRING[4]", byte=6),
        Field("dash", "STRING[4]", byte=12),
        Field("named", "STRING[4]", byte=18, encoding="cp1252"),
        Field("wide", "WSTRING[1]", byte=24),
        Field("controls", "STRING[4]", byte=30),
        *(Field(f"after_{name}", "INT", byte=36 + 2 * i) for i, name in enumerate(names)),
    ]
    record = Record(fields)
    texts = (bytes(6), b"\4\5abcd", b"\4\1\x96bcd", b"\4\1\x96bcd", bytes(6), b"\4\4a\0\n\x1b")
    record.changed(b"".join(texts) + struct.pack(">6h", *range(6)))
    assert record.bad == {
        "never": "string_uninitialised",
        "long": "string_length",
        "dash": "bad_encoding",
        "wide": "string_uninitialised",
    }
    assert record.values == {
        "named": "–",
        "controls": "a\0\n\x1b",
        **{f"after_{name}": i for i, name in enumerate(names)},
    }
    body = orjson.dumps(record.values)
    assert json.loads(body) == record.values
    assert b"\n" not in body


def test_overlapping_fields_are_all_decoded() -> None:
    fields = [
        Field("word", "WORD", byte=0),
        Field("high", "BYTE", byte=0),
        Field("real", "REAL", byte=0),
        Field("same", "REAL", byte=0),
        Field("wide", "ULINT", byte=0),
        Field("bit", "BOOL", byte=0, bit=6),
        Field("copy", "BOOL", byte=0, bit=6),
    ]
    record = Record(fields)
    record.changed(bytes.fromhex("4124000000000000"))
    assert record.values == {
        "word": 0x4124,
        "high": 0x41,
        "real": 10.25,
        "same": 10.25,
        "wide": str(0x4124 << 48),
        "bit": True,
        "copy": True,
    }


def test_scale() -> None:
    fields = [
        Field("level", "INT", byte=0, scale=(100 / 27_648, 0.0)),
        Field("tenths", "INT[0..1]", byte=2, scale=(0.1, -5.0)),
        Field("wide", "LINT", byte=6, scale=(0.5, 0.0)),
    ]
    record = Record(fields)
    record.changed(struct.pack(">hhhq", 13_824, 3, 7, 2**60))
    assert record.values == {"level": 50.0, "tenths": [-4.7, -4.3], "wide": 2.0**59}


@pytest.mark.parametrize(("encoding", "raw", "text"), [
    ("latin-1", b"\xc4", "Ä"), ("cp1252", b"\x80", "€"), ("utf-8", "Ä".encode(), "Ä"),
])  # fmt: skip
def test_encoding_of_strings(encoding: str, raw: bytes, text: str) -> None:
    record = Record([Field("x", "STRING[4]", encoding=encoding)])
    record.changed(bytes((4, len(raw))) + raw.ljust(4, b"\0"))
    assert record.values == {"x": text}


def test_bytes_that_the_encoding_has_not_are_bad() -> None:
    record = Record([Field("x", "STRING[2]", encoding="utf-8")])
    record.changed(b"\x02\x01\xc4\x00")
    assert record.bad == {"x": "bad_encoding"}
