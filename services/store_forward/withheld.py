"""What a quota keeps back: rows that wait, and which ones were withheld and are not told of yet.

It lies in the newest segment, in two tables that are made when they are first needed, and changes
in the transaction that lets the readers forget those rows: dead at any moment, it is as it was when
the last of them was acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import apsw
import orjson

from services.consumer.seen import Ranges, add
from services.store_forward.gaps import Gap
from services.store_forward.segment import Corrupt, Row, Segment, Where, crc

_SCHEMA = """
CREATE TABLE IF NOT EXISTS held (plc TEXT, key TEXT, pos INTEGER, kind INTEGER, locatario TEXT,
    ts_ms INTEGER, epoch INTEGER, seq INTEGER, body BLOB, outputs TEXT, crc INTEGER,
    PRIMARY KEY (plc, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS untold (plc TEXT PRIMARY KEY, packed BLOB, crc INTEGER) WITHOUT ROWID;
"""


@dataclass(slots=True)
class Untold:
    """Withheld rows of one (PLC, epoch) that no notice tells of yet."""

    locatario: str
    epoch: int
    seqs: Ranges = field(default_factory=list)
    from_ts: int = 0
    to_ts: int = 0

    def add(self, row: Row) -> None:
        """One more."""
        self.from_ts = min(self.from_ts or row.ts_ms, row.ts_ms)
        self.to_ts = max(self.to_ts, row.ts_ms)
        add(self.seqs, row.seq, row.seq)

    def gap(self, plc: str) -> Gap:
        """The notice."""
        first, last = self.seqs[0][0], self.seqs[-1][1]
        times = (self.from_ts, self.to_ts)
        return Gap(plc, self.locatario, self.epoch, first, last, *times, seqs=self.seqs)


class Withheld:
    """All of it, and how it changed since it was written last."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Row]] = {}
        """PLC -> key -> the newest row, which waits."""
        self.untold: dict[str, Untold] = {}
        self._changed: set[tuple[str, str]] = set()
        self._emptied: set[str] = set()
        self._moved: set[str] = set()
        """PLCs whose ``untold`` is another."""
        self.whole = False
        """It goes to a new file: all of it."""

    def __bool__(self) -> bool:
        return bool(self.held or self.untold or self._changed or self._emptied or self._moved)

    def hold(self, key: str, row: Row) -> None:
        """The newest row of its key; the one before it is withheld."""
        held = self.held.setdefault(row.plc, {})
        if (before := held.get(key)) is not None:
            untold = self.untold.get(row.plc)
            if untold is None:
                untold = self.untold[row.plc] = Untold(row.locatario, before.epoch)
            untold.add(before)
            self._moved.add(row.plc)
        held[key] = row
        self._changed.add((row.plc, key))

    def release(self, plc: str) -> list[Row]:
        """What waits of a PLC, in order; it does not any more."""
        held = self.held.pop(plc, None)
        if held is None:
            return []
        self._emptied.add(plc)
        self._changed -= {(plc, key) for key in held}
        return sorted(held.values(), key=lambda row: row.seq)

    def tell(self, plc: str) -> Gap:
        """The notice of what was withheld of a PLC; it counts as told."""
        self._moved.add(plc)
        return self.untold.pop(plc).gap(plc)

    # -- in a segment ----------------------------------------------------------------------

    def write(self, db: apsw.Connection) -> None:
        """In the transaction that is open; ``written`` follows when it is committed."""
        db.execute(_SCHEMA)
        if self.whole:
            db.execute("DELETE FROM held")
            db.execute("DELETE FROM untold")
            changed = {(plc, key) for plc, held in self.held.items() for key in held}
            moved = set(self.untold)
        else:
            changed, moved = self._changed, self._moved
            db.executemany("DELETE FROM held WHERE plc = ?", [(plc,) for plc in self._emptied])
        db.executemany(
            f"INSERT OR REPLACE INTO held VALUES ({','.join('?' * 11)})",
            [self._held_values(plc, key) for plc, key in changed],
        )
        for plc in moved:
            if (untold := self.untold.get(plc)) is None:
                db.execute("DELETE FROM untold WHERE plc = ?", (plc,))
                continue
            u = untold
            packed = orjson.dumps([u.locatario, u.epoch, u.seqs, u.from_ts, u.to_ts])
            values = (plc, packed, crc(plc, packed))
            db.execute("INSERT OR REPLACE INTO untold VALUES (?,?,?)", values)

    def _held_values(self, plc: str, key: str) -> tuple[Any, ...]:
        pos, kind, _, *rest = self.held[plc][key]
        values = (plc, key, pos, kind, *rest)
        return (*values, crc(*values))

    def written(self) -> None:
        """What ``write`` wrote is durable."""
        self._changed, self._emptied, self._moved = set(), set(), set()
        self.whole = False


def load(segment: Segment, streams: Mapping[str, Where]) -> Withheld:
    """What a segment holds of it. What lies behind where a stream stands was never acknowledged: it
    comes again. Raises Corrupt.
    """
    found = Withheld()
    for table in ("held", "untold"):
        for *fields, check in segment.table(table):
            if crc(*fields) != check:
                raise Corrupt(f"{table} of {fields[0]!r} does not match its CRC")
            if table == "held":
                plc, key, pos, kind, *rest = fields
                row = Row(pos, kind, plc, *rest)
                if not _behind(streams.get(plc), row.epoch, row.seq):
                    found.held.setdefault(plc, {})[key] = row
            else:
                plc, packed = fields
                untold = Untold(*orjson.loads(packed))
                where = streams.get(plc)
                untold.seqs = [r for r in untold.seqs if not _behind(where, untold.epoch, r[0])]
                if untold.seqs:
                    if where is not None and where.epoch == untold.epoch:
                        untold.seqs[-1][1] = min(untold.seqs[-1][1], where.seq)
                    found.untold[plc] = untold
    return found


def _behind(where: Where | None, epoch: int, seq: int) -> bool:
    return where is None or (epoch, seq) > (where.epoch, where.seq)
