"""A message's values as OPC UA has them: types, status codes, units. Nothing here has a state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from asyncua import ua

from services.s7.field import Field
from services.s7.types import S7Type

_V = ua.VariantType
_DURATION = 290  # Duration: a Double, ms (OPC 10000-3, 8.13)
_PLAIN: dict[str, ua.VariantType] = {
    "BOOL": _V.Boolean,
    "BYTE": _V.Byte, "USINT": _V.Byte, "SINT": _V.SByte,
    "WORD": _V.UInt16, "UINT": _V.UInt16, "INT": _V.Int16, "COUNTER": _V.UInt16,
    "DWORD": _V.UInt32, "UDINT": _V.UInt32, "DINT": _V.Int32,
    "LWORD": _V.UInt64, "ULINT": _V.UInt64, "LINT": _V.Int64, "LTIME": _V.Int64,
    "REAL": _V.Float, "LREAL": _V.Double,
    "CHAR": _V.String, "WCHAR": _V.String, "STRING": _V.String, "WSTRING": _V.String,
    "TOD": _V.String, "LTOD": _V.String,  # a time of day without a date has no type there
    "DATE": _V.DateTime, "DT": _V.DateTime, "DTL": _V.DateTime, "LDT": _V.DateTime,
    "TIME": _V.Double, "S5TIME": _V.Double, "TIMER": _V.Double,
}  # fmt: skip
_DURATIONS = frozenset(("TIME", "S5TIME", "TIMER"))
_BITS = {
    _V.SByte: (8, True), _V.Byte: (8, False), _V.Int16: (16, True), _V.UInt16: (16, False),
    _V.Int32: (32, True), _V.UInt32: (32, False), _V.Int64: (64, True), _V.UInt64: (64, False),
}  # fmt: skip
# What is less is rounded to a Float: the largest one, in its shortest form, is 3.4028235e38.
_FLOAT_END = float(2**128 - 2**103)

_C = ua.StatusCodes
GOOD = ua.StatusCode(_C.Good)
WAITING = ua.StatusCode(_C.BadWaitingForInitialData)
NO_COMMUNICATION = ua.StatusCode(_C.BadNoCommunication)
GONE = ua.StatusCode(_C.BadNodeIdUnknown)
TYPE_CHANGED = ua.StatusCode(_C.BadTypeMismatch)
_NO_DATA = ua.StatusCode(_C.BadNoData)
_UNCERTAIN = ua.StatusCode(_C.Uncertain)
_NO_VALUE = ua.StatusCode(_C.BadOutOfRange)
# The CPU's words for an address that it does not give out (services/s7/telegram.py) are the
# configuration's fault or the program's; all others say that the bytes are no value of their type.
_STATUS = {
    "plc_offline": NO_COMMUNICATION,
    "cpu_stop": ua.StatusCode(_C.UncertainLastUsableValue),
    "alive_stale": ua.StatusCode(_C.UncertainLastUsableValue),
    "hardware_fault": ua.StatusCode(_C.BadDeviceFailure),
    "access_denied": ua.StatusCode(_C.BadNotReadable),
    "address_out_of_range": ua.StatusCode(_C.BadConfigurationError),
    "type_not_supported": ua.StatusCode(_C.BadConfigurationError),
    "type_inconsistent": ua.StatusCode(_C.BadConfigurationError),
    "object_does_not_exist": ua.StatusCode(_C.BadConfigurationError),
    "function_refused": ua.StatusCode(_C.BadNotReadable),
    "cpu_error": ua.StatusCode(_C.BadDeviceFailure),
}


def status(quality: str, bad: Mapping[str, str], name: str, present: bool) -> ua.StatusCode:
    """Of one field of a message. ``present``: it has a value there."""
    reason = bad.get(name) or bad.get("*", "")
    if present:
        if quality == "good":
            return GOOD
        found = _STATUS.get(reason, _UNCERTAIN)
        # A value that is there is never bad.
        return _UNCERTAIN if found.is_bad() else found
    if not reason:
        return _NO_DATA
    found = _STATUS.get(reason, _NO_VALUE)
    return NO_COMMUNICATION if found.is_uncertain() else found


@dataclass(frozen=True, slots=True)
class Kind:
    """A field's type there."""

    variant: ua.VariantType
    data_type: ua.NodeId
    dims: tuple[int, ...]
    """Elements of each dimension; empty for a scalar."""
    convert: Callable[[Any], Any]
    """From a message's value (one element of an array). Raises ValueError for what is no such
    value: asyncua would say so when it packs it, and the whole answer, or subscription, with it.
    """

    def wrap(self, value: Any) -> ua.Variant:
        """Raises ValueError, TypeError for what is no such value."""
        if self.dims:
            value = list(map(self.convert, _flat(value, len(self.dims))))
        else:
            value = self.convert(value)
        if len(self.dims) > 1:
            if len(value) != math.prod(self.dims):
                raise ValueError(f"{len(value)} elements")
            return ua.Variant(value, self.variant, list(self.dims), True)
        return ua.Variant(value, self.variant, None, bool(self.dims))


