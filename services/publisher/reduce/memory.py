"""``<state>/reduce/<output>.db``: position, unfinished steps, and the messages that wait.

All of it changes in one transaction: what a killed process has taken and not kept comes again from
the store, and a message that was made keeps its number for ever.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgpack

from bus.frames import GAP_ROW
from services.consumer.database import FULL, connect_anew_if_damaged
from services.runtime.errors import Unavailable
from services.runtime.failpoints import hit

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plc (locatario TEXT, plc TEXT, state BLOB,
                                PRIMARY KEY (locatario, plc)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (locatario TEXT, plc TEXT, grp TEXT, machine TEXT, state BLOB,
                                   PRIMARY KEY (locatario, plc, grp, machine)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (number INTEGER PRIMARY KEY, kind INTEGER, plc TEXT,
                                  locatario TEXT, ts_ms INTEGER, epoch INTEGER, seq INTEGER,
                                  body BLOB);
CREATE TABLE IF NOT EXISTS letter (number INTEGER PRIMARY KEY, reason TEXT);
"""
_ZIP_LEVEL = 1

PlcKey = tuple[str, str]
"""(locatario, PLC)."""
StreamKey = tuple[str, str, str, str]
"""(locatario, PLC, group, machine)."""


@dataclass(slots=True)
class Waiting:
    """A message of the queue."""

    number: int
    kind: int
    plc: str
    locatario: str
    ts_ms: int
    epoch: int
    seq: int
    body: bytes


@dataclass(slots=True)
class Change:
    """What one transaction adds."""

    position: bytes | None = None
    """None: as it was."""
    plcs: Mapping[PlcKey, Any] = field(default_factory=dict)
    streams: Mapping[StreamKey, Any] = field(default_factory=dict)
    made: Iterable[Waiting] = ()


