"""One file of the outbox: an SQLite database of consecutive rows, 64 MB at most.

Segments are given back to the disk by unlinking: on a truly full disk SQLite can neither DELETE nor
checkpoint. Each also holds where every stream stands (``stream``), in the same transaction as the
rows; a new segment begins with a copy, so the newest one always knows all of them.

Every row carries a CRC32 of all its fields: SQLite's pages have none.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

SEGMENT_BYTES = 64 * 2**20
_SCHEMA = """
CREATE TABLE row (pos INTEGER PRIMARY KEY, kind INTEGER, plc TEXT, locatario TEXT, ts_ms INTEGER,
                  epoch INTEGER, seq INTEGER, body BLOB, outputs TEXT, crc INTEGER);
CREATE TABLE stream (plc TEXT PRIMARY KEY, epoch INTEGER, seq INTEGER) WITHOUT ROWID;
"""
_COLUMNS = "pos, kind, plc, locatario, ts_ms, epoch, seq, body, outputs, crc"


class Corrupt(Exception):
    """A segment that cannot be read any further: put it aside."""


@dataclass(frozen=True, slots=True)
class Row:
    """One message in the outbox. ``outputs``: names with commas around, or "" for all."""

    pos: int
    kind: int
    plc: str
    locatario: str
    ts_ms: int
    epoch: int
    seq: int
    body: bytes
    outputs: str = ""

    def crc(self) -> int:
        """Of everything in it."""
        head = f"{self.pos},{self.kind},{self.plc},{self.locatario},{self.ts_ms},{self.epoch},"
        return zlib.crc32(self.body, zlib.crc32(f"{head}{self.seq},{self.outputs}".encode()))


class Segment:
    """Rows from ``first_pos`` on. Raises Corrupt where the file is damaged, apsw.FullError on a
    full disk.
    """

    def __init__(self, path: Path, durability: str = "full", vfs: str = "") -> None:
        self.path = path
        self.first_pos = int(path.stem)
        is_new = not path.exists()
        self._db = apsw.Connection(str(path), vfs=vfs or None)
        self._db.set_busy_timeout(2_000)
        try:
            self._db.execute("PRAGMA page_size=4096")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={durability}")
            # Checkpoints move the WAL into the file every 4 MB; the WAL never grows much more.
            self._db.execute("PRAGMA wal_autocheckpoint=1000")
            self._db.execute("PRAGMA cache_size=-2048")
            tables = list(self._db.execute("SELECT name FROM sqlite_schema WHERE type='table'"))
            if not tables:
                with self._db:
                    self._db.execute(_SCHEMA)
            ((self.last_pos,),) = self._db.execute("SELECT ifnull(max(pos), 0) FROM row")
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError) as e:
            self._db.close()
            raise Corrupt(f"{path.name}: {e}") from None
        self.last_pos = max(self.last_pos, self.first_pos - 1)
        if is_new and not vfs:
            _sync_folder(path.parent)

    def append(self, rows: Iterable[Row], streams: dict[str, tuple[int, int]]) -> None:
        """Commits rows and where their streams now stand, both or neither."""
        values = [
            (r.pos, r.kind, r.plc, r.locatario, r.ts_ms, r.epoch, r.seq, r.body, r.outputs, r.crc())
            for r in rows
        ]
        with self._db:
            self._db.executemany("INSERT INTO row VALUES (?,?,?,?,?,?,?,?,?,?)", values)
            self._db.executemany(
                "INSERT OR REPLACE INTO stream VALUES (?,?,?)",
                [(plc, *where) for plc, where in streams.items()],
            )
        if values:
            self.last_pos = values[-1][0]

    def read(self, after: int, limit: int) -> list[Row]:
        """Up to ``limit`` rows behind ``after``, in order. Raises Corrupt at a damaged row."""
        rows = []
        sql = f"SELECT {_COLUMNS} FROM row WHERE pos > ? ORDER BY pos LIMIT ?"
        try:
            for values in self._db.execute(sql, (after, limit)):
                rows.append(_row(values))
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as e:
            raise Corrupt(f"{self.path.name}: {e}") from None
        return rows

    def streams(self) -> dict[str, tuple[int, int]]:
        """PLC -> (epoch, seq) of its newest row, at this segment's end."""
        try:
            rows = list(self._db.execute("SELECT plc, epoch, seq FROM stream"))
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError) as e:
            raise Corrupt(f"{self.path.name}: {e}") from None
        return {plc: (epoch, seq) for plc, epoch, seq in rows}

    def salvage(self) -> Iterator[Row]:
        """Every row that still can be read and whose CRC holds."""
        at = self.first_pos - 1
        step = 256
        while at < max(self.last_pos, self.first_pos):
            try:
                sql = f"SELECT {_COLUMNS} FROM row WHERE pos > ? AND pos <= ? ORDER BY pos"
                for values in self._db.execute(sql, (at, at + step)):
                    try:
                        yield _row(values)
                    except Corrupt:
                        continue
                at += step
                step = 256
            except apsw.Error:
                if step == 1:
                    at += 1
                else:
                    step = 1  # around the damage row by row

    @property
    def size_bytes(self) -> int:
        """On disk, WAL included."""
        size = 0
        for suffix in ("", "-wal"):
            try:
                size += os.stat(f"{self.path}{suffix}").st_size
            except FileNotFoundError:
                continue
        return size

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def unlink(self) -> None:
        """Closes it and gives its space back."""
        with contextlib.suppress(apsw.Error):  # nothing in it matters any more
            self._db.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)


def _row(values: tuple[object, ...]) -> Row:
    *fields, crc = values
    try:
        row = Row(*fields)  # type: ignore[arg-type]
        good = row.crc() == crc
    except TypeError:  # a flipped bit made a number of a text
        good = False
    if not good:
        raise Corrupt(f"row {values[0]!r} does not match its CRC")
    return row


def _sync_folder(folder: Path) -> None:
    """A new file survives a power cut only when its folder is on disk too."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
