"""The outbox: rows in segments, where each stream stands, how far each output has come.

Knows nothing of sockets. Not thread-safe: one process, one loop. Whatever is dropped (bound, age,
damage) leaves a durable gap row that says what is missing and for which outputs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import orjson

from bus.frames import GAP_ROW, SAMPLE_ROW, Sample
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.store_forward.segment import SEGMENT_BYTES, Corrupt, Row, Segment

_STATE_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (output TEXT PRIMARY KEY, done INTEGER, skip_from INTEGER,
                                   skip_to INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (output TEXT, pos INTEGER, kind INTEGER, plc TEXT, locatario TEXT,
    ts_ms INTEGER, epoch INTEGER, seq INTEGER, body BLOB, reason TEXT, at_ms INTEGER,
    PRIMARY KEY (output, pos)) WITHOUT ROWID;
"""


class DiskFull(Exception):
    """Nothing can be written now; what was offered is not kept."""


@dataclass(slots=True)
class Cursor:
    """How far one output has come: all up to ``done``, and what a live lane delivered beyond, from
    ``skip_from`` (excluded) to ``skip_to``; both equal to ``done`` when there is no backlog lane.
    """

    done: int
    skip_from: int
    skip_to: int

    @property
    def behind(self) -> bool:
        """Two lanes are open."""
        return self.skip_to > self.done

    def settle(self, lane: str, position: int) -> None:
        """Takes a receipt: everything of the lane up to ``position``."""
        if lane == "backfill" and self.behind:
            self.done = max(self.done, min(position, self.skip_from))
            if self.done >= self.skip_from:
                self.done = self.skip_from = self.skip_to
        elif self.behind:
            self.skip_to = max(self.skip_to, position)
        else:
            self.done = self.skip_from = self.skip_to = max(self.done, position)

    def lacks(self, pos: int) -> bool:
        """Whether a row is not delivered yet."""
        return pos > self.done and not self.skip_from < pos <= self.skip_to


@dataclass(slots=True)
class Bounds:
    """When rows are dropped, oldest first."""

    max_size_bytes: int = 2 * 2**30
    max_age_s: float = 14 * 86_400
    min_free_bytes: int = 256 * 2**20
    segment_bytes: int = SEGMENT_BYTES


@dataclass(slots=True)
class _Missing:
    """Rows of one (PLC, epoch) that are being dropped."""

    locatario: str
    first_seq: int
    last_seq: int
    from_ts: int
    to_ts: int
    count: int = 0
    outputs: set[str] = field(default_factory=set)


