"""Counters, gauges and histograms of one process, sent to ``metrics`` once a second.

A few dicts instead of prometheus_client: that one costs a reader 15 MB it does not have.
Names and labels are those of CONTRACT §7, in full (``plc_edge_reconnects_total``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, TypeVar

from bus.frames import Stats as StatsFrame
from services.runtime.clock import now_ms

# Seconds; covers a 1 ms loopback scan to a timed-out one.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Counter:
    """Only goes up; starts at 0 with the process."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, by: float = 1) -> None:
        """Adds ``by`` ≥ 0."""
        self.value += by

    def sample(self) -> float:
        """What goes into the Stats frame."""
        return self.value


class Gauge:
    """A value that goes up and down."""

    __slots__ = ("value",)
    kind = "gauge"

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """The current value, base units."""
        self.value = value

    def sample(self) -> float:
        """What goes into the Stats frame."""
        return self.value


class Histogram:
    """Counts per bucket; ``bounds`` are upper bounds in seconds, the last is +Inf."""

    __slots__ = ("bounds", "counts", "sum")
    kind = "histogram"

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value, seconds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def sample(self) -> dict[str, Any]:
        """Counts of each bucket alone (not cumulative), and the sum."""
        bounds = (*self.bounds, float("inf"))
        return {"buckets": list(zip(bounds, self.counts, strict=True)), "sum": self.sum}


Metric = Counter | Gauge | Histogram
M = TypeVar("M", Counter, Gauge, Histogram)


class Stats:
    """The metrics of one process; asking again for a name and labels gives the same object."""

    def __init__(self, process: str, pid: int, started_ms: int) -> None:
        self._process = process
        self._pid = pid
        self._started_ms = started_ms
        self._metrics: dict[tuple[str, tuple[tuple[str, str], ...]], Metric] = {}

    def counter(self, name: str, **labels: str) -> Counter:
        """A counter, its name ending in ``_total``."""
        return self._get(name, labels, Counter())

    def gauge(self, name: str, **labels: str) -> Gauge:
        """A gauge in base units."""
        return self._get(name, labels, Gauge())

    def histogram(self, name: str, bounds: Sequence[float] = SECONDS, **labels: str) -> Histogram:
        """A histogram, its name ending in its unit."""
        return self._get(name, labels, Histogram(bounds))

    def remove(self, name: str, **labels: str) -> None:
        """Forgets a metric whose subject is gone."""
        self._metrics.pop((name, tuple(sorted(labels.items()))), None)

    def _get(self, name: str, labels: dict[str, str], new: M) -> M:
        metric = self._metrics.setdefault((name, tuple(sorted(labels.items()))), new)
        if type(metric) is not type(new):
            raise TypeError(f"{name} is a {metric.kind}")
        return metric

    def frame(self) -> StatsFrame:
        """All of it as one frame."""
        return StatsFrame(
            self._process,
            self._pid,
            self._started_ms,
            now_ms(),
            [(m.kind, n, dict(labels), m.sample()) for (n, labels), m in self._metrics.items()],
        )
