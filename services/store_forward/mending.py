"""What becomes of a damaged segment: what is left of its rows, and gap rows for what is lost.

What is lost is known from where streams stood when the segment began and when the next one did;
for the newest one from the process itself, or from what was noted last.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import apsw

from bus.frames import SAMPLE_ROW
from services.runtime.clock import now_ms
from services.runtime.files import sync_folder
from services.store_forward.gaps import Gap, between
from services.store_forward.segment import Corrupt, Row, Segment, Where, remove
from services.store_forward.state import NEWEST, State

# A row has at least this size on disk: how many a segment of unknown content may have had.
ROW_MIN_BYTES = 64
# Damage must not fill the disk.
KEPT_ASIDE = 2


class Quarantine:
    """Where damaged files of an outbox go."""

    def __init__(self, folder: Path, on_event: Callable[[str, str, str], None]) -> None:
        self._folder = folder / "quarantine"
        self._event = on_event
        self.count = 0
        """Since the start."""

    def put_aside(self, path: Path, reason: str) -> None:
        """Moves a file and its WAL there; the last segments stay."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        target = self._folder / f"{path.name}.{now_ms()}"
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{target}{suffix}")
        for old in sorted(self._folder.glob("*.seg.*[0-9]"), key=os.path.getmtime)[:-KEPT_ASIDE]:
            remove(old)
        self.count += 1
        self._event("error", "quarantined", f"damaged outbox file put aside: {reason}")


