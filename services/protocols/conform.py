"""A value that a library has decoded -> as JSON takes it, if it is one of the field's type.

Both sides may be wrong: a layout that was written before the program changed must not turn one
quantity into another, so what is no value of the declared type is bad (``type_differs``), however
well it could be converted.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
from collections.abc import Callable
from typing import Any

from services.s7.decode import SAFE_INTEGER, json_integers, scale
from services.s7.field import Field
from services.s7.real import Reals
from services.s7.types import BadValue, S7Type

_F32 = struct.Struct(">f")
_ONE_REAL = Reals([0])
_SIGNED = {"SINT": 8, "INT": 16, "DINT": 32, "LINT": 64, "TIME": 32, "LTIME": 64}
_UNSIGNED = {
    "BYTE": 8, "USINT": 8, "UINT": 16, "WORD": 16, "UDINT": 32, "DWORD": 32, "ULINT": 64,
    "LWORD": 64,
}  # fmt: skip
_RANGES = {
    **{name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in _SIGNED.items()},
    **{name: (0, 2**bits - 1) for name, bits in _UNSIGNED.items()},
    **dict.fromkeys(("S5TIME", "TIMER"), (0, 9_990_000)),
    "COUNTER": (0, 999),
}
# As JSON has those that a double cannot hold.
_WIDE_TEXT = re.compile(r"-?\d{16,20}")
_TEXTS = frozenset(("STRING", "WSTRING", "CHAR", "WCHAR"))
# What timedelta's µs are in a TIME (ms) and an LTIME (ns).
_PER_US = {**dict.fromkeys(("TIME", "S5TIME", "TIMER"), (1, 1_000)), "LTIME": (1_000, 1)}

TYPE_DIFFERS = "type_differs"


def conform(field: Field) -> Callable[[Any], Any]:
    """A function that makes of a decoded value what a record's ``values`` hold, scaled. It raises
    BadValue with the reason for ``bad``.

    Takes: bool; int, beyond 2^53 as text too; float, a REAL exact or in its shortest form; str;
    ``bytes`` for arrays of BYTE and USINT; ``date``, ``time`` and ``datetime`` (an aware one is
    given in UTC, its zone left out) or their ISO 8601; ``timedelta`` for TIME and LTIME; for arrays
    (nested) lists of the declared counts.
    """
    t = field.s7_type
    one = _scalar(t)
    if field.scale is None:
        return (lambda value: _array(value, t.counts, one)) if t.dims else one
    factor, bias = field.scale
    long = t.base in ("LREAL", "LINT", "ULINT", "LWORD", "LTIME")

    def scaled(value: Any) -> Any:
        value = _array(value, t.counts, one) if t.dims else one(value)
        return scale(value, factor, bias, long)

    return scaled


def _array(value: Any, counts: tuple[int, ...], one: Callable[[Any], Any]) -> list[Any]:
    if isinstance(value, bytes | bytearray | tuple):
        value = list(value)
    if not isinstance(value, list):
        raise BadValue(TYPE_DIFFERS)
    if len(value) != counts[0]:
        raise BadValue("array_length")
    if len(counts) > 1:
        return [_array(v, counts[1:], one) for v in value]
    return [one(v) for v in value]


def _scalar(t: S7Type) -> Callable[[Any], Any]:
    base = t.base
    if base == "BOOL":
        return _bool
    if base == "REAL":
        return _real
    if base == "LREAL":
        return _lreal
    if base in _RANGES:
        return _integer(*_RANGES[base], _PER_US.get(base))
    if base in _TEXTS:
        return _text
    return _moment(base)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValue(TYPE_DIFFERS)
    return value


def _real(value: Any) -> float:
    if not isinstance(value, float):
        raise BadValue(TYPE_DIFFERS)
    if value - value != 0:
        raise BadValue("nan" if math.isnan(value) else "infinity")
    try:
        part = _F32.pack(value)
    except OverflowError:
        raise BadValue(TYPE_DIFFERS) from None
    (short,) = _ONE_REAL.unpack(part)  # a tenth of what types.shortest takes
    if short is None or (value != short and value != _F32.unpack(part)[0]):
        raise BadValue(TYPE_DIFFERS)  # a double with more digits than a REAL has
    return short


def _lreal(value: Any) -> float:
    if not isinstance(value, float):
        raise BadValue(TYPE_DIFFERS)
    if value - value != 0:
        raise BadValue("nan" if math.isnan(value) else "infinity")
    return value


def _integer(low: int, high: int, per_us: tuple[int, int] | None) -> Callable[[Any], Any]:
    is_wide = high > SAFE_INTEGER

    def integer(value: Any) -> Any:
        if per_us is not None and isinstance(value, datetime.timedelta):
            value = value // datetime.timedelta(microseconds=1) * per_us[0] // per_us[1]
        if isinstance(value, str) and is_wide and _WIDE_TEXT.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BadValue(TYPE_DIFFERS)
        return json_integers(value)

    return integer


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValue(TYPE_DIFFERS)
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a UTF-16 pair
        raise BadValue("bad_utf16") from None
    return value


_DATE, _CLOCK = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d(\.\d{1,9})?"
# How much of a text the standard library reads: µs.
_TO_US = {"DATE": 10, "TOD": 15, "LTOD": 15, "DT": 26, "DTL": 26, "LDT": 26}
_MOMENTS: dict[str, tuple[type, re.Pattern[str]]] = {
    "DATE": (datetime.date, re.compile(_DATE)),
    **dict.fromkeys(("TOD", "LTOD"), (datetime.time, re.compile(_CLOCK))),
    **dict.fromkeys(("DT", "DTL", "LDT"), (datetime.datetime, re.compile(f"{_DATE}T{_CLOCK}"))),
}


def _moment(base: str) -> Callable[[Any], Any]:
    kind, shape = _MOMENTS[base]

    def moment(value: Any) -> str:
        if isinstance(value, str) and shape.fullmatch(value):
            try:
                kind.fromisoformat(value[: _TO_US[base]])  # type: ignore[attr-defined]
            except ValueError:  # the 31st of February
                raise BadValue(TYPE_DIFFERS) from None
            return value
        if type(value) is not kind:
            raise BadValue(TYPE_DIFFERS)
        if isinstance(value, datetime.datetime) and value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        text: str = value.isoformat()
        # As a PLC's own: 0, 3, 6 or 9 digits.
        return text.removesuffix("000") if text[-7:-6] == "." else text

    return moment