def kind(field: Field, zone: str = "UTC") -> Kind:
    """Of a field; ``zone`` is whose time the PLC shows."""
    t: S7Type = field.s7_type
    if field.scale is not None:
        return Kind(_V.Double, ua.NodeId(_V.Double.value), t.counts, _real(math.inf))
    variant = _PLAIN[t.base]
    number = _DURATION if t.base in _DURATIONS else variant.value
    convert: Callable[[Any], Any]
    if variant == _V.DateTime:
        convert = _to_utc(zone)
    elif variant in _BITS:
        convert = _whole(*_BITS[variant])
    elif variant in (_V.Float, _V.Double):
        convert = _real(_FLOAT_END if variant == _V.Float else math.inf)
    else:
        convert = _exactly(bool if variant == _V.Boolean else str)
    return Kind(variant, ua.NodeId(number), t.counts, convert)


def _to_utc(zone: str) -> Callable[[str], datetime]:
    where = ZoneInfo(zone)

    def convert(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=where).astimezone(UTC)

    return convert


def _whole(bits: int, signed: bool) -> Callable[[Any], int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    def convert(value: Any) -> int:
        if bits == 64 and isinstance(value, str):
            value = int(value)  # beyond 2^53 they are text
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"not a whole number from {low} to {high}")
        return value

    return convert


def _real(end: float) -> Callable[[Any], float]:
    def convert(value: Any) -> float:
        if type(value) not in (float, int) or not abs(value) < end:
            raise ValueError("not a number of its size")
        return float(value)

    return convert


def _exactly(wanted: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not wanted:
            raise ValueError(f"not {wanted.__name__}")
        return value

    return convert


def _flat(value: Any, depth: int) -> list[Any]:
    for _ in range(depth - 1):
        value = [leaf for row in value for leaf in row]
    return list(value)


# UNECE Recommendation 20, as OPC 10000-8, 5.6.3 writes it: the code's characters as one number.
_CODES = {
    "°C": "CEL", "°F": "FAH", "K": "KEL", "%": "P1", "bar": "BAR", "mbar": "MBR", "Pa": "PAL",
    "kPa": "KPA", "MPa": "MPA", "mm": "MMT", "cm": "CMT", "m": "MTR", "m/s": "MTS", "m/min": "2X",
    "g": "GRM", "kg": "KGM", "t": "TNE", "N": "NEW", "kN": "B47", "Nm": "NU", "V": "VLT",
    "mV": "2Z", "A": "AMP", "mA": "4K", "W": "WTT", "kW": "KWT", "kWh": "KWH", "Hz": "HTZ",
    "rpm": "RPM", "s": "SEC", "ms": "C26", "min": "MIN", "h": "HUR", "l": "LTR", "m³/h": "MQH",
    "m3/h": "MQH", "l/min": "L2", "l/h": "E32",
}  # fmt: skip
_UNECE = "http://www.opcfoundation.org/UA/units/un/cefact"


def engineering_units(unit: str) -> ua.EUInformation:
    """A layout's unit; one that is in no list has its name only (UnitId -1)."""
    information = ua.EUInformation()
    information.DisplayName = ua.LocalizedText(unit)
    information.Description = ua.LocalizedText(unit)
    code = _CODES.get(unit)
    information.UnitId = int.from_bytes(code.encode()) if code else -1
    information.NamespaceUri = _UNECE if code else None
    return information


class Reading(ua.DataValue):
    """A value that nobody changes any more: asyncua copies each for every monitored item, 30 µs."""

    __slots__ = ()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Reading:
        return self


def time_of(ts_ms: int) -> datetime:
    """A message's ``ts``."""
    return datetime.fromtimestamp(ts_ms / 1_000, UTC)
