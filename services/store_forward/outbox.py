"""The outbox: rows in segments, where each stream stands, how far each output has come.

Knows nothing of sockets. Not thread-safe: one process, one loop. Whatever is dropped (bound, age,
damage) leaves a durable gap row that says what is missing and for which outputs, committed before
the rows go.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import apsw

from bus.frames import GAP_ROW, SAMPLE_ROW, Sample
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.store_forward.gaps import Gap, Retold, Tally
from services.store_forward.latest import Latest
from services.store_forward.mending import Mender, Quarantine
from services.store_forward.quota import REASON
from services.store_forward.segment import (
    NO_ROOM,
    SEGMENT_BYTES,
    Corrupt,
    Row,
    Segment,
    Where,
    remove,
)
from services.store_forward.state import NEWEST, Cursor, State
from services.store_forward.withheld import Withheld, load, salvage

# Held back so that a gap row can be written when the disk is full: it comes before the unlink.
RESERVE_BYTES = 512 * 1024
# 2020-01-01: what is stamped earlier was stamped by a clock that nobody had set.
CLOCK_SET_MS = 1_577_836_800_000
# Committed rows kept in memory for outputs that keep up: read back from SQLite and checked again,
# each cost more than on its way in.
FRESH_BYTES = 4 * 2**20
# Gap rows that are told again take at most so small a part of a segment as they are.
RETOLD_PART = 8
# What a row takes beside its body.
ROW_BYTES = 100
# For so long after a start nothing is called old.
CLOCK_SETTLES_S = 600.0


class DiskFull(Exception):
    """Nothing can be written now; what was offered is not kept."""


@dataclass(slots=True)
class Bounds:
    """When rows are dropped, oldest first."""

    max_size_bytes: int = 2 * 2**30
    max_age_s: float = 14 * 86_400
    min_free_bytes: int = 256 * 2**20
    segment_bytes: int = 0
    """Default: 64 MB, or an eighth of a small outbox."""

    def __post_init__(self) -> None:
        self.segment_bytes = self.segment_bytes or min(SEGMENT_BYTES, self.max_size_bytes // 8)


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
        on_event: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self.folder = folder
        self.site = site
        self.bounds = bounds or Bounds()
        self._durability = durability
        self._event = on_event
        self.dropped: dict[str, int] = {}
        """Rows dropped since the start, by reason; one where nobody knows how many."""
        self._quarantine = Quarantine(folder, on_event)
        self._opened_s = time.monotonic()
        self._suspect: Segment | None = None
        """What an I/O error came from: nobody knows what its file holds until it is mended."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Opening writes a little, also on a full disk; the reserve is taken again afterwards.
        remove(folder / "reserve")
        self.state = State(folder / "state.db", self._quarantine.put_aside)
        self._told: list[tuple[str, int, str]] = []
        self.cursors: dict[str, Cursor] = self.state.cursors()
        self._latest = Latest(folder / "latest.cursors")
        self._latest.bring_up(self.cursors)
        self.streams: dict[str, Where] = {}
        """PLC -> its newest committed row."""
        self.segments: list[Segment] = []
        self._mender = Mender(
            folder, self.state, self.segments, self._quarantine,
            segment_bytes=self.bounds.segment_bytes, durability=durability, gap_row=self._gap_row,
        )  # fmt: skip
        self._pending: list[Row] = []
        self._pending_streams: dict[str, Where] = {}
        self.withheld = Withheld()
        self._fresh: list[Row] = []
        """The newest committed rows, one position behind the other."""
        self._fresh_bytes = 0
        self.pending_bytes = 0
        self._next_pos = 1
        self._open_segments()
        self._next_pos = self._first_free()
        self._keep_reserve()
        self.set_outputs(outputs)
        self.state.lost = False

    @classmethod
    def of(
        cls, config: dict[str, Any], on_event: Callable[[str, str, str], None] = lambda *_: None
    ) -> Self:
        """The outbox of a rendered store configuration."""
        store = config["store"]
        return cls(
            Path(config["state"]) / "outbox",
            config["site"],
            [(o["name"], o["from"]) for o in config["outputs"]],
            bounds=Bounds(store["max_size_bytes"], store["max_age_s"], store["min_free_bytes"]),
            durability=store["durability"],
            on_event=on_event,
        )

    # -- opening and mending -------------------------------------------------------------

    def _open_segments(self) -> None:
        for path in self.folder.glob("*.seg.new"):
            whole = path.with_suffix("")
            if whole.exists():  # died while mending: what it was made from is still there
                remove(path)
            else:
                path.rename(whole)
        paths = sorted(self.folder.glob("*.seg"))
        for i, path in enumerate(paths):
            behind = int(paths[i + 1].stem) - 1 if i + 1 < len(paths) else 0
            segment, size_known = None, False
            try:
                segment = Segment(path, self._durability)
                if segment.last_pos < behind:
                    raise Corrupt(f"{path.name}: ends at row {segment.last_pos} of {behind}")
                size_known = True
                if not behind:  # a wrong one would take new rows for repeats
                    self.withheld = load(segment, segment.streams())
            except Corrupt as e:
                if segment is None:
                    segment = Segment(path, self._durability, damaged=True)
                more, lost = (None, []) if behind else self._salvage_withheld(segment)
                segment = self._mender.rebuild(
                    segment, str(e), behind, None, size_known=size_known, more=more, lost=lost
                )
            self.segments.append(segment)
        if self.segments:
            self.streams = self._mender.streams_now(self.segments[-1])
            self._unlink_dropped()
        self._tell()

    def _salvage_withheld(
        self, segment: Segment
    ) -> tuple[Callable[[apsw.Connection], None], list[Gap]]:
        """What writes all that is left of what a damaged newest segment held, and what is not."""
        streams = self._mender.streams_now(segment)
        self.withheld, damaged = salvage(segment, streams)
        every = [*self.segments, segment]
        rows = (row for s in every for row in self._mender.left(s, s.last_pos)) if damaged else ()
        begin = self._mender.streams_before(every[0].first_pos)
        return self.withheld.write_kept, self.withheld.missing(damaged, rows, begin, streams)

    def _unlink_dropped(self) -> None:
        """A power cut may bring back what was dropped; its gap rows say how far that went."""
        floor = max(s.floor for s in self.segments)
        while len(self.segments) > 1 and self.segments[0].last_pos <= floor:
            self.segments.pop(0).unlink()

    def _first_free(self) -> int:
        """Behind everything that ever had a position: no cursor may have passed a new row."""
        if not self.segments and not self.cursors:
            # An output that lives on remembers positions of an outbox whose files are gone, and
            # would ignore the same ones: a new outbox begins where no other can have come.
            return now_ms() * 1_000
        newest = self.segments[-1].last_pos if self.segments else 0
        return max([newest, *(max(c.done, c.skip_to) for c in self.cursors.values())]) + 1

    def _mend(self, segment: Segment, reason: str) -> None:
        """Replaces a damaged segment by what can be read of it, and says what cannot."""
        index = self.segments.index(segment)
        behind = self.segments[index + 1].first_pos - 1 if index + 1 < len(self.segments) else 0
        self._fresh, self._fresh_bytes = [], 0
        more = None if behind else self.withheld.write_kept
        self.segments[index] = self._mender.rebuild(
            segment, reason, behind, self.streams, more=more
        )
        self._suspect = None
        self._tell()

    # -- outputs -------------------------------------------------------------------------

    def set_outputs(self, outputs: Iterable[tuple[str, str]]) -> None:
        """Takes the configured outputs: a new one begins ``now`` or at the ``oldest`` row; a
        removed one holds nothing back any more.
        """
        wanted = dict(outputs)
        for name in self.cursors.keys() - wanted.keys():
            self.state.forget_cursor(name)
        last = self._next_pos - 1
        known, self.cursors = self.cursors, {}
        for name, start in wanted.items():
            # Where cursors are lost, nobody knows which output is new: repeats, no loss.
            at = last if start == "now" and not self.state.lost else self.first_pos - 1
            self.cursors[name] = known.get(name) or Cursor(at, at, at)
        self.sync()

    def save(self) -> None:
        """Lets the cursors survive ``kill -9``."""
        self._latest.save(self.cursors)

    def sync(self) -> None:
        """Lets them survive a power cut too; once a second."""
        self.save()
        self.state.save_cursors(self.cursors)
        self.state.sync()

    @property
    def first_pos(self) -> int:
        """Of the oldest row that may still be here."""
        return self.segments[0].first_pos if self.segments else self._next_pos

    @property
    def last_pos(self) -> int:
        """Of the newest committed row."""
        return self._next_pos - 1 - len(self._pending)

    def pending(self, output: str) -> int:
        """Rows that an output has not delivered."""
        c = self.cursors[output]
        low = max(c.done, self.first_pos - 1)
        lost = sum(
            max(0, last - max(first - 1, low))
            for s in self.segments if s.holes for first, last in s.holes.items()
        )  # fmt: skip
        return max(0, self.last_pos - low - c.delivered_beside(low) - lost)

    def oldest_ts_ms(self, output: str) -> int:
        """When the oldest undelivered row was read; 0 when there is none."""
        c = self.cursors[output]
        rows = self.read(output, "backfill" if c.behind else "live", c.done, 1)
        return rows[0].ts_ms if rows else 0

    def oldest_age_s(self, output: str) -> float:
        """Of the oldest undelivered row; 0 when there is none."""
        oldest_ms = self.oldest_ts_ms(output) if self.pending(output) else 0
        return max(0.0, (now_ms() - oldest_ms) / 1_000) if oldest_ms else 0.0

    def status(self) -> dict[str, Any]:
        """For people: sizes in bytes, ages in seconds."""
        return {
            "bytes": self.size_bytes,
            "max_bytes": self.bounds.max_size_bytes,
            "free_bytes": self.free_bytes,
            "segments": len(self.segments),
            "quarantined": self._quarantine.count,
            "disk_full": "",
            "dropped": self.dropped,
            "outputs": {
                name: {
                    "pending": self.pending(name),
                    "oldest_age_s": round(self.oldest_age_s(name), 1),
                    "dead_letters": self.state.dead_count(name),
                    "connected": False,
                    "in_flight": 0,
                }
                for name in self.cursors
            },
        }

    # -- rows in -------------------------------------------------------------------------

    def expected(self, plc: str) -> tuple[int, int]:
        """(epoch, seq) of the newest row taken of a PLC, committed or not; (0, 0) for none."""
        where = self._pending_streams.get(plc) or self.streams.get(plc)
        return (where.epoch, where.seq) if where else (0, 0)

    def committed(self, plc: str) -> tuple[int, int]:
        """(epoch, seq) of the newest durable row of a PLC; (0, 0) for none."""
        where = self.streams.get(plc)
        return (where.epoch, where.seq) if where else (0, 0)

    def offer(self, s: Sample) -> str:
        """Takes a sample into the next commit: "ok", "repeat" or "nak" (out of order)."""
        epoch, seq = self.expected(s.plc)
        if (s.epoch, s.seq) <= (epoch, seq):
            return "repeat"
        same = s.epoch == epoch
        first = seq + 1 if same else 1
        if s.seq != first and not s.oldest and epoch:
            return "nak"
        if epoch and not same:
            # A reboot, or a ring that was lost: whether it held more, nobody knows.
            tail = Gap(s.plc, s.locatario, epoch, seq + 1, None, None, s.ts_ms)
            self._queue_gap(tail, "new_epoch")
        if s.seq != first:
            # The reader has nothing older (its ring overflowed), or it is unknown to us.
            why = "ring_overflow" if epoch else "unknown_before"
            gap = Gap(s.plc, s.locatario, s.epoch, first, s.seq - 1, None, s.ts_ms)
            self._queue_gap(gap, why)
        place = (self._next_pos, SAMPLE_ROW, s.plc, s.locatario)
        self._append(Row(*place, s.ts_ms, s.epoch, s.seq, s.body))
        self._pending_streams[s.plc] = Where(s.locatario, s.epoch, s.seq, s.ts_ms)
        return "ok"

    def place(self, s: Sample) -> str:
        """Where a sample stands in its stream: "next", "repeat", "nak" (out of order), or "jump",
        of which ``offer`` would record a gap.
        """
        epoch, seq = self.expected(s.plc)
        if (s.epoch, s.seq) <= (epoch, seq):
            return "repeat"
        first = seq + 1 if s.epoch == epoch else 1
        if s.seq != first and not s.oldest and epoch:
            return "nak"
        return "next" if (s.epoch, s.seq) == (epoch, seq + 1) else "jump"

    def hold(self, s: Sample, key: str) -> None:
        """Takes a sample that is "next" into the next commit, to wait: a newer one of its key takes
        its place, and withholds it. What is left of another tenant or epoch goes out first.
        """
        if self.withheld.other(s.plc, s.locatario, s.epoch):
            self.release(s.plc)
            if s.plc in self.withheld.untold:
                self.tell_withheld(s.plc, REASON)
        row = Row(0, SAMPLE_ROW, s.plc, s.locatario, s.ts_ms, s.epoch, s.seq, s.body)
        self.withheld.hold(key, row)
        self._pending_streams[s.plc] = Where(s.locatario, s.epoch, s.seq, s.ts_ms)

    def release(self, plc: str) -> list[Row]:
        """What waits of a PLC goes into the next commit as rows, and is given back."""
        rows = self.withheld.release(plc)
        for row in rows:
            self._queue(row)
        return rows

    def tell_withheld(self, plc: str, reason: str) -> None:
        """The notice of what was withheld of a PLC goes into the next commit."""
        self._queue_gap(self.withheld.tell(plc), reason)

    def _queue(self, row: Row) -> None:
        """Takes a row into the next commit, behind all others."""
        self._append(row._replace(pos=self._next_pos))

    def _append(self, row: Row) -> None:
        self._pending.append(row)
        self._next_pos += 1
        self.pending_bytes += len(row.body) + ROW_BYTES

    def _queue_gap(self, gap: Gap, reason: str) -> None:
        self._queue(self._gap_row(0, gap, reason))

    def _gap_row(self, pos: int, gap: Gap, reason: str) -> Row:
        how_many = "an unknown number of" if gap.count is None else gap.count
        text = f"{how_many} messages of {gap.plc} are lost ({reason})"
        self._told.append((reason, gap.count or 1, text))
        names = f",{','.join(sorted(gap.outputs))}," if gap.outputs else ""
        body = gap.body(self.site, reason)
        return Row(
            pos, GAP_ROW, gap.plc, gap.locatario, now_ms(), gap.epoch, gap.first_seq, body, names
        )

    def _tell(self) -> None:
        """Counts and reports the gaps that are durable now."""
        for reason, count, text in self._told:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            if reason != REASON:  # of that the store tells once
                self._event("warning" if reason == "new_epoch" else "error", "gap", text)
        self._told = []

    @property
    def pending_rows(self) -> int:
        """Rows that wait for the next commit."""
        return len(self._pending)

    def commit(self) -> dict[str, tuple[int, int]]:
        """Makes durable what was offered; PLC -> (epoch, seq) to acknowledge.

        Raises DiskFull, and then what was offered is forgotten: readers send it again.
        """
        if not self._pending and not self._pending_streams:
            return {}
        hit("store.before_commit")
        try:
            self._make_room()
        except DiskFull:
            self._forget_offered()
            raise
        self._write()
        self._tell()
        hit("store.after_commit")
        settled = self._pending_streams
        begun = any(p not in self.streams or self.streams[p].epoch != w.epoch
                    for p, w in settled.items())  # fmt: skip
        self.streams.update(settled)
        if begun:
            # Were the only segment damaged now, nobody else would know that they ever were.
            self.state.mark(NEWEST, self.streams)
        if self._pending:
            self._keep_fresh(self._pending)
        self._clear_pending()
        return {plc: (w.epoch, w.seq) for plc, w in settled.items()}

    def _keep_fresh(self, rows: list[Row]) -> None:
        """Remembers committed rows: they are wanted by every output within the next ms."""
        if self._fresh and self._fresh[-1].pos + 1 != rows[0].pos:
            self._fresh, self._fresh_bytes = [], 0
        self._fresh += rows
        self._fresh_bytes += self.pending_bytes
        if self._fresh_bytes > FRESH_BYTES:
            self._fresh = self._fresh[len(self._fresh) // 2 :]
            self._fresh_bytes = sum(len(r.body) + ROW_BYTES for r in self._fresh)

    def _write(self, floor: int = 0) -> None:
        """Commits what is queued to the newest segment."""
        try:
            if self._suspect in self.segments:  # else it is gone
                self._mend(self._suspect, "an I/O error")
            segment = self._writable()
            more = self.withheld.write if self.withheld else None
            try:
                segment.append(self._pending, self._pending_streams, floor=floor, more=more)
            except NO_ROOM:
                raise
            except apsw.Error as e:
                # After a failed fsync nobody knows what is on the disk: the kernel has marked the
                # pages clean and the next fsync would succeed. Write all of it anew.
                self._suspect = segment
                self._mend(segment, f"{type(e).__name__}: {e}")
                self.segments[-1].append(
                    self._pending, self._pending_streams, floor=floor, more=more
                )
            if more:
                self.withheld.written()
            self.state.keep_copies(self._pending)
        except (apsw.Error, OSError, Corrupt) as e:
            self._forget_offered()
            raise DiskFull(f"{type(e).__name__}: {e}") from None

    def _clear_pending(self) -> None:
        self._pending = []
        self._pending_streams = {}
        self.pending_bytes = 0

    def _forget_offered(self) -> None:
        """Back to what is committed: readers send the rest again."""
        self._forget_pending()
        self.withheld.undo()

    def _forget_pending(self) -> None:
        self._next_pos -= len(self._pending)
        self._told = []
        self._clear_pending()

    def _writable(self) -> Segment:
        """The newest segment, or a new one where that is full or does not join on. One without a
        row is never full: a new one would have its name.
        """
        last = self.segments[-1] if self.segments else None
        first = self._pending[0].pos if self._pending else self._next_pos
        if (
            last is not None
            and last.last_pos == first - 1
            and (not last.has_rows or not last.is_full(self.bounds.segment_bytes))
        ):
            return last
        self.segments.append(self._new_segment(first))
        return self.segments[-1]

    def _new_segment(self, first_pos: int) -> Segment:
        path = self.folder / f"{first_pos:020d}.seg"
        remove(path)
        try:
            segment = Segment(path, self._durability)
        except BaseException:
            remove(path)  # half made, it would look damaged after a restart
            raise
        try:
            floor = max((s.floor for s in self.segments), default=0)
            segment.append([], self.streams, floor=floor, more=self.withheld.write_kept)
        except apsw.Error:
            segment.unlink()
            raise
        self.state.mark(first_pos, self.streams)
        hit("store.segment_made")
        return segment

    # -- rows out ------------------------------------------------------------------------

    def fresh(self, output: str, after: int, limit: int) -> list[Row]:
        """What ``read`` of the live lane gives, from memory; [] where those rows are not in it."""
        fresh = self._fresh
        at = after + 1 - fresh[0].pos if fresh else -1
        while 0 <= at < len(fresh):
            found = [
                r for r in fresh[at : at + limit] if not r.outputs or f",{output}," in r.outputs
            ]
            if found:
                return found
            at += limit
        return []

    def read(self, output: str, lane: str, after: int, limit: int) -> list[Row]:
        """Rows of a lane behind ``after`` that are meant for this output, in order.

        A damaged segment is mended on the way; on a full disk that must wait, and so must its rows.
        """
        cursor = self.cursors[output]
        end = cursor.skip_from if lane == "backfill" else self.last_pos
        found: list[Row] = []
        for segment in list(self.segments):
            at = max(after, segment.first_pos - 1)
            while not found and at < min(segment.last_pos, end):
                if lane == "backfill" and (behind := cursor.backlog_after(at)) > at:
                    at = behind
                    continue
                try:
                    rows = segment.read(at, limit)
                except Corrupt as e:
                    try:
                        index = self.segments.index(segment)
                        self._mend(segment, str(e))
                        segment = self.segments[index]
                        rows = segment.read(at, limit)
                    except (apsw.Error, OSError, Corrupt):
                        return []
                if not rows:
                    break
                at = rows[-1].pos
                found = [
                    r for r in rows
                    if r.pos <= end and (not r.outputs or f",{output}," in r.outputs)
                    and (lane == "live" or cursor.lacks(r.pos))
                ]  # fmt: skip
            if found:
                break
        if not found and lane == "backfill" and after <= cursor.done:
            # Nothing is on its way, and what is left of the backlog is for other outputs.
            cursor.pass_over(end)
        return found

    def open_lanes(self, output: str) -> None:
        """From here on new rows go to the live lane; what waits is its backlog."""
        self.cursors[output].part(self.last_pos)

    def settle(self, output: str, lane: str, position: int) -> None:
        """Takes an output's receipt; a position that does not exist yet is cut down."""
        self.cursors[output].settle(lane, min(position, self.last_pos))

    def row(self, pos: int) -> Row | None:
        """One row by its position."""
        for segment in self.segments:
            if segment.first_pos <= pos <= segment.last_pos:
                with contextlib.suppress(Corrupt):
                    rows = segment.read(pos - 1, 1)
                    return rows[0] if rows and rows[0].pos == pos else None
        return None

    def retry_dead(self, output: str) -> int:
        """Puts an output's dead letters back at the end of the queue, for that output alone.

        Raises DiskFull; then they stay dead letters.
        """
        rows = self.state.dead_rows(output)
        for row in rows:
            self._queue(row._replace(outputs=f",{output},"))
        self.commit()
        with contextlib.suppress(apsw.FullError, apsw.IOError):
            self.state.purge_dead(output)  # what stays listed may be sent twice, no more
        return len(rows)

    # -- bounds --------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return sum(s.size_bytes for s in self.segments)

    @property
    def free_bytes(self) -> int:
        """Of the disk it lies on."""
        return shutil.disk_usage(self.folder).free

    def _keep_reserve(self) -> None:
        path = self.folder / "reserve"
        with contextlib.suppress(OSError):
            if not path.exists() or path.stat().st_size < RESERVE_BYTES:
                fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
                finally:
                    os.close(fd)

    def reclaim(self) -> None:
        """Unlinks segments that every output has delivered; drops those of which all rows are older
        than ``max_age``. The newest one ends after an eighth of ``max_age``: so much a row may
        outlive it, and more where ``_is_old`` does not trust a clock. Call it once a second.

        Raises DiskFull where the gap rows find no room.
        """
        self._end_by_age()  # first: gap rows would make a segment of old rows a young one
        done = min((c.done for c in self.cursors.values()), default=self.last_pos)
        while len(self.segments) > 1 and self.segments[0].last_pos <= done:
            # The segment behind it tells how streams stand: nothing of it is needed.
            self.segments.pop(0).unlink()
        self.state.forget_marks(self.first_pos)
        self.state.forget_copies(self.first_pos)
        self.state.mark(NEWEST, self.streams)
        self._keep_reserve()
        if len(self.segments) > 1 and self._is_old(self.segments[0]):
            self._drop_oldest("max_age")

    def _is_old(self, segment: Segment) -> bool:
        """Whether all of its rows are older than ``max_age``, as far as clocks can be trusted:
        whatever the wall clock says, not for what this process wrote less than that ago, and not in
        a process's first minutes (a PC may start with any time, and NTP sets it right).

        Its last write bounds what its rows say (a clock that was ahead). How old rows from before
        2020 are nobody knows: a PC without a battery has stamped them.
        """
        now_s = time.monotonic()
        written_s = segment.appended_s
        recently = written_s is not None and now_s - written_s < self.bounds.max_age_s
        if recently or now_s - self._opened_s < CLOCK_SETTLES_S:
            return False
        try:
            read_ms = max((w.ts_ms for w in segment.streams().values()), default=0)
        except Corrupt as e:
            # On a full disk that must wait: a segment that cannot be judged is not old.
            with contextlib.suppress(apsw.Error, OSError, Corrupt):
                self._mend(segment, str(e))
            return False
        newest_ms = min(read_ms, segment.written_ms)
        return CLOCK_SET_MS <= newest_ms < now_ms() - self.bounds.max_age_s * 1_000

    def _end_by_age(self) -> None:
        """A new segment where the newest one's first row is old enough. On a full disk that must
        wait: nothing is lost by ending it later.
        """
        if not self.segments or not self.segments[-1].has_rows:
            return
        most_s = self.bounds.max_age_s / 8
        segment = self.segments[-1]
        old_ms = now_ms() - most_s * 1_000
        if CLOCK_SET_MS <= segment.first_ts_ms < old_ms or segment.open_s > most_s:
            with contextlib.suppress(apsw.Error, OSError, Corrupt):
                self.segments.append(self._new_segment(self.last_pos + 1))

    def _make_room(self) -> None:
        """Before a commit: drops the oldest segments while the bound is passed."""
        if self.segments and not self.segments[-1].is_full(self.bounds.segment_bytes):
            return  # only a new segment takes more space
        self.reclaim()
        limit = self.bounds.max_size_bytes - self.bounds.segment_bytes
        while len(self.segments) > 1 and self.size_bytes > limit:
            self._drop_oldest("max_size")
        if len(self.segments) > 1 and self.free_bytes < self.bounds.min_free_bytes:
            self._drop_oldest("disk_full")

    def drop_for_space(self) -> bool:
        """On a full disk: gives up the oldest segment for new rows; whether there was one."""
        remove(self.folder / "reserve")
        try:
            only = self.segments[0] if len(self.segments) == 1 else None
            if only and only.has_rows and only.size_bytes > 2 * RESERVE_BYTES:
                self.segments.append(self._new_segment(self.last_pos + 1))
            if len(self.segments) > 1:
                self._drop_oldest("disk_full")
                return True
        except (DiskFull, apsw.Error, OSError, Corrupt):
            return False
        finally:
            self._keep_reserve()
        return False

    def purge(self, output: str) -> int:
        """Skips everything that waits for an output; how many rows. Leaves gap rows, committed
        before the cursor moves. Raises DiskFull.
        """
        self.commit()
        count, last, cursor = self.pending(output), self.last_pos, self.cursors[output]
        self._tally(self.segments, {output: cursor}, "purged")
        self.commit()
        cursor.pass_over(last)
        self.sync()
        return count

    def _drop_oldest(self, reason: str) -> None:
        """Gap rows first, in the same transaction as the order to forget the segment.

        Raises DiskFull; then nothing is dropped.
        """
        segment = self.segments[0]
        offered, streams, told = self._pending, self._pending_streams, self._told
        self._forget_pending()
        try:
            self._tally([segment], self.cursors, reason)
            if self._pending:
                self._write_gaps(segment.last_pos)
                self._tell()
        except (apsw.Error, OSError, Corrupt) as e:
            self._next_pos -= len(self._pending)
            raise DiskFull(f"{type(e).__name__}: {e}") from None
        finally:
            self._clear_pending()
            self._told = told
            for row in offered:
                self._queue(row)
            self._pending_streams = streams
        for cursor in self.cursors.values():
            cursor.pass_over(segment.last_pos)
        self.segments.remove(segment)
        segment.unlink()
        self.save()

    def _write_gaps(self, floor: int) -> None:
        """Into the newest segment however large it is: a new one may find no room."""
        try:
            if self.segments[-1].last_pos != self._pending[0].pos - 1:
                self.segments.append(self._new_segment(self._pending[0].pos))
            self.segments[-1].append(self._pending, {}, floor=floor)
        except apsw.FullError:
            remove(self.folder / "reserve")
            self.segments[-1].append(self._pending, {}, floor=floor)
        self.state.keep_copies(self._pending)

    def _tally(self, segments: Iterable[Segment], cursors: dict[str, Cursor], reason: str) -> None:
        """Queues gap rows for what would be lost with these segments."""
        everyone = frozenset(self.cursors)
        tally, retold = Tally(), Retold()
        for segment in segments:
            for row in self._all(segment):
                losers = frozenset(n for n, c in cursors.items() if c.lacks(row.pos))
                if row.outputs:
                    losers = frozenset(n for n in losers if f",{n}," in row.outputs)
                if not losers:
                    continue
                if row.kind == GAP_ROW:
                    retold.add(row, losers)
                else:
                    tally.add(row, frozenset() if losers == everyone else losers)
        for row in retold.rows(self.bounds.segment_bytes // RETOLD_PART):
            self._queue(row)
        for gap in tally.gaps:
            self._queue_gap(gap, reason)

    def _all(self, segment: Segment) -> Iterator[Row]:
        """Every row that can be read; what damage has taken is queued as gaps."""
        at = segment.first_pos - 1
        while True:
            try:
                rows = segment.read(at, 1_000)
            except Corrupt:
                left = self._mender.left(segment, segment.last_pos)
                end = self._mender.streams_behind(at + 1, self.streams)
                for gap in self._mender.lost(segment.first_pos, left, end):
                    self._queue_gap(gap, "corrupt")
                yield from (r for r in left if r.pos > at)
                return
            if not rows:
                return
            yield from rows
            at = rows[-1].pos

    def close(self) -> None:
        """Commits what waits and closes every file."""
        with contextlib.suppress(DiskFull):
            self.commit()
        self.sync()
        self._latest.close()
        for segment in self.segments:
            segment.close()
        self.state.close()
