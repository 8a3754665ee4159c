"""The messages of an UTC hour: one SQLite file of columns.

``raw/2026-11-30T14.0.db`` grows while rows come, a part of a stream at a time. ``….1.db`` is the
hour condensed: one part a stream, written once and never changed; rows that come late go to a new
``.0``, and both are merged to ``.2``. Which of two holds is its number, so no reader needs a lock.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgpack
import numpy as np
from numpy.typing import NDArray

from services.historian.codec import Damaged, decode, encode
from services.historian.recent import stream_id
from services.historian.shapes import HOUR_MS, Stream
from services.historian.table import DAMAGED, KEYS, Column, Table
from services.runtime import files

FOLDER = "raw"
GROWING = 0
_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d)\.(\d+)\.db")
# Columns of a part, at most: its cells are numbered from id × that on.
_CELLS = 1 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS stream (id INTEGER PRIMARY KEY, locatario TEXT, plc TEXT, grp TEXT,
                                   machine TEXT);
CREATE TABLE IF NOT EXISTS names (id INTEGER PRIMARY KEY, body BLOB UNIQUE);
CREATE TABLE IF NOT EXISTS part (id INTEGER PRIMARY KEY, stream INTEGER, first_ms INTEGER,
                                 last_ms INTEGER, rows INTEGER, names INTEGER, head BLOB,
                                 crc INTEGER);
CREATE INDEX IF NOT EXISTS part_stream ON part (stream);
CREATE TABLE IF NOT EXISTS cell (id INTEGER PRIMARY KEY, crc INTEGER, body BLOB);
"""
READ_ERRORS = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.IOError, ValueError)


class Place(NamedTuple):
    """A file of an hour."""

    hour_ms: int
    number: int
    path: Path
    inode: int
    """Of two growing files of one hour, one after the other, each is another."""

    @property
    def size_bytes(self) -> int:
        """0 where it is gone."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size
        return 0


def places(folder: Path) -> list[Place]:
    """Every file of every hour, in order."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder / FOLDER) as entries:
        for entry in entries:
            if match := _NAME.fullmatch(entry.name):
                hour_ms = round(datetime.fromisoformat(match[1] + ":00+00:00").timestamp() * 1_000)
                place = Place(hour_ms, int(match[2]), Path(entry.path), entry.inode())
                found.append(place)
    return sorted(found)


def in_force(found: Iterable[Place]) -> dict[int, list[Place]]:
    """Of each hour the newest condensed file, and the growing one where there is one."""
    hours: dict[int, list[Place]] = {}
    for place in found:  # ascending numbers
        growing = [p for p in hours.get(place.hour_ms, []) if p.number == GROWING]
        hours[place.hour_ms] = [*growing, place]
    return hours


def path_of(folder: Path, hour_ms: int, number: int) -> Path:
    """Where a file of an hour lies."""
    name = datetime.fromtimestamp(hour_ms / 1_000, UTC).strftime("%Y-%m-%dT%H")
    return folder / FOLDER / f"{name}.{number}.db"


class Part(NamedTuple):
    """Rows of one stream in a file, by (epoch, seq)."""

    id: int
    stream: int
    first_ms: int
    last_ms: int
    rows: int
    names: list[str]
    """Its columns that differ from row to row."""
    same: dict[str, Any]
    """The others: they have one value in all rows."""


