"""What a bench returns, how ours and its baselines take turns, and the table and the document.

A bench is a module with ``bench(options) -> list[Result]``. One figure of a round is a mapping of
unit to number, so that wall time and CPU come out of the same run. Ours and the baselines run one
after the other within each round: whatever else the machine does then meets all of them.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Figures = Mapping[str, float]
"""Unit -> number, of one round."""
Measure = Callable[[], Figures]


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
    of that ratio (of ours, where there is no baseline).
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


def rows(
    bench: str, case: str, rounds: Iterable[tuple[Figures, Mapping[str, Figures]]]
) -> list[Result]:
    """Results of rounds that were measured already: (ours, {baseline's name: its figures}) each."""
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
                spread = [a / b if b else float("inf") for a, b in zip(ours, theirs, strict=True)]
                base, ratio = statistics.median(theirs), statistics.median(spread)
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
    done = []
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


def machine() -> dict[str, Any]:
    """Where and when, and how busy it was before anything of ours ran."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def document(where: Mapping[str, Any], results: Iterable[Result]) -> dict[str, Any]:
    """The JSON document."""
    return {"machine": dict(where), "results": [asdict(r) for r in results]}


HEADER = (
    "| bench | case | unit | plc-edge | baseline | its | ratio | lowest to highest | rounds |"
    "\n|---|---|---|---:|---|---:|---:|---|---:|"
)


def line(r: Result) -> str:
    """One row of the Markdown table."""
    baseline = "" if r.baseline is None else number(r.baseline)
    ratio = "" if r.ratio is None else number(r.ratio)
    spread = f"{number(r.spread[0])} to {number(r.spread[1])}" if r.rounds > 1 else ""
    cells = (r.bench, r.case, r.unit, number(r.ours), r.baseline_name or "", baseline, ratio)
    return f"| {' | '.join((*cells, spread, str(r.rounds)))} |"


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"
