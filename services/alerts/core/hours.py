"""Quiet hours: which moments of a place's wall clock they cover."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from services.runtime.wall_clock import moment

DAY_MIN = 1440


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours in which alarms of some severities wait."""

    days: frozenset[int]
    """Of their beginning; Monday = 0."""
    begin_min: int
    end_min: int
    """Of the day; at or before ``begin_min``: on the next day."""
    severities: frozenset[str]

    def cover(self, now_ms: int, zone: tzinfo) -> bool:
        """Whether a moment lies in them: from when the clock on the wall first shows the beginning
        until it never shows less than the end again. So the hour that a clock set back shows twice
        is quiet twice, and hours whose end is skipped end with the skip.
        """
        now_s = now_ms / 1_000
        today = datetime.fromtimestamp(now_s, zone).date()
        length = (self.end_min - self.begin_min) % DAY_MIN or DAY_MIN
        return any(
            day.weekday() in self.days
            and moment(day, self.begin_min, zone, 0) <= now_s
            and now_s < moment(day, self.begin_min + length, zone, 1)
            for day in (today - timedelta(days=1), today)
        )