class HourFile:
    """One file, to read. Raises READ_ERRORS."""

    def __init__(self, path: Path, growing: bool) -> None:
        if not path.exists():
            raise FileNotFoundError(path)
        if growing:
            self.db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            self.db.set_busy_timeout(1_000)
        else:
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            self.db = apsw.Connection(f"file:{path}?immutable=1", flags=flags)
        self.path = path
        self._names: dict[int, list[str]] = {}

    def streams(self) -> list[Stream]:
        """Whose rows it has."""
        sql = "SELECT locatario, plc, grp, machine FROM stream"
        return [Stream(*row) for row in self.db.execute(sql)]

    def parts(self, stream: int) -> Iterator[Part | Damaged]:
        """Its parts of a stream, in the order in which they came."""
        sql = "SELECT id, first_ms, last_ms, rows, names, head, crc FROM part WHERE stream = ?"
        for number, first, last, rows, names, head, crc in self.db.execute(sql, (stream,)):
            if crc != zlib.crc32(head):
                yield Damaged(f"{self.path.name}: the head of part {number}")
                continue
            try:
                listed = self._named(names)
            except ValueError:
                yield Damaged(f"{self.path.name}: the names of part {number}")
                continue
            same: dict[str, Any] = msgpack.unpackb(zlib.decompress(head))
            yield Part(number, stream, first, last, rows, listed, same)

    def _named(self, number: int) -> list[str]:
        if number not in self._names:
            row = self.db.execute("SELECT body FROM names WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise ValueError("no names")
            try:
                self._names[number] = msgpack.unpackb(zlib.decompress(row[0]))
            except (zlib.error, msgpack.UnpackException, ValueError) as e:
                raise ValueError(str(e)) from None
        return self._names[number]

    def damaged(self, part: Part) -> Iterator[str]:
        """Its columns that cannot be read."""
        for i, name in enumerate(part.names):
            sql = "SELECT crc, body FROM cell WHERE id = ?"
            try:
                row = self.db.execute(sql, (part.id * _CELLS + i,)).fetchone()
            except READ_ERRORS:
                row = None
            if row is None or zlib.crc32(row[1]) != row[0]:
                yield name

    def cell(self, part: Part, name: str) -> Column:
        """A column of a part. Raises Damaged."""
        if name in part.same:
            return _constant(part.same[name], part.rows)
        at = part.id * _CELLS + part.names.index(name)
        row = self.db.execute("SELECT crc, body FROM cell WHERE id = ?", (at,)).fetchone()
        if row is None or zlib.crc32(row[1]) != row[0]:
            raise Damaged(f"{self.path.name}: {name} of part {part.id}")
        return decode(row[1], part.rows)

    def close(self) -> None:
        """Closes it."""
        self.db.close()


class HourWriter:
    """One file, to write: the growing one, or a condensed one that nobody sees before ``seal``."""

    def __init__(self, path: Path, *, growing: bool) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._growing = growing
        self._at = path if growing else path.with_suffix(".building")
        if not growing:
            self._at.unlink(missing_ok=True)
        self.db = apsw.Connection(str(self._at))
        try:
            if growing:
                self.db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
            else:
                # A crash leaves a .building, which is begun anew; ``seal`` syncs what is whole.
                self.db.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
            self.db.execute(_SCHEMA)
            files.sync_folder(path.parent)
            files.sync_folder(path.parent.parent)
        except Exception:
            self.db.close()
            raise

    def add(self, stream: Stream, columns: Iterable[tuple[str, Column]], rows: int, first_ms: int,
            last_ms: int) -> Iterator[None]:  # fmt: skip
        """A part, in one transaction; yields now and then, so that other work comes between.

        ``columns`` is gone through once.
        """
        with self.db:
            key = stream_id(stream)
            self.db.execute("INSERT OR IGNORE INTO stream VALUES (?,?,?,?,?)", (key, *stream))
            ((number,),) = self.db.execute("SELECT coalesce(max(id), 0) + 1 FROM part")
            names: list[str] = []
            same: dict[str, Any] = {}
            for name, column in columns:
                if (value := _one_value(column)) is not _VARIES:
                    same[name] = value
                else:
                    body = encode(column, 1 if self._growing else 6)
                    row = (number * _CELLS + len(names), zlib.crc32(body), body)
                    self.db.execute("INSERT INTO cell VALUES (?,?,?)", row)
                    names.append(name)
                yield
            head = zlib.compress(msgpack.packb(same))
            listed = zlib.compress(msgpack.packb(names))
            self.db.execute("INSERT OR IGNORE INTO names (body) VALUES (?)", (listed,))
            ((found,),) = self.db.execute("SELECT id FROM names WHERE body = ?", (listed,))
            part = (number, key, first_ms, last_ms, rows, found, head, zlib.crc32(head))
            self.db.execute("INSERT INTO part VALUES (?,?,?,?,?,?,?,?)", part)

    def seal(self) -> None:
        """It is whole, and takes its place; whoever synced it before (``path``) need not wait."""
        self.db.close()
        with open(self._at, "rb") as f:
            os.fsync(f.fileno())
        self._at.replace(self._path)
        files.sync_folder(self._path.parent)

    @property
    def path(self) -> Path:
        """Where it lies now."""
        return self._at

    def close(self) -> None:
        """Closes it as it is."""
        self.db.close()


class _Varies:
    pass


_VARIES = _Varies()
_PLAIN = (bool, int, float, str)


def _one_value(column: Column) -> Any:
    """The value that all rows have; ``_VARIES`` where there is none."""
    values, present = column
    if present is not None or not len(values):
        return _VARIES
    if values.dtype.hasobject:
        first = values[0]
        if type(first) not in _PLAIN or any(
            type(v) is not type(first) or v != first for v in values.tolist()
        ):
            return _VARIES
        return first
    bits = values.view(np.int64) if values.dtype == np.float64 else values
    return values[0].item() if (bits == bits[0]).all() else _VARIES


def _constant(value: Any, rows: int) -> Column:
    kind = {bool: np.bool_, int: np.int64, float: np.float64}.get(type(value), object)
    if kind is np.int64 and not -(2**63) <= value < 2**63:
        kind = object
    values: NDArray[Any] = np.empty(rows, kind)
    values[:] = value
    return Column(values, None)


def part_table(file: HourFile, part: Part, damage: list[str]) -> Table:
    """Its rows; columns are read when they are asked for. What is damaged is told and missing."""

    def load(name: str) -> Column | None:
        try:
            return file.cell(part, name)
        except (Damaged, *READ_ERRORS) as e:
            damage.append(str(e))
            return None

    return Table(part.rows, [*part.names, *part.same], load)


def stored_tables(
    file: HourFile, stream: Stream, lost: list[str], *, whole: bool = False
) -> list[Table]:
    """A stream's parts of a file; what cannot be read is told. ``whole``: every column is looked
    at, and rows of which one is damaged are marked (``DAMAGED``).
    """
    return list(_stored(file, stream, lost, whole))


def _stored(file: HourFile, stream: Stream, lost: list[str], whole: bool) -> Iterator[Table]:
    try:
        for part in file.parts(stream_id(stream)):
            if isinstance(part, ValueError):
                lost.append(str(part))
                continue
            gone = set(file.damaged(part)) if whole else set()
            lost += [f"{file.path.name}: {name} of part {part.id}" for name in sorted(gone)]
            if gone:
                marked = [n for n in part.names if n not in gone]
                part = part._replace(names=part.names, same={**part.same, DAMAGED: True})
                yield from _usable(_only(part_table(file, part, lost), [*marked, *part.same]))
            else:
                yield from _usable(part_table(file, part, lost))
    except READ_ERRORS as e:
        lost.append(f"{file.path.name}: {e}")


def _usable(table: Table) -> Iterator[Table]:
    """Without its time or its identity a row is nothing."""
    if all(table.get(key) is not None for key in KEYS):
        yield table


def _only(table: Table, names: list[str]) -> Table:
    return Table(table.rows, names, table.once)


def hours_between(begin_ms: int, end_ms: int) -> range:
    """Where the hours begin that a range touches."""
    return range(begin_ms // HOUR_MS * HOUR_MS, end_ms, HOUR_MS)
