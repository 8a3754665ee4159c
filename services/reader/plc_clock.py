"""A PLC's own time as the time of a message."""

from __future__ import annotations

import datetime
from typing import Any

# A PLC clock further off than this is no timestamp.
CLOCK_TOLERANCE_S = 300.0
_EPOCH = datetime.datetime(1970, 1, 1)
_MS = datetime.timedelta(milliseconds=1)


class PlcClock:
    """Takes DTL, DT and LDT values, which say nothing of a time zone. ``zone``: an IANA name, the
    zone whose time they show.
    """

    def __init__(self, zone: str) -> None:
        self._zone: datetime.tzinfo | None = None
        if zone != "UTC":
            # 0.4 MB and 11 ms: only for those who need it.
            from zoneinfo import ZoneInfo

            self._zone = ZoneInfo(zone)

    def unix_ms(self, value: Any, near_ms: int) -> tuple[int, str]:
        """(Unix ms, "") of a decoded value; (``near_ms``, why) where it is none.

        ``near_ms`` is this PC's time of the same moment. It decides which of two is meant in the
        hour that a zone has twice, when summer time ends.
        """
        if not isinstance(value, str):
            return near_ms, "no_timestamp"
        local = datetime.datetime.fromisoformat(value[:26])
        shown_ms = round((local - _EPOCH) / _MS)
        if self._zone is None:
            stamp_ms = shown_ms
        else:
            # PEP 495: where a local time exists twice, fold 0 has the larger offset; where it does
            # not exist, fold 1 has.
            first, second = (
                (local.replace(tzinfo=self._zone, fold=fold).utcoffset() or datetime.timedelta())
                // _MS
                for fold in (0, 1)
            )
            if first < second:
                return near_ms, "plc_time_skipped"
            stamp_ms = min(shown_ms - first, shown_ms - second, key=lambda ms: abs(ms - near_ms))
        if abs(stamp_ms - near_ms) > CLOCK_TOLERANCE_S * 1_000:
            return near_ms, "plc_clock_off"
        return stamp_ms, ""
