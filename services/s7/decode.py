"""Bytes of one group -> values, as fast as plain Python goes.

One precompiled ``struct`` takes all numbers of a record in one call, one table lookup a byte makes
8 BOOLs, and REALs are shortened in bulk (services/s7/real.py); only what has a shape of its own
(strings, dates) is decoded one by one. A record whose bytes did not change is not decoded again.

Values come in the order of the fields. A field that could not be read or holds no value of its
type is absent from the values and named with its reason.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from itertools import chain, compress
from typing import Any

from services.s7.field import Field
from services.s7.real import Reals, not_finite
from services.s7.types import ELEMENTARY, BadValue, S7Type, decode_value, nest

# JSON numbers are doubles to most readers: 64-bit integers beyond 2^53 travel as text.
SAFE_INTEGER = 2**53
_BITS = [tuple(bool(byte >> i & 1) for i in range(8)) for byte in range(256)]
_WIDE = frozenset(("LINT", "ULINT", "LWORD", "LTIME"))
# Types that use all digits of a double; the others leave some for a scaled value to be rounded to.
_LONG = _WIDE | {"LREAL"}


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
        lreals: list[Field] = []
        bits: list[Field] = []
        self._others: list[tuple[Field, Callable[[bytes], Any]]] = []
        for f in sorted(fields, key=lambda f: f.byte):
            t = f.s7_type
            if not t.dims and t.base == "BOOL":
                bits.append(f)
            elif not t.dims and t.base == "REAL":
                self._row(reals, f)
            elif not t.dims and t.base == "LREAL":
                self._row(lreals, f)
            elif not t.dims and not t.is_string and ELEMENTARY[t.base].code:
                self._row(numbers, f)
            else:
                self._others.append((f, _decoder(f)))
        self._numbers = _compile(numbers)
        self._number_names = [f.name for f in numbers]
        self._wide_names = [f.name for f in numbers if f.type in _WIDE]
        self._reals = Reals([f.byte for f in reals])
        self._real_names = [f.name for f in reals]
        self._lreals = _compile(lreals, "d")
        self._lreal_names = [f.name for f in lreals]
        by_place = {(f.byte, f.bit): f.name for f in bits}
        bytes_of_bits = sorted({f.byte for f in bits})
        places = [(byte, bit) for byte in bytes_of_bits for bit in range(8)]
        self._bit_used = [place in by_place for place in places]
        self._bit_names = [by_place[place] for place in places if place in by_place]
        self._bit_bytes = _compile([Field("", "BYTE", byte=b) for b in bytes_of_bits])
        # Two BOOLs at one place (a copy under another name): the table above knows one of them.
        self._same_bits = [f for f in bits if by_place[f.byte, f.bit] != f.name]
        self._scaled = [
            (f.name, *f.scale, f.s7_type.base in _LONG) for f in fields if f.scale is not None
        ]
        # Filling a copy keeps the order and is quicker than growing a dict.
        self._blank = dict.fromkeys(f.name for f in fields)

    def _row(self, row: list[Field], f: Field) -> None:
        """Adds to those that one struct takes in a row; who overlaps another is decoded alone."""
        if row and f.byte < row[-1].byte + row[-1].size_bytes:
            self._others.append((f, _decoder(f)))
        else:
            row.append(f)

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

    def _decode(self, part: bytes) -> None:
        bad: dict[str, str] = {}
        values: dict[str, Any] = self._blank.copy()
        values.update(zip(self._number_names, self._numbers.unpack_from(part), strict=True))
        for name in self._wide_names:
            values[name] = json_integers(values[name])
        if self._real_names:
            reals = self._reals.unpack(part)
            values.update(zip(self._real_names, reals, strict=True))
            if None in reals:
                for name, value, at in zip(
                    self._real_names, reals, self._reals.places, strict=True
                ):
                    if value is None:
                        bad[name] = not_finite(part, at)
        if self._lreal_names:
            lreals = self._lreals.unpack_from(part)
            values.update(zip(self._lreal_names, lreals, strict=True))
            bad |= {
                name: "nan" if math.isnan(value) else "infinity"
                for name, value in zip(self._lreal_names, lreals, strict=True)
                if value - value != 0
            }
        if self._bit_names:
            rows = map(_BITS.__getitem__, self._bit_bytes.unpack_from(part))
            used = compress(chain.from_iterable(rows), self._bit_used)
            values.update(zip(self._bit_names, used, strict=True))
        for f in self._same_bits:
            values[f.name] = bool(part[f.byte] >> f.bit & 1)
        for f, decode in self._others:
            try:
                values[f.name] = decode(part)
            except BadValue as e:
                bad[f.name] = e.reason
        for name, factor, bias, long in self._scaled:
            if name not in bad:
                try:
                    values[name] = scale(values[name], factor, bias, long)
                except BadValue as e:
                    bad[name] = e.reason
        for name in bad:
            del values[name]
        self.values = values
        self.bad = bad


def _compile(fields: Sequence[Field], code: str = "") -> struct.Struct:
    """One struct for fields of plain types (or all of one ``code``), sorted by place and apart;
    what lies between is skipped.
    """
    text = ">"
    at = 0
    for f in fields:
        text += f"{f.byte - at}x{code or ELEMENTARY[f.s7_type.base].code}"
        at = f.byte + f.size_bytes
    return struct.Struct(text)


def _decoder(f: Field) -> Callable[[bytes], Any]:
    """Decodes one field of a record's bytes, where no struct of the record does. May raise
    BadValue.
    """
    t, first, bit = f.s7_type, f.byte, f.bit
    end = first + t.size_bytes
    encoding = f.encoding or "latin-1"
    if t.dims and t.base == "REAL":
        return _real_array(t, first)
    if t.dims and ELEMENTARY.get(t.base, ELEMENTARY["BOOL"]).code:
        return _number_array(t, first)
    if t.base in _WIDE:
        return lambda part: json_integers(decode_value(t, part[first:end]))
    return lambda part: decode_value(t, part[first:end], bit, encoding)


def _real_array(t: S7Type, first: int) -> Callable[[bytes], Any]:
    reals = Reals([first + 4 * i for i in range(math.prod(t.counts))])

    def decode(part: bytes) -> list[Any]:
        values = reals.unpack(part)
        if None in values:
            raise BadValue(not_finite(part, reals.places[values.index(None)]))
        return nest(values, t.counts)

    return decode


def _number_array(t: S7Type, first: int) -> Callable[[bytes], Any]:
    numbers = struct.Struct(f">{math.prod(t.counts)}{ELEMENTARY[t.base].code}")
    if t.base in _WIDE:
        return lambda part: json_integers(nest([*numbers.unpack_from(part, first)], t.counts))
    return lambda part: nest([*numbers.unpack_from(part, first)], t.counts)


def json_integers(value: Any) -> Any:
    """Integers that a double cannot hold, as text."""
    if isinstance(value, list):
        return [json_integers(v) for v in value]
    return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)


def scale(value: Any, factor: float, bias: float, long: bool) -> Any:
    """factor × raw + bias; unless ``long``, with the digits that a double's rounding left rubbed
    out (0.3, not 0.30000000000000004). Raises BadValue where a double cannot hold it.
    """
    if isinstance(value, list):
        return [scale(v, factor, bias, long) for v in value]
    scaled = float(value) * factor + bias
    if scaled - scaled != 0:
        raise BadValue("infinity")
    return scaled if long else float(f"{scaled:.15g}")
