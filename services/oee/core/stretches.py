"""Sets of moments, as sorted stretches [begin_ms, end_ms) that neither touch nor overlap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Stretch = tuple[int, int]
Stretches = Sequence[Stretch]
_NEVER = 2**62


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """All moments of any of them, which may be in any order, empty and overlapping."""
    out: list[Stretch] = []
    for begin, end in sorted(stretches):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif begin < end:
            out.append((begin, end))
    return out


def common(a: Stretches, b: Stretches) -> list[Stretch]:
    """The moments of both."""
    out: list[Stretch] = []
    i = j = 0
    while i < len(a) and j < len(b):
        begin, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if begin < end:
            out.append((begin, end))
        if a[i][1] <= b[j][1]:
            i += 1
        else:
            j += 1
    return out


def without(a: Stretches, b: Stretches) -> list[Stretch]:
    """The moments of ``a`` that are not in ``b``."""
    out: list[Stretch] = []
    j = 0
    for begin, end in a:
        while j < len(b) and b[j][1] <= begin:
            j += 1
        k = j
        while k < len(b) and b[k][0] < end:
            if begin < b[k][0]:
                out.append((begin, b[k][0]))
            begin = max(begin, b[k][1])
            k += 1
        if begin < end:
            out.append((begin, end))
    return out


def length_ms(stretches: Iterable[Stretch]) -> int:
    """How long they are together."""
    return sum(end - begin for begin, end in stretches)


def holds(stretches: Stretches, ts_ms: int) -> bool:
    """Whether a moment is among them."""
    at = bisect_right(stretches, (ts_ms, _NEVER))
    return at > 0 and ts_ms < stretches[at - 1][1]


def meets(stretches: Stretches, begin_ms: int, end_ms: int) -> bool:
    """Whether some moment of [begin, end) is among them."""
    at = bisect_right(stretches, (begin_ms, _NEVER))
    return holds(stretches, begin_ms) or (at < len(stretches) and stretches[at][0] < end_ms)
