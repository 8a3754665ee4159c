"""The counters of every process, added up so that they survive the process that counted.

A process counts from 0 each time it starts (another ``pid`` or ``started_ms`` in its Stats
frames). What its earlier lives counted is kept as a base, so that the sum never falls: a restart
of a reader is no reset to Prometheus. The bases are saved (``Aggregate.bases``), for a restart of
this process must not be one either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bus.frames import Stats

# Of one process: 100 groups of one reader make 500. More is a label that grows without bound.
MAX_SERIES_PER_PROCESS = 3_000
_NAME = re.compile(r"plc_edge_[a-z0-9_]+")
_RESERVED = ("_bucket", "_sum", "_count", "_created", "_total")

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]


class Histogram:
    """Counts of each bucket alone, by upper bound, and the sum of what was observed."""

    __slots__ = ("buckets", "sum")

    def __init__(self, buckets: dict[float, float] | None = None, total: float = 0.0) -> None:
        self.buckets = buckets if buckets is not None else {}
        self.sum = total

    def add(self, other: Histogram) -> None:
        """Adds the counts of another one; bounds may differ between versions of a program."""
        for bound, n in other.buckets.items():
            self.buckets[bound] = self.buckets.get(bound, 0) + n
        self.sum += other.sum

    def copy(self) -> Histogram:
        """One that can be added to."""
        return Histogram(dict(self.buckets), self.sum)


class _Series:
    __slots__ = ("base", "base_histogram", "histogram", "kind", "value")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.value = 0.0
        self.base = 0.0
        self.histogram: Histogram | None = None
        self.base_histogram: Histogram | None = None

    def carry(self) -> None:
        """The process that counted has ended: what it counted becomes the base."""
        self.base += self.value
        self.value = 0.0
        if self.histogram is not None:
            if self.base_histogram is None:
                self.base_histogram = Histogram()
            self.base_histogram.add(self.histogram)
            self.histogram = None

    def total_histogram(self) -> Histogram:
        total = self.histogram.copy() if self.histogram is not None else Histogram()
        if self.base_histogram is not None:
            total.add(self.base_histogram)
        return total


class _Source:
    """One process's series and which of its lives they come from."""

    __slots__ = ("life", "seen_s", "series")

    def __init__(self) -> None:
        self.life = (0, 0)
        self.seen_s = 0.0
        self.series: dict[Key, _Series] = {}


