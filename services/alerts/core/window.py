"""What lies a window back: a bounded trail of cumulated pairs."""

from __future__ import annotations

# Points kept per window: the reference lies at most a sixtieth of the window too far back.
POINTS = 60


class Window:
    """Pairs (a, b) over event time, thinned to POINTS per window.

    ``back`` answers with the newest point that is at least a window old: differences against it
    give rates, means and shares without keeping every sample.
    """

    __slots__ = ("points", "span_ms", "step_ms")

    def __init__(self, span_ms: int) -> None:
        self.span_ms = span_ms
        self.step_ms = span_ms / POINTS
        self.points: list[tuple[int, float, float]] = []

    def add(self, ts: int, a: float, b: float) -> None:
        """Notes the pair at ``ts``; a clock that went back behind what is known begins anew."""
        points = self.points
        if points:
            last = points[-1][0]
            if ts < last:
                points.clear()
            elif ts - last < self.step_ms:
                return
        points.append((ts, a, b))

    def back(self, ts: int) -> tuple[int, float, float] | None:
        """The newest point at or before ``ts - span_ms``, else the oldest; None where empty.

        Forgets what lies before it.
        """
        points, edge = self.points, ts - self.span_ms
        drop = 0
        while drop + 1 < len(points) and points[drop + 1][0] <= edge:
            drop += 1
        if drop:
            del points[:drop]
        return points[0] if points else None
