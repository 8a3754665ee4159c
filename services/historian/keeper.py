"""The historian as a consumer of the store: rows are kept with the position they stand at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from bus.frames import GAP_ROW, Heartbeat
from services.consumer.database import DAMAGE, FULL
from services.consumer.durable import Durable
from services.consumer.row import Row
from services.historian.answering import Answering
from services.historian.compact import Compactor
from services.historian.keeping import Keeping
from services.historian.known import Known
from services.historian.oee import Oee
from services.historian.recent import Block, Commit, Recent, hour_of
from services.historian.reports import Reports
from services.historian.sequences import Sequences
from services.historian.shapes import Stream
from services.historian.work import Work
from services.runtime.clock import now_ms
from services.runtime.errors import Unavailable
from services.runtime.process import Process

# How often work is done beside: a slice of it each time.
WORK_S = 0.05


class Keeper:
    """One box's history."""

    window = 4_000
    # Each commit is an fdatasync, and what is together compresses better.
    commit_s = 1.0
    target = "history"

    def __init__(self, process: Process) -> None:
        self._process = process
        self.folder: Path = process.state_dir / "history"
        config, say = process.config, process.event
        self._known = Known(config["groups"])
        self._keeping = Keeping(
            self.folder,
            max_size_bytes=config["max_size_bytes"],
            min_free_bytes=config["min_free_bytes"],
            max_age_ms=config["max_age_ms"],
            say=say,
            now_ms=now_ms,
        )
        self._recent: Recent | None = None
        self._work: Work | None = None
        self.newest_ms: int | None = None
        """Of what was kept; None before the first message."""
        self._forget()

    def _open(self) -> tuple[Recent, Work]:
        """Files; Unavailable where the disk does not take them."""
        if self._recent is None or self._work is None:
            try:
                recent = self._recent or Recent(self.folder, self._damaged)
                self._recent = recent
                self.newest_ms = self.newest_ms or recent.newest_ms()
                self._known.save(self.folder)
            except (*FULL, OSError) as e:
                text = f"the history cannot be opened: {e}"
                raise Unavailable("disk_full", text) from None
            say = self._process.event
            compactor = Compactor(self.folder, recent, self._known, say)
            self._work = Work(recent, compactor, self._keeping, say, self.folder, now_ms)
        return self._recent, self._work

    def _forget(self) -> None:
        self._sequences = Sequences()
        self._blocks: dict[tuple[Stream, int], Block] = {}
        self._gaps: list[tuple[str, str, int | None, int | None, bytes]] = []

    def _damaged(self, path: Path, why: str) -> None:
        text = f"{path.stem}.db was damaged and lies in {path}"
        self._process.event("error", "history_damaged", text, error=why)

    # -- as a consumer --------------------------------------------------------------------------

    def begin(self) -> bytes:
        """Takes up what the last commit kept."""
        self._forget()
        recent, work = self._open()
        try:
            self._sequences.restore(recent.plcs(), recent.streams())
            work.begin()
            return recent.position()
        except DAMAGE as e:
            recent.renew(str(e))
            raise Unavailable("damaged", f"recent.db was damaged: {e}") from None

    def take(self, rows: Sequence[Row]) -> None:
        """Each goes to the block of its stream and hour."""
        for row in rows:
            try:
                message = orjson.loads(row.body)
                if row.kind == GAP_ROW:
                    self._gap(row, message)
                else:
                    self._sample(row, message)
            except (ValueError, TypeError, KeyError, AttributeError) as e:
                text = f"a message of {row.topic} cannot be understood: {e!r}"
                self._process.event("warning", "history_bad_message", text)

    def _sample(self, row: Row, message: dict[str, Any]) -> None:
        group, machine = message.get("group") or "", message.get("machine") or ""
        stream = Stream(row.locatario, row.plc, group, machine)
        ts_ms, at = message["ts"], (message["epoch"], message["seq"])
        self.newest_ms = max(self.newest_ms or ts_ms, ts_ms)
        joined = self._sequences.add(stream, *at, now_ms())
        hour_ms = hour_of(ts_ms)
        block = self._blocks.get((stream, hour_ms))
        if block is None:
            block = self._blocks[stream, hour_ms] = Block(stream, hour_ms)
        block.ts_ms.append(ts_ms)
        block.identities.append(at)
        block.joined.append(joined)
        block.bodies.append(row.body)

    def _gap(self, row: Row, message: dict[str, Any]) -> None:
        self._sequences.tell(row.locatario, row.plc, message)
        ends = message.get("from_ts"), message.get("to_ts")
        self._gaps.append((row.locatario, row.plc, *ends, row.body))

    def beat(self, beat: Heartbeat) -> None:
        """Heartbeats are not kept: a PLC that is offline says it in a message too."""

    def commit(self, position: bytes) -> None:
        """Keeps what was taken."""
        recent, work = self._open()
        plcs = self._sequences.dump()
        recent.save(Commit(position, list(self._blocks.values()), plcs, self._gaps))
        for block in self._blocks.values():
            work.added(block.stream, block.hour_ms, len(block.bodies), block.size_bytes)
        self._sequences.changed.clear()
        self._blocks, self._gaps = {}, []

    def open(self) -> None:
        """Lets work be done beside."""
        self._process.every(WORK_S, self._slice)
        self._process.every(1.0, self._measure)

    def _slice(self) -> None:
        if self._work is not None:
            self._work.slice()

    def _measure(self) -> None:
        for hole in self._sequences.untold(now_ms()):
            count = hole.last - hole.first + 1
            text = (
                f"{hole.plc}: {count} messages did not come (seq {hole.first} to {hole.last}), and"
                " no gap message tells of them"
            )
            self._process.event("warning", "history_hole", text, epoch=hole.epoch)
        gauge = self._process.stats.gauge
        gauge("plc_edge_history_bytes").set(self._keeping.size_bytes)
        gauge("plc_edge_history_rows_held").set(self._work.rows_held if self._work else 0)
        gauge("plc_edge_history_oldest_seconds").set(self._keeping.oldest_ms / 1_000)

    def close(self) -> None:
        """Closes the files."""
        if self._work is not None:
            self._work.close()
        if self._recent is not None:
            self._recent.close()


def setup(process: Process) -> Callable[[], None]:
    """Joins it with the store, and answers questions."""
    keeper = Keeper(process)
    shifts = Oee(process.config["oee"]) if process.config.get("oee") else None
    answering = Answering(process, keeper.folder, shifts)
    if shifts and process.config["oee"]["email"]:
        reports = Reports(process, keeper.folder, process.config["oee"], lambda: keeper.newest_ms)
        reports.open()
    stop = Durable(process, keeper).open()
    keeper.open()
    answering.open()
    process.ready()

    def close() -> None:
        answering.close()
        stop()
        keeper.close()

    return close
