"""Stored roll-ups: ``minute/2026-11-30.db`` holds minutes, an hour of a series in each row;
``hour/2026-11.db`` hours, a day in each row.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import apsw
import numpy as np

from services.consumer.database import put_aside
from services.historian.codec import Damaged, decode, encode
from services.historian.condense import Buckets
from services.historian.shapes import DAY_MS, HOUR_MS, MINUTE_MS, Series
from services.historian.table import Column
from services.runtime.files import sync_folder


class Level(NamedTuple):
    """One resolution."""

    name: str
    step_ms: int
    row_ms: int
    """What one row holds."""
    file: str
    """strftime of a file's name."""

    @property
    def size(self) -> int:
        """Buckets in a row."""
        return self.row_ms // self.step_ms

    def path(self, folder: Path, ts_ms: int) -> Path:
        """The file for a time."""
        day = datetime.fromtimestamp(ts_ms / 1_000, UTC)
        return folder / self.name / f"{day.strftime(self.file)}.db"


MINUTE = Level("minute", MINUTE_MS, HOUR_MS, "%Y-%m-%d")
HOUR = Level("hour", HOUR_MS, DAY_MS, "%Y-%m")
LEVELS = (MINUTE, HOUR)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (id INTEGER PRIMARY KEY, locatario TEXT, plc TEXT, grp TEXT,
                                   machine TEXT, field TEXT, kind TEXT);
CREATE TABLE IF NOT EXISTS roll (series INTEGER, row_ms INTEGER, crc INTEGER, body BLOB,
                                 PRIMARY KEY (series, row_ms)) WITHOUT ROWID;
