"""A short run of the kill driver; the long one is ``python -m tests.chaos.kills``."""

from __future__ import annotations

from tests.chaos.kills.driver import Driver
from tests.kit.box import Box


def test_twenty_kills_lose_nothing() -> None:
    with Box(plcs=2, scan="50ms") as box:
        verdict = Driver(box, seed=7).run(20)
    assert verdict.good, verdict
    assert verdict.delivered > 100
    assert sum(verdict.kills.values()) == 20
