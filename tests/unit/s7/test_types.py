"""Types: published vectors, limits, and encode -> place -> decode for every type."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.s7.types import (
    ALIASES,
    ELEMENTARY,
    BadValue,
    TypeNameError,
    decode_value,
    encode_value,
    parse_type,
    shortest,
)

# S7-LAYOUT's vectors and those of Siemens' help on each type's limits.
VECTORS = [
    ("S5TIME", "3372", 3_720_000),
    ("S5TIME", "0010", 100),
    ("S5TIME", "0000", 0),
    ("S5TIME", "3999", 9_990_000),
    ("S5TIME", "2127", 127_000),
    ("TIMER", "1999", 99_900),
    ("COUNTER", "0999", 999),
    ("COUNTER", "0127", 127),
    ("DATE", "0FD3", "2001-02-03"),
    ("DATE", "0000", "1990-01-01"),
    ("DATE", "FF62", "2168-12-31"),
    ("TIME", "05283C7C", 86_523_004),
    ("TIME", "80000000", -(2**31)),
    ("LTIME", "FFFFFFFFFFFFFFFF", -1),
    ("TOD", "0038D088", "01:02:03.400"),
    ("TOD", "05265BFF", "23:59:59.999"),
    ("LTOD", "00004E94914EFFFF", "23:59:59.999999999"),
    ("DT", "9902030102034004", "1999-02-03T01:02:03.400"),
    ("DT", "9001010000000002", "1990-01-01T00:00:00"),
    ("DT", "8912312359599997", "2089-12-31T23:59:59.999"),
    ("DTL", "07E4031803162C172AF99640", "2020-03-24T22:44:23.721"),
    ("DTL", "07B201010500000000000000", "1970-01-01T00:00:00"),
    ("DTL", "09FA0C1F03173B3B3B9AC9FF", "2554-12-31T23:59:59.999999999"),
    ("LDT", "00000000000000C8", "1970-01-01T00:00:00.000000200"),
    ("LDT", "7FFFFFFFFFFFFFFF", "2262-04-11T23:47:16.854775807"),
    ("REAL", "444ED333", 827.3),
    ("REAL", "3DF5C28F", 0.12),
    ("REAL", "80000000", -0.0),
    ("REAL", "7F7FFFFF", 3.4028235e38),
    ("REAL", "00000001", 1e-45),
    ("REAL", "4E85ED2E", 1123456768.0),
    ("REAL", "CE85ED2E", -1123456768.0),
    ("REAL", "4B800001", 16777218.0),
    ("REAL", "59FFFFFF", 9007198717870080.0),
    ("REAL", "5A000000", 9007199254740992.0),
    ("REAL", "5A000001", 9007200000000000.0),  # beyond 2^53 the shortest
    ("LREAL", "419D6F34547E6B75", 123456789.12345679),
    ("BYTE", "FF", 255),
    ("SINT", "80", -128),
    ("USINT", "FF", 255),
    ("INT", "8000", -32_768),
    ("UINT", "FFFF", 65_535),
    ("WORD", "ABCD", 0xABCD),
    ("DINT", "80000000", -(2**31)),
    ("UDINT", "FFFFFFFF", 2**32 - 1),
    ("DWORD", "DEADBEEF", 0xDEADBEEF),
    ("LINT", "8000000000000000", -(2**63)),
    ("ULINT", "FFFFFFFFFFFFFFFF", 2**64 - 1),
    ("LWORD", "0123456789ABCDEF", 0x0123456789ABCDEF),
    ("CHAR", "C4", "Ä"),
    ("WCHAR", "03A9", "Ω"),
    ("STRING[5]", "0503414243FFFF", "ABC"),
    ("STRING[4]", "0400FFFFFFFF", ""),
    ("STRING[4]", "FE0241420000", "AB"),  # a larger maximum than was declared: another program's
    ("STRING[4]", "04044100420A", "A\0B\n"),
    ("WSTRING[3]", "0003000300410000000A", "A\0\n"),
    ("WSTRING[4]", "0004000403A90073007400C4", "ΩstÄ"),
    ("WSTRING[2]", "00020002D83DDE00", "\U0001f600"),
    ("BOOL[0..9]", "0103", [True, *[False] * 7, True, True]),
    ("BOOL[0..1,0..2]", "0502", [[True, False, True], [False, True, False]]),
    ("INT[-1..0,1..2]", "0001000200030004", [[1, 2], [3, 4]]),
    ("STRING[3][1..2]", "030141FFFFFF03024242FF", ["A", "BB"]),
]

BAD = [
    ("REAL", "7FC00000", "nan"),
    ("REAL", "7F800000", "infinity"),
    ("REAL", "FF800000", "infinity"),
    ("LREAL", "7FF8000000000000", "nan"),
    ("LREAL", "FFF0000000000000", "infinity"),
    ("S5TIME", "0A00", "bad_bcd"),
    ("S5TIME", "00A0", "bad_bcd"),
    ("S5TIME", "000A", "bad_bcd"),
    ("COUNTER", "0A00", "bad_bcd"),
    ("DATE", "FF63", "bad_date"),
    ("TOD", "05265C00", "bad_time"),
    ("LTOD", "00004E94914F0000", "bad_time"),
    ("LDT", "8000000000000000", "bad_date"),
    ("DT", "0000000000000000", "bad_date"),
    ("DT", "9902300102034004", "bad_date"),
    ("DT", "99020A0102034004", "bad_bcd"),
    ("DT", "9902032402034004", "bad_time"),
    ("DT", "99020301020340A4", "bad_bcd"),
    ("DTL", "000000000000000000000000", "bad_date"),
    ("DTL", "07E4021E01000000" + "00000000", "bad_date"),
    ("DTL", "09FB01010100000000000000", "bad_date"),
    ("DTL", "07E4031803182C172AF99640", "bad_time"),
    ("DTL", "07E4031803162C173B9ACA00", "bad_time"),
    ("STRING[5]", "050641424344 45".replace(" ", ""), "string_length"),
    ("STRING[5]", "02034142434445", "string_length"),
    ("STRING[5]", "FE064142434445", "string_length"),  # longer than its field, not than its maximum
    ("STRING[5]", "05FF4142434445", "string_length"),
    ("STRING[4]", "000000000000", "string_uninitialised"),
    ("STRING[4]", "0000FFFFFFFF", "string_uninitialised"),
    ("STRING[4]", "000241420000", "string_uninitialised"),
    ("STRING[4]", "040196434400", "bad_encoding"),  # cp1252's dash
    ("STRING[3]", "0303E282AC", "bad_encoding"),  # UTF-8's euro sign
    ("STRING[3][1..2]", "030141FFFFFF00000000FF", "string_uninitialised"),
    ("WSTRING[2]", "0002000300410042", "string_length"),
    ("WSTRING[2]", "FFFF000300410042", "string_length"),
    ("WSTRING[2]", "0000000000000000", "string_uninitialised"),
    ("WSTRING[2]", "0000000100410042", "string_uninitialised"),
    ("WSTRING[2]", "00020001D83D0000", "bad_utf16"),
    ("WCHAR", "D83D", "bad_utf16"),
    ("REAL[0..1]", "3F8000007FC00000", "nan"),
]


@pytest.mark.parametrize(("name", "raw", "value"), VECTORS)
def test_published_vectors_decode(name: str, raw: str, value: object) -> None:
    got = decode_value(parse_type(name), bytes.fromhex(raw))
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(("name", "raw", "value"), VECTORS)
def test_published_vectors_survive_encoding(name: str, raw: str, value: object) -> None:
    t = parse_type(name)
    encoded = encode_value(t, value)
    assert len(encoded) == t.size_bytes == len(raw) // 2
    assert decode_value(t, encoded) == value
    if not t.is_string and t.base != "S5TIME":
        assert encoded == bytes.fromhex(raw)


@pytest.mark.parametrize(("name", "raw", "reason"), BAD)
def test_impossible_bytes_are_named(name: str, raw: str, reason: str) -> None:
    with pytest.raises(BadValue) as e:
        decode_value(parse_type(name), bytes.fromhex(raw))
    assert e.value.reason == reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S5TIME", 9_990_001),
        ("S5TIME", -10),
        ("S5TIME", 10_000_000),
        ("S5TIME", 1_015_555),
        ("COUNTER", 1_000),
        ("COUNTER", -1),
        ("DATE", "1989-12-31"),
        ("DATE", "2169-01-01"),
        ("TOD", "24:00:00"),
        ("TOD", "00:00:00.0001"),
        ("DT", "2090-01-01T00:00:00"),
        ("DT", "1989-12-31T23:59:59"),
        ("STRING[2]", "abc"),
        ("WSTRING[2]", "abc"),
        ("INT[0..1]", [1]),
        ("CHAR", "ab"),
        ("CHAR", ""),
        ("CHAR", "Ω"),
        ("WCHAR", "\U0001f600"),
        ("LTOD", "25:00:00"),
        ("DTL", "2024-02-30T00:00:00"),
        ("DTL", "1969-12-31T23:59:59"),
        ("DTL", "2555-01-01T00:00:00"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError):
        encode_value(parse_type(name), value)


TIMES = ("DATE", "TOD", "LTOD", "DT", "DTL", "LDT", "S5TIME", "TIMER", "COUNTER")
TEXTS = ("CHAR", "WCHAR", "STRING[6]", "WSTRING[4]")


@settings(max_examples=1_000, deadline=None)
@given(st.sampled_from((*TIMES, *TEXTS)), st.data())
def test_any_bytes_are_a_value_or_bad(name: str, data: st.DataObject) -> None:
    """No other exception, and a value is the one of these bytes, not of others near them."""
    t = parse_type(name)
    # Small digits make more of them a value.
    byte = st.one_of(st.integers(0, 255), st.integers(0, 0x59).filter(lambda b: b & 15 < 10))
    raw = bytes(data.draw(st.lists(byte, min_size=t.size_bytes, max_size=t.size_bytes)))
    try:
        value = decode_value(t, raw)
    except BadValue:
        return
    assert decode_value(t, encode_value(t, value)) == value
    if t.base in ("DATE", "TOD", "LTOD", "LDT"):
        assert encode_value(t, value) == raw
    elif t.base in ("DT", "DTL"):  # but for the weekday, which says nothing that the date does not
        other = encode_value(t, value)
        assert other[:4] == raw[:4]
        assert other[5:7] == raw[5:7]


@pytest.mark.parametrize("byte", range(1, 8))
def test_each_weekday_of_dt(byte: int) -> None:
    # 1 = Sunday: 2000-01-02 was one.
    encoded = encode_value(parse_type("DT"), f"2000-01-{byte + 1:02d}T00:00:00")
    assert encoded[7] & 15 == byte


@pytest.mark.parametrize(
    ("text", "canonical", "size_bytes"),
    [
        ("real", "REAL", 4),
        ("string", "STRING[254]", 256),
        ("String[20]", "STRING[20]", 22),
        ("WSTRING", "WSTRING[254]", 512),
        ("string[5][1..3]", "STRING[5][1..3]", 8 * 2 + 7),
        ("Date_And_Time", "DT", 8),
        ("Time_Of_Day", "TOD", 4),
        ("int[ 1 .. 4 ]", "INT[1..4]", 8),
        ("BOOL[0..8]", "BOOL[0..8]", 2),
        ("BOOL[0..1,0..8]", "BOOL[0..1,0..8]", 4),
        ("BYTE[-1..1]", "BYTE[-1..1]", 3),
    ],
)
def test_spellings_and_sizes(text: str, canonical: str, size_bytes: int) -> None:
    t = parse_type(text)
    assert str(t) == canonical
    assert parse_type(canonical) == t
    assert t.size_bytes == size_bytes


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("REEL", "REAL"),
        ("STRING[255]", "254"),
        ("STRING[0]", "1 to"),
        ("INT[4]", "low..high"),
        ("INT[4..1]", "low..high"),
        ("ARRAY[1..4] OF INT", "INT[1..4]"),
        ("INT[1..2][1..2]", "[0..1,0..9]"),
    ],
)
def test_wrong_types_say_how_to_mend(text: str, hint: str) -> None:
    with pytest.raises(TypeNameError) as e:
        parse_type(text)
    assert hint in e.value.hint


def test_aliases_are_not_types_of_their_own() -> None:
    assert not ALIASES.keys() & ELEMENTARY.keys()
    assert set(ALIASES.values()) <= ELEMENTARY.keys()


# --- REAL's shortest decimal ------------------------------------------------------------------


def _digits(value: float) -> int:
    return len(f"{value!r}".partition("e")[0].replace(".", "").replace("-", "").strip("0"))


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shortest_reads_back_and_nothing_shorter_does(bits: int) -> None:
    value = struct.unpack(">f", bits.to_bytes(4))[0]
    if not math.isfinite(value):
        return
    short = shortest(value)
    assert struct.pack(">f", short) == bits.to_bytes(4)
    if 2**24 <= abs(value) <= 2**53:
        assert short == value  # whole numbers: exact, and not a character longer
        return
    digits = _digits(short)
    if digits > 1:  # the nearest with a digit less, below and above
        step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 2)
        for candidate in (math.floor(value / step) * step, math.ceil(value / step) * step):
            shorter = float(f"{candidate:.{digits - 2}e}")
            if abs(shorter) <= 3.4028234e38:
                assert struct.pack(">f", shorter) != bits.to_bytes(4)
