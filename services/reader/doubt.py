"""Why what a PLC answers may be wrong all the same: its CPU in STOP, its program hanging, this
PC's clock.
"""

from __future__ import annotations

import time
from typing import Any

from services.reader.group import Group, extent
from services.reader.link import Link
from services.runtime.clock import is_trusted
from services.s7.field import Field
from services.s7.plan import Extent, Plan


class Doubt:
    """One word for why values are `uncertain`, or none."""

    def __init__(self, config: dict[str, Any], link: Link, groups: list[Group]) -> None:
        self._link = link
        self._clock_sync: str = config["clock_sync"]
        self._clock_is_right = True
        self._alive = _Alive(config["plc"]["alive"]) if config["plc"]["alive"] else None
        if self._alive is not None:
            # A consistent group must fit one telegram: it had better be another.
            host = next((g for g in groups if not g.consistent), groups[0])
            host.also_read(self._alive.extent)

    @property
    def of_values(self) -> str:
        """Why the data may be frozen; empty when it is not."""
        if self._link.is_stopped:
            return "cpu_stop"
        if self._link.cpu_state == -1 and self._alive is not None and self._alive.is_stale:
            return "alive_stale"
        return ""

    def of_time(self, group: Group) -> str:
        """Why the time of a group's values may be wrong; empty when it is the PLC's time, or
        nobody minds.
        """
        is_ours = not group.has_plc_time
        return "clock_unsynchronised" if is_ours and not self._clock_is_right else ""

    def look_at_clock(self) -> bool | None:
        """Whether this PC's clock is right; None where that is no news."""
        is_right = is_trusted(self._clock_sync)
        if is_right == self._clock_is_right:
            return None
        self._clock_is_right = is_right
        return is_right

    def look_at(self, plan: Plan, image: bytes, missing: dict[Extent, str], now_s: float) -> None:
        """Takes a scan's bytes: is the `alive` field among them, and has it changed?"""
        if self._alive is not None:
            self._alive.look(plan, image, missing, now_s)


class _Alive:
    """A field that the PLC's program changes, for CPUs that do not tell their state."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._field = Field.from_dict(config["address"])
        self._timeout_s: float = config["timeout_s"]
        self._value = b""
        self._changed_s = time.monotonic()

    @property
    def extent(self) -> Extent:
        """Its bytes."""
        return extent(self._field)

    def look(self, plan: Plan, image: bytes, missing: dict[Extent, str], now_s: float) -> None:
        """Takes the field's value where this group reads it."""
        f = self._field
        try:
            place = plan.place(self.extent)
        except KeyError:
            return
        if self.extent in missing:
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
