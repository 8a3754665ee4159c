"""What the outbox knows beside its rows: cursors, where segments begin, dead letters.

A file of its own, so that damage to a segment leaves it whole, and the other way round. Every
record has a CRC; what does not match is forgotten: a lost cursor costs repeats, no loss.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from bus.frames import GAP_ROW
from services.runtime.clock import now_ms
from services.store_forward.segment import DAMAGE, Corrupt, Row, Where, crc

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (output TEXT PRIMARY KEY, done INTEGER, skip_from INTEGER,
    skip_to INTEGER, crc INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS beside (output TEXT, skip_from INTEGER, skip_to INTEGER, crc INTEGER,
    PRIMARY KEY (output, skip_from)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mark (segment INTEGER, plc TEXT, locatario TEXT, epoch INTEGER,
    seq INTEGER, ts_ms INTEGER, crc INTEGER, PRIMARY KEY (segment, plc)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (output TEXT, pos INTEGER, kind INTEGER, plc TEXT, locatario TEXT,
    ts_ms INTEGER, epoch INTEGER, seq INTEGER, body BLOB, reason TEXT, at_ms INTEGER, crc INTEGER,
    PRIMARY KEY (output, pos)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS copy (pos INTEGER PRIMARY KEY, kind INTEGER, plc TEXT, locatario TEXT,
    ts_ms INTEGER, epoch INTEGER, seq INTEGER, body BLOB, outputs TEXT, crc INTEGER);
"""
# The mark that follows the newest rows, beside those of the segments' beginnings.
NEWEST = -1
# Each outage during a backlog adds a range; a line that flaps for days must not add for ever.
EARLIER_MAX = 16


@dataclass(slots=True)
class Cursor:
    """How far one output has come: all up to ``done``, and what a live lane delivered beyond, from
    ``skip_from`` (excluded) to ``skip_to``; both equal to ``done`` when there is no backlog lane.
    """

    done: int
    skip_from: int
    skip_to: int
    earlier: list[tuple[int, int]] = field(default_factory=list)
    """What the live lanes before this one delivered between ``done`` and ``skip_from``: each from
    (excluded) and to, in order, apart. Forgetting one costs repeats, no loss.
    """

    @property
    def behind(self) -> bool:
        """Two lanes are open."""
        return self.skip_from > self.done

    def settle(self, lane: str, position: int) -> None:
        """Takes a receipt: everything of the lane up to ``position``. Never goes back."""
        if lane == "backfill":
            if self.behind:
                self.pass_over(min(position, self.skip_from))
        elif self.behind:
            self.skip_to = max(self.skip_to, position)
        else:
            self.done = self.skip_from = self.skip_to = max(self.done, position)

    def part(self, last: int) -> None:
        """From here on new rows have a lane of their own; what waits up to ``last`` is backlog."""
        if max(self.done, self.skip_to) >= last:
            return
        if self.skip_to > self.skip_from:
            self.earlier.append((self.skip_from, self.skip_to))
            if len(self.earlier) > EARLIER_MAX:
                self.earlier.remove(min(self.earlier, key=lambda r: r[1] - r[0]))
        self.skip_from = self.skip_to = last

    def pass_over(self, position: int) -> None:
        """Leaves behind what is no longer there."""
        self.done = max(self.done, position)
        while self.earlier and self.done >= self.earlier[0][0]:
            self.done = max(self.done, self.earlier.pop(0)[1])
        if self.done >= self.skip_from:
            self.done = self.skip_from = self.skip_to = max(self.done, self.skip_to)

    def lacks(self, pos: int) -> bool:
        """Whether a row is not delivered yet."""
        if pos <= self.done or self.skip_from < pos <= self.skip_to:
            return False
        return not any(a < pos <= b for a, b in self.earlier)

    def backlog_after(self, pos: int) -> int:
        """The same position, or the end of what was delivered beside it: the backlog goes on
        behind that.
        """
        return next((b for a, b in self.earlier if a <= pos < b), pos)

    @property
    def skips(self) -> list[tuple[int, int]]:
        """What live lanes delivered beyond ``done``: each from (excluded) and to, in order."""
        return [*self.earlier, (self.skip_from, self.skip_to)]

    def delivered_beside(self, low: int) -> int:
        """Positions that live lanes delivered behind ``low`` (at least ``done``)."""
        return sum(b - max(a, low) for a, b in self.skips if b > low)

    def copy_from(self, other: Cursor) -> None:
        """Becomes equal to it."""
        self.done, self.skip_from, self.skip_to = other.done, other.skip_from, other.skip_to
        self.earlier = list(other.earlier)


