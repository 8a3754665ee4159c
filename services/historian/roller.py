"""Roll-ups for a question: stored ones, and of rows where an hour is not condensed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.historian.codec import Damaged
from services.historian.condense import Buckets, Times, condense, condense_text
from services.historian.hours import GROWING, hours_between
from services.historian.known import Known
from services.historian.rolling import WHOLE, Earlier
from services.historian.rolls import HOUR, MINUTE, Level
from services.historian.shapes import DAY_MS, GOOD, HOUR_MS, MINUTE_MS, Series, Stream
from services.historian.shelf import Shelf
from services.historian.table import Column, by_time, known_quality, numbers, set_back


class Roller:
    """One series."""

    def __init__(
        self, shelf: Shelf, known: Known, series: Series, held: dict[tuple[Stream, int], int]
    ) -> None:
        self._shelf, self._series, self._held = shelf, series, held
        self._hold_ms = known.hold_ms(series.stream)
        self._span = known.field(series.stream, series.field).span
        self.kind = "number"
        """``number``, ``bool`` or ``text``; after ``buckets``."""

    def buckets(self, begin_ms: int, step_ms: int, size: int) -> Buckets:
        """As ``History.rolled``."""
        out = Buckets.empty(size)
        end_ms = begin_ms + size * step_ms
        if step_ms % MINUTE_MS:
            self._from_rows(out, begin_ms, end_ms, begin_ms, step_ms)
            return out
        hours = list(hours_between(begin_ms, end_ms))
        self.kind = self._shelf.kind(self._series, hours) or self.kind
        raw: list[int] = []
        coarse = not begin_ms % HOUR_MS and not step_ms % HOUR_MS
        done_ms = 0
        for hour_ms in hours:
            if hour_ms < done_ms:
                continue
            self._shelf.bound.spend(0)
            day_ms = hour_ms // DAY_MS * DAY_MS
            is_day = hour_ms == day_ms and day_ms + DAY_MS <= end_ms
            if coarse and is_day and self._clean(day_ms):
                self._rows_of(out, raw, begin_ms, step_ms, size)
                if self._stored(out, HOUR, day_ms, begin_ms, step_ms):
                    done_ms = day_ms + DAY_MS
                    continue
            if self._is_raw(hour_ms):
                raw.append(hour_ms)
                continue
            self._rows_of(out, raw, begin_ms, step_ms, size)
            if not self._has_minutes(hour_ms) and self._hour(out, hour_ms, begin_ms, step_ms):
                continue
            if not self._stored(out, MINUTE, hour_ms, begin_ms, step_ms):
                raw.append(hour_ms)
        self._rows_of(out, raw, begin_ms, step_ms, size)
        return out

    def _clean(self, day_ms: int) -> bool:
        return not any(self._is_raw(h) for h in hours_between(day_ms, day_ms + DAY_MS))

    def _is_raw(self, hour_ms: int) -> bool:
        """Whether rows of that hour may be in no roll-up."""
        if (self._series.stream, hour_ms) in self._held:
            return True
        return any(p.number == GROWING for p in self._shelf.hours().get(hour_ms, ()))

    def _stored(self, out: Buckets, level: Level, row_ms: int, begin_ms: int, step_ms: int) -> bool:
        """Adds a stored row; False where rows must tell."""
        try:
            row = self._shelf.roll(level, self._series, row_ms)
        except Damaged:
            return level is MINUTE and not self._shelf.hours().get(row_ms)
        if row is None:  # nothing came, or the row was lost with its file
            return level is MINUTE and not self._is_lost(row_ms)
        starts = row_ms + level.step_ms * np.arange(level.size, dtype=np.int64)
        at = (starts - begin_ms) // step_ms
        inside = np.flatnonzero((starts >= begin_ms) & (at < out.size))
        out.merge(at[inside], row.pick(inside))
        return True

    def _has_minutes(self, hour_ms: int) -> bool:
        """Whether anything finer than an hour is kept of it."""
        return MINUTE.path(self._shelf.folder, hour_ms).exists() or bool(
            self._shelf.hours().get(hour_ms)
        )

    def _hour(self, out: Buckets, hour_ms: int, begin_ms: int, step_ms: int) -> bool:
        """Adds one hour of a day's row, where it lies in one bucket; False where it cannot."""
        at = (hour_ms - begin_ms) // step_ms
        if not 0 <= at < out.size or (hour_ms + HOUR_MS - 1 - begin_ms) // step_ms != at:
            return False
        day_ms = hour_ms // DAY_MS * DAY_MS
        try:
            row = self._shelf.roll(HOUR, self._series, day_ms)
        except Damaged:
            return False
        if row is not None:
            one = np.array([(hour_ms - day_ms) // HOUR_MS])
            out.merge(np.array([at]), row.pick(one))
        return True

    def _is_lost(self, hour_ms: int) -> bool:
        """Whether an hour's roll-ups are not there, and its rows are."""
        whole = Series(*self._series.stream, WHOLE)
        try:
            gone = self._shelf.roll(MINUTE, whole, hour_ms) is None
        except Damaged:
            gone = True
        return gone and bool(self._shelf.hours().get(hour_ms))

    def _rows_of(
        self, out: Buckets, hours: list[int], begin_ms: int, step_ms: int, size: int
    ) -> None:
        """Adds what the rows of these hours say, and forgets them."""
        if hours:
            last = min(hours[-1] + HOUR_MS, begin_ms + size * step_ms)
            first = max(hours[0], begin_ms)
            self._from_rows(out, first, last, begin_ms, step_ms)
            hours.clear()

    def _from_rows(
        self, out: Buckets, first_ms: int, last_ms: int, begin_ms: int, step_ms: int
    ) -> None:
        """Adds the rows of [first, last) in buckets of a step from ``begin_ms`` on."""
        grain_ms = MINUTE_MS if step_ms % MINUTE_MS == 0 else step_ms
        size = -(-(last_ms - first_ms) // grain_ms)
        stream = self._series.stream
        rows = self._shelf.table(stream, first_ms - self._hold_ms, last_ms + self._hold_ms)
        taken, around = set_back(rows), by_time(rows)
        if self._series.field == WHOLE:
            quality = around.quality
            found: Column | None = Column(np.ones(around.rows, np.bool_), None)
        else:
            found, quality = known_quality(around, self._series.field)
        if found is None or not around.rows:
            return
        found = numbers(found)
        ts, good, joined = around.ints("ts"), quality == GOOD, around.joined
        at = (first_ms + grain_ms * np.arange(size, dtype=np.int64) - begin_ms) // step_ms
        values: NDArray[np.float64]
        if found.values.dtype.hasobject:
            self.kind = "text"
            times = Times(ts, good, joined, first_ms, grain_ms, size, self._hold_ms)
            out.merge(at, condense_text(times, found.values))
            return
        self.kind = "bool" if found.values.dtype == np.bool_ else "number"
        values = np.where(good, found.values, 0).astype(np.float64)
        if not (good & (ts < first_ms)).any() and (before := self._before(first_ms)):
            ts = np.concatenate(([before[0]], ts))
            good, joined = np.concatenate(([True], good)), np.concatenate(([False], joined))
            values = np.concatenate(([before[1]], values))
            joined[1] = False
            taken = None if taken is None else np.concatenate(([-1], taken))
        times = Times(ts, good, joined, first_ms, grain_ms, size, self._hold_ms, taken)
        out.merge(at, condense(times, values, self._span))

    def _before(self, ts_ms: int) -> tuple[int, float] | None:
        """The last good value before, for what a counter counted since."""
        table = by_time(self._shelf.table(self._series.stream, ts_ms - HOUR_MS, ts_ms))
        found, quality = known_quality(table, self._series.field)
        good = np.flatnonzero(quality == GOOD)
        if found is not None and len(good) and not found.values.dtype.hasobject:
            return int(table.ints("ts")[good[-1]]), float(found.values[good[-1]])
        earlier = Earlier(self._shelf.folder, ts_ms)
        try:
            return earlier.last(self._series)
        finally:
            earlier.close()
