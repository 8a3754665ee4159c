"""Nothing that was read by S7CommPlus is lost: a short run of tests/chaos/s7plus."""

from __future__ import annotations

from tests.chaos.s7plus.driver import Plant, run


def test_delivered_and_gaps_are_what_was_acquired() -> None:
    with Plant() as plant:
        verdict, faults = run(plant, kills=9, seed=4)
    assert faults
    assert verdict.acquired > 20
    assert verdict.good, verdict
