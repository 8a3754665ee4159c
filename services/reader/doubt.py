"""Why what a PLC answers may be wrong all the same: its data frozen, this PC's clock."""

from __future__ import annotations

from services.protocols.source import Source
from services.reader.group import Group
from services.runtime.clock import is_trusted


class Doubt:
    """One word for why values are `uncertain`, or none."""

    def __init__(self, clock_sync: str, source: Source) -> None:
        self._source = source
        self._clock_sync = clock_sync
        self._clock_is_right = True

    @property
    def of_values(self) -> str:
        """Why the data may be frozen; empty when it is not."""
        return self._source.frozen

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
