"""What is known of one field: when it had which value, and what a counter counted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.oee.core.stretches import Stretches, meets
from services.runtime.measured import COUNTER_BITS, increase, number

Sample = tuple[int, Any]
"""(Unix ms, value); the value is None where it was not good."""
NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Signal:
    """One field. ``samples`` in the order in which they were taken, which a clock that was set back
    makes another one than that of their times.
    """

    samples: Sequence[Sample]
    hold_ms: int
    """For so long a value holds without another."""
    lost: Stretches = ()
    """When nothing is known, whatever the samples say."""


@dataclass(frozen=True, slots=True)
class Run:
    """A value, and when it held."""

    begin_ms: int
    end_ms: int
    value: Any


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter rose by."""

    ts_ms: int
    """When that was seen."""
    amount: float
    sure: bool
    """Known all the time since the value before: it happened just now."""


def runs(signal: Signal, meaning: Callable[[Any], Any] = lambda value: value) -> list[Run]:
    """What held when, as far as it is known, in order and without overlap. Values that mean the
    same are one run where they touch; what means None is not known.

    A value holds until the next sample, a loss, or ``hold_ms``. Where a clock was set back, what
    was said of that time before is dropped: the later clock is the better one.
    """
    out: list[Run] = []
    samples, begins = signal.samples, [begin for begin, _ in signal.lost]
    for i, (ts, value) in enumerate(samples):
        while out and out[-1].begin_ms >= ts:
            out.pop()
        if out and out[-1].end_ms > ts:
            out[-1] = Run(out[-1].begin_ms, ts, out[-1].value)
        if value is None or (meant := meaning(value)) is None:
            continue
        end = ts + signal.hold_ms
        if i + 1 < len(samples) and ts <= samples[i + 1][0]:
            end = min(end, samples[i + 1][0])
        if begins:
            at = bisect_right(begins, ts)
            if at and ts < signal.lost[at - 1][1]:
                continue
            end = min(end, begins[at] if at < len(begins) else NEVER)
        if end <= ts:
            continue
        if out and out[-1].end_ms == ts and out[-1].value == meant:
            out[-1] = Run(out[-1].begin_ms, end, meant)
        else:
            out.append(Run(ts, end, meant))
    return out


def counts(signal: Signal, counter: str, ideal_ms: float | None) -> list[Count]:
    """What a counter of a type (``measured.COUNTER_BITS``, or ``any``) counted.

    A fall is a wrap, or else a restart at zero, whichever the machine can have made in that time
    (``believable``); one that is neither counts nothing.
    """
    out: list[Count] = []
    last: tuple[int, float] | None = None
    whole = False
    for ts, given in signal.samples:
        value = None if given is None else number(given)
        if value is None:
            whole = False
            continue
        if last is not None:
            before, old = last
            if ts < before:
                out = [Count(c.ts_ms, c.amount, c.sure and c.ts_ms < ts) for c in out]
            sure = (
                whole and 0 <= ts - before <= signal.hold_ms and not meets(signal.lost, before, ts)
            )
            amount = risen(old, value, counter, ts - before, ideal_ms)
            if amount:
                out.append(Count(ts, amount, sure))
        last, whole = (ts, value), True
    return out


def risen(old: float, new: float, counter: str, within_ms: int, ideal_ms: float | None) -> float:
    """By how much a counter rose between two values."""
    if new >= old:
        return new - old
    guesses = [increase(old, new, counter)]
    if counter in COUNTER_BITS:
        guesses.append(max(new, 0))
    return next((g for g in guesses if believable(g, within_ms, ideal_ms)), 0)


def believable(pieces: float, within_ms: int, ideal_ms: float | None) -> bool:
    """Whether a machine can have made so many: ten times as fast as it ideally is, and ten more. A
    UINT that is set from 40000 to 0 would else have made 25536 in one scan.
    """
    return ideal_ms is None or (pieces - 10) * ideal_ms <= 10 * abs(within_ms)


def joined(signals: Iterable[list[Run]]) -> Iterator[tuple[int, int, list[Any]]]:
    """(begin, end, the values of each, None where unknown) between the edges of several."""
    tracks = [list(s) for s in signals]
    edges = sorted({e for t in tracks for r in t for e in (r.begin_ms, r.end_ms)})
    at = [0] * len(tracks)
    for begin, end in pairwise(edges):
        values = []
        for i, track in enumerate(tracks):
            while at[i] < len(track) and track[at[i]].end_ms <= begin:
                at[i] += 1
            here = at[i] < len(track) and track[at[i]].begin_ms <= begin
            values.append(track[at[i]].value if here else None)
        yield begin, end, values
