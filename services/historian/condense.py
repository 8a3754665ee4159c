"""Roll-ups of whole columns: services/history/rollup.py for many values at once.

The times of a stream are worked out once for all of its fields that are good at the same messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.historian.shapes import Bools, Floats, Ints
from services.history.rollup import WRAP_SHARE


@dataclass(slots=True)
class Buckets:
    """Roll-ups of one series, a row each; ``low`` and ``high`` are NaN where no value came."""

    count: Ints
    total: Floats
    low: Floats
    high: Floats
    last: NDArray[Any]
    last_ms: Ints
    known_ms: Ints
    area: Floats
    increase: Floats
    edges: Ints

    @classmethod
    def empty(cls, size: int) -> Buckets:
        """Nothing is known."""
        ints: Ints = np.zeros(size, np.int64)
        floats: Floats = np.zeros(size, np.float64)
        nan = np.full(size, np.nan)
        return cls(
            ints, floats, nan, nan.copy(), nan.copy(), ints.copy(), ints.copy(), floats.copy(),
            floats.copy(), ints.copy(),
        )  # fmt: skip

    @property
    def size(self) -> int:
        """How many."""
        return len(self.count)

    def no_numbers(self) -> None:
        """Texts came: nothing can be said of a sum in which they are."""
        came = self.count > 0
        for sums in (self.total, self.area, self.increase):
            sums[came] = np.nan

    def put(self, at: int, one: Buckets) -> None:
        """Replaces a row, by the only one of ``one``."""
        for name in ("count", "total", "low", "high", "last_ms", "known_ms", "area", "increase",
                     "edges"):  # fmt: skip
            getattr(self, name)[at] = getattr(one, name)[0]
        if one.last.dtype.hasobject and not self.last.dtype.hasobject:
            self.last = _as_objects(self.last)
        self.last[at] = one.last.tolist()[0]  # a plain number among texts

    def pick(self, rows: Any) -> Buckets:
        """These rows."""
        return Buckets(*(getattr(self, name)[rows] for name in self.__slots__))

    def merge(self, bucket: Ints, parts: Buckets) -> None:
        """Adds parts, in order of time; ``bucket`` says into which row each goes."""
        if not len(bucket):
            return
        for name in ("count", "total", "known_ms", "area", "increase", "edges"):
            np.add.at(getattr(self, name), bucket, getattr(parts, name))
        np.fmin.at(self.low, bucket, parts.low)
        np.fmax.at(self.high, bucket, parts.high)
        some = parts.count > 0
        if parts.last.dtype.hasobject and not self.last.dtype.hasobject:
            self.last = _as_objects(self.last)
        newer = some & (parts.last_ms >= self.last_ms[bucket])
        self.last[bucket[newer]] = parts.last[newer]  # of several the last one stays
        self.last_ms[bucket[newer]] = parts.last_ms[newer]

    def mean(self) -> Floats:
        """Of the values that came."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    def weighted(self) -> Floats:
        """Over the known time."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.known_ms > 0, self.area / self.known_ms, np.nan)


def _as_objects(values: NDArray[Any]) -> NDArray[Any]:
    """NaN becomes None."""
    return np.array([None if v != v else v for v in values.tolist()], object)


class Times:
    """When messages came and for how long each counts, cut at the edges of buckets.

    ``ts_ms`` ascends. ``good``: which have a good value. ``joined``: to the message before.
    ``first_ms`` begins the first of ``size`` buckets. Messages before it (what holds into it) and
    behind the last one are taken into account, and are no values of any bucket. ``taken``: their
    order as they were taken, where a clock that was set back makes it another one.
    """

    def __init__(
        self,
        ts_ms: Ints,
        good: Bools,
        joined: Bools,
        first_ms: int,
        step_ms: int,
        size: int,
        hold_ms: int,
        taken: Ints | None = None,
    ) -> None:
        self.size = size
        self.good = good
        self.lead = 0
        """How many of the messages stand for what was before."""
        at = np.floor_divide(ts_ms - first_ms, step_ms)
        inside = (at >= 0) & (at < size)
        self.picked = np.flatnonzero(good & inside)
        """Messages whose values count."""
        self.bucket = at[self.picked]
        self.ts_ms = ts_ms[self.picked]
        self.count = np.bincount(self.bucket, minlength=size).astype(np.int64)
        self.filled = np.flatnonzero(self.count)
        """Buckets in which a value came; ``starts`` and ``ends`` are theirs in ``picked``."""
        self.ends = np.cumsum(self.count)[self.filled]
        self.starts = self.ends - self.count[self.filled]
        # Good ones, wherever they lie: a counter counts from the one before.
        self.all_good = np.flatnonzero(good)
        self._taken, self._ts_ms = taken, ts_ms
        self.left_ms = first_ms + size * step_ms - hold_ms
        """What is followed by an earlier time from here on goes on behind the buckets."""
        self.first_picked = (
            int(np.searchsorted(self.all_good, self.picked[0])) if len(self.picked) else 0
        )
        n = len(ts_ms)
        held = np.zeros(n, np.int64)
        if n > 1:
            dt = ts_ms[1:] - ts_ms[:-1]
            held[:-1] = np.where(good[:-1] & joined[1:] & (dt <= hold_ms), dt, 0)
        starts = np.flatnonzero(held)
        begin, end = ts_ms[starts], ts_ms[starts] + held[starts]
        last_ms = first_ms + size * step_ms
        begin, end = np.clip(begin, first_ms, last_ms), np.clip(end, first_ms, last_ms)
        kept = end > begin
        self._pieces(starts[kept], begin[kept] - first_ms, end[kept] - first_ms, step_ms)
        self.known_ms = np.bincount(
            self.piece_bucket, weights=self.piece_ms, minlength=size
        ).astype(np.int64)
        # Message i can have become true where the one before it held until then.
        follows = np.zeros(n, np.bool_)
        if n > 1:
            follows[1:] = joined[1:] & good[:-1] & (dt <= hold_ms)
        self.follows = follows[self.picked]

    def gained(self, values: Floats, span: int) -> Floats:
        """What a counter counted up to each good value, since the good one that was taken before:
        by its time the one before would be of another turn of the clock. Where that lies behind
        the buckets, nothing is counted here.
        """
        good = values[self.all_good]
        gained = np.zeros(len(good))
        if self._taken is None:
            gained[1:] = gains(good, span)
            return gained
        order = np.argsort(self._taken[self.all_good], kind="stable")
        gained[order[1:]] = gains(good[order], span)
        ts = self._ts_ms[self.all_good][order]
        gained[order[1:][(ts[1:] < ts[:-1]) & (ts[:-1] >= self.left_ms)]] = 0
        return gained

    def _pieces(self, of: Ints, begin: Ints, end: Ints, step_ms: int) -> None:
        """One piece per interval and bucket that it touches; most touch one."""
        first, last = begin // step_ms, (end - 1) // step_ms
        times = last - first + 1
        self.piece_of = np.repeat(of, times)
        at = np.arange(len(self.piece_of)) - np.repeat(np.cumsum(times) - times, times)
        self.piece_bucket = np.repeat(first, times) + at
        low = np.maximum(np.repeat(begin, times), self.piece_bucket * step_ms)
        high = np.minimum(np.repeat(end, times), (self.piece_bucket + 1) * step_ms)
        self.piece_ms = high - low


def condense(times: Times, values: Floats, span: int = 0, counts: bool = True) -> Buckets:
    """The roll-ups of a field. ``values``: one for each message, whatever where it is not good.
    ``counts``: it can be a counter, of ``span`` different values (0: it does not go round).
    """
    out = Buckets.empty(times.size)
    picked = times.picked
    out.known_ms = times.known_ms
    size = times.size
    if len(times.piece_of):
        weights = values[times.piece_of] * times.piece_ms
        out.area = _sums(times.piece_bucket, weights, size)
    if not len(picked):
        return out
    chosen = values[picked]
    out.count = times.count
    out.total = _sums(times.bucket, chosen, size)
    out.low[times.filled] = np.minimum.reduceat(chosen, times.starts)
    out.high[times.filled] = np.maximum.reduceat(chosen, times.starts)
    out.last[times.filled] = chosen[times.ends - 1]
    out.last_ms[times.filled] = times.ts_ms[times.ends - 1]
    if counts:
        gained = times.gained(values, span)
        mine = gained[times.first_picked : times.first_picked + len(picked)]
        out.increase = _sums(times.bucket, mine, size)
    before = values[np.maximum(picked - 1, 0)]
    rises = times.follows & (before <= 0) & (chosen > 0)
    out.edges = _sums(times.bucket, rises, size).astype(np.int64)
    return out


def _sums(bucket: Ints, weights: NDArray[Any], size: int) -> Floats:
    sums: Floats = np.bincount(bucket, weights=weights, minlength=size).astype(np.float64)
    return sums


def condense_text(times: Times, values: NDArray[Any]) -> Buckets:
    """Of what is no number: how often it came, when it was known, what it was at last."""
    out = Buckets.empty(times.size)
    out.known_ms, out.count = times.known_ms, times.count
    out.last = np.full(times.size, None, object)
    out.no_numbers()
    if len(times.picked):
        chosen = values[times.picked]
        out.last[times.filled] = chosen[times.ends - 1]
        out.last_ms[times.filled] = times.ts_ms[times.ends - 1]
    return out


def gains(values: Floats, span: int) -> Floats:
    """What a counter counted from each value to the next: ``rollup.increase``."""
    before, now = values[:-1], values[1:]
    gained = now - before
    fell = gained < 0
    if not fell.any():
        return gained
    restarted = np.maximum(now, 0.0)
    if span:
        around = gained + span
        restarted = np.where((around > 0) & (around <= span * WRAP_SHARE), around, restarted)
    return np.where(fell, restarted, gained)
