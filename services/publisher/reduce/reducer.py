"""The consumer: raw rows in, reduced messages into the queue, with an (epoch, seq) of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from bus.frames import GAP_ROW, SAMPLE_ROW, Heartbeat
from services.consumer.row import Row
from services.publisher.reduce.memory import Change, Memory, PlcKey, StreamKey, Waiting
from services.publisher.reduce.stream import Stream, Sum
from services.runtime.clock import now_ms
from services.runtime.errors import Unavailable
from services.runtime.measured import HOLD_MS
from services.runtime.process import Process

TICK_S = 1.0
# What a message that nobody foresaw may raise: it is said, and passed over.
MALFORMED = (
    ValueError, TypeError, OverflowError, KeyError, AttributeError, RecursionError,
)  # fmt: skip


class _Plc:
    """One PLC's sequences: the raw one, to see holes in it, and the reduced one."""

    def __init__(self) -> None:
        self.epoch = self.seq = 0
        """Of the newest reduced message."""
        self.raw = (0, 0)
        """(epoch, seq) of the newest raw one."""
        self.ts = 0
        """Of it."""
        self.lost = 0
        """Raw messages that gap messages told of, since the last reduced one."""

    def dump(self) -> list[Any]:
        return [self.epoch, self.seq, *self.raw, self.ts, self.lost]

    @classmethod
    def restore(cls, data: list[Any]) -> _Plc:
        plc = cls()
        plc.epoch, plc.seq, epoch, seq, plc.ts, plc.lost = data
        plc.raw = (epoch, seq)
        return plc


