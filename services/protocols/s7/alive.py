"""A field that the PLC's program changes, for CPUs that do not tell their state."""

from __future__ import annotations

import time
from typing import Any

from services.protocols.s7.group import S7Group, extent
from services.s7.field import Field
from services.s7.plan import Extent


class Alive:
    """The `alive` field of a PLC, read with one of its groups."""

    def __init__(self, config: dict[str, Any], groups: list[S7Group]) -> None:
        self._field = Field.from_dict(config["address"])
        self._timeout_s: float = config["timeout_s"]
        self._value = b""
        self._changed_s = time.monotonic()
        self._extent = extent(self._field)
        # A consistent group must fit one telegram: it had better be another.
        host = next((g for g in groups if not g.consistent), groups[0])
        host.also_read(self._extent)

    def look(self, group: S7Group, image: bytes, missing: dict[Extent, str], now_s: float) -> None:
        """Takes the field's value where this group reads it."""
        f = self._field
        try:
            place = group.plan.place(self._extent)
        except KeyError:
            return
        if self._extent in missing:
            return
        # Bytes, not values: a NaN never equals itself.
        part = image[place : place + f.size_bytes]
        value = bytes((part[0] >> f.bit & 1,)) if f.s7_type.base == "BOOL" else part
        if value != self._value:
            self._value = value
            self._changed_s = now_s

    @property
    def is_stale(self) -> bool:
        """It has not changed for its timeout."""
        return time.monotonic() - self._changed_s > self._timeout_s
