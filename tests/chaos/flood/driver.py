"""A calm time, a flood, and then the account of every message."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from services.store_forward.quota import BURST_S, NOTICE_S
from tests.chaos.flood.plant import FLOODER, OTHER, Plant
from tests.kit.common import until


@dataclass
class Verdict:
    """What a run has shown."""

    plan: int
    times: float
    flood_s: float
    before_ms: tuple[float, float]
    """The other tenant's latency, read to reader's hands: median and p99."""
    during_ms: tuple[float, float]
    before_count: int
    during_count: int
    acquired: int
    delivered: int
    withheld: int
    unaccounted: int
    told_twice: int
    both: int
    disordered: int
    repeats: int
    points_per_min: float
    """Of the flooding tenant that came through, after the burst."""
    counted: int
    """Points of it that the meter counted."""
    came: int
    """Points of it that came to its reader."""
    other_lost: int
    publish: str

    @property
    def ratio(self) -> float:
        """p99 during the flood to p99 before."""
        return self.during_ms[1] / self.before_ms[1]

    @property
    def accounted(self) -> bool:
        """Every number once, and the other tenant untouched."""
        flaws = self.unaccounted + self.told_twice + self.both + self.disordered + self.other_lost
        return flaws == 0 and self.withheld > 0 and self.counted == self.came


def run(plant: Plant, calm_s: float, flood_s: float, times: float) -> Verdict:
    """The flood of ``flood_s``, and what came of it."""
    flooder, other = plant.watch[FLOODER], plant.watch[OTHER]
    until(lambda: len(flooder.last) == 3 and other.last, 60, "every PLC is read")
    time.sleep(2.0)
    calm = _lags(plant, calm_s)
    plant.flooding.set()
    burst_points = plant.plan * BURST_S / 60
    settled_s = min(flood_s / 2, 2 * burst_points / (plant.plan / 60 * times))
    flood = _lags(plant, settled_s)
    began_s, points = time.monotonic(), flooder.points
    flood += _lags(plant, flood_s - settled_s)
    rate = (flooder.points - points) / (time.monotonic() - began_s) * 60
    plant.flooding.clear()
    time.sleep(0.2)
    newest = plant.newest

    def current() -> bool:
        return all(body["values"]["c0"] == newest for body in flooder.last.values())

    until(current, 120, lambda: f"{newest}: {[b['values']['c0'] for b in flooder.last.values()]}")
    judge = flooder.judge
    until(lambda: not judge.lost, 2 * NOTICE_S + 10, lambda: f"{len(judge.lost)} in no account")
    path = f"/v1/tenants/{FLOODER}"

    def counted() -> int:
        found = plant.centre.call("GET", f"{path}/usage?span=day").body["items"]
        return sum(row["points"] for row in found)

    until(lambda: counted() == flooder.points, 20, lambda: f"{counted()} of {flooder.points}")
    return Verdict(
        plan=plant.plan,
        times=times,
        flood_s=flood_s,
        before_ms=_figures(calm),
        during_ms=_figures(flood),
        before_count=len(calm),
        during_count=len(flood),
        acquired=judge.acquired,
        delivered=judge.delivered,
        withheld=judge.withheld,
        unaccounted=len(judge.lost),
        told_twice=judge.told_twice,
        both=len(judge.both),
        disordered=len(judge.disordered),
        repeats=judge.repeats,
        points_per_min=rate,
        counted=counted(),
        came=flooder.points,
        other_lost=len(other.judge.lost) + other.judge.told + other.judge.withheld,
        publish=plant.centre.call("GET", f"{path}/limits").body["publish"]["state"],
    )


def _lags(plant: Plant, seconds: float) -> list[float]:
    lags = plant.watch[OTHER].lags_ms
    first = len(lags)
    time.sleep(seconds)
    return [lag for _, lag in lags[first:]]


def _figures(lags_ms: list[float]) -> tuple[float, float]:
    ordered = sorted(lags_ms)
    return statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]
