"""The one place that every write passes, right before its telegram."""

from __future__ import annotations

from collections.abc import Iterable


class WriteRefused(Exception):
    """A write outside the ranges that the configuration names: a bug, never a telegram."""


class Guard:
    """Allows writes inside the configured ranges of one DB, and nothing else.

    ``ranges`` are (first byte, byte after the last).
    """

    def __init__(self, db: int, ranges: Iterable[tuple[int, int]]) -> None:
        self.db = db
        self.ranges = _joined(ranges)
        self.refusals = 0

    def check(self, db: int, start: int, length: int) -> None:
        """Raises WriteRefused unless every byte may be written."""
        inside = any(a <= start and start + length <= b for a, b in self.ranges)
        if db != self.db or length < 1 or not inside:
            self.refusals += 1
            raise WriteRefused(
                f"DB{db} bytes {start} to {start + length - 1} are outside the configured target"
                f" (DB{self.db} {self.ranges})"
            )


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for a, b in sorted(ranges):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return out
