"""The metrics of a device: names, datatypes, aliases; JSON values put into the payload's fields.

Names in brackets are assertions of the Sparkplug specification 3.0.0, without ``tck-id-``. Pure.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from tahutils.tahu.sparkplug_b_pb2 import DataType, Payload

from services.s7.types import parse_type

# The codes that a quality may have (payloads-propertyset-quality-value-value).
BAD, GOOD, STALE = 0, 192, 500
QUALITY, UNIT, REASON = "Quality", "engUnit", "reason"
# What is less is rounded to a Float: the largest one, in its shortest form, is 3.4028235e38.
_FLOAT_END = float(2**128 - 2**103)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

# What a field's JSON value becomes; a scaled one is a Double. UDINT and DWORD are UInt64, although
# UInt32 exists: the specification carries that in `int_value`, Tahu's own JavaScript library looks
# for it in `long_value` alone and reads 0. UInt64 all read alike. DATE and the times of day are
# text: DateTime is a moment.
_DATATYPES = {
    "BOOL": "Boolean",
    "SINT": "Int8", "INT": "Int16", "DINT": "Int32", "LINT": "Int64",
    "USINT": "UInt8", "UINT": "UInt16", "UDINT": "UInt64", "ULINT": "UInt64",
    "BYTE": "UInt8", "WORD": "UInt16", "DWORD": "UInt64", "LWORD": "UInt64",
    "REAL": "Float", "LREAL": "Double",
    "TIME": "Int32", "LTIME": "Int64", "S5TIME": "Int32", "TIMER": "Int32", "COUNTER": "UInt16",
    "DT": "DateTime", "LDT": "DateTime", "DTL": "DateTime",
}  # fmt: skip


class Misfit(ValueError):
    """A value that its metric's datatype does not hold."""


@dataclass(slots=True, eq=False)
class Metric:
    """One metric of a device, and the last that is known of it."""

    name: str
    alias: int
    datatype: str
    """By the specification's name."""
    unit: str = ""
    zone: str = "UTC"
    """Of a DateTime that has none: the PLC's."""
    ts_ms: int = 0
    """Of what follows; 0: nothing is known yet."""
    value: Any = None
    """As in the message's JSON; None: null."""
    quality: int = STALE
    reason: str = ""

    @property
    def shape(self) -> tuple[str, str, str]:
        """What makes a birth necessary when it changes."""
        return self.datatype, self.unit, self.zone

    def learn(self, ts_ms: int, value: Any, quality: int, reason: str) -> None:
        """Takes a reading."""
        self.ts_ms, self.value, self.quality, self.reason = ts_ms, value, quality, reason

    def birth(self, payload: Any, now_ms: int) -> None:
        """Adds its definition with the last known value to a birth certificate."""
        m = payload.metrics.add()
        m.name, m.alias, m.timestamp = self.name, self.alias, self.ts_ms or now_ms
        m.datatype = DataType.Value(self.datatype)
        put(m, self.datatype, self.value, self.zone)
        if self.unit:
            add_property(m, UNIT, self.unit)
        add_property(m, QUALITY, self.quality)
        if self.reason:
            add_property(m, REASON, self.reason)


def add_property(metric: Any, key: str, value: int | str) -> None:
    """Appends a property: an Int32 or a String."""
    metric.properties.keys.append(key)
    v = metric.properties.values.add()
    if isinstance(value, str):
        v.type, v.string_value = DataType.Value("String"), value
    else:
        v.type, v.int_value = DataType.Value("Int32"), value


def put(metric: Any, datatype: str, value: Any, zone: str) -> None:
    """Puts a value of a message's JSON, or null, into ``metric``; raises Misfit."""
    if value is None:
        metric.is_null = True
        return
    try:
        _PUT[datatype](metric, value, zone)
    except (TypeError, ValueError, OverflowError) as e:
        raise Misfit(f"{value!r:.60} is no {datatype}: {e}") from None


def guess(value: Any) -> str:
    """The datatype of a value that the configuration says nothing of."""
    if isinstance(value, bool):
        return "Boolean"
    return "Double" if isinstance(value, int | float) else "String"


def spread(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """An array's elements are metrics of their own, ``name.0`` …, as in line protocol."""
    if isinstance(value, list):
        for i, element in enumerate(value):
            yield from spread(f"{name}.{i}", element)
    else:
        yield name, value


def prefix(group: str, machine: str | None) -> str:
    """What the names of one record's metrics begin with."""
    return f"{group}/{machine}/" if machine else f"{group}/"


def of_plc(plc: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(name, datatype, unit, zone) of all metrics of a PLC as rendered for this output."""
    for group in plc["groups"]:
        for machine in group["machines"]:
            for field in group["fields"]:
                kind = parse_type(field["type"])
                datatype = "Double" if field.get("scaled") else _DATATYPES.get(kind.base, "String")
                name = prefix(group["name"], machine) + field["name"]
                for element in _elements(name, kind.counts):
                    yield element, datatype, field.get("unit", ""), group["timezone"]


def _elements(name: str, counts: tuple[int, ...]) -> Iterator[str]:
    if not counts:
        yield name
        return
    for i in range(counts[0]):
        yield from _elements(f"{name}.{i}", counts[1:])


# -- values -------------------------------------------------------------------------------


def _integer(bits: int, signed: bool) -> Callable[[Any, Any, str], None]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    # Signed ones travel as two's complement of the field's width.
    name, mask = ("long_value", 2**64 - 1) if bits == 64 else ("int_value", 2**32 - 1)

    def put(metric: Any, value: Any, _zone: str) -> None:
        if isinstance(value, str) and bits == 64:
            value = int(value)  # beyond 2^53 (services/s7/decode.py)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"not a whole number from {low} to {high}")
        setattr(metric, name, value & mask)

    return put


def _real(name: str, end: float) -> Callable[[Any, Any, str], None]:
    def put(metric: Any, value: Any, _zone: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("not a number")
        if not abs(value) < end:
            raise ValueError("too large")
        setattr(metric, name, float(value))

    return put


def _boolean(metric: Any, value: Any, _zone: str) -> None:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    metric.boolean_value = value


def _string(metric: Any, value: Any, _zone: str) -> None:
    if not isinstance(value, str):
        raise TypeError("not text")
    metric.string_value = value


def _moment(metric: Any, value: Any, zone: str) -> None:
    """Milliseconds since 1970, UTC; what is finer is cut off."""
    if isinstance(value, int) and not isinstance(value, bool):
        ms = value
    elif not isinstance(value, str):
        raise TypeError("not a date and time")
    else:
        # Up to 9 digits of a second; Python's own reader knows 6.
        whole, _, fraction = value.partition(".")
        moment = datetime.datetime.fromisoformat(whole)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(zone))
        seconds = (moment - _EPOCH) // datetime.timedelta(seconds=1)
        ms = seconds * 1_000 + int(fraction[:3].ljust(3, "0"))
    if ms < 0:
        raise ValueError("before 1970")
    metric.long_value = ms


_PUT: dict[str, Callable[[Any, Any, str], None]] = {
    **{f"Int{bits}": _integer(bits, True) for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": _integer(bits, False) for bits in (8, 16, 64)},
    "Float": _real("float_value", _FLOAT_END),
    "Double": _real("double_value", math.inf),
    "Boolean": _boolean,
    "String": _string,
    "DateTime": _moment,
}


def new_payload(now_ms: int) -> Any:
    """An empty payload, sent at ``now_ms``."""
    payload = Payload()
    payload.timestamp = now_ms
    return payload
