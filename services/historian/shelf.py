"""Which files hold what, for a reader. Nothing is locked: rows that are on their way from one file
to the next are seen in both, never in none, if the files are looked at in the order in which rows
go: ``recent.db``, the growing file, the condensed one, roll-ups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import orjson

from services.historian.bounds import Bound
from services.historian.codec import Damaged
from services.historian.condense import Buckets
from services.historian.hours import (
    GROWING,
    READ_ERRORS,
    HourFile,
    Place,
    in_force,
    places,
    stored_tables,
)
from services.historian.recent import FILE, Blocks, held, hour_of, stream_id
from services.historian.rolls import HOUR, LEVELS, ROLL_ERRORS, Level, Rolls, files
from services.historian.shapes import HOUR_MS, Gap, Series, Stream
from services.historian.table import JOINED, Column, Table, joined_tables, ordered

# A file was replaced between looking and opening.
_TRIES = 5


class Shelf:
    """The files of a folder. What cannot be read is left out and told in ``damage``."""

    def __init__(self, folder: Path, bound: Bound) -> None:
        self.folder = folder
        self.bound = bound
        self.damage: list[str] = []
        self._db: apsw.Connection | None = None
        self._places: dict[int, list[Place]] | None = None
        self._files: dict[Place, HourFile] = {}
        self._rolls: dict[Path, Rolls | None] = {}

    def refresh(self) -> None:
        """Looks anew."""
        self._places = None
        for file in self._files.values():
            file.close()
        for rolls in self._rolls.values():
            if rolls is not None:
                rolls.close()
        self._files, self._rolls = {}, {}

    def close(self) -> None:
        """Closes what is open."""
        self.refresh()
        if self._db is not None:
            self._db.close()
            self._db = None

    # -- recent.db ------------------------------------------------------------------------------

    def _recent(self) -> apsw.Connection | None:
        path = self.folder / FILE
        if self._db is None and path.exists():
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._db.set_busy_timeout(1_000)
        return self._db

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Of ``recent.db``."""
        db = self._recent()
        try:
            return [] if db is None else list(db.execute(sql, tuple(args)))
        except READ_ERRORS as e:
            self.damage.append(f"{FILE}: {e}")
            return []

    def held(self) -> dict[tuple[Stream, int], int]:
        """(stream, hour) → rows that no hour's file has yet."""
        db = self._recent()
        try:
            return {} if db is None else {(s, h): rows for s, h, rows, _ in held(db)}
        except READ_ERRORS as e:
            self.damage.append(f"{FILE}: {e}")
            return {}

    def streams(self) -> list[Stream]:
        """All that have something."""
        sql = "SELECT locatario, plc, grp, machine FROM stream"
        found = {Stream(*row) for row in self.rows(sql)}
        for _, path, _ in files(self.folder, HOUR):
            found |= {series.stream for series, _ in self._listed(path)}
        if not found:  # nothing but hours' files is left
            for hour in self.hours().values():
                for place in hour:
                    file = self._file(place)
                    found |= set(() if file is None else file.streams())
        return sorted(found)

    def _listed(self, path: Path) -> list[tuple[Series, str]]:
        rolls = self._roll_file(path)
        try:
            return [] if rolls is None else rolls.series()
        except ROLL_ERRORS as e:
            self.damage.append(f"{path.name}: {e}")
            return []

    def listed(self) -> dict[Series, str]:
        """Every series that has roll-ups, with its kind."""
        return {
            s: kind for _, path, _ in files(self.folder, HOUR) for s, kind in self._listed(path)
        }

    def ends(self, stream: Stream) -> tuple[int, int] | None:
        """(the first hour, the last ts) of what there is."""
        sql = "SELECT min(hour_ms), max(last_ms) FROM block WHERE stream = ?"
        key = stream_id(stream)
        ((first, last),) = self.rows(sql, (key,)) or [(None, None)]
        self._places = None
        hours = self.hours()
        for hour_ms in sorted(hours, reverse=True):
            if last is not None and hour_of(last) > hour_ms:
                break
            if found := self._part_ends(hours[hour_ms], key):
                last = max(last or 0, found[1])
                break
        for hour_ms in sorted(hours):
            if first is not None and first <= hour_ms:
                break
            if self._part_ends(hours[hour_ms], key):
                first = hour_ms
                break
        for row_ms, row in self._row_ends(Series(*stream, "")):
            filled = np.flatnonzero(row.count)
            if len(filled):
                begin = row_ms + int(filled[0]) * HOUR.step_ms
                first = begin if first is None else min(first, begin)
                last = max(last or 0, int(row.last_ms.max()))
        return None if first is None or last is None else (first, last)

    def _part_ends(self, hour: list[Place], key: int) -> tuple[int, int] | None:
        found: tuple[int, int] | None = None
        for place in hour:
            file = self._file(place)
            sql = "SELECT min(first_ms), max(last_ms) FROM part WHERE stream = ?"
            try:
                row = None if file is None else file.db.execute(sql, (key,)).fetchone()
            except READ_ERRORS as e:
                self.damage.append(f"{place.path.name}: {e}")
                continue
            if row is not None and row[0] is not None:
                found = (row[0], row[1]) if found is None else (
                    min(found[0], row[0]), max(found[1], row[1])
                )  # fmt: skip
        return found

    def _row_ends(self, series: Series) -> Iterator[tuple[int, Buckets]]:
        """The first and the last day of a series that have roll-ups."""
        paths = [path for _, path, _ in files(self.folder, HOUR)]
        for order, chosen in (("min", paths), ("max", paths[::-1])):
            for path in chosen:
                rolls = self._roll_file(path)
                row_ms = None if rolls is None else rolls.end(series, order)
                if row_ms is not None:
                    with contextlib.suppress(Damaged):
                        row = self.roll(HOUR, series, row_ms)
                        if row is not None:
                            yield row_ms, row
                    break

    def gaps(self, where: str, args: Sequence[Any]) -> list[Gap]:
        """Gap messages in the order in which they came."""
        sql = f"SELECT locatario, plc, from_ms, to_ms, body FROM gap WHERE {where} ORDER BY id"
        return [Gap(r[0], r[1], r[2], r[3], orjson.loads(r[4])) for r in self.rows(sql, args)]

    # -- rows -----------------------------------------------------------------------------------

    def hours(self) -> dict[int, list[Place]]:
        """The hours that have files, and which."""
        if self._places is None:
            self._places = in_force(places(self.folder))
        return self._places

    def _file(self, place: Place) -> HourFile | None:
        if place not in self._files:
            try:
                self._files[place] = HourFile(place.path, place.number == GROWING)
            except (*READ_ERRORS, apsw.CantOpenError) as e:
                self.damage.append(f"{place.path.name}: {e}")
                return None
        return self._files[place]

    def table(self, stream: Stream, begin_ms: int, end_ms: int, *, whole: bool = False) -> Table:
        """A stream's rows of that time, by (epoch, seq), each once. ``whole``: those of which a
        part is damaged are marked.
        """
        newest = self._newest(stream, begin_ms, end_ms)
        self._places = None  # what has left recent.db meanwhile is in a file
        tables: list[Table] = []
        first_ms = begin_ms - HOUR_MS
        for hour_ms in [h for h in self.hours() if first_ms < h < end_ms]:  # however long that is
            tables += self._stored(stream, hour_ms, whole)
        tables += newest
        if not tables:
            return Table.of([], [])
        table = ordered(joined_tables(tables))
        ts = table.ints("ts")
        inside = (ts >= begin_ms) & (ts < end_ms)
        return table if inside.all() else table.pick(np.flatnonzero(inside))

    def _newest(self, stream: Stream, begin_ms: int, end_ms: int) -> list[Table]:
        sql = (
            "SELECT rows, joined, crc, body FROM block WHERE stream = ? AND first_ms < ?"
            " AND last_ms >= ? ORDER BY id"
        )
        blocks = Blocks()
        for row in self.rows(sql, (stream_id(stream), end_ms, begin_ms)):
            self.bound.spend()
            blocks.add(row)
        self.damage += blocks.lost
        table = blocks.table()
        return [] if table is None else [table]

    def _stored(self, stream: Stream, hour_ms: int, whole: bool) -> list[Table]:
        for _ in range(_TRIES):
            tables: list[Table] = []
            try:
                for place in self.hours().get(hour_ms, ()):
                    file = self._file(place)
                    if file is not None:
                        lost = len(self.damage)
                        found = stored_tables(file, stream, self.damage, whole=whole)
                        self.bound.spend(len(found))
                        tables += found if lost == len(self.damage) else map(_loosened, found)
                return tables
            except FileNotFoundError:
                self._places = None
        return []

    # -- roll-ups -------------------------------------------------------------------------------

    def _roll_file(self, path: Path) -> Rolls | None:
        if path not in self._rolls:
            try:
                self._rolls[path] = Rolls(path)
            except FileNotFoundError:
                self._rolls[path] = None
            except ROLL_ERRORS as e:
                self.damage.append(f"{path.name}: {e}")
                self._rolls[path] = None
        return self._rolls[path]

    def roll(self, level: Level, series: Series, row_ms: int) -> Buckets | None:
        """A row of roll-ups. Raises Damaged, also where the file is not there."""
        rolls = self._roll_file(level.path(self.folder, row_ms))
        if rolls is None:
            raise Damaged("no file")
        self.bound.spend()
        try:
            return rolls.get(level, series, row_ms)
        except (*ROLL_ERRORS, ValueError) as e:
            self.damage.append(f"{rolls.path.name}: {e}")
            raise Damaged(str(e)) from None

    def kind(self, series: Series, hours: Sequence[int]) -> str | None:
        """What a series is, as its roll-ups of these hours know it."""
        for level in LEVELS:
            for hour_ms in (hours[:1], hours[-1:]):
                for at in hour_ms:
                    rolls = self._roll_file(level.path(self.folder, at))
                    try:
                        found = None if rolls is None else rolls.kind(series)
                    except ROLL_ERRORS as e:
                        self.damage.append(f"{level.path(self.folder, at).name}: {e}")
                        continue
                    if found is not None:
                        return found
        return None


def _loosened(table: Table) -> Table:
    """Something is missing before it: its first row joins to nothing."""
    joined = table.joined.copy()
    joined[:1] = False

    def load(name: str) -> Column | None:
        return Column(joined, None) if name == JOINED else table.once(name)

    return Table(table.rows, [*table.names, JOINED], load)
