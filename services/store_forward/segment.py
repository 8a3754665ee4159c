"""One file of the outbox: an SQLite database of consecutive rows, 64 MB at most.

Segments are given back to the disk by unlinking: on a truly full disk SQLite can neither DELETE nor
checkpoint. Each also holds where every stream stands (``stream``), in the same transaction as the
rows; a new segment begins with a copy, so the newest one always knows all of them.

SQLite's pages have no checksum, so every record carries one, and positions follow each other
without a hole except those in ``hole``: a row that a flipped bit has hidden is missed.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from services.runtime.clock import now_ms
from services.runtime.files import sync_folder

SEGMENT_BYTES = 64 * 2**20
PAGE_BYTES = 4096
_SCHEMA = """
CREATE TABLE row (pos INTEGER PRIMARY KEY, kind INTEGER, plc TEXT, locatario TEXT, ts_ms INTEGER,
                  epoch INTEGER, seq INTEGER, body BLOB, outputs TEXT, crc INTEGER);
CREATE TABLE stream (plc TEXT PRIMARY KEY, locatario TEXT, epoch INTEGER, seq INTEGER,
                     ts_ms INTEGER, crc INTEGER) WITHOUT ROWID;
CREATE TABLE meta (id INTEGER PRIMARY KEY, last INTEGER, floor INTEGER, crc INTEGER);
CREATE TABLE hole (first INTEGER PRIMARY KEY, last INTEGER, crc INTEGER);
"""
_COLUMNS = "pos, kind, plc, locatario, ts_ms, epoch, seq, body, outputs, crc"
# What SQLite raises when the disk, not the file, is at fault: nothing is damaged, try again.
NO_ROOM = (apsw.FullError, apsw.CantOpenError, OSError)
# What it raises when the file is at fault; a flipped bit in a text is Python's to refuse.
DAMAGE = (apsw.Error, UnicodeDecodeError)


class Corrupt(Exception):
    """A segment that cannot be read any further: put it aside."""


class Where(NamedTuple):
    """Where one PLC's stream stands: its newest row's identity, tenant and time."""

    locatario: str
    epoch: int
    seq: int
    ts_ms: int


class Row(NamedTuple):
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

    def values(self) -> tuple[Any, ...]:
        """As stored: its fields and their CRC."""
        return (*self, self.crc())

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Row:
        """The inverse of ``values``. Raises Corrupt where the CRC does not hold."""
        *fields, check = values
        try:
            row = cls(*fields)
            good = row.crc() == check
        except TypeError:  # a flipped bit made a number of a text
            good = False
        if not good:
            raise Corrupt(f"row {values[0]!r} does not match its CRC")
        return row


class Segment:
    """Rows from ``first_pos`` on. Raises Corrupt where the file is damaged, one of ``NO_ROOM`` on a
    full disk.
    """

    def __init__(self, path: Path, durability: str = "full", damaged: bool = False) -> None:
        """``damaged``: open it whatever is wrong, only to salvage what can be read."""
        self.path = path
        self.first_pos = int(path.name.split(".")[0])
        self.floor = 0
        """Everything up to this position was dropped, with gap rows."""
        self.holes: dict[int, int] = {}
        """First -> last position of what was lost to damage, with gap rows."""
        self._opened_s = time.monotonic()
        self.appended_s: float | None = None
        """When this process last wrote rows into it, monotonic; None: it has not."""
        self.written_ms = _newest_ms(path)
        """When rows were last written into it, Unix ms. (Opening writes too.)"""
        self._sized_bytes, self._grown_bytes = 0, -1
        """Its size when it was looked at last; how much came since, -1: never looked."""
        is_new = not path.exists()
        self._db = apsw.Connection(str(path))
        self.last_pos = self.first_pos - 1
        try:
            # One process, one connection: no shared memory file, so that a full disk cannot
            # keep us from reading.
            self._run("PRAGMA locking_mode=EXCLUSIVE")
            self._run(f"PRAGMA page_size={PAGE_BYTES}")
            self._run("PRAGMA journal_mode=WAL")
            self._run(f"PRAGMA synchronous={durability}")
            # Checkpoints move the WAL into the file every 4 MB; the WAL never grows much more.
            self._run("PRAGMA wal_autocheckpoint=1000")
            self._run("PRAGMA cache_size=-2048")
            if not self._run("SELECT name FROM sqlite_schema WHERE type='table'"):
                if not is_new:
                    raise Corrupt("empty")
                with self._db:
                    self._db.execute(_SCHEMA)
                    self._write_meta()
            self._read_meta()
        except (Corrupt, *DAMAGE) as e:
            if damaged:
                with contextlib.suppress(apsw.Error, IndexError):
                    newest: Any = self._db.execute("SELECT max(pos) FROM row").fetchall()[0][0]
                    self.last_pos = max(self.last_pos, newest or 0)
                return
            with contextlib.suppress(apsw.Error):
                self._db.close()
            if isinstance(e, NO_ROOM):
                raise
            raise Corrupt(f"{path.name}: {e}") from None
        if is_new:
            sync_folder(path.parent)

    def _run(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All of an answer; anything but a full disk is damage."""
        try:
            return list(self._db.execute(sql, values))
        except NO_ROOM:
            raise
        except DAMAGE as e:
            raise Corrupt(f"{self.path.name}: {e}") from None

    def _write_meta(self) -> None:
        values = (self.last_pos, self.floor)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (0,?,?,?)", (*values, crc(*values)))

    def _read_meta(self) -> None:
        meta = self._run("SELECT last, floor, crc FROM meta")
        if len(meta) != 1 or crc(*meta[0][:2]) != meta[0][2]:
            raise Corrupt("its head does not match its CRC")
        self.last_pos, self.floor, _ = meta[0]
        for first, last, check in self._run("SELECT first, last, crc FROM hole"):
            if crc(first, last) != check:
                raise Corrupt("a hole does not match its CRC")
            self.holes[first] = last
        ((newest,),) = self._run("SELECT max(pos) FROM row")
        if (newest or self.first_pos - 1) > self.last_pos:
            raise Corrupt(f"holds row {newest} behind its last, {self.last_pos}")

    def append(
        self,
        rows: Sequence[Row],
        streams: dict[str, Where],
        *,
        floor: int = 0,
        holes: Sequence[tuple[int, int]] = (),
        last_pos: int = 0,
        more: Callable[[apsw.Connection], None] | None = None,
    ) -> None:
        """Commits rows, where their streams now stand, what is dropped, what is lost, and what
        ``more`` writes: all or nothing.
        """
        values = [r.values() for r in rows]
        before = (self.last_pos, self.floor)
        try:
            with self._db:
                self._db.executemany("INSERT INTO row VALUES (?,?,?,?,?,?,?,?,?,?)", values)
                self._db.executemany(
                    "INSERT OR REPLACE INTO stream VALUES (?,?,?,?,?,?)",
                    [(plc, *where, crc(plc, *where)) for plc, where in streams.items()],
                )
                if holes:
                    self._db.executemany(
                        "INSERT INTO hole VALUES (?,?,?)", [(a, b, crc(a, b)) for a, b in holes]
                    )
                if more is not None:
                    more(self._db)
                self.last_pos = max(last_pos, values[-1][0] if values else self.last_pos)
                self.floor = max(self.floor, floor)
                self._write_meta()
        except BaseException:
            self.last_pos, self.floor = before
            raise
        self.holes.update(holes)
        if values:
            if self._grown_bytes >= 0:
                self._grown_bytes += PAGE_BYTES * 4 + sum(len(r.body) for r in rows)
            self.appended_s = time.monotonic()
            self.written_ms = now_ms()

    def read(self, after: int, limit: int) -> list[Row]:
        """Up to ``limit`` rows behind ``after``, in order. Raises Corrupt at a damaged row or where
        one is missing.
        """
        after = max(after, self.first_pos - 1)
        sql = f"SELECT {_COLUMNS} FROM row WHERE pos > ? AND pos <= ? ORDER BY pos LIMIT ?"
        rows = [Row.of(values) for values in self._run(sql, (after, self.last_pos, limit))]
        want = self._behind(after)
        for row in rows:
            if row.pos != want:
                raise Corrupt(f"{self.path.name}: row {want} is missing")
            want = self._behind(row.pos)
        if len(rows) < limit and want <= self.last_pos:
            raise Corrupt(f"{self.path.name}: rows from {want} on are missing")
        return rows

    def _behind(self, pos: int) -> int:
        """The next position that must hold a row."""
        pos += 1
        if self.holes:
            for first, last in sorted(self.holes.items()):
                if first <= pos <= last:
                    pos = last + 1
        return pos

    def streams(self) -> dict[str, Where]:
        """PLC -> where it stands at this segment's end. Raises Corrupt."""
        found = {}
        for plc, *where, check in self._run("SELECT * FROM stream"):
            if crc(plc, *where) != check:
                raise Corrupt(f"{self.path.name}: where {plc!r} stands does not match its CRC")
            found[plc] = Where(*where)
        return found

    def table(self, name: str) -> list[tuple[Any, ...]]:
        """All rows of one that not every segment has. Raises Corrupt."""
        if not self._run("SELECT name FROM sqlite_schema WHERE name = ?", (name,)):
            return []
        return self._run(f"SELECT * FROM {name}")

    def salvage(self) -> Iterator[Row]:
        """Every row that still can be read and whose CRC holds."""
        at, step = self.first_pos - 1, 256
        while at < self.last_pos:
            end = min(at + step, self.last_pos)
            sql = f"SELECT {_COLUMNS} FROM row WHERE pos > ? AND pos <= ? ORDER BY pos"
            try:
                found = list(self._db.execute(sql, (at, end)))
            except apsw.NotADBError:
                return
            except DAMAGE:
                if step > 1:
                    step = 1  # around the damage row by row
                    continue
                found = []
            for values in found:
                with contextlib.suppress(Corrupt):
                    yield Row.of(values)
            at = end
            if at % 256 == 0:
                step = 256

    def verify(self) -> str:
        """What is wrong with it; empty when all is well. Reads every row."""
        try:
            at = self.first_pos - 1
            while rows := self.read(at, 1_000):
                at = rows[-1].pos
            self.streams()
            checks = self._run("PRAGMA quick_check(1)")
        except Corrupt as e:
            return str(e)
        return "" if checks == [("ok",)] else f"{self.path.name}: {checks[0][0]}"

    @property
    def has_rows(self) -> bool:
        """False of one that was only begun: what comes next has its ``first_pos``."""
        return self.last_pos >= self.first_pos

    @property
    def first_ts_ms(self) -> int:
        """When its first row was read; 0 where there is none."""
        try:
            rows = self._run("SELECT ts_ms FROM row ORDER BY pos LIMIT 1")
        except Corrupt:
            return 0  # reading its rows will tell
        return int(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0

    @property
    def open_s(self) -> float:
        """For how long this process has had it open."""
        return time.monotonic() - self._opened_s

    @property
    def size_bytes(self) -> int:
        """On disk, WAL included."""
        size = 0
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(f"{self.path}{suffix}").st_size
        return size

    def is_full(self, bound_bytes: int) -> bool:
        """Whether it has come to that size. Looks at the files again when 1/64 of it was added: on
        every commit that took a tenth of the store's time.
        """
        if self._grown_bytes < 0 or self._grown_bytes * 64 >= bound_bytes:
            self._sized_bytes, self._grown_bytes = self.size_bytes, 0
        return self._sized_bytes + self._grown_bytes >= bound_bytes

    def close(self) -> None:
        """Closes the file; a full or broken disk is no reason to fail: the WAL stays."""
        with contextlib.suppress(apsw.Error):
            self._db.close()

    def unlink(self) -> None:
        """Closes it and gives its space back."""
        self.close()
        remove(self.path)


def _newest_ms(path: Path) -> int:
    latest_s = 0.0
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            latest_s = max(latest_s, os.stat(f"{path}{suffix}").st_mtime)
    return int(latest_s * 1_000)


def crc(*values: object) -> int:
    """Of a few plain values."""
    return zlib.crc32(repr(values).encode())


def remove(path: Path) -> None:
    """A database file and what SQLite keeps beside it; what is gone already is no error."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
