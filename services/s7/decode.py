"""Bytes of one group -> values, as fast as plain Python goes.

One precompiled ``struct`` takes all numbers of a record in one call, one table lookup a byte makes
8 BOOLs, and REALs are shortened in bulk; only what has a shape of its own (strings, dates, arrays)
is decoded one by one. A record whose bytes did not change is not decoded again.

The order of the values is: numbers, REALs, BOOLs, the rest. A field that could not be read or holds
no value of its type is absent from the values and named with its reason.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from services.s7.field import Field
from services.s7.types import (
    ELEMENTARY,
    BadValue,
    S7Type,
    decode_value,
    shortest,
)

# JSON numbers are doubles to most readers: 64-bit integers beyond 2^53 travel as text.
SAFE_INTEGER = 2**53
_BITS = [tuple(bool(byte >> i & 1) for i in range(8)) for byte in range(256)]
_WIDE = frozenset(("LINT", "ULINT", "LWORD", "LTIME"))
# A byte range [first, after last) that could not be read, and why.
BadRange = tuple[int, int, str]


class Record:
    """The decoder of one record: of a group, or of one machine of it.

    ``image`` bytes are addressed from ``base``: field offsets count from there.
    """

    def __init__(self, fields: Sequence[Field], base: int = 0) -> None:
        self.base = base
        self.fields = list(fields)
        self.size_bytes = max(f.byte + f.size_bytes for f in fields)
        self._last: bytes | None = None
        self.values: dict[str, Any] = {}
        self.bad: dict[str, str] = {}
        numbers: list[Field] = []
        reals: list[Field] = []
        bits: list[Field] = []
        self._others: list[tuple[Field, S7Type, bool]] = []
        self._scaled = [(f.name, *f.scale) for f in fields if f.scale is not None]
        for f in sorted(fields, key=lambda f: f.byte):
            t = f.s7_type
            if t.dims or t.is_string:
                self._others.append((f, t, _is_wide(t)))
            elif t.base == "REAL":
                reals.append(f)
            elif t.base == "BOOL":
                bits.append(f)
            elif ELEMENTARY[t.base].code and t.base not in _WIDE:
                numbers.append(f)
            else:
                self._others.append((f, t, _is_wide(t)))
        numbers = self._apart(numbers)
        reals = self._apart(reals)
        self._numbers = _compile(numbers)
        self._number_names = [f.name for f in numbers]
        self._reals = _compile([Field("", "DWORD", byte=f.byte) for f in reals])
        self._real_names = [f.name for f in reals]
        self._shortened: dict[int, float | None] = {}
        bytes_of_bits = sorted({f.byte for f in bits})
        by_place = {(f.byte, f.bit): f.name for f in bits}
        # All 8 bits of each byte; unused ones get None for a name, dropped after.
        self._bit_names = [by_place.get((b, i)) for b in bytes_of_bits for i in range(8)]
        self._bit_bytes = _compile([Field("", "BYTE", byte=b) for b in bytes_of_bits])
        # Two BOOLs at one place (a copy under another name) would share a name above.
        self._same_bits = [f for f in bits if by_place[f.byte, f.bit] != f.name]

    def _apart(self, fields: list[Field]) -> list[Field]:
        """Those that one struct can take in a row; who overlaps another is decoded alone."""
        row: list[Field] = []
        for f in fields:
            if row and f.byte < row[-1].byte + row[-1].size_bytes:
                self._others.append((f, f.s7_type, False))
            else:
                row.append(f)
        return row

    def changed(self, image: bytes, base: int | None = None) -> bool:
        """Decodes ``image`` if its bytes are others than before; whether they were.

        Raises nothing: what is no value is in ``bad``.
        """
        start = self.base if base is None else base
        part = image[start : start + self.size_bytes]
        if part == self._last:
            return False
        self._decode(part)
        self._last = part
        return True

    def forget(self) -> None:
        """Decodes the next image whatever its bytes."""
        self._last = None

    def drop(self, ranges: Iterable[BadRange]) -> dict[str, str]:
        """The fields that lie in ranges which could not be read, with the range's reason."""
        dropped = {}
        for first, end, reason in ranges:
            for f in self.fields:
                at = self.base + f.byte
                if at < end and first < at + f.size_bytes:
                    dropped[f.name] = reason
        return dropped

    def _decode(self, part: bytes) -> None:
        bad: dict[str, str] = {}
        values: dict[Any, Any] = dict(
            zip(self._number_names, self._numbers.unpack_from(part), strict=True)
        )
        if self._real_names:
            raws = self._reals.unpack_from(part)
            reals = self._shorten(raws)
            values.update(zip(self._real_names, reals, strict=True))
            if None in reals:
                for name, value, raw in zip(self._real_names, reals, raws, strict=True):
                    if value is None:
                        bad[name] = "nan" if raw & 0x7FFFFF else "infinity"
                        del values[name]
        if self._bit_names:
            rows = map(_BITS.__getitem__, self._bit_bytes.unpack_from(part))
            values.update(zip(self._bit_names, chain.from_iterable(rows), strict=True))
            values.pop(None, None)
        for f in self._same_bits:
            values[f.name] = bool(part[f.byte] >> f.bit & 1)
        for f, t, wide in self._others:
            try:
                value = decode_value(
                    t, part[f.byte : f.byte + t.size_bytes], f.bit, f.encoding or "latin-1"
                )
            except BadValue as e:
                bad[f.name] = e.reason
                continue
            values[f.name] = _json_integers(value) if wide else value
        for name, factor, bias in self._scaled:
            if name in values:
                values[name] = _scale(values[name], factor, bias)
        self.values = values
        self.bad = bad

    def _shorten(self, raws: tuple[int, ...]) -> list[float | None]:
        """What each REAL reads as. Sensors repeat themselves, so it is kept by bit pattern: 50 ns
        a value instead of 0.6 µs.
        """
        known = self._shortened
        if missing := [raw for raw in raws if raw not in known]:
            if len(known) > 8 * len(raws) + 1_024:
                known.clear()
                missing = list(raws)
            known.update(zip(missing, shorten(missing), strict=True))
        return [known[raw] for raw in raws]


