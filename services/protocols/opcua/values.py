"""What a server sends -> plain Python values, as services/protocols/conform.py takes them."""

from __future__ import annotations

import datetime
import enum
import struct
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from asyncua import ua

from services.protocols.opcua.structures import Structures
from services.s7.types import BadValue, decode_value, parse_type

_DTL = parse_type("DTL")
_DTL_BYTES = struct.Struct(">HBBBBBBI")
# How Siemens names the members of its DTL, in their order.
_DTL_MEMBERS = ("YEAR", "MONTH", "DAY", "WEEKDAY", "HOUR", "MINUTE", "SECOND", "NANOSECOND")
# DateTime 0: no time at all (OPC 10000-6, 5.2.2.5).
_NO_TIME = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
# What a value may be as it is.
_PLAIN = (bool, int, float, str, datetime.datetime, BadValue)


def plain(value: Any, structures: Structures) -> Any:
    """A value; a structure as a dict of its members, a Siemens DTL as the text of its time.

    Raises BadValue with a word where it is none: ``null``, ``unknown_structure``,
    ``bad_structure``, ``unknown_type``. A bad member of a structure is in its place.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if value == _NO_TIME or value is None:
        raise BadValue("null")
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [plain(v, structures) for v in value]
    if isinstance(value, ua.Variant | ua.DataValue):
        return plain(value.Value, structures)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, ua.LocalizedText):
        return value.Text or ""
    if isinstance(value, ua.QualifiedName):
        return value.Name or ""
    if isinstance(value, ua.StatusCode):
        return value.name
    if isinstance(value, ua.NodeId):
        return value.to_string()
    if isinstance(value, ua.ExtensionObject):
        return _members(structures.decode(value), structures)
    if isinstance(value, Mapping):
        return _members(value, structures)
    if hasattr(value, "__dataclass_fields__"):  # a structure of the standard: asyncua knows it
        return _members({n: getattr(value, n) for n in value.__dataclass_fields__}, structures)
    raise BadValue("unknown_type")


def _members(found: Mapping[str, Any], structures: Structures) -> Any:
    if tuple(found) == _DTL_MEMBERS:
        try:
            return decode_value(_DTL, _DTL_BYTES.pack(*found.values()))
        except struct.error:
            raise BadValue("bad_structure") from None
    out: dict[str, Any] = {}
    for name, value in found.items():
        try:
            out[name] = plain(value, structures)
        except BadValue as e:
            out[name] = e
    return out


def pick(value: Any, steps: tuple[str | int, ...]) -> Any:
    """The part of a value that a layout's ``member`` names. Raises BadValue."""
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            raise BadValue("no_such_member") from None
    if isinstance(value, BadValue):
        raise value
    if isinstance(value, dict):
        raise BadValue("is_structure")
    return value
