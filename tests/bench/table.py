"""Figures beside their baselines: both run in turn, so that a busy machine slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(slots=True)
class Figure:
    """One line: medians over rounds; ``ratio`` is the median of the rounds' own ratios."""

    bench: str
    what: str
    unit: str
    value: float
    baseline: str
    base: float
    ratio: float
    low: float
    """10th percentile of the ratio."""
    high: float
    """90th percentile of the ratio."""
    rounds: int
    target: str = ""


def interleave(
    bench: str,
    name: str,
    ours: Run,
    baselines: Mapping[str, Run],
    *,
    rounds: int,
    repeats: int,
    targets: Mapping[tuple[str, str], str] | None = None,
) -> list[Figure]:
    """Wall and this process's CPU time of one call, µs, of ``ours`` over each baseline.

    ``targets`` is keyed by (baseline, "wall" or "CPU").
    """
    runs = {"": ours, **baselines}
    taken: dict[tuple[str, str], list[float]] = {(k, c): [] for k in runs for c in ("wall", "CPU")}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for key, run in runs.items():
            wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
            for _ in range(repeats):
                run()
            taken[key, "CPU"].append((time.process_time_ns() - cpu_ns) / 1_000 / repeats)
            taken[key, "wall"].append((time.perf_counter_ns() - wall_ns) / 1_000 / repeats)
    figures = []
    for key in baselines:
        for clock in ("wall", "CPU"):
            mine, other = taken["", clock], taken[key, clock]
            ratios = [a / b for a, b in zip(mine, other, strict=True)]
            low, *_, high = statistics.quantiles(ratios, n=10)
            figures.append(
                Figure(bench, f"{name}, {clock}", "µs", statistics.median(mine), key,
                       statistics.median(other), statistics.median(ratios), low, high, rounds,
                       (targets or {}).get((key, clock), ""))
            )  # fmt: skip
    return figures


def markdown(figures: list[Figure]) -> str:
    """The table people read."""
    lines = ["| bench | what | ours | baseline | theirs | ratio | 10–90 % | target |",
             "|---|---|---:|---|---:|---:|---|---|"]  # fmt: skip
    for f in figures:
        lines.append(
            f"| {f.bench} | {f.what} | {f.value:,.1f} {f.unit} | {f.baseline} | {f.base:,.1f} |"
            f" {f.ratio:.3f} | {f.low:.3f}–{f.high:.3f} | {f.target} |"
        )
    return "\n".join(lines)
