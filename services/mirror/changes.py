"""Which bytes to write: what differs, merged where a gap costs less than another telegram."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# A write telegram and its reply cost about as much as 64 bytes more in it (35 + 22 of headers,
# TCP and IP apart); round trips weigh more still.
MERGE_GAP_BYTES = 64
_DIFFERENT = re.compile(rb"[^\0]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to write from ``start`` of the target DB."""

    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """``length`` bytes of the source from ``source`` go to ``target``."""

    source: int
    length: int
    target: int


def pieces(
    ranges: Iterable[Range], old: bytes | None, new: bytes, first: int, limit: int
) -> list[Piece]:
    """What must be written so that the target shows ``new``.

    ``old`` is the image that the target shows (None: unknown, write everything), ``first`` the
    source offset of both images' first byte, ``limit`` the most bytes of one piece.
    """
    out = []
    for r in ranges:
        at = r.source - first
        after = new[at : at + r.length]
        before = old[at : at + r.length] if old is not None else None
        for a, b in _runs(before, after):
            for start in range(a, b, limit):
                end = min(b, start + limit)
                out.append(Piece(r.target + start, after[start:end]))
    return out


def _runs(before: bytes | None, after: bytes) -> Iterator[tuple[int, int]]:
    """[start, end) of what differs, neighbours joined."""
    if before is None or len(before) != len(after):
        yield 0, len(after)
        return
    if before == after:
        return
    differs = (int.from_bytes(before) ^ int.from_bytes(after)).to_bytes(len(after))
    start = end = -1
    for match in _DIFFERENT.finditer(differs):
        if start < 0:
            start = match.start()
        elif match.start() - end > MERGE_GAP_BYTES:
            yield start, end
            start = match.start()
        end = match.end()
    yield start, end
