"""One value to read: its name, type, place and options."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from services.s7.types import S7Type, parse_type

_INTEGERS = {
    *("BYTE", "SINT", "USINT", "INT", "UINT", "DINT", "UDINT", "LINT", "ULINT"),
    *("WORD", "DWORD", "LWORD", "COUNTER"),
}
_COUNTER = re.compile(r"(?i)contador|contagem|ciclos|pecas|peças|total|count")

Area = Literal["DB", "M", "I", "Q", "T", "C", "TAG"]


@dataclass(slots=True)
class Field:
    """What is read and how its value is treated. With machines, ``byte`` counts from the record."""

    name: str
    type: str
    """As ``str(S7Type)`` writes it: ``REAL``, ``STRING[20]``, ``INT[1..4]``."""
    area: Area = "DB"
    db: int = 0
    """DB number; 0 outside DBs."""
    byte: int = 0
    """First byte; for timers and counters 2 × their number."""
    bit: int = 0
    """0 to 7, of a scalar BOOL."""
    unit: str = ""
    scale: tuple[float, float] | None = None
    """(factor, bias): published = factor × raw + bias."""
    deadband: dict[str, float] | None = None
    """{"abs": x} or {"percent": x}; None: any change."""
    encoding: str | None = None
    """Of STRING and CHAR; None is latin-1."""
    description: str = ""
    tag: dict[str, str] | None = None
    """In area TAG, which has no bytes: what its source calls it (``{"node": …}``)."""

    @property
    def s7_type(self) -> S7Type:
        """The parsed type."""
        return parse_type(self.type)

    @property
    def counts(self) -> bool:
        """Whether it is a counter: an integer with such a name. Its increase is what people want,
        not its mean alone.
        """
        return self.type in _INTEGERS and _COUNTER.search(self.name) is not None

    @property
    def size_bytes(self) -> int:
        """Bytes from ``byte`` on that hold it."""
        return self.s7_type.size_bytes

    def at(self, byte: int) -> Field:
        """The same at another place. ``dataclasses.replace`` takes five times as long, and ten
        thousand fields are placed between two scans.
        """
        return Field(
            self.name, self.type, self.area, self.db, byte, self.bit, self.unit, self.scale,
            self.deadband, self.encoding, self.description, self.tag,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For the rendered JSON; defaults are left out."""
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        return {name: value for name, value, default in values if value != default}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Field:
        """The inverse of ``to_dict``."""
        field = cls(**given)
        if field.scale is not None:
            field.scale = cast(tuple[float, float], tuple(field.scale))
        return field
