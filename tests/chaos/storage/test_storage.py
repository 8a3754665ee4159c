"""Shortened runs; the long ones: ``python -m tests.chaos.storage``."""

from __future__ import annotations

import os

import pytest

from tests.chaos.storage import flips, full, power
from tests.kit import store_rig

CUTS = int(os.environ.get("PLC_EDGE_CUTS", "120"))
FLIPS = int(os.environ.get("PLC_EDGE_FLIPS", "60"))


@pytest.mark.timeout(600)
def test_power_cuts_lose_no_acknowledged_row() -> None:
    tell = power.run(CUTS, seed=10_000)
    assert tell["acknowledged"] > CUTS
    assert tell["rings gone"] > CUTS / 4


@pytest.mark.timeout(600)
def test_bit_flips_and_truncations_are_survived_and_told_of() -> None:
    tell, slowest_s = flips.run(FLIPS, seed=10_000)
    assert tell["cases"] == FLIPS
    assert slowest_s < flips.START_MAX_S


def test_a_full_disk_costs_nothing_that_is_not_told_of() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root to mount a small tmpfs: run it with sudo or in a container")
    tell = full.run(3, seed=10_000)
    assert tell["times full"] >= 1


def test_the_simulated_disk_loses_what_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cuts with durability normal: were nothing lost, they would prove nothing."""
    monkeypatch.setitem(store_rig.STORE_CONFIG, "durability", "normal")
    with pytest.raises(AssertionError, match="acknowledged rows lost"):
        power.run(60, seed=1)
