"""The roll-ups of an hour that is being condensed, a column at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.historian.condense import Buckets, Times, condense, condense_text
from services.historian.known import Known
from services.historian.rolls import HOUR, MINUTE, ROLL_ERRORS, Level, Rolls, pack
from services.historian.shapes import DAY_MS, GOOD, HOUR_MS, MINUTE_MS, Bools, Ints, Series, Stream
from services.historian.table import (
    Column,
    Table,
    element,
    known_quality,
    numbers,
    set_back,
    time_order,
)

# Roll-ups in one transaction.
_AT_ONCE = 200
# How far a counter is followed back over a silence.
_DAYS = 8
WHOLE = ""
"""A series of each stream that has no field: true while its messages are good."""


class Rolling:
    """Of one hour."""

    def __init__(self, folder: Path, known: Known, hour_ms: int) -> None:
        self._folder, self._known, self._hour_ms = folder, known, hour_ms
        self._rows: list[tuple[Series, str, Buckets]] = []
        self._earlier = Earlier(folder, hour_ms)
        self._minutes: Rolls | None = None
        self.lost: list[str] = []
        """Files that were damaged and lie aside."""

    def begin(
        self, stream: Stream, table: Table, tail: Table | None, after: tuple[int, bool] | None
    ) -> None:
        """A stream's rows, by (epoch, seq). ``tail``: the row before them; ``after``: (ts, joined)
        of the one behind them.
        """
        self._stream, self._tail, self._after = stream, tail, after
        self._hold_ms = self._known.hold_ms(stream)
        self._order, self._joined = time_order(table)
        self._ts: Ints = table.ints("ts")[self._order]
        self._quality_good: Bools = (table.quality == GOOD)[self._order]
        self._taken = set_back(table)
        first = table.ints("epoch")[0], table.ints("seq")[0]
        # The clock was set back behind this hour: what lies before it in time came later.
        self._came_later = bool(
            tail is not None and (tail.ints("epoch")[0], tail.ints("seq")[0]) > first
        )
        self._times: dict[bytes, Times] = {}
        self.add(WHOLE, Column(np.ones(table.rows, np.bool_), None))

    def add(self, name: str, cells: Column) -> None:
        """A field's column."""
        if cells.values.dtype.hasobject and (size := _array_size(cells.values)):
            for i in range(size):
                self._add(f"{name}.{i}", element(cells, i).pick(self._order))
            return
        self._add(name, cells.pick(self._order))

    def _add(self, name: str, cells: Column) -> None:
        values, present = cells = numbers(cells)
        good = self._quality_good if present is None else self._quality_good & present
        series = Series(*self._stream, name)
        kind = "text" if values.dtype.hasobject else "bool" if values.dtype == bool else "number"
        before_ms, before, joins = self._before(series, kind)
        times = self._times_of(good, before_ms, joins)
        if kind == "text":
            whole: NDArray[Any] = np.empty(len(times.good), object)
            whole[times.lead : times.lead + len(values)] = values
            buckets = condense_text(times, whole)
        else:
            given = np.zeros(len(times.good))
            given[times.lead : times.lead + len(values)] = np.where(good, values, 0)
            if times.lead:
                given[0] = before
            span = self._known.field(self._stream, name).span
            buckets = condense(times, given, span)
        if buckets.count.any() or buckets.known_ms.any():
            self._rows.append((series, kind, buckets))

    def _before(self, series: Series, kind: str) -> tuple[int | None, float, bool]:
        """(ts, value, whether it holds) of the good value before the hour."""
        if self._came_later:
            return None, 0.0, False
        if self._tail is not None:
            if series.field == WHOLE:
                if self._tail.quality[0] == GOOD:
                    return int(self._tail.ints("ts")[0]), 1.0, True
            else:
                found, quality = known_quality(self._tail, series.field)
                if found is not None and quality[0] == GOOD:
                    is_text = found.values.dtype.hasobject
                    if is_text == (kind == "text"):
                        value = 0.0 if is_text else float(found.values[0])
                        return int(self._tail.ints("ts")[0]), value, True
        last = None if kind == "text" else self._earlier.last(series)
        return (None, 0.0, False) if last is None else (*last, False)

    def _times_of(self, good: Bools, before_ms: int | None, joins: bool) -> Times:
        key = good.tobytes() + repr((before_ms, joins)).encode()
        if key not in self._times:
            lead = [] if before_ms is None else [before_ms]
            tail = [] if self._after is None else [self._after[0]]
            ts = np.concatenate((lead, self._ts, tail)).astype(np.int64)
            joined = np.concatenate(([False] * len(lead), self._joined, [
                after[1] for after in (self._after,) if after is not None
            ])).astype(np.bool_)  # fmt: skip
            if len(self._ts):
                joined[len(lead)] &= joins
            known = np.concatenate(([True] * len(lead), good, [False] * len(tail))).astype(np.bool_)
            taken = self._taken
            if taken is not None:
                taken = np.concatenate(([-1] * len(lead), taken, [len(taken)] * len(tail)))
            times = Times(ts, known, joined, self._hour_ms, MINUTE_MS, 60, self._hold_ms, taken)
            times.lead = len(lead)
            if self._came_later:
                times.left_ms = 0
            self._times[key] = times
        return self._times[key]

    def write(self) -> Iterator[None]:
        """Keeps them all; can be repeated."""
        for level in (MINUTE, HOUR):
            rolls = Rolls(level.path(self._folder, self._hour_ms), write=True)
            self.lost += [rolls.aside] if rolls.aside else []
            try:
                for at in range(0, len(self._rows), _AT_ONCE):
                    rows = []
                    for row in self._packed(rolls, level, at):
                        rows.append(row)
                        yield
                    rolls.put(rows)
                    yield
            finally:
                rolls.close()

    def _packed(
        self, rolls: Rolls, level: Level, at: int
    ) -> Iterator[tuple[Series, str, int, bytes]]:
        for series, kind, buckets in self._rows[at : at + _AT_ONCE]:
            if level is MINUTE:
                yield series, kind, self._hour_ms, pack(buckets, self._hour_ms)
                continue
            day_ms = self._hour_ms // DAY_MS * DAY_MS
            try:
                day = rolls.get(HOUR, series, day_ms)
            except ValueError:
                day = None
            day = day or self._of_minutes(series, day_ms)
            day.put((self._hour_ms - day_ms) // HOUR_MS, _in_one(buckets))
            yield series, kind, day_ms, pack(day, day_ms)

    def _of_minutes(self, series: Series, day_ms: int) -> Buckets:
        """A day's row that is new, or was damaged: of what is known of the day."""
        day = Buckets.empty(HOUR.size)
        if self._minutes is None:
            self._minutes = Rolls(MINUTE.path(self._folder, day_ms))
        for i in range(HOUR.size):
            with contextlib.suppress(ValueError, *ROLL_ERRORS):
                hour = self._minutes.get(MINUTE, series, day_ms + i * HOUR_MS)
                if hour is not None:
                    day.put(i, _in_one(hour))
        return day

    def close(self) -> None:
        """Closes what was opened to look back."""
        if self._minutes is not None:
            self._minutes.close()
        self._earlier.close()


class Earlier:
    """The last good value of a series before a time, as far as roll-ups know it."""

    def __init__(self, folder: Path, before_ms: int) -> None:
        self._before_ms = before_ms
        self._files: dict[Path, Rolls | None] = {}
        hour_ms = (before_ms - 1) // HOUR_MS * HOUR_MS
        day_ms = hour_ms // DAY_MS * DAY_MS
        wanted = [(MINUTE, hour_ms), *((HOUR, day_ms - back * DAY_MS) for back in range(_DAYS))]
        self._rows = [
            (level, row_ms, rolls)
            for level, row_ms in wanted
            if (rolls := self._open(level.path(folder, row_ms))) is not None
        ]

    def _open(self, path: Path) -> Rolls | None:
        if path not in self._files:
            try:
                self._files[path] = Rolls(path)
            except (FileNotFoundError, *ROLL_ERRORS):
                self._files[path] = None
        return self._files[path]

    def last(self, series: Series) -> tuple[int, float] | None:
        """(ts, value); of the days before, as many as ``_DAYS``."""
        for level, row_ms, rolls in self._rows:
            try:
                row = rolls.get(level, series, row_ms)
            except (ValueError, *ROLL_ERRORS):
                continue
            if row is None or row.last.dtype.hasobject:
                continue
            known = np.flatnonzero((row.count > 0) & (row.last_ms < self._before_ms))
            if len(known):
                return int(row.last_ms[known[-1]]), float(row.last[known[-1]])
        return None

    def close(self) -> None:
        """Closes the files."""
        for rolls in self._files.values():
            if rolls is not None:
                rolls.close()


def _in_one(minutes: Buckets) -> Buckets:
    hour = Buckets.empty(1)
    hour.merge(np.zeros(minutes.size, np.int64), minutes)
    return hour


def _array_size(values: NDArray[Any]) -> int:
    return max((len(c) for c in values.tolist() if isinstance(c, list)), default=0)
