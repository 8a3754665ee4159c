"""Why the time of a value may be wrong: this PC's clock."""

from __future__ import annotations

from services.reader.group import Group
from services.runtime.clock import is_trusted


class Doubt:
    """One word for why values are `uncertain`, or none. Why their data may be frozen, the source
    says.
    """

    def __init__(self, clock_sync: str) -> None:
        self._clock_sync = clock_sync
        self._clock_is_right = True

    def of_time(self, group: Group) -> str:
        """Why the time of a group's values may be wrong; empty when it is the PLC's time, or
        nobody minds.
        """
        if self._clock_is_right or group.has_plc_time:
            return ""
        return "clock_unsynchronised"

    def look_at_clock(self) -> bool | None:
        """Whether this PC's clock is right; None where that is no news."""
        is_right = is_trusted(self._clock_sync)
        if is_right == self._clock_is_right:
            return None
        self._clock_is_right = is_right
        return is_right
