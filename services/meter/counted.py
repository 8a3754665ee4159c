"""Which messages the meter has counted: kept by PLC, so that a commit writes those that sent."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from services.consumer.row import OTHER_ROW, Row
from services.consumer.seen import Seen


class Counted(Seen):
    """Opens ``{"<locatario>/<plc>": epochs}``; ``pack`` gives those that changed since the last.

    A message without identity (``OTHER_ROW``) always counts: sent again by the broker after a
    crash, it counts twice.
    """

    def __init__(self, packed: bytes = b"") -> None:
        super().__init__(packed)
        self._changed: set[str] = set()

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Those that were not counted yet; they count as counted from here on."""
        found = [row for row in rows if row.kind == OTHER_ROW or self._add(row)]
        self._changed |= {f"{r.locatario}/{r.plc}" for r in found if r.kind != OTHER_ROW}
        return found

    def pack(self) -> bytes:
        """As bytes, to be kept beside the others."""
        changed, self._changed = self._changed, set()
        return orjson.dumps({name: self._streams[name] for name in sorted(changed)})
