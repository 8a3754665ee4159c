"""What a PLC shows over time: its memory, decoded as a reader decodes it, once for all boxes.

Moving and decoding for each box would cost more than all the rest of a message. So each record has
a film of moments, and every box begins with another of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.s7.decode import Record
from services.s7.encode import Encoded, Encoder, pays_for
from services.s7.field import Field
from services.simulator.motion import AREAS
from services.simulator.station import Station

Moment = tuple[Mapping[str, Any], dict[str, str]]
"""(values, what is bad and why)."""
# Ten minutes at a scan a second; fewer where there are many values (1 µs and 20 bytes for each).
MOMENTS, MAX_VALUES = 600, 1_000_000


class Filmed:
    """One record of one PLC: its fields, and where they stand in the station's memory."""

    def __init__(self, station: Station, fields: Sequence[Field], base: int) -> None:
        self._memory = station.memory
        self._places: list[tuple[int, int, int, int]] = []
        placed, at = [], 0
        for f in fields:
            area, db = AREAS[f.area], f.db if f.area == "DB" else 0
            self._places.append((area, db, f.byte + base, f.size_bytes))
            placed.append(f.at(at))
            at += f.size_bytes
        self._decoder = Encoder(placed) if pays_for(placed) else Record(placed)
        self.size = len(placed)
        """Values in each moment."""
        self.moments: list[Moment] = []

    def take(self) -> None:
        """One more moment."""
        image = b"".join(
            bytes(self._memory[area, db][byte : byte + size_bytes])
            for area, db, byte, size_bytes in self._places
        )
        decoder = self._decoder
        decoder.changed(image)
        values = decoder.values
        kept = values if isinstance(values, Encoded) else dict(values)
        self.moments.append((kept, dict(decoder.bad)))
