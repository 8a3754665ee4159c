"""What a bench returns, and how ours and its baselines take turns.

A bench is a module with ``bench(options) -> list[Result]``. One figure of a round is a mapping of
unit to number, so that wall time and CPU come out of the same run. Ours and the baselines run one
after the other within each round: whatever else the machine does then meets all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Figures = Mapping[str, float]
"""Unit -> number, of one round."""
Measure = Callable[[], Figures]
Round = tuple[Figures, Mapping[str, Figures]]
"""(ours, {baseline's name: its figures})."""


@dataclass(frozen=True, slots=True)
class Options:
    """``rounds`` and ``seconds`` are None where each bench's own default holds."""

    quick: bool = False
    rounds: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table. ``ours`` and ``baseline`` are medians over rounds, in ``unit``;
    ``ratio`` is the median of ours / baseline of each round; ``spread`` the least and the largest
    of that ratio (of ours, where there is no ratio).
    """

    bench: str
    case: str
    unit: str
    ours: float
    baseline_name: str | None
    baseline: float | None
    ratio: float | None
    spread: tuple[float, float]
    rounds: int


def rows(bench: str, case: str, rounds: Iterable[Round]) -> list[Result]:
    """Results of rounds that were measured already."""
    done = list(rounds)
    results = []
    for unit in done[0][0]:
        ours = [mine[unit] for mine, _ in done]
        names: list[str | None] = [n for n, theirs in done[0][1].items() if unit in theirs]
        for name in names or [None]:
            base = ratio = None
            spread = ours
            if name is not None:
                theirs = [beside[name][unit] for _, beside in done]
                base = statistics.median(theirs)
                if all(theirs):  # CPU is counted in ticks of 10 ms: it may be none
                    spread = [a / b for a, b in zip(ours, theirs, strict=True)]
                    ratio = statistics.median(spread)
            line = (statistics.median(ours), name, base, ratio, (min(spread), max(spread)))
            results.append(Result(bench, case, unit, *line, len(done)))
    return results


def compare(
    bench: str,
    case: str,
    ours: Measure,
    baselines: Mapping[str, Measure],
    rounds: int,
) -> list[Result]:
    """Runs all of them in turn, ``rounds`` times; every other round begins with the last."""
    runs = {"": ours, **baselines}
    done: list[Round] = []
    for n in range(rounds):
        got = {name: runs[name]() for name in (list(runs) if n % 2 else reversed(runs))}
        done.append((got[""], {name: got[name] for name in baselines}))
    return rows(bench, case, done)


def timed(run: Callable[[], object], calls: int) -> Measure:
    """Wall and CPU time of one call, µs: medians of ``calls`` in a row. CPU is this process's."""

    def measure() -> Figures:
        wall, cpu = [], []
        for n in range(calls + 1):
            cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
            run()
            wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
            if n:  # the first finds the caches full of somebody else's data
                wall.append(wall_ns / 1e3)
                cpu.append(cpu_ns / 1e3)
        return {"µs wall": statistics.median(wall), "µs CPU": statistics.median(cpu)}

    return measure


def cpu_only(measure: Measure) -> Measure:
    """For code that waits for nobody: its CPU time alone, which other processes do not stretch."""
    return lambda: {"µs CPU": measure()["µs CPU"]}


def percentiles(values: list[float], unit: str = "ms", *wanted: int) -> Figures:
    """``{"p50 ms": …}`` of many values; 50, 90 and 99 unless told."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{p} {unit}": cuts[p - 1] for p in wanted or (50, 90, 99)}
