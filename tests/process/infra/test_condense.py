"""Minutes and hours of VictoriaMetrics, against a plain model of what the Flux tasks mean; late
points, and that nothing is there twice.
"""

from __future__ import annotations

import bisect
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from services.infra import render
from services.infra.condense import DAY_MS, HOUR_MS, MINUTE_MS, Condenser
from services.infra.database import Database
from tests.kit import fleet
from tests.kit.common import ROOT, until
from tests.kit.victoria import Victoria

WRITER = "acme-processo-escrita"
MINUTES, HOURS = "vm-resumo-180d", "vm-resumo-365d"
Points = list[tuple[int, float]]
LOOKBACK_MS, GRID_MS = 10 * MINUTE_MS, 5_000


class Window(NamedTuple):
    """One condensed point."""

    field: str
    start: int


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Victoria]:
    """One of its own: a new series is not found for ten seconds where somebody asked before."""
    boxes = fleet.load(fleet.write_boxes(tmp_path / "boxes"))
    files = render.render(boxes, database=Database.VICTORIAMETRICS)
    with Victoria(files) as running, pytest.MonkeyPatch.context() as patch:
        for name, url in running.variables.items():
            patch.setenv(name, url)
        yield running


@pytest.fixture
def condenser(centre: Victoria) -> Condenser:
    return Condenser(centre.infra / "victoriametrics/condense.json")


def put(centre: Victoria, plc: str, points: dict[str, Points], tenant: str = "acme") -> None:
    lines = [
        f"s7_db1,site=x,locatario_id={tenant},plc_id={plc} {field}={value!r} {ts}000000"
        for field, series in points.items()
        for ts, value in series
    ]
    assert centre.write(WRITER.replace("acme", tenant), lines).status == 204
    centre.settle()