class Outbox:
    """Opens (and mends) what lies in ``folder``; ``outputs`` are (name, from "now" | "oldest")."""

    def __init__(
        self,
        folder: Path,
        site: str,
        outputs: Iterable[tuple[str, str]],
        *,
        bounds: Bounds | None = None,
        durability: str = "full",
        vfs: str = "",
        on_event: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self.folder = folder
        self.site = site
        self.bounds = bounds or Bounds()
        self._durability = durability
        self._vfs = vfs
        self._event = on_event
        self.dropped: dict[str, int] = {}
        """Rows dropped since the start, by reason."""
        self.quarantined = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state = self._open_state()
        self.segments: list[Segment] = []
        self._open_segments()
        self.streams: dict[str, tuple[int, int]] = {}
        for segment in self.segments:
            with contextlib.suppress(Corrupt):
                self.streams.update(segment.streams())
        self._pending: list[Row] = []
        self._pending_streams: dict[str, tuple[int, int]] = {}
        self.pending_bytes = 0
        self._next_pos = self.last_pos + 1
        self.cursors: dict[str, Cursor] = {}
        self.set_outputs(outputs)

    # -- opening and mending -------------------------------------------------------------

    def _open_state(self) -> apsw.Connection:
        path = self.folder / "state.db"
        for attempt in (1, 2):
            db = apsw.Connection(str(path), vfs=self._vfs or None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                # A cursor that a power cut sets back costs repeats, no loss.
                db.execute("PRAGMA synchronous=normal")
                db.execute(_STATE_SCHEMA)
                list(db.execute("SELECT * FROM cursor"))
                list(db.execute("SELECT count(*) FROM dead"))
                return db
            except (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError) as e:
                db.close()
                if attempt == 2:
                    raise
                self._put_aside(path, f"state.db: {e}")
        raise AssertionError

    def _open_segments(self) -> None:
        for path in sorted(self.folder.glob("*.seg")):
            if not path.stem.isdigit():
                continue
            try:
                self.segments.append(Segment(path, self._durability, self._vfs))
            except Corrupt as e:
                # Nothing of it can be read; what it held shows as a hole in the sequences.
                self._put_aside(path, str(e))

    def _put_aside(self, path: Path, reason: str) -> Path:
        aside = self.folder / "quarantine"
        aside.mkdir(mode=0o700, exist_ok=True)
        target = aside / f"{path.name}.{now_ms()}"
        for suffix in ("", "-wal"):
            source = Path(f"{path}{suffix}")
            if source.exists():
                source.rename(f"{target}{suffix}")
        Path(f"{path}-shm").unlink(missing_ok=True)
        self.quarantined += 1
        self._event("error", "quarantined", f"damaged outbox file put aside: {reason}")
        return target

    def _mend(self, segment: Segment, reason: str) -> None:
        """Replaces a damaged segment by what can be read of it, and says what cannot."""
        index = self.segments.index(segment)
        rows = list(segment.salvage())
        last_pos = segment.last_pos
        with contextlib.suppress(Corrupt):
            self.streams = {**segment.streams(), **self.streams}
        with contextlib.suppress(apsw.Error):
            segment.close()
        self._put_aside(segment.path, reason)
        fresh = Segment(segment.path, self._durability, self._vfs)
        fresh.append(rows, self.streams)
        fresh.last_pos = max(fresh.last_pos, last_pos)
        self.segments[index] = fresh
        self._note_holes(index, {r.pos for r in rows}, last_pos)

    def _note_holes(self, index: int, kept: set[int], last_pos: int) -> None:
        """Gap rows for what a mended segment lost, from the sequence numbers around it."""
        outputs = {n for n, c in self.cursors.items() if c.done < last_pos}
        if not outputs or not self.segments:
            return
        first_pos = self.segments[index].first_pos
        if len(kept) == last_pos - first_pos + 1:
            return
        missing: dict[tuple[str, int], _Missing] = {}
        seen: dict[str, Row] = {}
        for number, segment in enumerate(self.segments):
            if number < index - 1:
                continue
            for row in self._all(segment):
                if row.kind != SAMPLE_ROW:
                    continue
                before = seen.get(row.plc)
                seen[row.plc] = row
                if before is None or before.epoch != row.epoch or row.seq <= before.seq + 1:
                    continue
                hole = _Missing(row.locatario, before.seq + 1, row.seq - 1, before.ts_ms, row.ts_ms)
                hole.count = row.seq - before.seq - 1
                hole.outputs = outputs
                missing[row.plc, row.epoch] = hole
            if number > index:
                break
        for plc, (epoch, seq) in self.streams.items():
            last = seen.get(plc)
            if last is not None and last.epoch == epoch and last.seq < seq:
                hole = _Missing(last.locatario, last.seq + 1, seq, last.ts_ms, now_ms())
                hole.count = seq - last.seq
                hole.outputs = outputs
                missing.setdefault((plc, epoch), hole)
        self._queue_gaps(missing, "corrupt")

    def _all(self, segment: Segment) -> Iterable[Row]:
        at = segment.first_pos - 1
        while rows := self._read(segment, at, 1_000):
            yield from rows
            at = rows[-1].pos

    def _read(self, segment: Segment, after: int, limit: int) -> list[Row]:
        try:
            return segment.read(after, limit)
        except Corrupt:
            return []

    # -- outputs -------------------------------------------------------------------------

    def set_outputs(self, outputs: Iterable[tuple[str, str]]) -> None:
        """Takes the configured outputs: a new one begins ``now`` or at the ``oldest`` row; a
        removed one holds nothing back any more.
        """
        known = {name: Cursor(*rest) for name, *rest in self._state.execute("SELECT * FROM cursor")}
        wanted = dict(outputs)
        for name in known.keys() - wanted.keys():
            self._state.execute("DELETE FROM cursor WHERE output = ?", (name,))
        last = self._next_pos - 1
        for name, start in wanted.items():
            if name in self.cursors:
                known[name] = self.cursors[name]
            elif name not in known:
                at = last if start == "now" else self.first_pos - 1
                known[name] = Cursor(at, at, at)
            elif known[name].skip_to > last or known[name].done > last:
                # The segments it had come to are gone (put aside, or lost to a power cut).
                known[name] = Cursor(min(known[name].done, last), last, last)
                known[name].skip_from = known[name].skip_to = known[name].done
        self.cursors = {name: known[name] for name in wanted}
        self.save_cursors()

    def save_cursors(self) -> None:
        """Makes the cursors durable; on a full disk they live in memory until it has room."""
        with contextlib.suppress(apsw.FullError, apsw.IOError), self._state:
            self._state.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?,?,?,?)",
                [(n, c.done, c.skip_from, c.skip_to) for n, c in self.cursors.items()],
            )

    @property
    def first_pos(self) -> int:
        """Of the oldest row that may still be here."""
        return self.segments[0].first_pos if self.segments else self._next_pos

    @property
    def last_pos(self) -> int:
        """Of the newest committed row; never goes back, not even past what was put aside."""
        newest = self.segments[-1].last_pos if self.segments else 0
        aside = [int(p.name.split(".")[0]) for p in (self.folder / "quarantine").glob("*.seg.*")
                 if p.name.split(".")[0].isdigit()]  # fmt: skip
        if aside and max(aside) > newest:
            # Nobody knows how many rows it had; leave room for as many as fit.
            newest = max(aside) + self.bounds.segment_bytes // 64
        ((done,),) = self._state.execute("SELECT ifnull(max(max(done, skip_to)), 0) FROM cursor")
        return max(newest, int(done))

    def pending(self, output: str) -> int:
        """Rows that an output has not delivered."""
        c = self.cursors[output]
        low = max(c.done, self.first_pos - 1)
        return max(0, self._next_pos - 1 - low - len(self._pending) - (c.skip_to - c.skip_from))

    def oldest_ts_ms(self, output: str) -> int:
        """When the oldest undelivered row was read; 0 when there is none."""
        rows = self.read(output, "backfill" if self.cursors[output].behind else "live",
                         self.cursors[output].done, 1)  # fmt: skip
        return rows[0].ts_ms if rows else 0

    # -- rows in -------------------------------------------------------------------------

    def expected(self, plc: str) -> tuple[int, int]:
        """(epoch, seq) of the newest row taken of a PLC, committed or not; (0, 0) for none."""
        return self._pending_streams.get(plc) or self.streams.get(plc, (0, 0))

    def offer(self, s: Sample) -> str:
        """Takes a sample into the next commit: "ok", "repeat" or "nak" (out of order)."""
        epoch, seq = self.expected(s.plc)
        if (s.epoch, s.seq) <= (epoch, seq):
            return "repeat"
        in_order = s.seq == seq + 1 if s.epoch == epoch else s.seq == 1
        if not in_order and not s.oldest and epoch:
            return "nak"
        if not in_order and s.seq > 1:
            # The reader has nothing older (its ring overflowed), or it is unknown to us.
            first = seq + 1 if s.epoch == epoch else 1
            hole = _Missing(s.locatario, first, s.seq - 1, s.ts_ms, s.ts_ms, s.seq - first)
            hole.outputs = set(self.cursors)
            self._queue_gaps(
                {(s.plc, s.epoch): hole}, "ring_overflow" if epoch else "unknown_before"
            )
        self._queue(SAMPLE_ROW, s.plc, s.locatario, s.ts_ms, s.epoch, s.seq, s.body)
        self._pending_streams[s.plc] = (s.epoch, s.seq)
        return "ok"

    def _queue(
        self,
        kind: int,
        plc: str,
        locatario: str,
        ts_ms: int,
        epoch: int,
        seq: int,
        body: bytes,
        outputs: str = "",
    ) -> None:
        row = Row(self._next_pos, kind, plc, locatario, ts_ms, epoch, seq, body, outputs)
        self._next_pos += 1
        self._pending.append(row)
        self.pending_bytes += len(body) + 100

    def _queue_gaps(self, missing: dict[tuple[str, int], _Missing], reason: str) -> None:
        for (plc, epoch), m in missing.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + max(1, m.count)
            body = gap_body(self.site, plc, epoch, m, reason)
            names = "" if m.outputs >= self.cursors.keys() else f",{','.join(sorted(m.outputs))},"
            self._queue(GAP_ROW, plc, m.locatario, now_ms(), epoch, m.first_seq, body, names)
            text = f"{m.count} messages of {plc} were dropped ({reason})"
            self._event("error", "gap", text)

    @property
    def pending_rows(self) -> int:
        """Rows that wait for the next commit."""
        return len(self._pending)

    def commit(self) -> dict[str, tuple[int, int]]:
        """Makes durable what was offered; PLC -> (epoch, seq) to acknowledge.

        Raises DiskFull, and then what was offered is forgotten: readers send it again.
        """
        if not self._pending:
            return {}
        hit("store.before_commit")
        self._make_room()
        try:
            segment = self._writable()
            segment.append(self._pending, self._pending_streams)
        except (apsw.FullError, apsw.IOError, apsw.CantOpenError, OSError) as e:
            self._forget_pending()
            raise DiskFull(str(e)) from None
        except (apsw.CorruptError, apsw.NotADBError) as e:
            self._forget_pending()
            self._mend(self.segments[-1], str(e))
            raise DiskFull(str(e)) from None
        hit("store.after_commit")
        settled = self._pending_streams
        self.streams.update(settled)
        self._pending = []
        self._pending_streams = {}
        self.pending_bytes = 0
        return settled

    def _forget_pending(self) -> None:
        # Gap rows of what is already gone must not be forgotten with it.
        gaps = [r for r in self._pending if r.kind == GAP_ROW]
        self._next_pos = (
            self.segments[-1].last_pos if self.segments else self._pending[0].pos - 1
        ) + 1
        self._pending = []
        self._pending_streams = {}
        self.pending_bytes = 0
        for r in gaps:
            if b'"reason":"ring_overflow"' not in r.body and b'"unknown_before"' not in r.body:
                self._queue(r.kind, r.plc, r.locatario, r.ts_ms, r.epoch, r.seq, r.body, r.outputs)

    def _writable(self) -> Segment:
        if not self.segments or self.segments[-1].size_bytes >= self.bounds.segment_bytes:
            path = self.folder / f"{self._pending[0].pos:020d}.seg"
            segment = Segment(path, self._durability, self._vfs)
            try:
                segment.append([], self.streams)
            except apsw.Error:
                segment.unlink()
                raise
            self.segments.append(segment)
        return self.segments[-1]

    # -- rows out ------------------------------------------------------------------------

    def read(self, output: str, lane: str, after: int, limit: int) -> list[Row]:
        """Rows of a lane behind ``after`` that are meant for this output, in order.

        A damaged segment is mended on the way.
        """
        cursor = self.cursors[output]
        end = cursor.skip_from if lane == "backfill" else self._next_pos
        for segment in list(self.segments):
            if segment.last_pos <= after or segment.first_pos > end:
                continue
            try:
                rows = segment.read(after, limit)
            except Corrupt as e:
                self._mend(segment, str(e))
                rows = self._read(self.segments[self._index(segment.first_pos)], after, limit)
            rows = [r for r in rows if r.pos <= end]
            mine = [r for r in rows if not r.outputs or f",{output}," in r.outputs]
            if mine:
                return mine
            if rows:
                return self.read(output, lane, rows[-1].pos, limit)
        return []

    def _index(self, first_pos: int) -> int:
        return next(i for i, s in enumerate(self.segments) if s.first_pos == first_pos)

    def open_lanes(self, output: str) -> None:
        """From here on new rows go to the live lane; what waits is its backlog."""
        c = self.cursors[output]
        if not c.behind and c.done < self._next_pos - 1 - len(self._pending):
            c.skip_from = c.skip_to = self._next_pos - 1 - len(self._pending)

    def settle(self, output: str, lane: str, position: int) -> None:
        """Takes an output's receipt."""
        self.cursors[output].settle(lane, position)

    def bury(self, output: str, rows: Iterable[tuple[Row, str]]) -> None:
        """Keeps what an output refuses for ever, with its reason: a dead letter."""
        with self._state:
            self._state.executemany(
                "INSERT OR REPLACE INTO dead VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                [
                    (output, r.pos, r.kind, r.plc, r.locatario, r.ts_ms, r.epoch, r.seq, r.body,
                     reason, now_ms())
                    for r, reason in rows
                ],
            )  # fmt: skip

    def row(self, pos: int) -> Row | None:
        """One row by its position."""
        for segment in self.segments:
            if segment.first_pos <= pos <= segment.last_pos:
                rows = self._read(segment, pos - 1, 1)
                return rows[0] if rows and rows[0].pos == pos else None
        return None

    def dead(self, output: str | None = None) -> list[dict[str, Any]]:
        """Dead letters, oldest first, without their bodies."""
        sql = "SELECT output, pos, plc, epoch, seq, ts_ms, reason, at_ms FROM dead"
        where = " WHERE output = ?" if output else ""
        rows = self._state.execute(
            f"{sql}{where} ORDER BY output, pos", (output,) if output else ()
        )
        names = ("output", "pos", "plc", "epoch", "seq", "ts_ms", "reason", "at_ms")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def dead_count(self, output: str) -> int:
        """How many."""
        ((count,),) = self._state.execute("SELECT count(*) FROM dead WHERE output=?", (output,))
        return int(count)

    def dead_bodies(self, output: str) -> list[tuple[int, bytes]]:
        """(position, JSON) of an output's dead letters."""
        sql = "SELECT pos, body FROM dead WHERE output=? ORDER BY pos"
        return list(self._state.execute(sql, (output,)))

    def retry_dead(self, output: str) -> int:
        """Puts an output's dead letters back at the end of the queue, for that output alone."""
        sql = "SELECT kind, plc, locatario, ts_ms, epoch, seq, body FROM dead WHERE output=?"
        rows = list(self._state.execute(f"{sql} ORDER BY pos", (output,)))
        for kind, plc, locatario, ts_ms, epoch, seq, body in rows:
            self._queue(kind, plc, locatario, ts_ms, epoch, seq, body, f",{output},")
        self.commit()
        self._state.execute("DELETE FROM dead WHERE output=?", (output,))
        return len(rows)

    def purge_dead(self, output: str) -> int:
        """Forgets an output's dead letters."""
        count = self.dead_count(output)
        self._state.execute("DELETE FROM dead WHERE output=?", (output,))
        return count

    # -- bounds --------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return sum(s.size_bytes for s in self.segments)

    @property
    def free_bytes(self) -> int:
        """Of the disk it lies on."""
        return shutil.disk_usage(self.folder).free

    def reclaim(self) -> None:
        """Unlinks segments that every output has delivered, and what is older than ``max_age``."""
        done = min((c.done for c in self.cursors.values()), default=self._next_pos - 1)
        while len(self.segments) > 1 and self.segments[0].last_pos <= done:
            self.segments.pop(0).unlink()
        if len(self.segments) > 1:
            limit_ms = now_ms() - self.bounds.max_age_s * 1_000
            newest = os.stat(self.segments[0].path).st_mtime * 1_000
            if newest < limit_ms:
                self._drop_oldest("max_age")

    def _make_room(self) -> None:
        """Before a commit: drops the oldest segments while the bound is passed."""
        if self.segments and self.segments[-1].size_bytes < self.bounds.segment_bytes:
            return  # only a new segment takes more space
        self.reclaim()
        limit = self.bounds.max_size_bytes - self.bounds.segment_bytes
        while len(self.segments) > 1 and self.size_bytes > limit:
            self._drop_oldest("max_size")
        if len(self.segments) > 1 and self.free_bytes < self.bounds.min_free_bytes:
            self._drop_oldest("disk_full")

    def drop_for_space(self) -> bool:
        """On a full disk: gives up the oldest segment for new rows; whether there was one."""
        if len(self.segments) < 2:
            return False
        self._drop_oldest("disk_full")
        return True

    def purge(self, output: str) -> int:
        """Skips everything that waits for an output; how many rows. Leaves gap rows."""
        count = self.pending(output)
        cursor = self.cursors[output]
        missing = self._tally(self.segments, {output: cursor})
        last = self._next_pos - 1 - len(self._pending)
        cursor.done = cursor.skip_from = cursor.skip_to = last
        self._queue_gaps(missing, "purged")
        self.commit()
        self.save_cursors()
        return count

    def _drop_oldest(self, reason: str) -> None:
        segment = self.segments[0]
        missing = self._tally([segment], self.cursors)
        last = segment.last_pos
        self.segments.pop(0).unlink()
        for cursor in self.cursors.values():
            if cursor.done < last:
                cursor.settle("backfill" if cursor.behind else "live", last)
        self._queue_gaps(missing, reason)
        self.save_cursors()

    def _tally(
        self, segments: Iterable[Segment], cursors: dict[str, Cursor]
    ) -> dict[tuple[str, int], _Missing]:
        """What would be lost with these segments, per (PLC, epoch), for which outputs."""
        missing: dict[tuple[str, int], _Missing] = {}
        for segment in segments:
            for row in self._all(segment):
                losers = {n for n, c in cursors.items() if c.lacks(row.pos)}
                if row.outputs:
                    losers = {n for n in losers if f",{n}," in row.outputs}
                if not losers:
                    continue
                if row.kind == GAP_ROW:
                    # What it told of stays lost: it is told again at the end of the queue.
                    self._queue(row.kind, row.plc, row.locatario, row.ts_ms, row.epoch, row.seq,
                                row.body, row.outputs)  # fmt: skip
                    continue
                m = missing.setdefault(
                    (row.plc, row.epoch),
                    _Missing(row.locatario, row.seq, row.seq, row.ts_ms, row.ts_ms),
                )
                m.last_seq, m.to_ts = row.seq, row.ts_ms
                m.count += 1
                m.outputs |= losers
        return missing

    def close(self) -> None:
        """Commits what waits and closes every file."""
        with contextlib.suppress(DiskFull):
            self.commit()
        self.save_cursors()
        for segment in self.segments:
            segment.close()
        self._state.close()


def gap_body(site: str, plc: str, epoch: int, m: _Missing, reason: str) -> bytes:
    """The gap message of CONTRACT §4."""
    return orjson.dumps(
        {
            "v": 1,
            "site": site,
            "locatario_id": m.locatario,
            "plc_id": plc,
            "ts": now_ms(),
            "epoch": epoch,
            "first_seq": m.first_seq,
            "last_seq": m.last_seq,
            "count": m.count,
            "from_ts": m.from_ts,
            "to_ts": m.to_ts,
            "reason": reason,
        }
    )