class Memory:
    """The file; ``on_damage(path, why)`` is told of one that was put aside."""

    def __init__(self, path: Path, on_damage: Callable[[Path, str], None]) -> None:
        self._db = connect_anew_if_damaged(path, _SCHEMA, self._look, on_damage)

    def _look(self, db: apsw.Connection) -> None:
        """Takes it up."""
        self._db = db
        if db.execute("PRAGMA quick_check(1)").get != "ok":
            raise ValueError("quick_check finds damage")
        sql = "SELECT coalesce(sum(length(body)), 0), count(*) FROM queue"
        ((self.size_bytes, self._rows),) = db.execute(sql)
        self.letters: int = db.execute("SELECT count(*) FROM letter").get
        """How many were refused for ever."""
        last = db.execute("SELECT value FROM meta WHERE key = 'last'").get
        self.last = int(last or 0)
        """The newest number; none is given twice."""

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    # -- what was taken --------------------------------------------------------------------------

    def position(self) -> bytes:
        """Of the last commit; b"" before the first."""
        return self._db.execute("SELECT value FROM meta WHERE key = 'position'").get or b""

    def plcs(self) -> Iterator[tuple[PlcKey, Any]]:
        """What ``Change.plcs`` held."""
        for locatario, plc, state in self._db.execute("SELECT * FROM plc"):
            yield (locatario, plc), msgpack.unpackb(state)

    def streams(self) -> Iterator[tuple[StreamKey, Any]]:
        """What ``Change.streams`` held."""
        for *key, state in self._db.execute("SELECT * FROM stream"):
            yield tuple(key), msgpack.unpackb(zlib.decompress(state))

    def save(self, change: Change) -> None:
        """All of it, or nothing. Raises Unavailable where the disk does not take it. Numbers of
        ``made`` are given here.
        """
        last, size_bytes, rows = self.last, self.size_bytes, self._rows
        try:
            with self._db:
                for key, state in change.plcs.items():
                    sql = "INSERT OR REPLACE INTO plc VALUES (?,?,?)"
                    self._db.execute(sql, (*key, msgpack.packb(state)))
                for stream, state in change.streams.items():
                    packed = zlib.compress(msgpack.packb(state), _ZIP_LEVEL)
                    sql = "INSERT OR REPLACE INTO stream VALUES (?,?,?,?,?)"
                    self._db.execute(sql, (*stream, packed))
                for made in change.made:
                    last += 1
                    made.number = last
                    size_bytes += self._put(made)
                    rows += 1
                self._set("last", last)
                if change.position is not None:
                    self._set("position", change.position)
                hit("reduce.saving")
        except FULL as e:
            raise Unavailable("disk_full", f"the reduced messages cannot be kept: {e}") from None
        self.last, self.size_bytes, self._rows = last, size_bytes, rows

    def _set(self, key: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (key, value))

    def _put(self, w: Waiting) -> int:
        """Bytes that it takes."""
        body = zlib.compress(w.body, _ZIP_LEVEL)
        values = (w.number, w.kind, w.plc, w.locatario, w.ts_ms, w.epoch, w.seq, body)
        self._db.execute("INSERT OR REPLACE INTO queue VALUES (?,?,?,?,?,?,?,?)", values)
        return len(body)

    # -- the queue -------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many messages wait, refused ones aside."""
        return int(self._rows) - self.letters

    def oldest_ms(self) -> int | None:
        """The time of the first that waits; None where none does."""
        sql = "SELECT ts_ms FROM queue WHERE number NOT IN (SELECT number FROM letter)"
        found: int | None = self._db.execute(sql + " ORDER BY number LIMIT 1").get
        return found

    def after(self, number: int, count: int) -> list[Waiting]:
        """The next ones that wait."""
        sql = (
            "SELECT * FROM queue WHERE number > ? AND number NOT IN (SELECT number FROM letter)"
            " ORDER BY number LIMIT ?"
        )
        found = [Waiting(*row) for row in self._db.execute(sql, (number, count))]
        for w in found:
            w.body = zlib.decompress(w.body)
        return found

    def settle(self, gone: Iterable[int], refused: Mapping[int, str]) -> bool:
        """Forgets what has arrived, keeps what was refused; False where that could not be written:
        then it is sent again after a restart.
        """
        rows = [(n,) for n in gone]
        try:
            with self._db:
                sql = "SELECT length(body) FROM queue WHERE number = ?"
                sizes = [self._db.execute(sql, row).get or 0 for row in rows]
                self._db.executemany("DELETE FROM queue WHERE number = ?", rows)
                self._db.executemany("INSERT OR REPLACE INTO letter VALUES (?,?)", refused.items())
                hit("reduce.settling")
        except FULL:
            return False
        self.size_bytes -= sum(sizes)
        self._rows -= len(rows)
        self.letters += len(refused)
        return True

    def retry_letters(self) -> None:
        """What was refused waits again."""
        with contextlib.suppress(*FULL):
            self._db.execute("DELETE FROM letter")
            self.letters = 0

    def drop(
        self,
        given: int,
        max_bytes: int,
        before_ms: int,
        tell: Callable[[str, list[Waiting]], Waiting],
    ) -> dict[str, int]:
        """Drops the oldest behind number ``given`` that are too many or too old; ``tell`` makes a
        gap message of those of one PLC and epoch (reason, they), which takes the place of the last.
        How many each reason has cost.
        """
        dropped: dict[str, int] = {}
        excess_bytes = self.size_bytes - max_bytes
        if excess_bytes > 0:  # an eighth more: not a few with each commit
            excess_bytes += max_bytes // 8
        sql = "SELECT * FROM queue WHERE number > ? ORDER BY number"
        lost: dict[tuple[str, str, str, int], list[Waiting]] = {}
        freed_bytes = 0
        for row in self._db.execute(sql, (given,)):
            w = Waiting(*row)
            is_old = w.ts_ms < before_ms
            why = "max_age" if is_old else "max_size" if freed_bytes < excess_bytes else ""
            if not why:
                break
            freed_bytes += len(w.body)
            dropped[why] = dropped.get(why, 0) + (w.kind != GAP_ROW)
            lost.setdefault((why, w.locatario, w.plc, w.epoch), []).append(w)
        if not any(dropped.values()):
            return {}
        try:
            with self._db:
                added_bytes = letters = 0
                for (why, *_), some in lost.items():
                    rows = [(w.number,) for w in some]
                    self._db.executemany("DELETE FROM queue WHERE number = ?", rows)
                    for row in rows:
                        self._db.execute("DELETE FROM letter WHERE number = ?", row)
                        letters += self._db.changes()
                    for w in some:
                        w.body = zlib.decompress(w.body)
                    added_bytes += self._put(tell(why, some))
        except FULL:
            return {}
        self.size_bytes += added_bytes - freed_bytes
        self._rows += len(lost) - sum(map(len, lost.values()))
        self.letters -= letters
        return dropped
