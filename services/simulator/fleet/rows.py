"""A box's outbox without a disk: what waits is not kept but made again, to the byte.

Positions are as in the outbox: they grow with time. The n-th message has n × STRIDE (from 1); the
positions up to the next message's are those of gap notices that were written after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bus.frames import GAP_ROW, SAMPLE_ROW
from services.reader.message import Message
from services.simulator.fleet.schedule import Schedule
from services.simulator.fleet.values import Moment
from services.store_forward.gaps import Gap
from services.store_forward.segment import Row
from services.store_forward.state import Cursor

STRIDE = 4_096
# Rows past the bound are dropped an eighth of it at a time, as the outbox drops segments.
DROPS = 8
# A read takes some milliseconds (the CPU answers one telegram in 2 to 10).
LATENCY_MS = 2.4


class Counted:
    """Dead letters: counted, for they can be made again."""

    def __init__(self) -> None:
        self.count = 0

    def bury(self, output: str, rows: Iterable[tuple[Row, str]]) -> None:
        """Counts them."""
        self.count += sum(1 for _ in rows)


class MadeRows:
    """The rows of one box with one output. ``begin_ms``: when its sequences began (Unix ms)."""

    def __init__(
        self,
        output: str,
        site: str,
        plcs: Sequence[tuple[str, str]],
        schedule: Schedule,
        messages: Sequence[Message],
        moments: Sequence[Sequence[Moment]],
        *,
        begin_ms: int,
        first_step: int,
        keep_ms: int,
    ) -> None:
        """``plcs``: (id, tenant). ``messages`` and ``moments`` by record; ``first_step``: with
        which of its moments each record begins. Older than ``keep_ms`` is dropped.
        """
        self.begin_ms = begin_ms
        self.schedule = schedule
        self.plcs = plcs
        self.letters = Counted()
        self.count = 0
        """Messages made so far."""
        self.lost: list[list[list[int]]] = [[] for _ in plcs]
        """Of each PLC, what was dropped: [first seq, last seq]."""
        self._output, self._site = output, site
        self._messages, self._moments = messages, moments
        self._first_step, self._keep_ms = first_step, keep_ms
        self._cursor = Cursor(0, 0, 0)
        self.cursors = {output: self._cursor}
        self._notices: dict[int, list[Row]] = {}
        """By the number of messages before them."""

    # -- what is read --------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Everything due by now has been read."""
        self.count = max(self.count, self.schedule.count(now_ms - self.begin_ms))

    def next_ms(self) -> int:
        """When the next message is due."""
        return self.begin_ms + self.schedule.due_ms(self.count)

    def drop_old(self, now_ms: int) -> None:
        """Drops what is past the bound and says so, a gap notice for each PLC."""
        floor = min(self.count, self.schedule.count(now_ms - self._keep_ms - self.begin_ms))
        c = self._cursor
        step = max(1, self.schedule.count(self._keep_ms) // DROPS)
        if floor - c.done // STRIDE < step:
            return
        # What a live lane delivered beside the backlog is not lost.
        skips = [end // STRIDE for skip in c.skips for end in skip]
        bounds = [min(floor, n) for n in (c.done // STRIDE, *skips, floor)]
        told: list[Row] = [
            row for rows in self._notices.values() for row in rows
            if row.pos <= floor * STRIDE and c.lacks(row.pos)
        ]  # fmt: skip
        for begin, end in zip(bounds[::2], bounds[1::2], strict=True):
            told += self._gaps(begin, end, now_ms)
        c.pass_over(floor * STRIDE)
        self._tell(told)

    def _gaps(self, begin: int, end: int, now_ms: int) -> Iterator[Row]:
        """What is told of the messages from ``begin`` (excluded) to ``end``, counted from 1."""
        schedule = self.schedule
        for n, (plc, tenant) in enumerate(self.plcs):
            first, last = schedule.seq(n, begin) + 1, schedule.seq(n, end)
            if first > last:
                continue
            self.lost[n].append([first, last])
            since_ms, until_ms = (self.begin_ms + schedule.due_ms(i) for i in (begin, end - 1))
            gap = Gap(plc, tenant, self.begin_ms, first, last, since_ms, until_ms)
            body = gap.body(self._site, "max_age")
            yield Row(0, GAP_ROW, plc, tenant, now_ms, self.begin_ms, first, body)

    def _tell(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        there = self._notices.setdefault(self.count, [])
        at = self.count * STRIDE + len(there)
        there += [row._replace(pos=at + n) for n, row in enumerate(rows, 1)]
        self._forget()

    # -- as of an outbox -----------------------------------------------------------------

    @property
    def last_pos(self) -> int:
        """Of the newest row."""
        return self.count * STRIDE + len(self._notices.get(self.count, ()))

    @property
    def state(self) -> Counted:
        """Where dead letters go."""
        return self.letters

    def pending(self, output: str) -> int:
        """Messages and notices that are not delivered."""
        c = self.cursors[output]
        beside = sum(b // STRIDE - a // STRIDE for a, b in c.skips)
        told = sum(c.lacks(row.pos) for rows in self._notices.values() for row in rows)
        return self.count - c.done // STRIDE - beside + told

    def fresh(self, output: str, after: int, limit: int) -> list[Row]:
        """Nothing is in memory."""
        return []

    def read(self, output: str, lane: str, after: int, limit: int) -> list[Row]:
        """Rows of a lane behind ``after``, in order."""
        cursor, is_backlog = self.cursors[output], lane == "backfill"
        end = cursor.skip_from if is_backlog else self.last_pos
        found: list[Row] = []
        at = after
        while len(found) < limit and at < end:
            at = cursor.backlog_after(at) if is_backlog else at
            n, told = divmod(at, STRIDE)
            notices = self._notices.get(n, [])[told:]
            row = notices[0] if notices else self._row(n + 1)
            at = row.pos
            if at <= end:
                found.append(row)
        return found

    def row(self, pos: int) -> Row | None:
        """One row by its position."""
        n, told = divmod(pos, STRIDE)
        return self._notices[n][told - 1] if told else self._row(n)

    def _row(self, n: int) -> Row:
        """The ``n``-th message, from 1."""
        slot, seq = self.schedule.slot(n - 1)
        plc, tenant = self.plcs[slot.plc]
        ts_ms = self.begin_ms + self.schedule.due_ms(n - 1)
        moments = self._moments[slot.record]
        values, bad = moments[(self._first_step + seq) % len(moments)]
        latency_ms = LATENCY_MS + seq % 50 / 100
        message = self._messages[slot.record]
        body = message.body(ts_ms, "good", latency_ms, values, bad)(self.begin_ms, seq)
        return Row(n * STRIDE, SAMPLE_ROW, plc, tenant, ts_ms, self.begin_ms, seq, body)

    def open_lanes(self, output: str) -> None:
        """From here on new rows go to the live lane; what waits is its backlog."""
        self.cursors[output].part(self.last_pos)

    def settle(self, output: str, lane: str, position: int) -> None:
        """Takes a receipt."""
        self.cursors[output].settle(lane, min(position, self.last_pos))
        if self._notices:
            self._forget()

    def _forget(self) -> None:
        """Notices that are delivered."""
        lacks = self._cursor.lacks
        self._notices = {n: rows for n, rows in self._notices.items() if lacks(rows[-1].pos)}

    def acknowledged(self, plc: int) -> list[list[int]]:
        """Which of a PLC's messages are settled (delivered, or dropped and told): [first seq, last
        seq] of each run.
        """
        c, seq = self._cursor, self.schedule.seq
        runs = [(0, c.done), *c.skips]
        settled = [[seq(plc, a // STRIDE) + 1, seq(plc, b // STRIDE)] for a, b in runs]
        return [run for run in settled if run[0] <= run[1]]
