"""What a question may cost: it can't hurt the box."""

from __future__ import annotations

import time

MAX_SERIES = 20
MAX_POINTS = 5_000
"""Of one series."""
MAX_CHUNKS = 20_000
DEADLINE_S = 2.0


class TooMuch(ValueError):
    """The question costs more than one may; the text says which bound, and how to ask for less."""


class Bound:
    """Counts what one question reads. Without bounds: ``Bound(None, None)``."""

    def __init__(self, chunks: int | None = MAX_CHUNKS, seconds: float | None = DEADLINE_S) -> None:
        self._chunks, self._seconds = chunks, seconds
        self.read = 0
        """Chunks so far."""
        self._until_s = None if seconds is None else time.monotonic() + seconds

    def spend(self, chunks: int = 1) -> None:
        """Called before something is read. Raises TooMuch."""
        self.read += chunks
        if self._chunks is not None and self.read > self._chunks:
            raise TooMuch(
                f"more than {self._chunks:,} pieces would have to be read: ask for a shorter time,"
                " fewer fields, or a longer step"
            )
        if self._until_s is not None and time.monotonic() > self._until_s:
            raise TooMuch(
                f"this takes longer than {self._seconds:g} s: ask for a shorter time, fewer fields,"
                " or a longer step"
            )
