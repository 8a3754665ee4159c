"""Reads the history; any process may, beside the historian or without it.

Times are Unix ms, UTC; ranges hold their begin and not their end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from services.historian.bounds import Bound
from services.historian.known import FieldInfo, Known
from services.historian.recent import hour_of
from services.historian.roller import Roller
from services.historian.shapes import (
    GOOD,
    HOUR_MS,
    MINUTE_MS,
    QUALITIES,
    Gap,
    Raw,
    Rolled,
    Series,
    SeriesInfo,
    Stream,
    Unknown,
)
from services.historian.shelf import Shelf
from services.historian.table import VALUES, Table, by_time, known_quality

__all__ = ["Gap", "History", "Raw", "Rolled", "Series", "SeriesInfo", "Stream", "Unknown"]

Kind = Literal["number", "bool", "counter", "text"]


class History:
    """The history in a folder (``<state>/history``). Not for several threads at once.

    ``start`` begins a question with bounds; without it nothing is bounded.
    """

    def __init__(self, folder: Path, bound: Bound | None = None) -> None:
        self.folder = folder
        self._shelf = Shelf(folder, bound or Bound(None, None))

    @property
    def damage(self) -> list[str]:
        """What could not be read since ``start``."""
        return self._shelf.damage

    def start(self, bound: Bound | None = None) -> None:
        """A new question: what it may cost, and nothing is known of damage."""
        self._shelf.bound = bound or Bound(None, None)
        self._shelf.damage.clear()

    # -- what there is --------------------------------------------------------------------------

    def streams(self, plc: str = "", locatario: str = "") -> list[Stream]:
        """Those that have something."""
        return [
            s
            for s in self._shelf.streams()
            if s.plc == (plc or s.plc) and s.locatario == (locatario or s.locatario)
        ]

    def series(
        self,
        plc: str = "",
        field: str = "",
        group: str = "",
        machine: str = "",
        locatario: str = "",
    ) -> list[SeriesInfo]:
        """Every series that has something; of what is named, where it is."""
        self._shelf.refresh()
        known, rolled, found = Known.load(self.folder), self._shelf.listed(), []
        for stream in self.streams(plc, locatario):
            if (group and stream.group != group) or (machine and stream.machine != machine):
                continue
            ends = self._shelf.ends(stream)
            if ends is None:
                continue
            kinds = {s.field: kind for s, kind in rolled.items() if s.stream == stream and s.field}
            begin_ms = ends[1] - known.hold_ms(stream)
            newest = self._shelf.table(stream, begin_ms, ends[1] + 1)
            if not list(_fields(newest)):  # a PLC that is away: of its last hour, before that
                newest = self._shelf.table(stream, hour_of(ends[1]), ends[1])
                newest = newest.pick(np.flatnonzero(newest.quality == GOOD)[-1:])
            for name in _fields(newest):
                column = newest.field(name)
                kinds[name] = _kind(None if column is None else column.values)
            for name, kind in sorted(kinds.items()):
                if field and name != field:
                    continue
                info = known.field(stream, name)
                series = Series(*stream, name)
                found.append(SeriesInfo(series, _counted(kind, info), info.type, info.unit, *ends))
        return found

    # -- values ---------------------------------------------------------------------------------

    def raw(self, series: Sequence[Series], begin_ms: int, end_ms: int, limit: int) -> list[Raw]:
        """The messages of each, the first ``limit`` of them."""
        self._shelf.refresh()
        out = []
        for one in series:
            table = by_time(self._shelf.table(one.stream, begin_ms, end_ms))
            cut = table.rows > limit
            table = table.pick(slice(limit)) if cut else table
            found, quality = known_quality(table, one.field)
            values = np.zeros(table.rows) if found is None else found.values
            said, all_of_it = table.reasons(one.field), table.reasons("*")
            words = np.array(QUALITIES, object)[table.quality]
            reasons = [
                "" if code == GOOD else str(own or every or word)
                for code, own, every, word in zip(quality, said, all_of_it, words, strict=True)
            ]
            ts = table.ints("ts")
            out.append(Raw(one, ts, values, quality, reasons, table.joined, cut))
        return out

    def taken(
        self, stream: Stream, fields: Sequence[str], begin_ms: int, end_ms: int, limit: int
    ) -> list[Raw]:
        """The messages of several fields in the order in which they were taken, which a clock that
        was set back makes another one than that of their times. Without reasons.
        """
        self._shelf.refresh()
        table = self._shelf.table(stream, begin_ms, end_ms)
        cut = table.rows > limit
        out = []
        for name in fields:
            found, quality = known_quality(table, name)
            values = np.zeros(table.rows) if found is None else found.values
            series = Series(*stream, name)
            out.append(Raw(series, table.ints("ts"), values, quality, [], table.joined, cut))
        return out

    def rolled(
        self, series: Sequence[Series], begin_ms: int, end_ms: int, step_ms: int
    ) -> list[Rolled]:
        """Roll-ups, a bucket per ``step_ms`` from ``begin_ms`` on; with a step of whole minutes
        that begin is floored to the minute, and stored roll-ups serve.
        """
        if step_ms % MINUTE_MS == 0:
            begin_ms -= begin_ms % MINUTE_MS
        size = max(0, -(-(end_ms - begin_ms) // step_ms))
        self._shelf.refresh()
        known, held, out = Known.load(self.folder), self._shelf.held(), []
        for one in series:
            roller = Roller(self._shelf, known, one, held)
            buckets = roller.buckets(begin_ms, step_ms, size)
            starts = begin_ms + step_ms * np.arange(size, dtype=np.int64)
            kind = _counted(roller.kind, known.field(one.stream, one.field))
            out.append(
                Rolled(
                    series=one,
                    kind=kind,
                    step_ms=step_ms,
                    begin_ms=starts,
                    count=buckets.count,
                    mean=buckets.mean(),
                    low=buckets.low,
                    high=buckets.high,
                    last=buckets.last,
                    known_ms=buckets.known_ms,
                    weighted=buckets.weighted(),
                    increase=buckets.increase,
                    edges=buckets.edges,
                )
            )
            if kind == "text" and not np.isfinite(out[-1].low).any():
                for numbers in (out[-1].mean, out[-1].weighted, out[-1].increase):
                    numbers.fill(np.nan)
        return out

    # -- what is not known ----------------------------------------------------------------------

    def known(self, stream: Stream, begin_ms: int, end_ms: int) -> list[Unknown]:
        """The times between of which its values are **not** known, in order, touching or not."""
        hold_ms = Known.load(self.folder).hold_ms(stream)
        self._shelf.refresh()
        table = by_time(self._shelf.table(stream, begin_ms - hold_ms, end_ms + hold_ms))
        ts, quality, joined = table.ints("ts").tolist(), table.quality.tolist(), table.joined
        reasons = table.reasons("*")
        found: list[Unknown] = []

        def add(begin: int, end: int, why: str) -> None:
            begin, end = max(begin, begin_ms), min(end, end_ms)
            if begin >= end:
                return
            if found and found[-1].end_ms == begin and found[-1].why == why:
                found[-1].end_ms = end
            else:
                found.append(Unknown(begin, end, why))

        at = begin_ms
        for i, t in enumerate(ts):
            if i == 0:
                add(at, t, "silent")
            elif quality[i - 1] != GOOD:
                add(at, t, str(reasons[i - 1] or QUALITIES[quality[i - 1]]))
            elif not joined[i]:
                add(at, t, "gap")
            elif t - at > hold_ms:
                add(at, t, "silent")
            at = t
        if not ts:
            add(begin_ms, end_ms, "silent")
        elif quality[-1] != GOOD:
            add(at, end_ms, str(reasons[-1] or QUALITIES[quality[-1]]))
        else:
            add(at, end_ms, "silent")
        return found

    def gaps(self, plc: str, begin_ms: int, end_ms: int, locatario: str = "") -> list[Gap]:
        """Gap messages whose time touches the range, or is not known."""
        found = self._shelf.gaps(
            "plc = ? AND coalesce(to_ms, from_ms, ?) >= ? AND coalesce(from_ms, to_ms, ?) < ?",
            (plc, begin_ms, begin_ms, begin_ms, end_ms),
        )
        return [g for g in found if g.locatario == (locatario or g.locatario)]

    def messages(
        self, plc: str, begin_ms: int, end_ms: int, locatario: str = ""
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(topic, message) as delivered, samples and gaps whose ``ts`` lies in the range: those of
        an hour after those of the hour before, each in order of (epoch, seq).
        """
        self._shelf.refresh()
        gaps = [
            g
            for g in self._shelf.gaps("plc = ?", (plc,))
            if g.locatario == (locatario or g.locatario)
        ]
        streams = self.streams(plc, locatario)
        for hour_ms in self._hours(streams, begin_ms, end_ms, gaps):
            self._shelf.refresh()
            first, last = max(hour_ms, begin_ms), min(hour_ms + HOUR_MS, end_ms)
            found: list[tuple[tuple[int, int], str, dict[str, Any]]] = []
            for stream in streams:
                topic = f"plc/{stream.locatario}/{stream.plc}"
                for m in self._shelf.table(stream, first, last, whole=True).messages():
                    found.append(((m["epoch"], m["seq"]), topic, m))
            for gap in gaps:
                if first <= gap.message["ts"] < last:
                    identity = gap.message["epoch"], gap.message["first_seq"]
                    found.append((identity, f"plc/{gap.locatario}/{plc}/gap", gap.message))
            for _, topic, message in sorted(found, key=lambda f: f[0]):
                yield topic, message

    def _hours(
        self, streams: Sequence[Stream], begin_ms: int, end_ms: int, gaps: Sequence[Gap]
    ) -> list[int]:
        """Those of a range that have something."""
        hours = {hour_ms for _, hour_ms in self._shelf.held()}
        hours |= {hour_of(g.message["ts"]) for g in gaps} | self._shelf.hours().keys()
        return sorted(h for h in hours if begin_ms - HOUR_MS < h < end_ms)

    def last_before(self, stream: Stream, ts_ms: int, within_ms: int) -> Table | None:
        """A stream's last row before a time, by time; None where that is longer ago."""
        table = by_time(self._shelf.table(stream, ts_ms - within_ms, ts_ms))
        return table.pick(slice(table.rows - 1, None)).whole() if table.rows else None

    def first_after(self, stream: Stream, ts_ms: int, within_ms: int) -> tuple[int, bool] | None:
        """(ts, joined) of its first row from a time on; None where that comes later."""
        table = by_time(self._shelf.table(stream, ts_ms, ts_ms + within_ms))
        return (int(table.ints("ts")[0]), bool(table.joined[0])) if table.rows else None

    def close(self) -> None:
        """Closes what is open."""
        self._shelf.close()


def _fields(table: Table) -> Iterator[str]:
    """Names of fields, arrays by their elements."""
    for name in table.names:
        if not name.startswith(VALUES):
            continue
        field = name[len(VALUES) :]
        column = table.get(name)
        cells = [] if column is None else column.values[-1:].tolist()
        if cells and isinstance(cells[0], list):
            yield from (f"{field}.{i}" for i in range(len(cells[0])))
        else:
            yield field


def _kind(values: NDArray[Any] | None) -> str:
    if values is None or values.dtype.hasobject:
        return "text"
    return "bool" if values.dtype == np.bool_ else "number"


def _counted(kind: str, info: FieldInfo) -> Kind:
    if kind == "number":
        return "counter" if info.counts else "number"
    return "bool" if kind == "bool" else "text"
