"""What is kept how long: by age, by size, and so that others have room. The oldest rows go first,
hour by hour, then minutes, then hours; the hour that is being written stays.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from services.historian.compact import Say
from services.historian.hours import FOLDER, places
from services.historian.recent import FILE
from services.historian.rolls import HOUR, LEVELS, MINUTE, files
from services.historian.shapes import HOUR_MS

# Nothing goes for its age so long after a start: a clock that was just set must not delete.
SETTLED_S = 600.0
_NAMES = {FOLDER: "messages", MINUTE.name: "minutes", HOUR.name: "hours"}


class Piece(NamedTuple):
    """A file that can go."""

    rank: int
    end_ms: int
    kind: str
    path: Path
    size_bytes: int


class Keeping:
    """One box's bounds."""

    def __init__(
        self,
        folder: Path,
        *,
        max_size_bytes: int,
        min_free_bytes: int,
        max_age_ms: dict[str, int],
        say: Say,
        now_ms: Callable[[], int],
    ) -> None:
        self._folder, self._say, self._now_ms = folder, say, now_ms
        self._max_size_bytes, self._min_free_bytes = max_size_bytes, min_free_bytes
        self._max_age_ms = max_age_ms
        self._started_s = time.monotonic()
        self.size_bytes = 0
        """Of all files, as of the last look."""
        self.oldest_ms = 0
        """Begin of the oldest hour whose messages are here; 0 where none is."""
        self.full = False
        """Nothing more can go, and it is too much all the same."""

    def look(self) -> None:
        """Removes what is too old or too much."""
        pieces = list(self._pieces())
        now_ms = self._now_ms()
        if time.monotonic() - self._started_s > SETTLED_S:
            for piece in [p for p in pieces if p.end_ms + self._max_age_ms[p.kind] < now_ms]:
                self._drop(piece)
                pieces.remove(piece)
        recent = sum(
            p.stat().st_size for p in self._folder.glob(f"{FILE}*") if p.is_file()
        )  # fmt: skip
        self.size_bytes = recent + sum(p.size_bytes for p in pieces)
        newest = max((p.end_ms for p in pieces if p.rank == 0), default=0)
        dropped: dict[str, int] = {}
        for piece in sorted(pieces):
            excess = self.excess_bytes()
            if excess <= 0:
                break
            if piece.rank >= 0 and (piece.end_ms >= newest or piece.end_ms > now_ms):
                continue
            self._drop(piece)
            self.size_bytes -= piece.size_bytes
            dropped[piece.kind] = dropped.get(piece.kind, 0) + 1
        for kind, count in dropped.items():
            text = f"the history was too large: its oldest {count} files of {_NAMES[kind]} are gone"
            self._say("warning", "history_dropped", text)
        full = self.excess_bytes() > 0
        if full and not self.full:
            text = "one hour alone is more than `history.max_size` or the disk allow"
            self._say("error", "history_full", text)
        self.full = full
        raw = places(self._folder)
        self.oldest_ms = raw[0].hour_ms if raw else 0

    def raw_from_ms(self) -> int:
        """Of what is older no message is kept."""
        if time.monotonic() - self._started_s <= SETTLED_S:
            return 0
        return self._now_ms() - self._max_age_ms[FOLDER]

    def excess_bytes(self) -> int:
        """By how much it is too large; ≤ 0 where it is not."""
        free = shutil.disk_usage(self._folder).free
        return max(self.size_bytes - self._max_size_bytes, self._min_free_bytes - free)

    def _pieces(self) -> Iterator[Piece]:
        for path in self._folder.rglob("*.damaged*"):  # for who wants to look; first to go
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                yield Piece(-1, int(stat.st_mtime * 1_000), FOLDER, path, stat.st_size)
        for place in places(self._folder):
            end_ms = place.hour_ms + HOUR_MS
            yield Piece(0, end_ms, FOLDER, place.path, place.size_bytes)
        for rank, level in enumerate(LEVELS, 1):
            for end_ms, path, size_bytes in files(self._folder, level):
                yield Piece(rank, end_ms, level.name, path, size_bytes)

    def _drop(self, piece: Piece) -> None:
        for suffix in ("-wal", "-shm", "-journal", ""):  # its data last
            with contextlib.suppress(FileNotFoundError):
                piece.path.with_name(piece.path.name + suffix).unlink()
