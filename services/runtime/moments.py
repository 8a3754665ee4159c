"""Moments as people write them: ``2026-11-30 14:30``, ``-2h``, ``yesterday 06:00``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from services.runtime import units

FORMS = (
    "a time is `2026-11-30`, `2026-11-30T14:30` (box's time zone; or with `Z` or `-03:00`),"
    " `14:30` of today, `-2h` before now, `now`, `today`, `yesterday`, `yesterday 14:30`,"
    " or Unix milliseconds"
)
# What a four-digit year can say; and far enough for any clock.
_MAX_MS = 253_402_300_799_999
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,6})?)?")
_DAYS = {"today": 0, "yesterday": -1}


def moment_ms(text: str, now_ms: int, zone: tzinfo | None = None) -> int:
    """Unix ms of a time of day, a date, or a duration before ``now_ms``.

    ``zone``: of what says no zone; None is this PC's. An hour that comes twice is its first. Raises
    ValueError, with the forms allowed, for anything else, and for a time that the zone skips.
    """
    said = text.strip()
    lowered = said.lower()
    if lowered == "now":
        return now_ms
    if re.fullmatch(r"\d{11,15}", said):
        return _bounded(int(said), text)
    if said.startswith("-"):
        try:
            before_s = units.duration_s(said[1:])
        except ValueError:
            raise _unknown(text) from None
        return _bounded(now_ms - round(before_s * 1_000), text)
    first, _, rest = lowered.partition(" ")
    today = datetime.fromtimestamp(now_ms / 1_000, UTC).astimezone(zone).replace(tzinfo=None)
    if first in _DAYS:
        day = today + timedelta(days=_DAYS[first])
        return _local_ms(_at(day, rest.strip() or "00:00", text), zone, text)
    if _CLOCK.fullmatch(lowered):
        return _local_ms(_at(today, lowered, text), zone, text)
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise _unknown(text) from None
    if moment.tzinfo is not None:
        return _bounded(_ms(moment), text)
    return _local_ms(moment, zone, text)


def iso(ms: int, zone: tzinfo | None = None) -> str:
    """A moment as ISO 8601 with milliseconds and offset; of this PC's zone where none is named."""
    return datetime.fromtimestamp(ms / 1_000, UTC).astimezone(zone).isoformat("T", "milliseconds")


def _at(day: datetime, clock: str, text: str) -> datetime:
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise _unknown(text)
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    micros = round(float(match[4] or 0) * 1e6)
    try:
        return day.replace(hour=hour, minute=minute, second=second, microsecond=micros)
    except ValueError:
        raise _unknown(text) from None


def _local_ms(moment: datetime, zone: tzinfo | None, text: str) -> int:
    try:
        local = moment.replace(tzinfo=zone) if zone is not None else moment.astimezone()
        ms = _ms(local)
        back = datetime.fromtimestamp(ms / 1_000, UTC).astimezone(zone).replace(tzinfo=None)
    except (OverflowError, OSError, ValueError):
        raise _unknown(text) from None
    if abs(back - moment) > timedelta(milliseconds=1):
        raise ValueError(f"{text!r}: the clocks skipped that hour here; say one before or after")
    return _bounded(ms, text)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


def _bounded(ms: int, text: str) -> int:
    if not 0 <= ms <= _MAX_MS:
        raise ValueError(f"{text!r} lies outside the years 1970 to 9999")
    return ms


def _unknown(text: str) -> ValueError:
    return ValueError(f"{text!r} is no time: {FORMS}")
