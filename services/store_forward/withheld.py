"""What a quota keeps back: rows that wait, and which ones were withheld and are not told of yet.

It lies in the newest segment, in two tables that are made when they are first needed, and changes
in the transaction that lets the readers forget those rows: dead at any moment, it is as it was when
the last of them was acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import apsw
import orjson

from bus.frames import GAP_ROW
from services.consumer.seen import Ranges, add, told
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

    def pack(self) -> bytes:
        """As stored."""
        return orjson.dumps([self.locatario, self.epoch, self.seqs, self.from_ts, self.to_ts])

    def gap(self, plc: str) -> Gap:
        """The notice."""
        first, last = self.seqs[0][0], self.seqs[-1][1]
        times = (self.from_ts, self.to_ts)
        return Gap(plc, self.locatario, self.epoch, first, last, *times, seqs=self.seqs)


class Withheld:
    """All of it, what of it is committed, and how it changed since.

    What is committed is kept here too (its rows are the same objects, what is untold is packed): a
    new file begins with that, and a commit that fails goes back to it, however the old file is.
    """

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Row]] = {}
        """PLC -> key -> the newest row, which waits."""
        self.untold: dict[str, Untold] = {}
        self._changed: set[tuple[str, str]] = set()
        self._emptied: set[str] = set()
        self._moved: set[str] = set()
        """PLCs whose ``untold`` is another."""
        self._packed: dict[str, bytes] = {}
        """``untold`` as it was written and is not committed yet."""
        self._kept_held: dict[str, dict[str, Row]] = {}
        self._kept_untold: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self.held or self.untold or self._changed or self._emptied or self._moved)

    def missing(
        self,
        plcs: Iterable[str],
        rows: Iterable[Row],
        begin: Mapping[str, Where],
        end: Mapping[str, Where],
    ) -> list[Gap]:
        """What of the streams of ``plcs`` from ``begin`` to ``end`` is in no row, in no notice, and
        not here: it lay here, and damage took it. Where a stream stood at ``begin`` counts too:
        what waits longest may be from before, and it is better told once too often than never.
        """
        had: dict[str, Ranges] = {}
        for plc in plcs:
            was, where = begin.get(plc), end[plc]
            same = was is not None and was.epoch == where.epoch
            had[plc] = [[0, was.seq - 1]] if was is not None and same else [[0, 0]]
            for row in self.held.get(plc, {}).values():
                if row.epoch == where.epoch:
                    add(had[plc], row.seq, row.seq)
            untold = self.untold.get(plc)
            for first, last in untold.seqs if untold and untold.epoch == where.epoch else ():
                add(had[plc], first, last)
        for row in rows:
            if row.plc in had and row.epoch == end[row.plc].epoch:
                for first, last in (
                    told(row.seq, row.body) if row.kind == GAP_ROW else [[row.seq, row.seq]]
                ):
                    add(had[row.plc], first, last)
        gaps = []
        for plc, ranges in had.items():
            where = end[plc]
            ends = [*ranges, [where.seq + 1, where.seq + 1]]
            seqs = [[a[1] + 1, b[0] - 1] for a, b in pairwise(ends) if a[1] + 1 < b[0]]
            if seqs:
                span = (seqs[0][0], seqs[-1][1], None, where.ts_ms)
                gaps.append(Gap(plc, where.locatario, where.epoch, *span, seqs=seqs))
        return gaps

    def other(self, plc: str, locatario: str, epoch: int) -> bool:
        """Whether something of a PLC is another tenant's, or of another epoch."""
        untold = self.untold.get(plc)
        if untold is not None and (untold.locatario, untold.epoch) != (locatario, epoch):
            return True
        held = self.held.get(plc)
        row = next(iter(held.values())) if held else None
        return row is not None and (row.locatario, row.epoch) != (locatario, epoch)

    def hold(self, key: str, row: Row) -> None:
        """The newest row of its key; the one before it is withheld. ``other`` is False of it."""
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
        """What has changed, in the transaction that is open; ``written`` follows when it is
        committed.
        """
        db.execute(_SCHEMA)
        db.executemany("DELETE FROM held WHERE plc = ?", [(plc,) for plc in self._emptied])
        _put_held(db, ((plc, key, self.held[plc][key]) for plc, key in self._changed))
        moved = [(plc,) for plc in self._moved if plc not in self.untold]
        db.executemany("DELETE FROM untold WHERE plc = ?", moved)
        self._packed = {p: self.untold[p].pack() for p in self._moved if p in self.untold}
        _put_untold(db, self._packed)

    def written(self) -> None:
        """What ``write`` wrote is durable."""
        for plc in self._emptied:
            self._kept_held.pop(plc, None)
        for plc, key in self._changed:
            self._kept_held.setdefault(plc, {})[key] = self.held[plc][key]
        for plc in self._moved:
            self._kept_untold.pop(plc, None)
        self._kept_untold |= self._packed
        self._clear_changes()

    def write_kept(self, db: apsw.Connection) -> None:
        """What is committed, whole, into a new file, in the transaction that is open. What has
        changed since comes with ``write``, together with the rows that take its place: until then a
        file without them must not be without what waits either.
        """
        if not self._kept_held and not self._kept_untold:
            return
        db.execute(_SCHEMA)
        held = ((p, key, row) for p, rows in self._kept_held.items() for key, row in rows.items())
        _put_held(db, held)
        _put_untold(db, self._kept_untold)

    def undo(self) -> None:
        """Back to what is committed."""
        self.held = {plc: dict(rows) for plc, rows in self._kept_held.items()}
        self.untold = {
            plc: Untold(*orjson.loads(packed)) for plc, packed in self._kept_untold.items()
        }
        self._clear_changes()

    def keep(self) -> None:
        """All of it counts as committed."""
        self._kept_held = {plc: dict(rows) for plc, rows in self.held.items()}
        self._kept_untold = {plc: untold.pack() for plc, untold in self.untold.items()}
        self._clear_changes()

    def _clear_changes(self) -> None:
        self._changed, self._emptied, self._moved = set(), set(), set()
        self._packed = {}


