"""REALs as JSON numbers: the shortest decimal that reads back as the same 32 bits, in bulk.

Where the compiled ``_native.c`` is at hand it does the work: 20 ns a value, whether it was seen
before or not. Without it (no C compiler where plc-edge was installed) plain Python gives the same
values, and remembers them: 30 ns for one that repeats, 300 for a new one.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from typing import Any

from services.s7.types import BadValue, shortest

try:
    from services.s7 import _native
except ImportError:
    _native = None  # type: ignore[assignment]


REAL_BYTES = 4

IS_COMPILED = _native is not None
"""Whether ``_native.c`` does the work here."""


class Reals:
    """The decoder of some REALs. ``places``: where each begins, in bytes; ascending, apart."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = array("I", places)
        ends = (0, *(at + REAL_BYTES for at in places))
        gaps = (at - end for at, end in zip(places, ends, strict=False))
        self._row = struct.Struct(">" + "".join(f"{gap}xI" for gap in gaps))

    def unpack(self, part: bytes) -> list[float | None]:
        """Each value; None for NaN and infinities. Raises ValueError or struct.error where ``part``
        is too short.
        """
        if _native is not None:
            return _native.shorten(part, self.places, shorten_one)
        return shorten(self._row.unpack_from(part))


def not_finite(part: bytes, at: int) -> str:
    """Why the REAL at that byte is no number."""
    (raw,) = _RAW.unpack_from(part, at)
    return "nan" if raw & 0x7FFFFF else "infinity"


_RAW = struct.Struct(">I")


def shorten_one(raw: int) -> float | None:
    """One value, the slow and obvious way."""
    try:
        return shortest(struct.unpack(">f", _RAW.pack(raw))[0])
    except BadValue:
        return None


# What each REAL (as its bits) reads as, for the whole process. Sensors repeat themselves: 30 ns a
# value instead of 250. 16,384 entries are some 2 MB.
_SHORTENED: dict[int, float | None] = {}
_SHORTENED_MAX = 16_384


def shorten(raws: Sequence[int]) -> list[float | None]:
    """``types.shortest`` for many REALs given as their bits; None for NaN and infinities."""
    known = _SHORTENED
    try:
        return list(map(known.__getitem__, raws))
    except KeyError:
        missing: Sequence[int] = [raw for raw in raws if raw not in known]
    if len(known) + len(missing) > _SHORTENED_MAX:
        known.clear()
        missing = raws
    fresh = 2 * len(missing) > len(raws)
    if fresh:  # looking up the others would cost more than computing them
        missing = raws
    shorts = shorten_fresh(missing)
    if len(missing) <= _SHORTENED_MAX:
        known.update(zip(missing, shorts, strict=True))
    return shorts if fresh else list(map(known.__getitem__, raws))


# Adding and subtracting this rounds a double below 2^51 to a whole number.
_ROUNDER = 1.5 * 2**52


def shorten_fresh(raws: Sequence[int]) -> list[float | None]:
    """As ``shorten``, computed: 0.25 µs a value (formatting and parsing text: 1.2 µs).

    Two neighbouring REALs lie ``ulp`` apart. Take the most decimals whose step is still wider than
    that: at most one such decimal reads back as the value, and if it does none is shorter. Else one
    decimal more always has one that does. A whole number below 2^53 divided by a power of ten up
    to 10^22 is rounded once, so it is the very double that the decimal's text reads as.
    """
    floats = struct.unpack(f">{len(raws)}f", struct.pack(f">{len(raws)}I", *raws))
    powers = [_POWERS[raw >> 23 & 255] for raw in raws]
    out: list[float | None] = [
        (value * power + _ROUNDER - _ROUNDER) / power
        for value, power in zip(floats, powers, strict=True)
    ]
    left = _not_read_back(out, floats)
    again = [i for i in left if raws[i] & 0x7FFFFF and powers[i] == powers[i]]
    if again:
        more = [
            (floats[i] * (10 * powers[i]) + _ROUNDER - _ROUNDER) / (10 * powers[i]) for i in again
        ]
        for i, value in zip(again, more, strict=True):
            out[i] = value
        wrong = _not_read_back(more, [floats[i] for i in again])
        left = [*set(left).difference(again), *(again[i] for i in wrong)]
    for i in left:
        # Powers of two (their lower neighbour is nearer), zeros, the very large and small.
        out[i] = shorten_one(raws[i])
    return out


def _not_read_back(shorts: Sequence[Any], floats: Sequence[float]) -> list[int]:
    """Which decimals, stored as a REAL, are not the value they came from."""
    code = f">{len(shorts)}f"
    stored = struct.unpack(code, struct.pack(code, *shorts))
    if stored == floats:
        return []
    return [i for i, (a, b) in enumerate(zip(stored, floats, strict=True)) if a != b]


def _power(exponent: int) -> float:
    """10^k, k the most decimals with a step wider than the ulp of REALs with this biased exponent;
    NaN (equal to nothing, so never taken for a result) where doubles would round on the way.
    """
    ulp = 2.0 ** (exponent - 150)
    k = -math.ceil(math.log10(ulp))
    if 10.0**-k <= ulp:
        k -= 1
    return 10.0**k if 0 <= k <= 21 else math.nan


_POWERS = [_power(exponent) for exponent in range(256)]