def held(centre: Victoria, store: str, plc: str, span_ms: int) -> dict[Window, float]:
    """What a store answers; it tells only one of each window."""
    centre.settle()
    found: dict[Window, float] = {}
    for series in centre.held(store):
        labels = series["metric"]
        if labels["plc_id"] != plc:
            continue
        assert set(labels) == {"__name__", "site", "locatario_id", "plc_id", "bucket"}
        for stamp, value in zip(series["timestamps"], series["values"], strict=True):
            start = -(-stamp // span_ms) * span_ms
            assert start - stamp < 1_000
            window = Window(labels["__name__"].removeprefix("s7_db1:"), start)
            assert window not in found, "two points of one window"
            found[window] = value
    return found


def between(series: Points, first: int, last: int) -> Points:
    """From ``first`` to before ``last``."""
    at = [ts for ts, _ in series]
    return series[bisect.bisect_left(at, first) : bisect.bisect_left(at, last)]


def model(points: dict[str, Points], first: int, last: int) -> dict[Window, float]:
    """The Flux tasks in plain words (infra/templates/influxdb/minuto.flux.j2)."""
    found: dict[Window, float] = {}
    for field, series in points.items():
        for start in range(first, last, MINUTE_MS):
            inside = between(series, start, start + MINUTE_MS)
            if not inside:
                continue
            values = [v for _, v in inside]
            if field == "rodando":
                known = []
                for end in range(start + GRID_MS, start + MINUTE_MS + 1, GRID_MS):
                    before = between(series, end - LOOKBACK_MS, end)
                    known += [before[-1][1]] if before else []
                found[Window("rodando_duty", start)] = statistics.fmean(known)
                continue
            found[Window(f"{field}_mean", start)] = statistics.fmean(values)
            found[Window(f"{field}_min", start)] = min(values)
            found[Window(f"{field}_max", start)] = max(values)
            found[Window(f"{field}_last", start)] = values[-1]
            if field == "ciclos":
                # The first point of all has none before it.
                after = between(series, start - LOOKBACK_MS, start + MINUTE_MS)
                steps = [
                    b - a if b >= a else b for (_, a), (ts, b) in pairwise(after) if ts >= start
                ]
                if len(after) > 1:
                    found[Window("ciclos_inc", start)] = sum(steps)
    return found


def plant(draw: random.Random, first: int, last: int) -> dict[str, Points]:
    """A number, a counter that starts anew at times, a switch; minutes without a word between."""
    points: dict[str, Points] = {"temperatura": [], "ciclos": [], "rodando": []}
    count = 0.0
    for start in range(first, last, MINUTE_MS):
        if draw.random() < 0.25:
            continue
        for ts in sorted(draw.sample(range(start, start + MINUTE_MS), draw.randrange(1, 9))):
            points["temperatura"].append((ts, draw.uniform(-50, 50)))
            count = 0.0 if draw.random() < 0.05 else count + draw.randrange(0, 9)
            points["ciclos"].append((ts, count))
            points["rodando"].append((ts, float(draw.random() < 0.5)))
        # The first and the last millisecond of a minute are its own.
        points["temperatura"] += [(start + MINUTE_MS - 1, 7.0)]
        for series in points.values():
            series.sort()
    return {k: list(dict(v).items()) for k, v in points.items()}


def same(got: dict[Window, float], wanted: dict[Window, float]) -> None:
    assert set(got) == set(wanted)
    wrong = {w: (got[w], v) for w, v in wanted.items() if not math.isclose(got[w], v, abs_tol=1e-9)}
    assert wrong == {}


HOURLY: dict[str, Callable[[list[float]], float]] = {
    "mean": statistics.fmean,
    "duty": statistics.fmean,
    "min": min,
    "max": max,
    "inc": sum,
    "last": lambda values: values[-1],
}


def last_hour() -> int:
    """The start of the last whole one but one."""
    return int(time.time() * 1e3) // HOUR_MS * HOUR_MS - 2 * HOUR_MS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_minutes_mean_what_the_flux_tasks_mean(
    centre: Victoria, condenser: Condenser, seed: int
) -> None:
    first = last_hour()
    last = first + HOUR_MS
    points = plant(random.Random(seed), first, last)
    plc = f"prensa-{seed}"
    put(centre, plc, points)
    acme = condenser.tenants[0]
    assert condenser.condense(acme, condenser._minutes, first, last) > 0
    same(held(centre, MINUTES, plc, MINUTE_MS), model(points, first, last))
    # Nothing is new: nothing is written.
    assert condenser.condense(acme, condenser._minutes, first, last) == 0


def test_hours_are_made_of_minutes(centre: Victoria, condenser: Condenser) -> None:
    first = last_hour() - HOUR_MS
    points = plant(random.Random(4), first, first + 2 * HOUR_MS)
    put(centre, "horas", points)
    acme = condenser.tenants[0]
    condenser.condense(acme, condenser._minutes, first, first + 2 * HOUR_MS)
    minutes = held(centre, MINUTES, "horas", MINUTE_MS)
    condenser.condense(acme, condenser._hours, first, first + 2 * HOUR_MS)
    wanted: dict[Window, float] = {}
    for hour in (first, first + HOUR_MS):
        for field in {w.field for w in minutes}:
            values = [v for w, v in sorted(minutes.items())
                      if w.field == field and hour <= w.start < hour + HOUR_MS]  # fmt: skip
            how = HOURLY[field.rpartition("_")[2]]
            wanted[Window(field, hour)] = how(values)
    same(held(centre, HOURS, "horas", HOUR_MS), wanted)