def _put_held(db: apsw.Connection, rows: Iterable[tuple[str, str, Row]]) -> None:
    values = [(plc, key, row.pos, row.kind, *row[3:]) for plc, key, row in rows]
    db.executemany(
        f"INSERT OR REPLACE INTO held VALUES ({','.join('?' * 11)})",
        [(*each, crc(*each)) for each in values],
    )


def _put_untold(db: apsw.Connection, packed: Mapping[str, bytes]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO untold VALUES (?,?,?)",
        [(plc, each, crc(plc, each)) for plc, each in packed.items()],
    )


def load(segment: Segment, streams: Mapping[str, Where]) -> Withheld:
    """What a segment holds of it. What lies behind where a stream stands was never acknowledged: it
    comes again. Raises Corrupt.
    """
    found = Withheld()
    for table in ("held", "untold"):
        for record in segment.table(table):
            _take(found, table, record, streams)
    found.keep()
    return found


def salvage(segment: Segment, streams: Mapping[str, Where]) -> tuple[Withheld, set[str]]:
    """What can be read of it in a damaged segment, and the PLCs of what cannot."""
    found, damaged = Withheld(), set[str]()
    for table in ("held", "untold"):
        records: list[tuple[Any, ...]] = []
        try:
            records = segment.table(table)
        except Corrupt:
            damaged |= streams.keys()
        for record in records:
            try:
                _take(found, table, record, streams)
            except (Corrupt, TypeError, ValueError):
                damaged |= {record[0]} if record[0] in streams else streams.keys()
    found.keep()
    return found, damaged


def _take(
    found: Withheld, table: str, record: tuple[Any, ...], streams: Mapping[str, Where]
) -> None:
    *fields, check = record
    if crc(*fields) != check:
        raise Corrupt(f"{table} of {fields[0]!r} does not match its CRC")
    if table == "held":
        plc, key, pos, kind, *rest = fields
        row = Row(pos, kind, plc, *rest)
        if not _behind(streams.get(plc), row.epoch, row.seq):
            found.held.setdefault(plc, {})[key] = row
        return
    plc, packed = fields
    untold = Untold(*orjson.loads(packed))
    where = streams.get(plc)
    untold.seqs = [r for r in untold.seqs if not _behind(where, untold.epoch, r[0])]
    if untold.seqs:
        if where is not None and where.epoch == untold.epoch:
            untold.seqs[-1][1] = min(untold.seqs[-1][1], where.seq)
        found.untold[plc] = untold


def _behind(where: Where | None, epoch: int, seq: int) -> bool:
    return where is None or (epoch, seq) > (where.epoch, where.seq)
