"""Which messages a consumer at the centre has taken; it keeps it with what it made of them.

There are no positions here, only what identifies a message for ever (CONTRACT §4), and messages of
one PLC may come out of order: a box that replays a backlog sends new ones beside it, and what it
had no acknowledgement for comes again. So it is a set, kept as ranges: one for each PLC and epoch
as long as nothing is missing. A gap message closes the hole that it tells of, or the holes: where a
quota thins a PLC out it names what it withheld (``seqs``), and what lies between is on its way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import orjson

from bus.frames import GAP_ROW
from services.consumer.row import Row

# Of one PLC. Holes that no gap message closes are rare; the oldest epoch is forgotten first.
MAX_EPOCHS, MAX_RANGES = 8, 1_000

Ranges = list[list[int]]
"""[[first, last], …], in order, never touching."""


class Seen:
    """Opens what ``pack`` gave; b"" is the beginning."""

    def __init__(self, packed: bytes = b"") -> None:
        self._streams: dict[str, dict[str, Ranges]] = orjson.loads(packed) if packed else {}
        """"<locatario>/<plc>" -> epoch -> seqs taken."""

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Those that were not taken yet; they count as taken from here on."""
        return [row for row in rows if self._add(row)]

    def _add(self, row: Row) -> bool:
        epochs = self._streams.setdefault(f"{row.locatario}/{row.plc}", {})
        ranges = epochs.setdefault(str(row.epoch), [])
        if len(epochs) > MAX_EPOCHS:
            del epochs[min(epochs, key=int)]
        if row.kind != GAP_ROW:
            return add(ranges, row.seq, row.seq)
        return sum(add(ranges, first, last) for first, last in told(row.seq, row.body)) > 0

    def pack(self) -> bytes:
        """As bytes, to be kept: about 60 a PLC."""
        return orjson.dumps(self._streams)


def told(first_seq: int, body: bytes) -> Ranges:
    """What a gap message closes; of one that says nonsense, its first number."""
    gap = orjson.loads(body)
    seqs = gap.get("seqs") or [[first_seq, gap.get("last_seq") or first_seq]]
    try:
        good = all(type(n) is int and first_seq <= n < 2**53 for pair in seqs for n in pair)
        if good and all(first <= last for first, last in seqs):
            return [[first, last] for first, last in seqs]
    except (TypeError, ValueError):
        pass
    return [[first_seq, first_seq]]


def add(ranges: Ranges, first: int, last: int) -> bool:
    """Adds first … last; False where all of it was there."""
    at = bisect_right(ranges, first, key=lambda r: r[0])
    if at and ranges[at - 1][1] >= last:
        return False
    if at and ranges[at - 1][1] >= first - 1:
        at -= 1
        first = ranges[at][0]
    end = at
    while end < len(ranges) and ranges[end][0] <= last + 1:
        last = max(last, ranges[end][1])
        end += 1
    ranges[at:end] = [[first, last]]
    if len(ranges) > MAX_RANGES:
        ranges[0:2] = [[ranges[0][0], ranges[1][1]]]
    return True