def test_late_points_replace_what_was_made_without_them(
    centre: Victoria, condenser: Condenser
) -> None:
    """A box that was without network for days: its points of three days ago, in three parts that
    come on different days; each night makes that day again.
    """
    draw = random.Random(5)
    day = int(time.time() * 1e3) // DAY_MS * DAY_MS
    first = day - 3 * DAY_MS + 10 * HOUR_MS
    points = plant(draw, first, first + 20 * MINUTE_MS)
    parts: list[dict[str, Points]] = [{}, {}, {}]
    for field, series in points.items():
        for point in series:
            draw.choice(parts).setdefault(field, []).append(point)
    seen: dict[str, Points] = {}
    acme = condenser.tenants[0]
    for part in parts:
        put(centre, "tardia", part)
        for field, series in part.items():
            seen[field] = sorted(seen.get(field, []) + series)
        assert sum(condenser.night(day + 3 * HOUR_MS)) > 0
        same(held(centre, MINUTES, "tardia", MINUTE_MS), model(seen, first, first + 20 * MINUTE_MS))
        hours = held(centre, HOURS, "tardia", HOUR_MS)
        assert {w.start for w in hours} == {first}
        # Nights are further apart: by then it knows what it wrote.
        for rollup, wrote in (
            (condenser._minutes, len(model(seen, first, first + 20 * MINUTE_MS))),
            (condenser._hours, len(hours)),
        ):
            found = partial(condenser._kept, acme, rollup, first, first + HOUR_MS)
            until(lambda f=found, n=wrote: len(f()) == n, 15, "written points are not found")  # type: ignore[misc]
    assert seen == points
    assert sum(condenser.night(day + 3 * HOUR_MS)) == 0


def test_one_tenants_points_stay_its_own(centre: Victoria, condenser: Condenser) -> None:
    """Both have a PLC of this name; each has its own store of minutes by its plan."""
    first = last_hour()
    for name, value in (("acme", 1.0), ("beta", 2.0)):
        put(centre, "mesma", {"temperatura": [(first + 5, value)]}, name)
    for tenant in condenser.tenants:
        condenser.condense(tenant, condenser._minutes, first, first + HOUR_MS)
    for store, value in ((MINUTES, 1.0), ("vm-resumo-30d", 2.0)):
        assert set(held(centre, store, "mesma", MINUTE_MS).values()) == {value}


def test_a_small_step_back_of_a_counter_adds_nothing(
    centre: Victoria, condenser: Condenser
) -> None:
    """Flux would take it for a start from zero and add 990 (docs/ESTRATEGIA_RETENCAO_DADOS.md)."""
    first = last_hour()
    series = [(first, 1_000.0), (first + 10_000, 990.0), (first + 20_000, 1_003.0)]
    put(centre, "recuo", {"ciclos": series})
    condenser.condense(condenser.tenants[0], condenser._minutes, first, first + MINUTE_MS)
    assert held(centre, MINUTES, "recuo", MINUTE_MS)[Window("ciclos_inc", first)] == 13.0


def command(centre: Victoria, *options: str) -> list[str]:
    """As the compose file runs it."""
    file = centre.infra / "victoriametrics/condense.json"
    return [
        sys.executable,
        "-P",
        "-m",
        "services.cli.main",
        "infra",
        "condense",
        str(file),
        *options,
    ]


def test_the_command(centre: Victoria) -> None:
    """Once; and what it says when a store is away."""
    now = int(time.time() * 1e3)
    put(centre, "comando", {"temperatura": [(now - 2 * MINUTE_MS, 3.0)]})
    once = command(centre, "--once", "minutes")
    done = subprocess.run(once, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "condensed" in done.stderr
    assert set(held(centre, MINUTES, "comando", MINUTE_MS).values()) == {3.0}
    centre.kill(MINUTES)
    done = subprocess.run(once, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert centre.urls[MINUTES].removeprefix("http://").partition(":")[2] in done.stderr


def test_it_begins_at_once(centre: Victoria) -> None:
    """Without waiting for the next minute."""
    now = int(time.time() * 1e3)
    put(centre, "servico", {"temperatura": [(now - 2 * MINUTE_MS, 3.0)]})
    running = subprocess.Popen(command(centre), cwd=ROOT, stderr=subprocess.PIPE)
    try:
        until(lambda: held(centre, MINUTES, "servico", MINUTE_MS), 30, "nothing was condensed")
    finally:
        running.terminate()
        _, said = running.communicate(timeout=10)
    assert said == b""
