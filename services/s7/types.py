"""S7 data types: names, sizes, placement, decoding and encoding (classic access, big-endian).

Sizes and ranges are those of Siemens' STEP 7 / TIA Portal help ("Data types"). A value that the
type does not allow raises ``BadValue`` with one stable word, which becomes the field's reason in
``bad``.

What a value looks like: BOOL bool · BYTE WORD DWORD LWORD and integers int · REAL LREAL float ·
CHAR WCHAR STRING WSTRING str · DATE ``2001-02-03`` · TOD LTOD ``01:02:03.400`` · DT DTL LDT
``2020-03-24T22:44:23.721`` (the PLC's local time) · TIME S5TIME TIMER ms · LTIME ns · COUNTER int.
"""

from __future__ import annotations

import datetime
import difflib
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

EPOCH_DATE = datetime.date(1990, 1, 1)
# DATE ends at 2168-12-31, TOD before midnight, LDT where a signed 64-bit count of ns does.
DATE_MAX_DAYS = 65_378
DAY_MS = 86_400_000
DAY_NS = DAY_MS * 1_000_000
LDT_MAX_NS = 2**63 - 1
# The S7-1200's manual has DTL end in 2554, the S7-1500's help in 2262: what one CPU may hold is a
# value.
DTL_MAX_YEAR = 2554
STRING_MAX, WSTRING_MAX = 254, 16_382


class BadValue(ValueError):
    """Bytes that are no value of their type. ``reason`` is one word for ``bad``."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class TypeNameError(ValueError):
    """A type that we do not know; ``hint`` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Elementary:
    """One type without length or dimensions."""

    name: str
    size_bytes: int
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    code: str = ""
    """The ``struct`` code where the bytes are the value as they stand."""

    @property
    def align(self) -> int:
        """1: any byte; 2: an even byte (S7 has no wider alignment)."""
        return 1 if self.size_bytes == 1 else 2


# --- codecs ----------------------------------------------------------------------------------


def _bcd(byte: int) -> int:
    high, low = byte >> 4, byte & 15
    if high > 9 or low > 9:
        raise BadValue("bad_bcd")
    return high * 10 + low


def _to_bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


def _fraction(ns: int) -> str:
    """``.4`` s as ``.400``: 0, 3, 6 or 9 digits."""
    if not ns:
        return ""
    digits = f"{ns:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return "." + digits