class Reducer:
    """One output's. ``on_made()``: messages have been added to the queue."""

    window = 2_000
    target = "reduction"

    def __init__(
        self,
        process: Process,
        memory: Memory,
        on_made: Callable[[], None],
        on_beat: Callable[[Heartbeat], None],
    ) -> None:
        self._process = process
        self._memory = memory
        self._on_made = on_made
        self._on_beat = on_beat
        self._step_ms: int = process.config["output"]["reduce"]["step_ms"]
        self.commit_s = min(2.0, self._step_ms / 20_000)
        self._groups: dict[tuple[str, str], dict[str, Any]] = {}
        self.configure(process.config["plcs"])
        self._plcs: dict[PlcKey, _Plc] = {}
        self._streams: dict[StreamKey, Stream] = {}
        self._heard_s: dict[StreamKey, float] = {}
        """Streams with an unfinished step → when a message of theirs came last, monotonic."""
        self._dirty: set[StreamKey] = set()
        self._dirty_plcs: set[PlcKey] = set()
        self._made: list[Waiting] = []
        self._holds_rows = False
        """Rows were taken that are not committed: what became of them goes with their position."""

    def configure(self, plcs: Iterable[dict[str, Any]]) -> None:
        """Takes the list of PLCs; what has begun goes on as it began."""
        self._groups = {(p["id"], g["name"]): g for p in plcs for g in p["groups"]}

    # -- as a consumer --------------------------------------------------------------------------

    def begin(self) -> bytes:
        """Takes up what the last commit kept."""
        self._plcs = {key: _Plc.restore(state) for key, state in self._memory.plcs()}
        self._streams, self._heard_s, self._made = {}, {}, []
        self._dirty, self._dirty_plcs = set(), set()
        self._holds_rows = False
        for key, state in self._memory.streams():
            stream = self._streams[key] = self._new(key)
            self._add(key, stream.restore(state))
            self._heard_s[key] = time.monotonic()
        return self._memory.position()

    def _new(self, key: StreamKey) -> Stream:
        group = self._groups.get((key[1], key[2]))
        if group is None:
            return Stream(self._step_ms, HOLD_MS)
        return Stream(self._step_ms, group["hold_ms"], group["counters"], group["wide"])

    def take(self, rows: Sequence[Row]) -> None:
        """Each adds to its step."""
        self._holds_rows = True
        for row in rows:
            key = (row.locatario, row.plc)
            plc = self._plcs.get(key)
            if plc is None:
                plc = self._plcs[key] = _Plc()
            self._dirty_plcs.add(key)
            try:
                message = orjson.loads(row.body)
                if row.kind == SAMPLE_ROW:
                    self._sample(key, plc, row, message)
                else:
                    plc.lost += message["count"] or 0
            except MALFORMED as e:
                text = f"a message of {row.topic} cannot be reduced: {e!r}"
                self._process.event("warning", "reduce_bad_message", text, seq=row.seq)

    def _sample(self, key: PlcKey, plc: _Plc, row: Row, message: dict[str, Any]) -> None:
        epoch, seq = plc.raw
        if (row.epoch, row.seq) != (epoch, seq + 1):
            self._lose(key, plc.ts)
        plc.raw = (row.epoch, row.seq)
        group = message.get("group") or ""
        at = (*key, group, message.get("machine") or "")
        stream = self._streams.get(at)
        if stream is None:
            stream = self._streams[at] = self._new(at)
        plc.ts = message["ts"]
        self._heard_s[at] = time.monotonic()
        self._dirty.add(at)
        self._add(at, stream.take(message))
        if not group:  # of the whole PLC: it is away
            self._lose(key, plc.ts)

    def _lose(self, key: PlcKey, ts: int) -> None:
        for at, stream in self._streams.items():
            if at[:2] == key:
                stream.lose(ts)
                self._dirty.add(at)

    def beat(self, beat: Heartbeat) -> None:
        """Goes by: heartbeats are not reduced."""
        self._on_beat(beat)

    def commit(self, position: bytes) -> None:
        """With what time has brought meanwhile."""
        self._save(position)
        self._holds_rows = False

    # -- time, and keeping ----------------------------------------------------------------------

    def tick(self) -> None:
        """Ends the steps of what is silent: a value holds no longer."""
        now_s, now = time.monotonic(), now_ms()
        for key, heard_s in list(self._heard_s.items()):
            stream = self._streams[key]
            if now_s - heard_s > stream.hold_ms / 1_000 and stream.is_over(now):
                del self._heard_s[key]
                self._dirty.add(key)
                self._add(key, stream.end())
        if self._dirty and not self._holds_rows:
            try:
                self._save(None)
            except Unavailable as e:  # the same again in a second
                self._process.log.warning("not kept", error=e.message)

    def _save(self, position: bytes | None) -> None:
        made = self._made
        self._memory.save(
            Change(
                position,
                {key: self._plcs[key].dump() for key in self._dirty_plcs},
                {key: self._streams[key].dump() for key in self._dirty},
                made,
            )
        )
        self._made, self._dirty, self._dirty_plcs = [], set(), set()
        if made:
            self._on_made()

    def _add(self, key: StreamKey, sums: Iterable[Sum]) -> None:
        locatario, name = key[:2]
        for a_sum in sums:
            plc = self._plcs[locatario, name]
            self._dirty_plcs.add((locatario, name))
            if not plc.epoch:
                plc.epoch = now_ms()
            plc.seq += 1
            lost, plc.lost = plc.lost, 0
            head = {k: v for k, v in a_sum.items() if k not in _TAIL}
            tail = {k: v for k, v in a_sum.items() if k in _TAIL}
            numbers = {"epoch": plc.epoch, "seq": plc.seq, **({"lost": lost} if lost else {})}
            body = orjson.dumps({**head, **numbers, **tail})
            ts, seq = a_sum["ts"], plc.seq
            self._made.append(
                Waiting(0, SAMPLE_ROW, name, locatario, ts, plc.epoch, seq, body)
            )  # fmt: skip


# Stands behind the numbers, as in raw messages.
_TAIL = ("quality", "values", "bad")


def gap_of(site: str, reason: str, some: Sequence[Waiting]) -> Waiting:
    """Tells of messages of one PLC and epoch that were dropped, and of what they told of."""
    told = [orjson.loads(w.body) for w in some if w.kind == GAP_ROW]
    lost = [w for w in some if w.kind != GAP_ROW]
    last = some[-1]
    gap = {
        "v": 1,
        "site": site,
        "locatario_id": last.locatario,
        "plc_id": last.plc,
        "ts": now_ms(),
        "epoch": last.epoch,
        "first_seq": min([w.seq for w in lost] + [t["first_seq"] for t in told]),
        "last_seq": max([w.seq for w in lost] + [t["last_seq"] for t in told]),
        "count": len(lost) + sum(t["count"] for t in told),
        "from_ts": min([w.ts_ms for w in lost] + [t["from_ts"] for t in told]),
        "to_ts": max([w.ts_ms for w in lost] + [t["to_ts"] for t in told]),
        "reason": reason,
    }
    # The row's seq is the first lost number, as of the store's own gaps.
    return Waiting(
        last.number, GAP_ROW, last.plc, last.locatario, last.ts_ms, last.epoch,
        gap["first_seq"], orjson.dumps(gap),
    )  # fmt: skip
