"""Moves rows on: from ``recent.db`` to their hour's file, and what is whole to a condensed one with
its roll-ups. In small steps (generators), for commits must not wait.

Each step can be repeated: rows are told by (epoch, seq), roll-ups are replaced, and what was
read is removed when what was made of it is on disk. A reader in between sees rows twice, and counts
them once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from services.historian.hours import (
    GROWING,
    READ_ERRORS,
    HourFile,
    HourWriter,
    Place,
    path_of,
    places,
    stored_tables,
)
from services.historian.known import Known
from services.historian.reading import History
from services.historian.recent import Blocks, Recent
from services.historian.rolling import Rolling
from services.historian.shapes import HOUR_MS, Stream
from services.historian.table import VALUES, Column, Table, joined_tables, ordered
from services.runtime.failpoints import hit

Steps = Generator[None, None, None]
Say = Callable[[str, str, str], None]
"""(level, code, text): something that a person wants to know."""


# In one part: as JSON objects 2,000 rows of 200 values take 30 MB.
PART_ROWS = 2_000


class Compactor:
    """One box's."""

    def __init__(self, folder: Path, recent: Recent, known: Known, say: Say) -> None:
        self._folder, self._recent, self._known, self._say = folder, recent, known, say
        self._tails: dict[Stream, tuple[int, Table]] = {}
        """(hour, last row by time) of what was condensed last: what holds into the next hour."""

    # -- recent.db -> the growing file ----------------------------------------------------------

    def flush(self, stream: Stream, hour_ms: int) -> Steps:
        """Moves a stream's rows of an hour, the oldest ``PART_ROWS``. Raises what SQLite says."""
        blocks = self._recent.blocks(stream, hour_ms, PART_ROWS)
        table = yield from self._newest(blocks)
        if table is not None:
            writer = HourWriter(path_of(self._folder, hour_ms, GROWING), growing=True)
            try:
                yield from _write(writer, stream, table)
            finally:
                writer.close()
            hit("historian.flushed")
        self._recent.forget(number for number, _ in blocks)

    def _newest(
        self, blocks: list[tuple[int, tuple[Any, ...]]]
    ) -> Generator[None, None, Table | None]:
        """Their rows."""
        opened = Blocks()
        for _, block in blocks:
            opened.add(block)
            yield
        self._tell(opened.lost)
        table = opened.table()
        yield
        return None if table is None else ordered(table)

    def _tell(self, lost: list[str]) -> None:
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            self._say("error", "history_damaged", f"a part of the history is lost: {lost[0]}{more}")

    # -- an hour that is over -------------------------------------------------------------------

    def condense(self, hour_ms: int) -> Steps:
        """Makes one file of all that there is of an hour, and its roll-ups."""
        sources = [p for p in places(self._folder) if p.hour_ms == hour_ms]
        number = max((p.number for p in sources), default=0) + 1
        newest = [p for p in sources if p.number in (GROWING, number - 1)]
        lost: list[str] = []
        files = list(self._open(newest, lost))
        streams = {s for s, hour, _, _ in self._recent.held() if hour == hour_ms}
        for file in files:
            try:
                streams |= set(file.streams())
            except READ_ERRORS as e:
                lost.append(f"{file.path.name}: {e}")
        writer = HourWriter(path_of(self._folder, hour_ms, number), growing=False)
        rolling = Rolling(self._folder, self._known, hour_ms)
        used: list[int] = []
        try:
            for stream in sorted(streams):
                yield from self._stream(stream, hour_ms, files, writer, rolling, used, lost)
            yield from _synced(writer.path)
            yield from rolling.write()
            hit("historian.rolled")
            writer.seal()
            hit("historian.sealed")
        finally:
            rolling.close()
            writer.close()
            for file in files:
                file.close()
        self._tell([*lost, *rolling.lost])
        self._recent.forget(used)
        for place in sources:
            _remove(place, keep=bool(lost))

    def _open(self, found: list[Place], lost: list[str]) -> Iterator[HourFile]:
        for place in sorted(found, key=lambda p: p.number == GROWING):
            try:
                yield HourFile(place.path, place.number == GROWING)
            except (*READ_ERRORS, apsw.CantOpenError, FileNotFoundError) as e:
                lost.append(f"{place.path.name}: {e}")

    def _stream(
        self,
        stream: Stream,
        hour_ms: int,
        files: list[HourFile],
        writer: HourWriter,
        rolling: Rolling,
        used: list[int],
        lost: list[str],
    ) -> Steps:
        tables: list[Table] = []
        for file in files:
            tables += stored_tables(file, stream, lost, whole=True)
            yield
        blocks = self._recent.blocks(stream, hour_ms)
        newest = yield from self._newest(blocks)
        if newest is not None:
            tables.append(newest)
        used += [number for number, _ in blocks]
        if not tables:
            return
        table = ordered(joined_tables(tables))
        yield
        rolling.begin(stream, table, self._tail(stream, hour_ms), self._next(stream, hour_ms))
        yield

        ts = table.ints("ts")
        at_end = np.array([len(ts) - 1 - int(np.argmax(ts[::-1]))])
        tail: dict[str, Column] = {}

        def columns() -> Iterator[tuple[str, Column]]:
            for name in table.names:
                column = table.once(name)
                if column is None:
                    continue
                yield name, column
                tail[name] = column.pick(at_end)
                if name.startswith(VALUES):
                    rolling.add(name[len(VALUES) :], column)

        yield from writer.add(stream, columns(), table.rows, int(ts.min()), int(ts.max()))
        self._tails[stream] = hour_ms, Table(1, tail, tail.get)

    def _tail(self, stream: Stream, hour_ms: int) -> Table | None:
        """The last row before an hour, if a value of it can hold into it."""
        known = self._tails.get(stream)
        if known is not None and known[0] == hour_ms - HOUR_MS:
            return known[1]
        history = History(self._folder)
        try:
            return history.last_before(stream, hour_ms, self._known.hold_ms(stream))
        finally:
            history.close()

    def _next(self, stream: Stream, hour_ms: int) -> tuple[int, bool] | None:
        """(ts, joined) of the first row behind an hour, if a value can hold up to it."""
        history = History(self._folder)
        try:
            end_ms = hour_ms + HOUR_MS
            return history.first_after(stream, end_ms, self._known.hold_ms(stream))
        finally:
            history.close()


def _write(writer: HourWriter, stream: Stream, table: Table) -> Steps:
    columns = ((name, c) for name in table.names if (c := table.once(name)) is not None)
    ts = table.ints("ts")
    yield from writer.add(stream, columns, table.rows, int(ts.min()), int(ts.max()))


def _synced(path: Path) -> Steps:
    """Waits beside other work until a file is on disk."""
    failed: list[OSError] = []

    def sync() -> None:
        try:
            with open(path, "rb") as f:
                os.fsync(f.fileno())
        except OSError as e:
            failed.append(e)

    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    while thread.is_alive():
        yield
    if failed:
        raise failed[0]


def _remove(place: Place, *, keep: bool) -> None:
    """What another file holds now; what was damaged is left for who wants to look."""
    for suffix in ("-wal", "-shm"):
        place.path.with_name(place.path.name + suffix).unlink(missing_ok=True)
    if keep:
        place.path.replace(place.path.with_suffix(".damaged"))
    else:
        place.path.unlink(missing_ok=True)
