"""Which rows follow one another without a hole, and which holes nobody has told of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from services.historian.shapes import Stream

Identity = tuple[int, int]
"""(epoch, seq)."""
# Gap messages come behind newer rows (a quota's up to a minute later).
TOLD_WITHIN_MS = 180_000
_MAX_HOLES = 1_000


class Hole(NamedTuple):
    """Numbers of a PLC that did not come, in one epoch."""

    locatario: str
    plc: str
    epoch: int
    first: int
    last: int
    since_ms: int


class Sequences:
    """By PLC: its groups share one sequence."""

    def __init__(self) -> None:
        self._plcs: dict[tuple[str, str], tuple[Identity, Identity]] = {}
        """(the newest, the first behind the last hole)."""
        self._streams: dict[Stream, Identity] = {}
        self._holes: list[Hole] = []
        self.changed: set[tuple[str, str]] = set()

    def restore(
        self, plcs: Iterable[tuple[str, str, bytes]], streams: Iterable[tuple[Stream, Identity]]
    ) -> None:
        """Takes up what was committed."""
        for locatario, plc, state in plcs:
            epoch, seq, since_epoch, since_seq = orjson.loads(state)
            self._plcs[locatario, plc] = (epoch, seq), (since_epoch, since_seq)
        self._streams = dict(streams)

    def add(self, stream: Stream, epoch: int, seq: int, now_ms: int = 0) -> bool:
        """A row; whether nothing is missing since its stream's row before."""
        key, at = (stream.locatario, stream.plc), (epoch, seq)
        self.changed.add(key)
        newest, since = self._plcs.get(key, ((0, 0), at))
        before = self._streams.get(stream, (0, 0))
        if at <= newest:  # what a damaged outbox gives again; which of it is new is seen later
            return False
        if at != (newest[0], newest[1] + 1):
            since = at
            if epoch == newest[0] and len(self._holes) < _MAX_HOLES:
                self._holes.append(Hole(*key, epoch, newest[1] + 1, seq - 1, now_ms))
        self._plcs[key] = at, since
        self._streams[stream] = at
        return before >= since

    def tell(self, locatario: str, plc: str, gap: Mapping[str, Any]) -> None:
        """A gap message: what it names is no secret loss."""
        first, last = gap["first_seq"], gap.get("last_seq")
        told = gap.get("seqs") or [[first, 2**62 if last is None else last]]
        left: list[Hole] = []
        for hole in self._holes:
            parts = [hole]
            if hole[:3] == (locatario, plc, gap["epoch"]):
                for low, high in told:
                    parts = [p for part in parts for p in _without(part, low, high)]
            left += parts
        self._holes = left

    def untold(self, now_ms: int) -> list[Hole]:
        """Holes that no gap message has told of for too long; each once."""
        due = [h for h in self._holes if h.since_ms + TOLD_WITHIN_MS <= now_ms]
        self._holes = [h for h in self._holes if h not in due]
        return due

    def dump(self) -> list[tuple[str, str, bytes]]:
        """Of the PLCs that have changed."""
        return [
            (*key, orjson.dumps([*self._plcs[key][0], *self._plcs[key][1]]))
            for key in self.changed
            if key in self._plcs
        ]


def _without(hole: Hole, low: int, high: int) -> list[Hole]:
    """What is left of it outside [low, high]."""
    if high < hole.first or low > hole.last:
        return [hole]
    parts = (hole._replace(last=low - 1), hole._replace(first=high + 1))
    return [p for p in parts if p.first <= p.last]
