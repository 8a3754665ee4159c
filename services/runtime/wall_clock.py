"""When the clock on a place's wall shows something: hours that are skipped, or shown twice."""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo


def moment(day: date, minute: int, zone: tzinfo, fold: int) -> float:
    """When the wall clock comes to a minute, counted from a day's midnight, in Unix seconds; of
    two such moments the one that ``fold`` (PEP 495) names.
    """
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minute)
    first, second = (wall.replace(tzinfo=zone, fold=f).timestamp() for f in (0, 1))
    at_s = second if fold else min(first, second)
    while datetime.fromtimestamp(at_s, zone).replace(tzinfo=None) < wall:
        at_s += 60  # the clock skips it: the moment of the skip
    return at_s
