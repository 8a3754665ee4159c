"""Roll-ups of one series: what is kept of a span of time. Pure: no clock, no file.

A value counts from its message to the next one of its record, where that comes within ``hold_ms``
and the PLC's sequence has no hole between the two. All else (a gap, bad or uncertain quality, an
offline PLC, silence) is *not known*, which is not zero. Parts merge to the whole, in order of time.

services/historian/condense.py computes the same of whole columns; a test holds it against this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# A counter that fell went once round where that makes at most this share of its range; else it
# began anew from zero.
WRAP_SHARE = 1 / 16


def increase(before: float, now: float, span: int = 0) -> float:
    """What a counter has counted between two of its values. ``span``: how many different values
    its type has (65,536 of an INT or UINT); 0: it does not go round.
    """
    if now >= before:
        return now - before
    if span and 0 < (round_ := now - before + span) <= span * WRAP_SHARE:
        return round_
    return max(now, 0)


@dataclass(slots=True)
class Rollup:
    """Of one series over a span; values are numbers, of a BOOL 0 and 1."""

    count: int = 0
    """Good values that came in it."""
    total: float = 0.0
    """Their sum."""
    low: float | None = None
    high: float | None = None
    last: Any = None
    """The last good value as it came; None where none did."""
    last_ms: int = 0
    """When."""
    known_ms: int = 0
    """For how long the value was known."""
    area: float = 0.0
    """Value × ms over that time; of a BOOL how many ms it was true."""
    increase: float = 0.0
    """What it counted up to each value that came in here, since the good one before, wherever that
    was.
    """
    edges: int = 0
    """How often it became true (rose above 0) while it was known."""

    @property
    def mean(self) -> float | None:
        """Of the values that came; None where none did."""
        return self.total / self.count if self.count else None

    @property
    def weighted(self) -> float | None:
        """Mean over the known time, of a BOOL its duty (0 … 1); None where nothing is known."""
        return self.area / self.known_ms if self.known_ms else None

    def merge(self, other: Rollup) -> None:
        """Adds another part of the same series."""
        self.count += other.count
        self.total += other.total
        if other.low is not None:
            self.low = other.low if self.low is None else min(self.low, other.low)
        if other.high is not None:
            self.high = other.high if self.high is None else max(self.high, other.high)
        if other.count and (self.last is None or other.last_ms >= self.last_ms):
            self.last, self.last_ms = other.last, other.last_ms
        self.known_ms += other.known_ms
        self.area += other.area
        self.increase += other.increase
        self.edges += other.edges

    def dump(self) -> list[Any]:
        """Plain data."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def restore(cls, data: list[Any]) -> Rollup:
        """What ``dump`` gave."""
        return cls(*data)


class Reducer:
    """One series' roll-ups, a bucket of ``step_ms`` each (from 1970-01-01 UTC on), as its values
    come. Values come in order of time; one that is behind counts, but no time passes.
    """

    def __init__(self, step_ms: int, hold_ms: int, span: int = 0) -> None:
        self._step_ms, self._hold_ms, self._span = step_ms, hold_ms, span
        self.open: dict[int, Rollup] = {}
        """Begin of a bucket → what is known of it so far."""
        self._ts_ms = 0
        self._value: float | None = None
        """Of the newest message; None where that was not good."""
        self._good: float | None = None
        """The newest good one."""

    def take(self, ts_ms: int, value: float | bool | None, joined: bool) -> None:
        """A message of the record. ``value``: None where it is not good. ``joined``: nothing of the
        PLC's sequence is missing since the record's message before.
        """
        before = self._value
        holds = joined and ts_ms - self._ts_ms <= self._hold_ms
        if before is not None and holds:
            self._hold(before, self._ts_ms, ts_ms)
        if value is not None:
            number = float(value)
            bucket = self._bucket(ts_ms)
            bucket.count += 1
            bucket.total += number
            bucket.low = number if bucket.low is None else min(bucket.low, number)
            bucket.high = number if bucket.high is None else max(bucket.high, number)
            bucket.last, bucket.last_ms = value, ts_ms
            if self._good is not None:
                bucket.increase += increase(self._good, number, self._span)
            if holds and before is not None and before <= 0 < number:
                bucket.edges += 1
            self._good = number
        self._value = None if value is None else float(value)
        self._ts_ms = max(ts_ms, self._ts_ms)

    def _hold(self, value: float, begin_ms: int, end_ms: int) -> None:
        while begin_ms < end_ms:
            until_ms = min(end_ms, (begin_ms // self._step_ms + 1) * self._step_ms)
            bucket = self._bucket(begin_ms)
            bucket.known_ms += until_ms - begin_ms
            bucket.area += value * (until_ms - begin_ms)
            begin_ms = until_ms

    def _bucket(self, ts_ms: int) -> Rollup:
        return self.open.setdefault(ts_ms // self._step_ms * self._step_ms, Rollup())

    def finish(self, before_ms: int) -> Iterator[tuple[int, Rollup]]:
        """Takes out the buckets that end at or before that, in order: (begin, roll-up)."""
        for begin_ms in sorted(self.open):
            if begin_ms + self._step_ms <= before_ms:
                yield begin_ms, self.open.pop(begin_ms)

    def dump(self) -> list[Any]:
        """Plain data."""
        buckets = [[begin_ms, r.dump()] for begin_ms, r in self.open.items()]
        return [self._ts_ms, self._value, self._good, buckets]

    def restore(self, data: list[Any]) -> None:
        """What ``dump`` gave."""
        self._ts_ms, self._value, self._good, buckets = data
        self.open = {begin_ms: Rollup.restore(r) for begin_ms, r in buckets}
