"""When a box's messages are due, as arithmetic: the n-th message of a box is always the same one.

All scans of a box repeat after the least common multiple of their intervals. Within that cycle each
message has a slot; so its PLC, its sequence number and its time follow from its number alone, and
nothing needs to be kept of what was sent or waits.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

# A cycle with more messages has scan times without a short common multiple.
MAX_SLOTS = 100_000


@dataclass(frozen=True, slots=True)
class Scanned:
    """What is read of one PLC at one interval: ``records`` messages at a time."""

    plc: int
    scan_ms: int
    phase_ms: int
    """Readers begin when they begin: PLCs of one box do not speak at the same moment."""
    records: Sequence[int]


@dataclass(frozen=True, slots=True)
class Slot:
    """One message of the cycle."""

    offset_ms: int
    plc: int
    nth: int
    """Which message of its PLC in the cycle, from 0."""
    record: int


class Schedule:
    """Messages of a box are numbered from 0, by time."""

    def __init__(self, plcs: int, scanned: Sequence[Scanned]) -> None:
        """Raises ValueError where the scan times do not repeat within MAX_SLOTS messages."""
        self.cycle_ms = math.lcm(*(s.scan_ms for s in scanned))
        if sum(self.cycle_ms // s.scan_ms * len(s.records) for s in scanned) > MAX_SLOTS:
            raise ValueError(f"scan times repeat only after {self.cycle_ms / 1_000:g} s")
        due = sorted(
            (s.phase_ms % s.scan_ms + at_ms, s.plc, record)
            for s in scanned
            for at_ms in range(0, self.cycle_ms, s.scan_ms)
            for record in s.records
        )
        self._places: list[list[int]] = [[] for _ in range(plcs)]
        """Of each PLC, the slots that are its own."""
        self.slots: list[Slot] = []
        for offset_ms, plc, record in due:
            self.slots.append(Slot(offset_ms, plc, len(self._places[plc]), record))
            self._places[plc].append(len(self.slots) - 1)
        self._offsets_ms = [slot.offset_ms for slot in self.slots]

    def count(self, since_ms: int) -> int:
        """How many messages are due ``since_ms`` after the beginning."""
        if since_ms < 0:
            return 0
        cycles, rest_ms = divmod(since_ms, self.cycle_ms)
        return cycles * len(self.slots) + bisect_right(self._offsets_ms, rest_ms)

    def due_ms(self, n: int) -> int:
        """When message ``n`` is due, after the beginning."""
        cycles, at = divmod(n, len(self.slots))
        return cycles * self.cycle_ms + self._offsets_ms[at]

    def slot(self, n: int) -> tuple[Slot, int]:
        """Message ``n``: its slot, and its sequence number."""
        cycles, at = divmod(n, len(self.slots))
        slot = self.slots[at]
        return slot, cycles * len(self._places[slot.plc]) + slot.nth + 1

    def seq(self, plc: int, count: int) -> int:
        """The newest sequence number of a PLC among the first ``count`` messages; 0 for none."""
        cycles, at = divmod(count, len(self.slots))
        places = self._places[plc]
        return cycles * len(places) + bisect_left(places, at)
