"""``recent.db``: how far the historian has come, and the newest messages as they came.

Position, rows and gaps of one moment are committed together. Rows stay here until their hour's file
has them.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import orjson

from services.consumer.database import DAMAGE, FULL, connect, put_aside
from services.historian.shapes import HOUR_MS, Stream
from services.historian.table import Table
from services.runtime.errors import Unavailable
from services.runtime.failpoints import hit

FILE = "recent.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plc (locatario TEXT, plc TEXT, state BLOB,
                                PRIMARY KEY (locatario, plc)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (id INTEGER PRIMARY KEY, locatario TEXT, plc TEXT, grp TEXT,
                                   machine TEXT, epoch INTEGER, seq INTEGER);
CREATE TABLE IF NOT EXISTS block (id INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER,
                                  hour_ms INTEGER, first_ms INTEGER, last_ms INTEGER,
                                  rows INTEGER, joined BLOB, crc INTEGER, body BLOB);
CREATE INDEX IF NOT EXISTS block_stream ON block (stream, hour_ms);
CREATE TABLE IF NOT EXISTS gap (id INTEGER PRIMARY KEY AUTOINCREMENT, locatario TEXT, plc TEXT,
                                from_ms INTEGER, to_ms INTEGER, body BLOB UNIQUE);
CREATE INDEX IF NOT EXISTS gap_plc ON gap (locatario, plc, to_ms);
"""


def stream_id(stream: Stream) -> int:
    """The same in every file: 63 bits of a hash of the names."""
    return int.from_bytes(blake2b("/".join(stream).encode(), digest_size=8).digest()) >> 1


@dataclass(slots=True)
class Block:
    """Rows of one stream and UTC hour, in the order of the store."""

    stream: Stream
    hour_ms: int
    ts_ms: list[int] = field(default_factory=list)
    identities: list[tuple[int, int]] = field(default_factory=list)
    joined: list[bool] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    """Packed."""

    def packed(self) -> bytes:
        """As one JSON array, compressed."""
        body = zlib.compress(b"[" + b",".join(self.bodies) + b"]", 1)
        self.size_bytes = len(body)
        return body


@dataclass(slots=True)
class Commit:
    """What one transaction adds."""

    position: bytes
    blocks: Sequence[Block]
    plcs: Iterable[tuple[str, str, bytes]]
    """(locatario, PLC, how far its sequence has come)."""
    gaps: Iterable[tuple[str, str, int | None, int | None, bytes]]
    """(locatario, PLC, from, to, body)."""


