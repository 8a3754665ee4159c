"""What comes out: where the time went, what was made, and the indices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Where each ms of a window went; together they are the window.
PARTS = ("running", "stopped_unplanned", "stopped_planned", "unknown", "breaks", "outside")


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop, as far as it lies in the window's working time."""

    begin_ms: int
    end_ms: int
    stopped_ms: int
    """Without breaks."""
    began: str
    """``seen``; ``before`` the window; or ``unknown``: what was before is not known."""
    ended: str
    """``seen``; ``after`` the window's end; or ``unknown``."""
    reasons: tuple[tuple[str, int], ...]
    """(code, ms), in order; "" where none was given."""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        reasons = [{"code": code, "ms": ms} for code, ms in self.reasons]
        return {
            "begin_ms": self.begin_ms,
            "end_ms": self.end_ms,
            "stopped_ms": self.stopped_ms,
            "began": self.began,
            "ended": self.ended,
            "reasons": reasons,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """Pieces in working time; None: not known, or not configured."""

    good: float | None = None
    bad: float | None = None
    total: float | None = None

    def plus(self, other: Made) -> Made:
        """Of both. What one of them does not know counts as nothing; what neither knows, neither
        does the sum.
        """

        def add(a: float | None, b: float | None) -> float | None:
            return a if b is None else b if a is None else a + b

        return Made(
            add(self.good, other.good), add(self.bad, other.bad), add(self.total, other.total)
        )

    def as_json(self) -> dict[str, float | None]:
        """Plain data."""
        return {"good": self.good, "bad": self.bad, "total": self.total}


@dataclass(slots=True)
class Figures:
    """Of one machine in one window [begin, end)."""

    begin_ms: int
    end_ms: int
    parts_ms: dict[str, int]
    """Of PARTS, all of them."""
    made: Made = field(default_factory=Made)
    unseen: Made = field(default_factory=Made)
    """Counted across a time that is not known: in no index."""
    at_rest: Made = field(default_factory=Made)
    """Counted in breaks and outside shifts: in no index."""
    ideal_ms: float | None = None
    counted_ms: int = 0
    """Running time in which the counters were known."""
    short_stops: int = 0
    short_ms: int = 0
    """Stops below the least length, which are in ``running``."""
    stops: list[Stop] = field(default_factory=list)
    reasons_ms: dict[str, int] = field(default_factory=dict)
    """Stopped time by code."""

    @property
    def availability(self) -> float | None:
        """Running time in the planned time that is known."""
        ran, stood = self.parts_ms["running"], self.parts_ms["stopped_unplanned"]
        return ran / (ran + stood) if ran + stood else None

    @property
    def performance(self) -> float | None:
        """What was made against what could have been. Above 1 where the ideal cycle is beaten."""
        if self.ideal_ms is None or self.made.total is None or not self.counted_ms:
            return None
        return self.ideal_ms * self.made.total / self.counted_ms

    @property
    def quality(self) -> float | None:
        """Good pieces of all."""
        if self.made.good is None or not self.made.total:
            return None
        return self.made.good / self.made.total

    @property
    def oee(self) -> float | None:
        """The product; None where one of them is."""
        a, p, q = self.availability, self.performance, self.quality
        return None if a is None or p is None or q is None else a * p * q

    def as_json(self) -> dict[str, Any]:
        """Plain data; ratios are 0 to 1 (performance may be more), null where undefined."""
        return {
            "begin_ms": self.begin_ms,
            "end_ms": self.end_ms,
            "availability": self.availability,
            "performance": self.performance,
            "quality": self.quality,
            "oee": self.oee,
            "parts_ms": self.parts_ms,
            "pieces": self.made.as_json(),
            "pieces_unseen": self.unseen.as_json(),
            "pieces_at_rest": self.at_rest.as_json(),
            "ideal_ms": self.ideal_ms,
            "counted_ms": self.counted_ms,
            "short_stops": {"count": self.short_stops, "ms": self.short_ms},
            "reasons_ms": self.reasons_ms,
            "stops": [s.as_json() for s in self.stops],
        }


def total(figures: Iterable[Figures]) -> Figures | None:
    """Of several windows of one machine, or machines of one window; None of none. Indices are those
    of the sums, not means: an hour that was not known does not weigh like one that was. Machines
    of different ideal cycles add what they ideally needed.
    """
    out: Figures | None = None
    needed_ms: float | None = 0.0
    for f in figures:
        if out is None:
            parts_ms = dict.fromkeys(PARTS, 0)
            out = Figures(f.begin_ms, f.end_ms, parts_ms, ideal_ms=f.ideal_ms)
        out.begin_ms, out.end_ms = min(out.begin_ms, f.begin_ms), max(out.end_ms, f.end_ms)
        for part, ms in f.parts_ms.items():
            out.parts_ms[part] += ms
        out.made = out.made.plus(f.made)
        out.unseen, out.at_rest = out.unseen.plus(f.unseen), out.at_rest.plus(f.at_rest)
        if f.ideal_ms is None or needed_ms is None:
            needed_ms = out.ideal_ms = None
        else:
            needed_ms += f.ideal_ms * (f.made.total or 0)
        out.counted_ms += f.counted_ms
        out.short_stops, out.short_ms = out.short_stops + f.short_stops, out.short_ms + f.short_ms
        out.stops += f.stops
        for code, ms in f.reasons_ms.items():
            out.reasons_ms[code] = out.reasons_ms.get(code, 0) + ms
    if out is not None and needed_ms is not None and out.made.total:
        out.ideal_ms = needed_ms / out.made.total
    return out