class Aggregate:
    """All series of all processes.

    ``known`` maps a label (``plc``, ``process``, …) to the values that the configuration names:
    another value is refused, so the number of series has a bound. ``clock`` is time.monotonic.
    """

    # Gauges of a process that has been silent for so long are not shown any more.
    GAUGE_MAX_AGE_S = 10.0

    def __init__(self, known: Mapping[str, set[str]], clock: Callable[[], float]) -> None:
        self.known = known
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._kinds: dict[str, str] = {}
        self.refused: dict[str, int] = {"name": 0, "kind": 0, "label": 0, "value": 0, "limit": 0}
        self.bases_changed = False

    def apply(self, frame: Stats) -> bool:
        """Takes in one frame; True when its process has restarted since the last one."""
        if frame.process not in self.known["process"]:
            self.refused["label"] += 1
            return False
        source = self._sources.setdefault(frame.process, _Source())
        life = (frame.pid, frame.started_ms)
        restarted = source.life not in ((0, 0), life)
        if restarted:
            for key, series in list(source.series.items()):
                if series.kind == "gauge":
                    del source.series[key]
                else:
                    series.carry()
            self.bases_changed = True
        source.life = life
        source.seen_s = self._clock()
        for kind, name, labels, value in frame.samples:
            self._take(source, kind, name, labels, value)
        return restarted

    def _take(
        self, source: _Source, kind: str, name: str, labels: dict[str, str], value: Any
    ) -> None:
        key = (name, tuple(sorted(labels.items())))
        series = source.series.get(key)
        if series is None:
            reason = self._why_not(source, kind, name, labels)
            if reason:
                self.refused[reason] += 1
                return
            self._kinds[name] = kind
            series = source.series[key] = _Series(kind)
        elif series.kind != kind:
            self.refused["kind"] += 1
            return
        try:
            if kind == "histogram":
                buckets = {float(bound): float(n) for bound, n in value["buckets"]}
                series.histogram = Histogram(buckets, float(value["sum"]))
            else:
                series.value = float(value)
        except (TypeError, ValueError, KeyError):
            self.refused["value"] += 1

    def _why_not(self, source: _Source, kind: str, name: str, labels: dict[str, str]) -> str:
        """Why a new series may not be taken; "" if it may."""
        if not _NAME.fullmatch(name) or name.endswith("_total") != (kind == "counter"):
            return "name"
        if kind != "counter" and name.endswith(_RESERVED):
            return "name"
        if self._kinds.get(name, kind) != kind or kind not in ("counter", "gauge", "histogram"):
            return "kind"
        if len(source.series) >= MAX_SERIES_PER_PROCESS:
            return "limit"
        for label, value in labels.items():
            known = self.known.get(label)
            if len(value) > 100 or (known is not None and value not in known):
                return "label"
        return ""

    def age_s(self, process: str) -> float | None:
        """Seconds since the last Stats of a process; None if there was none."""
        source = self._sources.get(process)
        return None if source is None or source.life == (0, 0) else self._clock() - source.seen_s

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one counter or gauge over all processes; None when nobody has it."""
        key = (name, tuple(sorted(labels.items())))
        found = [
            series.base + series.value
            for source in self._sources.values()
            if (series := source.series.get(key)) is not None
        ]
        return sum(found) if found else None

    def items(self) -> Iterable[tuple[str, Labels, str, float | Histogram]]:
        """(name, labels, kind, value) of every series, each name and labels once.

        Counters and histograms that several processes share are added up; of gauges the newest
        holds.
        """
        merged: dict[Key, tuple[str, float | Histogram, float]] = {}
        now_s = self._clock()
        for process, source in self._sources.items():
            if process not in self.known["process"]:
                continue  # has left the configuration
            stale = now_s - source.seen_s > self.GAUGE_MAX_AGE_S
            for key, series in source.series.items():
                value: float | Histogram
                if series.kind == "histogram":
                    value = series.total_histogram()
                elif series.kind == "gauge" and stale:
                    continue
                else:
                    value = series.base + series.value
                other = merged.get(key)
                if other is not None:
                    if isinstance(value, Histogram) and isinstance(other[1], Histogram):
                        value.add(other[1])
                    elif series.kind == "counter" and isinstance(other[1], float):
                        value = float(value) + other[1]  # type: ignore[arg-type]
                    elif other[2] > source.seen_s:
                        continue
                merged[key] = (series.kind, value, source.seen_s)
        for (name, labels), (kind, value, _) in merged.items():
            yield name, labels, kind, value

    # -- surviving a restart of this process ---------------------------------------------

    def bases(self) -> dict[str, Any]:
        """What earlier lives counted, and which life is being counted now; plain JSON."""
        return {
            process: {
                "life": source.life,
                "series": [
                    [
                        series.kind,
                        name,
                        labels,
                        series.base,
                        list(series.base_histogram.buckets.items())
                        if series.base_histogram
                        else [],
                        series.base_histogram.sum if series.base_histogram else 0.0,
                    ]
                    for (name, labels), series in source.series.items()
                    if series.base or series.base_histogram
                ],
            }
            for process, source in self._sources.items()
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes up saved bases. A process that left the configuration is forgotten.

        Raises (KeyError, TypeError, ValueError) on anything else than what ``bases`` gives.
        """
        for process, entry in saved.items():
            if process not in self.known["process"]:
                continue
            source = self._sources[process] = _Source()
            for kind, name, labels, base, buckets, total in entry["series"]:
                series = _Series(kind)
                series.base = float(base)
                if buckets:
                    # JSON has no infinity: the last bound comes back as null.
                    bounds = {float("inf") if b is None else float(b): float(n) for b, n in buckets}
                    series.base_histogram = Histogram(bounds, float(total))
                self._kinds[name] = kind
                source.series[(name, tuple((k, v) for k, v in labels))] = series
