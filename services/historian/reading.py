"""Reads the history; any process may, beside the historian or without it.

Times are Unix ms, UTC; ranges hold their begin and not their end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import apsw
import numpy as np
import orjson
from numpy.typing import NDArray

from services.historian.bounds import Bound
from services.historian.condense import Buckets, Times, condense, condense_text
from services.historian.known import Known
from services.historian.recent import FILE, open_table, stream_id
from services.historian.shapes import (
    GOOD,
    HOUR_MS,
    MINUTE_MS,
    QUALITIES,
    Floats,
    Gap,
    Raw,
    Rolled,
    Series,
    SeriesInfo,
    Stream,
    Unknown,
)
from services.historian.table import (
    VALUES,
    Table,
    by_time,
    joined_tables,
    known_quality,
    ordered,
)

__all__ = ["Gap", "History", "Raw", "Rolled", "Series", "SeriesInfo", "Stream", "Unknown"]

Kind = Literal["number", "bool", "counter", "text"]


class History:
    """The history in a folder (``<state>/history``). Not for several threads at once.

    ``bound``: what reading may cost; set it anew before each question.
    """

    def __init__(self, folder: Path, bound: Bound | None = None) -> None:
        self.folder = folder
        self.bound = bound or Bound(None, None)
        self._db: apsw.Connection | None = None

    # -- what there is --------------------------------------------------------------------------

    def streams(self, plc: str = "", locatario: str = "") -> list[Stream]:
        """Those that have something."""
        sql = "SELECT locatario, plc, grp, machine FROM stream ORDER BY 1, 2, 3, 4"
        found = [Stream(*row) for row in self._rows(sql)]
        return [
            s
            for s in found
            if s.plc == (plc or s.plc) and s.locatario == (locatario or s.locatario)
        ]

    def series(
        self, plc: str = "", field: str = "", group: str = "", machine: str = "",
        locatario: str = "",
    ) -> list[SeriesInfo]:  # fmt: skip
        """Every series that has something; of what is named, where it is."""
        known, found = Known.load(self.folder), []
        for stream in self.streams(plc, locatario):
            if (group and stream.group != group) or (machine and stream.machine != machine):
                continue
            ends = self._ends(stream)
            if ends is None:
                continue
            newest = self._table(stream, ends[1], ends[1] + 1)
            for name in _fields(newest):
                if field and name != field:
                    continue
                column = newest.field(name)
                info = known.field(stream, name)
                kind = _kind(None if column is None else column.values, info.counts)
                found.append(SeriesInfo(Series(*stream, name), kind, info.type, info.unit, *ends))
        return found

    def find(self, series: Series) -> SeriesInfo | None:
        """One of them."""
        found = self.series(*series.stream[1:2], series.field, locatario=series.locatario)
        return next((s for s in found if s.series == series), None)

    # -- values ---------------------------------------------------------------------------------

    def raw(self, series: Sequence[Series], begin_ms: int, end_ms: int, limit: int) -> list[Raw]:
        """The messages of each, the first ``limit`` of them."""
        out = []
        for one in series:
            table = by_time(self._table(one.stream, begin_ms, end_ms))
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

    def rolled(
        self, series: Sequence[Series], begin_ms: int, end_ms: int, step_ms: int
    ) -> list[Rolled]:
        """Roll-ups, a bucket per ``step_ms`` from ``begin_ms`` on; with a step of whole minutes
        that begin is floored to the minute, and stored roll-ups serve.
        """
        if step_ms % MINUTE_MS == 0:
            begin_ms -= begin_ms % MINUTE_MS
        size = max(0, -(-(end_ms - begin_ms) // step_ms))
        known, out = Known.load(self.folder), []
        for one in series:
            info = known.field(one.stream, one.field)
            kind, buckets = self._buckets(one, begin_ms, step_ms, size, known)
            starts = begin_ms + step_ms * np.arange(size, dtype=np.int64)
            kind = "counter" if info.counts and kind == "number" else kind
            out.append(
                Rolled(
                    one, kind, step_ms, starts, buckets.count, buckets.mean(), buckets.low,
                    buckets.high, buckets.last, buckets.known_ms, buckets.weighted(),
                    buckets.increase, buckets.edges,
                )
            )  # fmt: skip
        return out

    def _buckets(
        self, one: Series, begin_ms: int, step_ms: int, size: int, known: Known
    ) -> tuple[str, Buckets]:
        hold_ms = known.hold_ms(one.stream)
        end_ms = begin_ms + size * step_ms
        around = max(hold_ms, HOUR_MS)
        table = by_time(self._table(one.stream, begin_ms - around, end_ms + around))
        found, quality = known_quality(table, one.field)
        good = quality == GOOD
        times = Times(table.ints("ts"), good, table.joined, begin_ms, step_ms, size, hold_ms)
        if found is None:
            return "number", Buckets.empty(size)
        kind = _kind(found.values, False)
        if kind == "text":
            buckets = condense_text(times, found.values)
            buckets.total.fill(np.nan)
            buckets.area.fill(np.nan)
            buckets.increase.fill(np.nan)
            return kind, buckets
        values: Floats = np.where(good, found.values, 0).astype(np.float64)
        return kind, condense(times, values, known.field(one.stream, one.field).span)

    # -- what is not known ----------------------------------------------------------------------

    def known(self, stream: Stream, begin_ms: int, end_ms: int) -> list[Unknown]:
        """The times between of which its values are **not** known, in order, touching or not."""
        hold_ms = Known.load(self.folder).hold_ms(stream)
        table = by_time(self._table(stream, begin_ms - hold_ms, end_ms + hold_ms))
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
            else:
                add(at + hold_ms, t, "silent")
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
        sql = (
            "SELECT locatario, plc, from_ms, to_ms, body FROM gap WHERE plc = ?"
            " AND coalesce(to_ms, from_ms, ?) >= ? AND coalesce(from_ms, to_ms, ?) < ? ORDER BY id"
        )
        rows = self._rows(sql, (plc, begin_ms, begin_ms, begin_ms, end_ms))
        return [_gap(row) for row in rows if row[0] == (locatario or row[0])]

    def messages(
        self, plc: str, begin_ms: int, end_ms: int, locatario: str = ""
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(topic, message) as delivered, samples and gaps whose ``ts`` lies in the range: those of
        an hour after those of the hour before, each in order of (epoch, seq).
        """
        for hour_ms in range(begin_ms - begin_ms % HOUR_MS, end_ms, HOUR_MS):
            first, last = max(hour_ms, begin_ms), min(hour_ms + HOUR_MS, end_ms)
            found: list[tuple[tuple[int, int], str, dict[str, Any]]] = []
            for stream in self.streams(plc, locatario):
                topic = f"plc/{stream.locatario}/{stream.plc}"
                for m in self._table(stream, first, last).messages():
                    found.append(((m["epoch"], m["seq"]), topic, m))
            for gap in self._gap_messages(plc, first, last, locatario):
                identity = gap.message["epoch"], gap.message["first_seq"]
                found.append((identity, f"plc/{gap.locatario}/{plc}/gap", gap.message))
            for _, topic, message in sorted(found, key=lambda f: f[0]):
                yield topic, message

    def _gap_messages(self, plc: str, first_ms: int, last_ms: int, locatario: str) -> list[Gap]:
        sql = "SELECT locatario, plc, from_ms, to_ms, body FROM gap WHERE plc = ? ORDER BY id"
        gaps = [_gap(row) for row in self._rows(sql, (plc,))]
        return [
            g for g in gaps
            if first_ms <= g.message["ts"] < last_ms and g.locatario == (locatario or g.locatario)
        ]  # fmt: skip

    # -- files ----------------------------------------------------------------------------------

    def _rows(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if self._db is None:
            path = self.folder / FILE
            if not path.exists():
                return []
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(1_000)
        return list(self._db.execute(sql, tuple(args)))

    def _ends(self, stream: Stream) -> tuple[int, int] | None:
        sql = "SELECT min(first_ms), max(last_ms) FROM block WHERE stream = ?"
        ((first, last),) = self._rows(sql, (stream_id(stream),)) or [(None, None)]
        return None if first is None else (first, last)

    def _table(self, stream: Stream, begin_ms: int, end_ms: int) -> Table:
        """Its rows of that time, by (epoch, seq)."""
        sql = (
            "SELECT rows, joined, crc, body FROM block WHERE stream = ? AND first_ms < ?"
            " AND last_ms >= ? ORDER BY id"
        )
        tables = []
        for row in self._rows(sql, (stream_id(stream), end_ms, begin_ms)):
            self.bound.spend()
            tables.append(open_table(*row))
        if not tables:
            return Table.of([], [])
        table = ordered(joined_tables(tables))
        ts = table.ints("ts")
        inside = (ts >= begin_ms) & (ts < end_ms)
        return table if inside.all() else table.pick(np.flatnonzero(inside))

    def close(self) -> None:
        """Closes what is open."""
        if self._db is not None:
            self._db.close()
            self._db = None


def _gap(row: tuple[Any, ...]) -> Gap:
    return Gap(row[0], row[1], row[2], row[3], orjson.loads(row[4]))


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


def _kind(values: NDArray[Any] | None, counts: bool) -> Kind:
    if values is None or values.dtype == object:
        return "text"
    if values.dtype == np.bool_:
        return "bool"
    return "counter" if counts else "number"
