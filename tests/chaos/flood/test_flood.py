"""A short flood; the long one is ``python -m tests.chaos.flood --minutes 5 --times 20``."""

from __future__ import annotations

from tests.chaos.flood.driver import run
from tests.chaos.flood.plant import Plant


def test_everything_of_a_flood_is_accounted_for() -> None:
    with Plant(plan=1_200, times=20) as plant:
        verdict = run(plant, calm_s=3, flood_s=12, times=20)
    assert verdict.accounted, verdict
    assert verdict.withheld > verdict.acquired / 3, verdict
    assert verdict.publish == "allowed", verdict