def _clock(ns: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{_fraction(rest)}"


_CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?")


def _clock_ns(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time of day such as 01:02:03.400")
    h, m, s = int(match[1]), int(match[2]), int(match[3])
    if h > 23 or m > 59 or s > 59:
        raise ValueError(f"{text!r} is no time of day")
    return (h * 3600 + m * 60 + s) * 1_000_000_000 + int((match[4] or "0").ljust(9, "0"))


def _date(year: int, month: int, day: int) -> datetime.date:
    try:
        return datetime.date(year, month, day)
    except ValueError:
        raise BadValue("bad_date") from None


def _split(text: str) -> tuple[datetime.date, int]:
    """Date and ns of the day in ``2020-03-24T22:44:23.721``."""
    date, _, clock = text.partition("T")
    return datetime.date.fromisoformat(date), _clock_ns(clock or "00:00:00")


def _decode_s5time(raw: bytes) -> int:
    high = raw[0]
    count = (high & 15) * 100 + _bcd(raw[1])
    if high & 15 > 9:
        raise BadValue("bad_bcd")
    return count * 10 * int(10 ** (high >> 4 & 3))


def _encode_s5time(ms: int) -> bytes:
    for base in range(4):
        unit = 10 * 10**base
        if ms % unit == 0 and 0 <= ms // unit <= 999:
            count = ms // unit
            return bytes((base << 4 | count // 100, _to_bcd(count % 100)))
    raise ValueError(f"{ms} ms is no S5TIME: 0 to 9,990,000 ms in steps of its base")


def _decode_counter(raw: bytes) -> int:
    # The upper 4 bits are no part of the count.
    if raw[0] & 15 > 9:
        raise BadValue("bad_bcd")
    return (raw[0] & 15) * 100 + _bcd(raw[1])


def _encode_counter(count: int) -> bytes:
    if not 0 <= count <= 999:
        raise ValueError(f"{count} is no COUNTER: 0 to 999")
    return bytes((count // 100, _to_bcd(count % 100)))


def _decode_date(raw: bytes) -> str:
    days = int.from_bytes(raw)
    if days > DATE_MAX_DAYS:
        raise BadValue("bad_date")
    return (EPOCH_DATE + datetime.timedelta(days)).isoformat()


def _encode_date(text: str) -> bytes:
    days = (datetime.date.fromisoformat(text) - EPOCH_DATE).days
    if not 0 <= days <= DATE_MAX_DAYS:
        raise ValueError(f"{text} is no DATE: 1990-01-01 to 2168-12-31")
    return days.to_bytes(2)


def _encode_tod(text: str) -> bytes:
    ms, rest = divmod(_clock_ns(text), 1_000_000)
    if rest:
        raise ValueError(f"{text} is no TOD: whole ms")
    return ms.to_bytes(4)


def _decode_tod(raw: bytes) -> str:
    ms = int.from_bytes(raw)
    if ms >= DAY_MS:
        raise BadValue("bad_time")
    return _clock(ms * 1_000_000)


def _decode_ltod(raw: bytes) -> str:
    ns = int.from_bytes(raw)
    if ns >= DAY_NS:
        raise BadValue("bad_time")
    return _clock(ns)


def _decode_ldt(raw: bytes) -> str:
    ns = int.from_bytes(raw)
    if ns > LDT_MAX_NS:
        raise BadValue("bad_date")
    days, rest = divmod(ns, DAY_NS)
    return f"{datetime.date(1970, 1, 1) + datetime.timedelta(days)}T{_clock(rest)}"


def _encode_ldt(text: str) -> bytes:
    date, ns = _split(text)
    return ((date - datetime.date(1970, 1, 1)).days * DAY_NS + ns).to_bytes(8)


def _decode_dt(raw: bytes) -> str:
    year, month, day, hour, minute, second, centi = map(_bcd, raw[:7])
    # The last byte: ms units in the high digit, weekday (1 = Sunday) in the low one. The weekday
    # says nothing that the date does not, so a wrong one costs nothing.
    milli = raw[7] >> 4
    if milli > 9:
        raise BadValue("bad_bcd")
    date = _date(year + (2000 if year < 90 else 1900), month, day)
    if hour > 23 or minute > 59 or second > 59:
        raise BadValue("bad_time")
    ns = (hour * 3600 + minute * 60 + second) * 1_000_000_000 + (centi * 10 + milli) * 1_000_000
    return f"{date}T{_clock(ns)}"


def _encode_dt(text: str) -> bytes:
    date, ns = _split(text)
    if not 1990 <= date.year <= 2089 or ns % 1_000_000:
        raise ValueError(f"{text} is no DT: 1990 to 2089, whole ms")
    seconds, ms = divmod(ns // 1_000_000, 1_000)
    parts = (date.year % 100, date.month, date.day, seconds // 3600, seconds // 60 % 60)
    weekday = date.isoweekday() % 7 + 1
    return bytes(map(_to_bcd, (*parts, seconds % 60, ms // 10))) + bytes((ms % 10 << 4 | weekday,))


_DTL = struct.Struct(">HBBBBBBI")


def _decode_dtl(raw: bytes) -> str:
    year, month, day, _weekday, hour, minute, second, ns = _DTL.unpack(raw)
    if not 1970 <= year <= DTL_MAX_YEAR:
        raise BadValue("bad_date")
    date = _date(year, month, day)
    if hour > 23 or minute > 59 or second > 59 or ns > 999_999_999:
        raise BadValue("bad_time")
    return f"{date}T{_clock((hour * 3600 + minute * 60 + second) * 1_000_000_000 + ns)}"


def _encode_dtl(text: str) -> bytes:
    date, ns = _split(text)
    if not 1970 <= date.year <= DTL_MAX_YEAR:
        raise ValueError(f"{text} is no DTL: 1970 to {DTL_MAX_YEAR}")
    seconds, rest = divmod(ns, 1_000_000_000)
    weekday = date.isoweekday() % 7 + 1
    clock = (seconds // 3600, seconds // 60 % 60, seconds % 60)
    return _DTL.pack(date.year, date.month, date.day, weekday, *clock, rest)


def _decode_wchar(raw: bytes) -> str:
    try:
        return raw.decode("utf-16-be")
    except UnicodeDecodeError:
        raise BadValue("bad_utf16") from None


def shortest(value: float) -> float:
    """The float whose shortest decimal is the shortest that reads back as the same REAL.

    ``value`` is what ``struct`` makes of 4 bytes (0.11999999731779099); the result is 0.12. From
    2^24 on a REAL is a whole number; up to 2^53 it is given exactly (1123456768.0), as every other
    tool shows it: the digits that the shortest form rounds to zeros (1123456800.0) save nothing.
    Raises BadValue for NaN and infinities. Any decimal of up to 6 digits survives a REAL, and 9
    always suffice (C's FLT_DIG and FLT_DECIMAL_DIG); denormals may need fewer than 6.
    """
    if value - value != 0:
        raise BadValue("nan" if math.isnan(value) else "infinity")
    if _WHOLE_REALS[0] <= abs(value) <= _WHOLE_REALS[1]:
        return value
    raw = _F32.pack(value)
    is_power_of_2 = not int.from_bytes(raw) & 0x7FFFFF
    for digits in range(6 if abs(value) >= 1.1754943508222875e-38 else 1, 10):
        candidates = [f"{value:.{digits - 1}e}"]
        if is_power_of_2:
            # Its lower neighbour is twice as near as the upper: the decimal above may fit where
            # the nearest one, below, does not (1.2621775e-29).
            exponent = int(candidates[0].partition("e")[2])
            step = 10.0 ** (exponent - digits + 1)
            candidates.append(f"{value + math.copysign(step / 2, value):.{digits - 1}e}")
        for text in candidates:
            try:
                if _F32.pack(float(text)) == raw:
                    return float(text)
            except OverflowError:  # the largest REAL, rounded up
                continue
    return value


_F32 = struct.Struct(">f")
# From here on REALs have no decimals; to here a double, as JSON's readers use, counts in ones.
_WHOLE_REALS = 2.0**24, 2.0**53


def _decode_lreal(raw: bytes) -> float:
    value: float = struct.unpack(">d", raw)[0]
    if value - value != 0:
        raise BadValue("nan" if math.isnan(value) else "infinity")
    return value


def _plain(name: str, code: str) -> Elementary:
    s = struct.Struct(">" + code)
    return Elementary(name, s.size, lambda raw: s.unpack(raw)[0], s.pack, code)


ELEMENTARY: dict[str, Elementary] = {
    t.name: t
    for t in (
        Elementary("BOOL", 1, lambda raw: bool(raw[0] & 1), lambda v: bytes((bool(v),))),
        _plain("BYTE", "B"),
        _plain("USINT", "B"),
        _plain("SINT", "b"),
        _plain("INT", "h"),
        _plain("UINT", "H"),
        _plain("WORD", "H"),
        _plain("DINT", "i"),
        _plain("UDINT", "I"),
        _plain("DWORD", "I"),
        _plain("LINT", "q"),
        _plain("ULINT", "Q"),
        _plain("LWORD", "Q"),
        _plain("TIME", "i"),
        _plain("LTIME", "q"),
        Elementary("REAL", 4, lambda raw: shortest(_F32.unpack(raw)[0]), _F32.pack),
        Elementary("LREAL", 8, _decode_lreal, struct.Struct(">d").pack),
        Elementary("CHAR", 1, lambda raw: raw.decode("latin-1"), lambda v: v.encode("latin-1")),
        Elementary("WCHAR", 2, _decode_wchar, lambda v: v.encode("utf-16-be")),
        Elementary("S5TIME", 2, _decode_s5time, _encode_s5time),
        Elementary("TIMER", 2, _decode_s5time, _encode_s5time),
        Elementary("COUNTER", 2, _decode_counter, _encode_counter),
        Elementary("DATE", 2, _decode_date, _encode_date),
        Elementary("TOD", 4, _decode_tod, _encode_tod),
        Elementary("LTOD", 8, _decode_ltod, lambda v: _clock_ns(v).to_bytes(8)),
        Elementary("LDT", 8, _decode_ldt, _encode_ldt),
        Elementary("DT", 8, _decode_dt, _encode_dt),
        Elementary("DTL", 12, _decode_dtl, _encode_dtl),
    )
}
# Other spellings of the same types in sources and habits.
ALIASES = {
    "DATE_AND_TIME": "DT",
    "TIME_OF_DAY": "TOD",
    "LTIME_OF_DAY": "LTOD",
    "DATE_AND_LTIME": "LDT",
    "S5_TIME": "S5TIME",
}


# --- whole types -----------------------------------------------------------------------------

_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(.*)", re.DOTALL)
_BRACKET = re.compile(r"\[([^\]]*)\]\s*")
_RANGE = re.compile(r"\s*(-?\d{1,9})\s*\.\.\s*(-?\d{1,9})\s*")


@dataclass(frozen=True, slots=True)
class S7Type:
    """A type as a field has it: ``REAL``, ``STRING[20]``, ``INT[1..4]``, ``BOOL[0..1,0..9]``.

    ``dims`` holds (low, high) per dimension, the last running fastest; empty for a scalar.
    """

    base: str
    length: int = 0
    """Declared maximum of a STRING or WSTRING, characters."""
    dims: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        text = f"{self.base}[{self.length}]" if self.is_string else self.base
        if self.dims:
            text += "[" + ",".join(f"{low}..{high}" for low, high in self.dims) + "]"
        return text

    @property
    def is_string(self) -> bool:
        """STRING or WSTRING."""
        return self.base in ("STRING", "WSTRING")

    @property
    def counts(self) -> tuple[int, ...]:
        """Elements of each dimension."""
        return tuple(high - low + 1 for low, high in self.dims)

    @property
    def element_bytes(self) -> int:
        """Size of one element: STRING[n] n + 2, WSTRING[n] 2n + 4; BOOL 1."""
        if self.base == "STRING":
            return self.length + 2
        if self.base == "WSTRING":
            return 2 * self.length + 4
        return ELEMENTARY[self.base].size_bytes

    @property
    def align(self) -> int:
        """1 or 2; arrays begin at even bytes."""
        return 2 if self.dims or self.element_bytes > 1 or self.is_string else 1

    @property
    def stride_bytes(self) -> int:
        """From one array element to the next: STRING[odd] is rounded up to even."""
        size = self.element_bytes
        return size + size % 2 if self.is_string or size > 1 else size

    @property
    def size_bytes(self) -> int:
        """Bytes that must be read for it; a BOOL's is the byte that holds it.

        One-dimensional BOOL arrays pack bits; with more dimensions each row of the last one begins
        a new byte.
        """
        if not self.dims:
            return self.element_bytes
        *outer, last = self.counts
        rows = math.prod(outer)
        if self.base == "BOOL":
            return rows * (last + 7) // 8 if not outer else rows * ((last + 7) // 8)
        return (rows * last - 1) * self.stride_bytes + self.element_bytes


@cache
def parse_type(text: str) -> S7Type:
    """The type that ``text`` spells, any letter case. Raises TypeNameError with a hint."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise TypeNameError(f"{text!r} is no type", "e.g. REAL, STRING[20], INT[1..4]")
    if match[1].upper() == "ARRAY":
        raise TypeNameError(f"{text!r} is not how an array is written here", "write INT[1..4]")
    base = match[1].upper()
    base = ALIASES.get(base, base)
    if base not in ELEMENTARY and base not in ("STRING", "WSTRING"):
        known = [*ELEMENTARY, "STRING", "WSTRING"]
        near = difflib.get_close_matches(base, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known types: {', '.join(known)}"
        raise TypeNameError(f"unknown type {match[1]!r}", hint)
    brackets = _BRACKET.findall(match[2])
    if _BRACKET.sub("", match[2]).strip():
        raise TypeNameError(f"{text!r} is no type", "e.g. REAL, STRING[20], INT[1..4]")
    length = 0
    if base in ("STRING", "WSTRING"):
        longest = STRING_MAX if base == "STRING" else WSTRING_MAX
        length = 254
        if brackets and ".." not in brackets[0]:
            first = brackets.pop(0).strip()
            if not re.fullmatch(r"\d{1,5}", first) or not 1 <= int(first) <= longest:
                raise TypeNameError(f"{base}[{first}]", f"a length from 1 to {longest}")
            length = int(first)
    if len(brackets) > 1:
        raise TypeNameError(f"{text!r} has too many brackets", "write [0..1,0..9]")
    dims = tuple(_dims(brackets[0], text)) if brackets else ()
    if math.prod(high - low + 1 for low, high in dims) > 65_536:
        raise TypeNameError(f"{text!r} has more elements than a block has bytes")
    return S7Type(base, length, dims)


def _dims(bracket: str, text: str) -> Iterator[tuple[int, int]]:
    for part in bracket.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[1]) > int(match[2]):
            raise TypeNameError(f"{text!r}: {part.strip()!r} is no range", "write low..high")
        yield int(match[1]), int(match[2])


# Latin-1 has a character for every byte, but no text has these (C1 controls): their bytes are
# letters and signs of another code page, which the field's `encoding` must name.
_NO_TEXT = re.compile("[\x80-\x9f]")


def decode_string(raw: bytes, length: int, encoding: str = "latin-1") -> str:
    """STRING[length]: max byte, length byte, characters. Raises BadValue.

    What is text comes as it is, NUL, line breaks and other ASCII control characters included.
    """
    data = raw[2 : 2 + _string_length(raw[0], raw[1], length)]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise BadValue("bad_encoding") from None
    if not text.isascii() and _NO_TEXT.search(text):
        raise BadValue("bad_encoding")
    return text


def decode_wstring(raw: bytes, length: int) -> str:
    """WSTRING[length]: u16 max, u16 length, UTF-16BE. Raises BadValue."""
    used = _string_length(int.from_bytes(raw[:2]), int.from_bytes(raw[2:4]), length)
    return _decode_wchar(raw[4 : 4 + 2 * used])


def _string_length(stored_max: int, used: int, length: int) -> int:
    """The current length; raises BadValue where it cannot be one."""
    if not stored_max:
        # No CPU stores 0 as the maximum: nobody has ever initialised this string.
        raise BadValue("string_uninitialised")
    if used > length or used > stored_max:
        raise BadValue("string_length")
    return used


def decode_value(t: S7Type, raw: bytes, bit: int = 0, encoding: str = "latin-1") -> Any:
    """The value in ``raw`` (``t.size_bytes`` of it); arrays as (nested) lists.

    ``bit`` is a scalar BOOL's. Raises BadValue: one bad element makes the array bad.
    """
    if not t.dims:
        return _decode_one(t, raw, bit, encoding)
    if t.base == "BOOL":
        return nest(list(_decode_bits(t, raw)), t.counts)
    step, size = t.stride_bytes, t.element_bytes
    starts = range(0, math.prod(t.counts) * step, step)
    return nest([_decode_one(t, raw[i : i + size], 0, encoding) for i in starts], t.counts)


def _decode_one(t: S7Type, raw: bytes, bit: int, encoding: str) -> Any:
    if t.base == "BOOL":
        return bool(raw[0] >> bit & 1)
    if t.base == "STRING":
        return decode_string(raw, t.length, encoding)
    if t.base == "WSTRING":
        return decode_wstring(raw, t.length)
    if t.base == "CHAR" and encoding != "latin-1":
        return decode_string(bytes((1, 1)) + raw, 1, encoding)
    return ELEMENTARY[t.base].decode(raw)


def _decode_bits(t: S7Type, raw: bytes) -> Iterator[bool]:
    last = t.counts[-1]
    row_bytes = (last + 7) // 8
    for row in range(math.prod(t.counts[:-1])):
        for i in range(last):
            yield bool(raw[row * row_bytes + i // 8] >> i % 8 & 1)


def nest(flat: list[Any], counts: tuple[int, ...]) -> list[Any]:
    """Elements as lists of lists, ``counts`` of each dimension, the last running fastest."""
    for count in reversed(counts[1:]):
        flat = [flat[i : i + count] for i in range(0, len(flat), count)]
    return flat


def encode_value(t: S7Type, value: Any, bit: int = 0, encoding: str = "latin-1") -> bytes:
    """The bytes of ``value`` as the PLC stores it; the inverse of ``decode_value``.

    Raises ValueError, OverflowError or struct.error for what the type cannot hold.
    """
    if not t.dims:
        return _encode_one(t, value, bit, encoding)
    flat = list(_flatten(value, len(t.dims)))
    if len(flat) != math.prod(t.counts):
        raise ValueError(f"{t} has {math.prod(t.counts)} elements, not {len(flat)}")
    if t.base == "BOOL":
        last = t.counts[-1]
        out = bytearray()
        for row in range(0, len(flat), last):
            packed = bytearray((last + 7) // 8)
            for i, element in enumerate(flat[row : row + last]):
                packed[i // 8] |= bool(element) << i % 8
            out += packed
        return bytes(out)
    step = t.stride_bytes
    parts = [_encode_one(t, element, 0, encoding).ljust(step, b"\0") for element in flat]
    return b"".join(parts)[: t.size_bytes]


def _flatten(value: Any, depth: int) -> Iterable[Any]:
    if depth == 0:
        return (value,)
    return (leaf for element in value for leaf in _flatten(element, depth - 1))


def _encode_one(t: S7Type, value: Any, bit: int, encoding: str) -> bytes:
    if t.base == "BOOL":
        return bytes((bool(value) << bit,))
    if t.base == "STRING":
        data = str(value).encode(encoding)
        if len(data) > t.length:
            raise ValueError(f"{t} does not hold {len(data)} bytes")
        return bytes((t.length, len(data))) + data.ljust(t.length, b"\0")
    if t.base == "WSTRING":
        data = str(value).encode("utf-16-be")
        if len(data) > 2 * t.length:
            raise ValueError(f"{t} does not hold {len(data) // 2} characters")
        header = t.length.to_bytes(2) + (len(data) // 2).to_bytes(2)
        return header + data.ljust(2 * t.length, b"\0")
    data = value.encode(encoding) if t.base == "CHAR" else ELEMENTARY[t.base].encode(value)
    if len(data) != t.element_bytes:
        raise ValueError(f"{value!r} is no single {t}")
    return data
