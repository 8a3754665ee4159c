"""Up to where a consumer has taken rows of this box's store; kept with what it made of them.

The store's cursor may lag behind (a receipt was lost with its process): then rows come that were
taken already. Their position alone does not tell: after damage to its files the store may give
positions anew. A row counts as taken when its position was reached and its PLC had come so far.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from bus.frames import SAMPLE_ROW
from services.consumer.row import Row


class Position:
    """Opens what ``pack`` gave; b"" is the beginning."""

    def __init__(self, packed: bytes = b"") -> None:
        last, streams = orjson.loads(packed) if packed else (0, {})
        self._last: int = last
        """Highest position taken."""
        self._streams: dict[str, tuple[int, int]] = {p: (e, s) for p, (e, s) in streams.items()}
        """PLC -> (epoch, seq) of its newest sample."""

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Those that were not taken yet; they count as taken from here on."""
        fresh = []
        for row in rows:
            newest, identity = self._streams.get(row.plc, (0, 0)), (row.epoch, row.seq)
            if row.position <= self._last and identity <= newest:
                continue
            fresh.append(row)
            self._last = max(self._last, row.position)
            if row.kind == SAMPLE_ROW and identity > newest:
                self._streams[row.plc] = identity
        return fresh

    def pack(self) -> bytes:
        """As bytes, to be kept."""
        return orjson.dumps([self._last, self._streams])