"""
ROLL_ERRORS = (apsw.Error,)
_WHOLE = ("count", "edges", "known_ms", "last_ms")
_SEEN, _SUMS = ("low", "high", "last"), ("total", "area", "increase")


def series_id(series: Series) -> int:
    """The same in every file."""
    name = "/".join((*series.stream, series.field)).encode()
    return int.from_bytes(blake2b(name, digest_size=8).digest()) >> 1


def pack(buckets: Buckets, row_ms: int) -> bytes:
    """As bytes, exact: whole numbers, values as they came, sums."""
    came, size = buckets.count > 0, buckets.size
    whole = [getattr(buckets, name) for name in _WHOLE]
    whole[3] = np.where(came, buckets.last_ms - row_ms, 0)
    text = buckets.last.dtype.hasobject
    seen = [buckets.last] if text else [getattr(buckets, name) for name in _SEEN]
    there = None if came.all() else np.tile(came, len(seen))
    columns = (
        Column(np.concatenate(whole).astype(np.int64), None),
        Column(np.concatenate(seen), there),
        Column(np.zeros(0) if text else np.concatenate([getattr(buckets, n) for n in _SUMS]), None),
    )
    bodies = [encode(column) for column in columns]
    sizes = b"".join(len(body).to_bytes(3, "little") for body in bodies)
    return bytes([size, text]) + sizes + b"".join(bodies)


def unpack(body: bytes, size: int, row_ms: int) -> Buckets:
    """What ``pack`` gave. Raises Damaged."""
    if len(body) < 11 or body[0] != size:
        raise Damaged("roll-ups of another size")
    out, text, at = Buckets.empty(size), body[1], 11
    found = []
    for i, count in enumerate((4 * size, size if text else 3 * size, 0 if text else 3 * size)):
        length = int.from_bytes(body[2 + 3 * i : 5 + 3 * i], "little")
        found.append(decode(body[at : at + length], count))
        at += length
    out.count, out.edges, out.known_ms, last = found[0].values.reshape(4, size)
    came = out.count > 0
    out.last_ms = np.where(came, last + row_ms, 0)
    if text:
        out.last = found[1].values
        out.no_numbers()
        return out
    seen = found[1].values.astype(np.float64)
    if found[1].present is not None:
        seen[~found[1].present] = np.nan
    out.low, out.high, out.last = seen.reshape(3, size)
    out.total, out.area, out.increase = found[2].values.reshape(3, size)
    return out


class Rolls:
    """One file. Raises apsw.Error."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        if write:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not path.exists():
            raise FileNotFoundError(path)
        self.path = path
        self.aside = ""
        """Why another file that was here lies aside; minutes or rows tell what it told."""
        try:
            self._open(path, write)
        except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as e:
            if not write:
                raise
            self.aside = f"{path.name}: {e}"
            put_aside(path)
            self._open(path, write)

    def _open(self, path: Path, write: bool) -> None:
        new = write and not path.exists()
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if write else 0)
        self.db = apsw.Connection(str(path), flags=flags)
        self.db.set_busy_timeout(1_000)
        if write:
            try:
                # FULL does not sync the folder when the journal is removed: after a power cut it
                # could be back, and take the last roll-ups with it.
                self.db.execute("PRAGMA synchronous=EXTRA")
                self.db.execute(_SCHEMA)
                if new:
                    sync_folder(path.parent)
                    sync_folder(path.parent.parent)
            except Exception:
                self.db.close()
                raise

    def get(self, level: Level, series: Series, row_ms: int) -> Buckets | None:
        """A row; None where there is none. Raises Damaged."""
        sql = "SELECT crc, body FROM roll WHERE (series, row_ms) = (?,?)"
        row = self.db.execute(sql, (series_id(series), row_ms)).fetchone()
        if row is None:
            return None
        if zlib.crc32(row[1]) != row[0]:
            raise Damaged(f"{self.path.name}: {series.field}")
        return unpack(row[1], level.size, row_ms)

    def kind(self, series: Series) -> str | None:
        """What it is, where it is known here."""
        sql = "SELECT kind FROM series WHERE id = ?"
        row = self.db.execute(sql, (series_id(series),)).fetchone()
        return row[0] if row else None

    def end(self, series: Series, which: str) -> int | None:
        """Its first (``min``) or last (``max``) row; None where it has none, or that is damaged."""
        sql = f"SELECT {which}(row_ms) FROM roll WHERE series = ?"
        try:
            row = self.db.execute(sql, (series_id(series),)).fetchone()
        except ROLL_ERRORS:
            return None
        return row[0] if row else None

    def series(self) -> list[tuple[Series, str]]:
        """Every series with its kind."""
        sql = "SELECT locatario, plc, grp, machine, field, kind FROM series"
        return [(Series(*row[:5]), row[5]) for row in self.db.execute(sql)]

    def put(self, rows: Iterable[tuple[Series, str, int, bytes]]) -> None:
        """(series, kind, row_ms, ``pack``ed), in one transaction."""
        with self.db:
            for series, kind, row_ms, body in rows:
                number = series_id(series)
                self.db.execute(
                    "INSERT OR REPLACE INTO series VALUES (?,?,?,?,?,?,?)",
                    (number, *series.stream, series.field, kind),
                )
                self.db.execute(
                    "INSERT OR REPLACE INTO roll VALUES (?,?,?,?)",
                    (number, row_ms, zlib.crc32(body), body),
                )

    def close(self) -> None:
        """Closes it."""
        with contextlib.suppress(apsw.Error):
            self.db.close()


def files(folder: Path, level: Level) -> list[tuple[int, Path, int]]:
    """(when it ends, path, bytes) of each file of a level, the oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder / level.name) as entries:
        for entry in entries:
            stem, _, suffix = entry.name.partition(".")
            if suffix != "db":
                continue
            with contextlib.suppress(ValueError, FileNotFoundError):
                begin = datetime.strptime(stem, level.file).replace(tzinfo=UTC)
                month = begin.month % 12 + 1
                year = begin.year + (month == 1)
                end = begin.replace(year=year, month=month) if level is HOUR else None
                end_ms = round((end or begin).timestamp() * 1_000) + (0 if end else DAY_MS)
                found.append((end_ms, Path(entry.path), entry.stat().st_size))
    return sorted(found)