class Mender:
    """Mends the segments of ``segments``, the outbox's own list, which it does not change."""

    def __init__(
        self,
        folder: Path,
        state: State,
        segments: list[Segment],
        quarantine: Quarantine,
        *,
        segment_bytes: int,
        durability: str,
        gap_row: Callable[[int, Gap, str], Row],
    ) -> None:
        """``gap_row`` (position, gap, reason) makes a row of a gap, and will tell of it."""
        self._folder = folder
        self._state = state
        self._segments = segments
        self._quarantine = quarantine
        self._segment_bytes = segment_bytes
        self._durability = durability
        self._gap_row = gap_row

    def rebuild(
        self,
        segment: Segment,
        reason: str,
        behind: int,
        streams_now: dict[str, Where] | None,
        *,
        size_known: bool = True,
        more: Callable[[apsw.Connection], None] | None = None,
        lost: Iterable[Gap] = (),
    ) -> Segment:
        """A new file with what is left of a damaged one, gap rows in the places of what is lost.

        ``behind``: its last position where a later segment tells it, 0 for the newest.
        ``streams_now``: where streams stand, None where nobody knows yet. ``size_known``: its
        ``last_pos`` can be trusted. ``more`` writes what else the newest one holds;
        ``lost`` is missing of that, and told of behind its last row.
        """
        path = segment.path
        first_pos = segment.first_pos
        if behind and not size_known:
            segment.last_pos = max(segment.last_pos, behind)
        rows = self.left(segment, segment.last_pos if behind or size_known else sys.maxsize)
        newest = max([first_pos - 1, *(r.pos for r in rows)])
        if size_known:
            last_pos = max(newest, segment.last_pos)
        elif behind:
            last_pos = behind
        else:
            # Nobody knows how many rows it had; leave room for as many as fit.
            size_bytes = max(path.stat().st_size, self._segment_bytes)
            last_pos = newest + size_bytes // ROW_MIN_BYTES
        end = self.streams_behind(first_pos, streams_now)
        places = _FreePlaces(first_pos, last_pos, rows)
        gaps = self.lost(first_pos, rows, end) if places else []
        for gap in gaps:
            place = next(places, None)
            if place is None:
                break
            rows.append(self._gap_row(place, gap, "corrupt"))
        for gap in lost:
            last_pos += 1
            rows.append(self._gap_row(last_pos, gap, "corrupt"))
        rows.sort(key=lambda r: r.pos)
        fresh_path = path.with_suffix(".seg.new")
        remove(fresh_path)
        fresh = Segment(fresh_path, self._durability)
        try:
            streams = end if end is not None else self._streams_of(first_pos, rows)
            if (
                end is None and not behind
            ):  # further than its rows, where some wait or were withheld
                streams = _furthest(streams, self.streams_now(segment))
            holes = list(_FreePlaces(first_pos, last_pos, rows).ranges())
            fresh.append(rows, streams, holes=holes, last_pos=last_pos, more=more)
        except BaseException:
            fresh.unlink()
            raise
        fresh.close()
        segment.close()
        self._quarantine.put_aside(path, reason)
        fresh_path.rename(path)
        sync_folder(self._folder)
        self._state.keep_copies(rows)
        mended = Segment(path, self._durability)
        mended.appended_s, mended.written_ms = segment.appended_s, segment.written_ms
        return mended

    def left(self, segment: Segment, last_pos: int) -> list[Row]:
        """What can be had of a damaged segment's rows up to ``last_pos``, in order."""
        rows = {r.pos: r for r in self._state.copies(segment.first_pos, last_pos)}
        rows.update((r.pos, r) for r in segment.salvage())
        return [rows[pos] for pos in sorted(rows)]

    def streams_behind(
        self, first_pos: int, streams_now: dict[str, Where] | None
    ) -> dict[str, Where] | None:
        """Where the streams stand at a damaged segment's end; None where nobody knows."""
        later = [s.first_pos for s in self._segments if s.first_pos > first_pos]
        later += [int(p.stem) for p in self._folder.glob("*.seg") if int(p.stem) > first_pos]
        if later and (marked := self._state.marked(min(later))):
            return marked
        if later:
            return None
        return None if streams_now is None else dict(streams_now)

    def _streams_of(self, first_pos: int, rows: Iterable[Row]) -> dict[str, Where]:
        """What is known for certain of where streams stand after these rows."""
        streams = self.streams_before(first_pos)
        for r in rows:
            known = streams.get(r.plc)
            here = Where(r.locatario, r.epoch, r.seq, r.ts_ms)
            if r.kind == SAMPLE_ROW and (known is None or known[1:3] < here[1:3]):
                streams[r.plc] = here
        return streams

    def streams_now(self, newest: Segment) -> dict[str, Where]:
        """Where streams stand: never behind where they stood when the newest segment began, though
        a damaged WAL makes SQLite go back to before it knew.
        """
        streams = self.streams_before(newest.first_pos)
        with contextlib.suppress(Corrupt):  # then where they stood at its beginning is all
            streams = _furthest(streams, newest.streams())
        return streams

    def streams_before(self, first_pos: int) -> dict[str, Where]:
        """Where they stood when the segment that begins there began."""
        streams = self._state.marked(first_pos)
        for segment in self._segments:
            if segment.first_pos < first_pos:
                with contextlib.suppress(Corrupt):
                    streams = {**segment.streams(), **streams}
        return streams

    def lost(self, first_pos: int, rows: list[Row], end: dict[str, Where] | None) -> list[Gap]:
        """What is missing among ``rows``, all that is left of the segment at ``first_pos``, up to
        where streams stand at its ``end``."""
        gaps = between(self.streams_before(first_pos), rows, end)
        if end is None:
            # Streams that began in it are known only from what was noted last.
            told = {(g.plc, g.epoch) for g in gaps}
            for plc, w in self._state.marked(NEWEST).items():
                if (plc, w.epoch) not in told:
                    gaps.append(Gap(plc, w.locatario, w.epoch, 1, None, None, w.ts_ms))
        return gaps


def _furthest(a: dict[str, Where], b: dict[str, Where]) -> dict[str, Where]:
    newer = {p: w for p, w in b.items() if p not in a or a[p][1:3] <= w[1:3]}
    return {**a, **newer}


class _FreePlaces:
    """Positions of a segment that hold no row, in order; false when there are none."""

    def __init__(self, first_pos: int, last_pos: int, rows: Iterable[Row]) -> None:
        self._ranges: list[tuple[int, int]] = []
        at = first_pos
        for row in rows:
            if row.pos > at:
                self._ranges.append((at, row.pos - 1))
            at = row.pos + 1
        if at <= last_pos:
            self._ranges.append((at, last_pos))
        self._each = (p for first, last in self._ranges for p in range(first, last + 1))

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[int]:
        return self._each

    def __next__(self) -> int:
        return next(self._each)

    def ranges(self) -> list[tuple[int, int]]:
        """As (first, last)."""
        return self._ranges