class Recent:
    """The writer's side; ``on_damage(path, why)`` is told of a file that was put aside."""

    def __init__(self, folder: Path, on_damage: Callable[[Path, str], None]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._on_damage = folder / FILE, on_damage
        try:
            self._open()
        except DAMAGE as e:
            self.renew(str(e))

    def renew(self, why: str) -> None:
        """Puts a damaged file aside; a new one holds what can be read of it."""
        with contextlib.suppress(AttributeError, apsw.Error):
            self.db.close()
        aside = put_aside(self._path)
        self._open()
        self._on_damage(aside, f"{why}; {_salvage(aside, self.db)}")

    def is_sound(self) -> bool:
        """Whether SQLite finds nothing wrong with it."""
        try:
            return bool(self.db.execute("PRAGMA quick_check(1)").get == "ok")
        except DAMAGE:
            return False

    def _open(self) -> None:
        self.db = connect(self._path, _SCHEMA, self._look, exclusive=False)

    def _look(self, db: apsw.Connection) -> None:
        self.db = db
        self.position()

    def close(self) -> None:
        """Closes the file."""
        self.db.close()

    def newest_ms(self) -> int | None:
        """Of the newest message that is here; Unix ms."""
        newest: int | None
        ((newest,),) = self.db.execute("SELECT max(last_ms) FROM block")
        return newest

    def position(self) -> bytes:
        """Of the last commit; b"" before the first."""
        row = self.db.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()
        return row[0] if row else b""

    def plcs(self) -> Iterator[tuple[str, str, bytes]]:
        """What ``Commit.plcs`` kept."""
        yield from self.db.execute("SELECT locatario, plc, state FROM plc")

    def streams(self) -> Iterator[tuple[Stream, tuple[int, int]]]:
        """Each with the newest (epoch, seq) of it."""
        sql = "SELECT locatario, plc, grp, machine, epoch, seq FROM stream"
        for locatario, plc, group, machine, epoch, seq in self.db.execute(sql):
            yield Stream(locatario, plc, group, machine), (epoch, seq)

    def save(self, commit: Commit) -> None:
        """All of it, or nothing. Raises Unavailable where the disk does not take it."""
        try:
            with self.db:
                self._save(commit)
                hit("historian.saving")
        except FULL as e:
            raise Unavailable("disk_full", f"{FILE} cannot be written: {e}") from None
        except DAMAGE as e:
            self.renew(str(e))
            raise Unavailable("damaged", f"{FILE} was damaged: {e}") from None

    def prune(self, before_ms: int) -> None:
        """Forgets gaps that end before."""
        with contextlib.suppress(*FULL, *DAMAGE):
            sql = (
                "DELETE FROM gap WHERE"
                " coalesce(to_ms, from_ms, json_extract(CAST(body AS TEXT), '$.ts'), 0) < ?"
            )
            self.db.execute(sql, (before_ms,))

    def _save(self, commit: Commit) -> None:
        sql = "INSERT OR REPLACE INTO meta VALUES ('position', ?)"
        self.db.execute(sql, (commit.position,))
        self.db.executemany("INSERT OR REPLACE INTO plc VALUES (?,?,?)", commit.plcs)
        blocks: list[tuple[Any, ...]] = []
        streams: dict[int, tuple[Any, ...]] = {}
        for block in commit.blocks:
            key, body = stream_id(block.stream), block.packed()
            newest = max(block.identities)
            streams[key] = (key, *block.stream, *max(newest, streams.get(key, newest)[-2:]))
            blocks.append((
                key, block.hour_ms, min(block.ts_ms), max(block.ts_ms), len(block.bodies),
                np.packbits(block.joined).tobytes(), zlib.crc32(body), body,
            ))  # fmt: skip
        self.db.executemany(
            "INSERT INTO block (stream, hour_ms, first_ms, last_ms, rows, joined, crc, body)"
            " VALUES (?,?,?,?,?,?,?,?)",
            blocks,
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO stream VALUES (?,?,?,?,?,?,?)", streams.values()
        )
        self.db.executemany(
            "INSERT OR IGNORE INTO gap (locatario, plc, from_ms, to_ms, body) VALUES (?,?,?,?,?)",
            commit.gaps,
        )

    # -- rows on their way to their hour's file -------------------------------------------------

    def held(self, hour_ms: int | None = None) -> Iterator[tuple[Stream, int, int, int]]:
        """(stream, hour, rows, bytes) of what lies here, or of one hour."""
        yield from held(self.db, hour_ms)

    def blocks(
        self, stream: Stream, hour_ms: int, rows: int = 2**62
    ) -> list[tuple[int, tuple[Any, ...]]]:
        """(id, what ``Blocks.add`` takes) of a stream's rows of an hour, the oldest first; no more
        once there are so many ``rows``.
        """
        sql = (
            "SELECT id, rows, joined, crc, body FROM block WHERE (stream, hour_ms) = (?,?)"
            " ORDER BY id"
        )
        found: list[tuple[int, tuple[Any, ...]]] = []
        for row in self.db.execute(sql, (stream_id(stream), hour_ms)):
            found.append((row[0], row[1:]))
            rows -= row[1]
            if rows <= 0:
                break
        return found

    def forget(self, blocks: Iterable[int]) -> None:
        """An hour's file has them. What cannot be written is seen twice, and counts once."""
        with contextlib.suppress(*FULL), self.db:
            self.db.executemany("DELETE FROM block WHERE id = ?", [(b,) for b in blocks])


def _salvage(path: Path, into: apsw.Connection) -> str:
    """Copies what can be read, table by table and row by row; says how much that was."""
    counts = dict.fromkeys(("meta", "plc", "stream", "gap", "block"), 0)
    try:
        damaged = apsw.Connection(str(path))
    except apsw.Error as e:
        return f"nothing of it can be read: {e}"
    try:
        for table in counts:
            for row in _readable(damaged, table):
                marks = ",".join("?" * len(row))
                with contextlib.suppress(apsw.ConstraintError), into:
                    into.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
                    counts[table] += 1
    finally:
        with contextlib.suppress(apsw.Error):
            damaged.close()
    return f"{counts['block']} blocks and {counts['gap']} gaps of it could be read"


def _readable(db: apsw.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a damaged table; with numbers, those behind a damaged page too."""
    last = 0
    try:
        for row in db.execute(f"SELECT * FROM {table}"):
            last = row[0] if type(row[0]) is int else 0
            yield row
        return
    except DAMAGE:
        if table not in ("gap", "block"):
            return
    try:
        ((end,),) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
    except DAMAGE:
        return
    for number in range(last + 1, end + 1):
        with contextlib.suppress(*DAMAGE):
            yield from db.execute(f"SELECT * FROM {table} WHERE id = ?", (number,))


def held(db: apsw.Connection, hour_ms: int | None = None) -> Iterator[tuple[Stream, int, int, int]]:
    """See ``Recent.held``."""
    sql = (
        "SELECT locatario, plc, grp, machine, hour_ms, sum(rows), sum(length(body)) FROM block"
        " JOIN stream ON stream.id = block.stream WHERE hour_ms = coalesce(?, hour_ms)"
        " GROUP BY block.stream, hour_ms"
    )
    for *names, hour, rows, size_bytes in db.execute(sql, (hour_ms,)):
        yield Stream(*names), hour, rows, size_bytes


def open_block(
    rows: int, joined: bytes, crc: int, body: bytes
) -> tuple[list[dict[str, Any]], list[bool]]:
    """(messages, joined) of a block. Raises ValueError where it is damaged."""
    if zlib.crc32(body) != crc:
        raise ValueError("a block's checksum is wrong")
    messages: list[dict[str, Any]] = orjson.loads(zlib.decompress(body))
    if len(messages) != rows:
        raise ValueError("a block has lost rows")
    bits = np.unpackbits(np.frombuffer(joined, np.uint8), count=rows)
    return messages, bits.astype(np.bool_).tolist()


class Blocks:
    """The rows of several blocks, as one table."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._joined: list[bool] = []
        self._lost = False
        self.lost: list[str] = []
        """What is damaged."""

    def add(self, block: tuple[Any, ...]) -> None:
        """What ``block`` holds; what is lost is told, and the next row joins to nothing."""
        try:
            messages, joined = open_block(*block)
        except (ValueError, zlib.error) as e:
            self.lost.append(f"{FILE}: {block[0]} rows: {e}")
            self._lost = True
            return
        if self._lost:
            joined[0] = self._lost = False
        self._messages += messages
        self._joined += joined

    def table(self) -> Table | None:
        """All of them; None where there are none."""
        return Table.of(self._messages, self._joined) if self._messages else None


def hour_of(ts_ms: int) -> int:
    """Where the UTC hour begins."""
    return ts_ms // HOUR_MS * HOUR_MS