class State:
    """``state.db``. ``put_aside(path, why)`` moves a damaged file away."""

    def __init__(self, path: Path, put_aside: Callable[[Path, str], object]) -> None:
        self.lost = not path.exists()
        """Nothing is known of earlier cursors: all outputs begin at the oldest row."""
        try:
            self._db = self._open(path)
        except (
            apsw.CorruptError,
            apsw.NotADBError,
            apsw.SQLError,
            apsw.IOError,
            UnicodeDecodeError,
        ) as e:
            self.lost = True
            put_aside(path, f"state.db: {e}")
            self._db = self._open(path)

    def _open(self, path: Path) -> apsw.Connection:
        db = apsw.Connection(str(path))
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA journal_mode=WAL")
            # A cursor that a power cut sets back costs repeats, no loss: synced once a second.
            db.execute("PRAGMA synchronous=normal")
            db.execute(_SCHEMA)
            for table in ("cursor", "beside", "mark", "dead", "copy"):
                list(db.execute(f"SELECT * FROM {table}"))
            self._saved: dict[str, tuple[int, int, int, list[tuple[int, int]]]] = {}
            self._unsynced = False
            self._noted: dict[str, Where] = {}
            return db
        except DAMAGE:
            with contextlib.suppress(apsw.Error):
                db.close()
            raise

    # -- cursors -------------------------------------------------------------------------

    def cursors(self) -> dict[str, Cursor]:
        """Those whose CRC holds; a damaged one counts as ``lost``."""
        found = {}
        for name, *where, check in self._db.execute("SELECT * FROM cursor"):
            if crc(name, *where) == check:
                found[name] = Cursor(*where)
            else:
                self.lost = True
        # A version that knows no earlier lanes leaves what it finds here: it stays true.
        ranges = self._db.execute("SELECT * FROM beside ORDER BY skip_from")
        for name, skip_from, skip_to, check in ranges:
            cursor = found.get(name)
            if crc(name, skip_from, skip_to) == check and cursor is not None:
                last = cursor.earlier[-1][1] if cursor.earlier else cursor.done
                if last < skip_from < skip_to <= cursor.skip_from:
                    cursor.earlier.append((skip_from, skip_to))
        return found

    def save_cursors(self, cursors: dict[str, Cursor]) -> None:
        """Writes those that moved. A full disk is no error: they live in memory until it has room,
        and a restart before that costs repeats.
        """
        now = {n: (c.done, c.skip_from, c.skip_to, list(c.earlier)) for n, c in cursors.items()}
        moved = {n: w for n, w in now.items() if self._saved.get(n) != w}
        if not moved:
            return
        with contextlib.suppress(apsw.FullError, apsw.IOError):
            with self._db:
                self._db.executemany(
                    "INSERT OR REPLACE INTO cursor VALUES (?,?,?,?,?)",
                    [(n, *w[:3], crc(n, *w[:3])) for n, w in moved.items()],
                )
                for name, (*_where, earlier) in moved.items():
                    if name not in self._saved or self._saved[name][3] != earlier:
                        self._db.execute("DELETE FROM beside WHERE output = ?", (name,))
                        ranges = [(name, *r, crc(name, *r)) for r in earlier]
                        self._db.executemany("INSERT INTO beside VALUES (?,?,?,?)", ranges)
            self._saved.update(moved)
            self._unsynced = True

    def sync(self) -> None:
        """What was saved survives a power cut too: without it repeats could go back for hours."""
        if self._unsynced:
            with contextlib.suppress(apsw.Error):
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._unsynced = False

    def forget_cursor(self, name: str) -> None:
        """Of an output that was removed."""
        self._saved.pop(name, None)
        with contextlib.suppress(apsw.FullError, apsw.IOError):
            self._db.execute("DELETE FROM cursor WHERE output = ?", (name,))
            self._db.execute("DELETE FROM beside WHERE output = ?", (name,))

    # -- marks: where streams stood ------------------------------------------------------

    def mark(self, segment: int, streams: dict[str, Where]) -> None:
        """Notes where streams stand at a segment's beginning, or ``NEWEST``."""
        if segment == NEWEST and streams == self._noted:
            return
        self._noted = dict(streams)
        with contextlib.suppress(apsw.FullError, apsw.IOError), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO mark VALUES (?,?,?,?,?,?,?)",
                [(segment, p, *w, crc(segment, p, *w)) for p, w in streams.items()],
            )

    def marked(self, segment: int) -> dict[str, Where]:
        """What was noted and still matches its CRC."""
        rows = self._db.execute("SELECT * FROM mark WHERE segment = ?", (segment,))
        return {p: Where(*w) for s, p, *w, check in rows if crc(s, p, *w) == check}

    def forget_marks(self, below: int) -> None:
        """Of segments that are gone."""
        with contextlib.suppress(apsw.FullError, apsw.IOError):
            self._db.execute("DELETE FROM mark WHERE segment >= 0 AND segment < ?", (below,))

    # -- copies: rows that nothing else would tell of --------------------------------------

    def keep_copies(self, rows: Iterable[Row]) -> None:
        """Of gap rows and of what is sent again to one output: were they damaged, the rows around
        them would not show that they were there. No failure is an error: then there is one copy,
        and it is committed.
        """
        values = [r.values() for r in rows if r.kind == GAP_ROW or r.outputs]
        if values:
            with contextlib.suppress(apsw.Error), self._db:
                self._db.executemany(
                    f"INSERT OR REPLACE INTO copy VALUES ({','.join('?' * 10)})", values
                )

    def copies(self, first: int, last: int) -> list[Row]:
        """Those of rows at these positions whose CRC holds, in order."""
        sql = "SELECT * FROM copy WHERE pos BETWEEN ? AND ? ORDER BY pos"
        found = []
        with contextlib.suppress(*DAMAGE):  # then both are damaged
            for values in self._db.execute(sql, (first, last)):
                with contextlib.suppress(Corrupt):
                    found.append(Row.of(values))
        return found

    def forget_copies(self, below: int) -> None:
        """Of rows in segments that are gone."""
        with contextlib.suppress(apsw.FullError, apsw.IOError):
            self._db.execute("DELETE FROM copy WHERE pos < ?", (below,))

    # -- dead letters --------------------------------------------------------------------

    def bury(self, output: str, rows: Iterable[tuple[Row, str]]) -> None:
        """Keeps rows that an output refuses for ever. Raises apsw.FullError on a full disk."""
        letters = [
            (output, r.pos, r.kind, r.plc, r.locatario, r.ts_ms, r.epoch, r.seq, r.body, why,
             now_ms(), zlib.crc32(r.body))
            for r, why in rows
        ]  # fmt: skip
        with self._db:
            self._db.executemany(
                f"INSERT OR REPLACE INTO dead VALUES ({','.join('?' * 12)})", letters
            )

    def dead(self, output: str | None = None) -> list[dict[str, Any]]:
        """Dead letters, oldest first, without their bodies."""
        names = ("output", "pos", "plc", "epoch", "seq", "ts_ms", "reason", "at_ms")
        sql = f"SELECT {','.join(names)} FROM dead WHERE ?1 IS NULL OR output = ?1"
        rows = self._db.execute(f"{sql} ORDER BY output, pos", (output,))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def dead_count(self, output: str) -> int:
        """How many."""
        ((count,),) = self._db.execute("SELECT count(*) FROM dead WHERE output=?", (output,))
        return int(count)

    def dead_rows(self, output: str) -> list[Row]:
        """Whole, oldest first; those that damage has changed are left out."""
        sql = """SELECT crc, pos, kind, plc, locatario, ts_ms, epoch, seq, body FROM dead
                 WHERE output=? ORDER BY pos"""
        found = [(check, Row(*values)) for check, *values in self._db.execute(sql, (output,))]
        return [row for check, row in found if zlib.crc32(row.body) == check]

    def purge_dead(self, output: str) -> None:
        """Forgets an output's dead letters."""
        self._db.execute("DELETE FROM dead WHERE output=?", (output,))

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(apsw.Error):
            self._db.close()