def shorten(raws: Sequence[int]) -> list[float | None]:
    """``types.shortest`` for many REALs given as their bits; None for NaN and infinities.

    Formatting all at once costs 0.3 µs a value and round, one by one 1.2 µs. Half of all
    values end with 7 digits, all with 9; the few that may do with 6 where 7 fit too go one by one.
    """
    out: list[float | None] = [None] * len(raws)
    todo = [i for i, raw in enumerate(raws) if raw & 0x7FFFFF and raw >> 23 & 255 not in _ALONE]
    if len(todo) < len(raws):
        for i in set(range(len(raws))).difference(todo):
            if raws[i] >> 23 & 255 != 255:
                out[i] = shortest(struct.unpack(">f", raws[i].to_bytes(4))[0])
    for digits in (7, 8, 9):
        if not todo:
            break
        bits = struct.pack(f">{len(todo)}I", *(raws[i] for i in todo))
        texts = f"%.{digits}g " * len(todo) % struct.unpack(f">{len(todo)}f", bits)
        shorts = list(map(float, texts.split()))
        if (packed := struct.pack(f">{len(todo)}f", *shorts)) == bits:
            same: Sequence[int] = [raws[i] for i in todo]
        else:
            same = struct.unpack(f">{len(todo)}I", packed)
        left = []
        for i, short, raw in zip(todo, shorts, same, strict=True):
            if raw == raws[i]:
                out[i] = short
            else:
                left.append(i)
        todo = left
    return out


def _alone() -> Iterator[int]:
    """Biased exponents whose REALs ``shorten`` must not take in bulk: denormals, the largest (which
    may round up to infinity), NaN and infinities; and those that lie so close together in decimal
    that 7 digits fit a number which 6 already name (e.g. 0.000977 to 0.001).
    """
    yield from (0, 254, 255)
    for exponent in range(1, 254):
        low = 2.0 ** (exponent - 127)
        decade = int(f"{low:e}".partition("e")[2])
        if low * 2.0**-23 > 10.0 ** (decade - 6):
            yield exponent


_ALONE = frozenset(_alone())


def _compile(fields: Sequence[Field]) -> struct.Struct:
    """One struct for fields of plain types, sorted by place; pads what lies between, goes back for
    nothing: overlapping fields are not for it.
    """
    code = ">"
    at = 0
    for f in fields:
        code += f"{f.byte - at}x{ELEMENTARY[f.s7_type.base].code}"
        at = f.byte + f.size_bytes
    return struct.Struct(code)


def _is_wide(t: S7Type) -> bool:
    return t.base in _WIDE


def _json_integers(value: Any) -> Any:
    """Integers that a double cannot hold, as text."""
    if isinstance(value, list):
        return [_json_integers(v) for v in value]
    return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)


def _scale(value: Any, factor: float, bias: float) -> Any:
    """factor × raw + bias, with the digits that a double's rounding left rubbed out."""
    if isinstance(value, list):
        return [_scale(v, factor, bias) for v in value]
    if isinstance(value, str):  # a 64-bit integer
        value = int(value)
    return float(f"{value * factor + bias:.15g}")
