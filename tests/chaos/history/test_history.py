"""Shortened runs; the long ones: ``python -m tests.chaos.history``."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.chaos.history import flips, full, kills, power
from tests.kit import power_vfs


@pytest.mark.timeout(120)
def test_killed_anywhere_the_history_is_what_was_delivered() -> None:
    tell = kills.run(8, seed=10_000)
    assert tell["in the history"] == tell["messages"] > 200


@pytest.mark.timeout(120)
def test_power_cuts_lose_nothing_that_was_delivered() -> None:
    tell = power.run(20, seed=10_000)
    assert tell["in the history"] > 1_000


def test_a_disk_that_lies_about_the_history_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were nothing lost there either, the power cuts would prove nothing."""
    honest = power_vfs._File.xSync

    def lie(file: Any, flags: int) -> None:
        if "/history/" not in file._path:
            honest(file, flags)

    monkeypatch.setattr(power_vfs._File, "xSync", lie)
    with pytest.raises(AssertionError, match=r"missing|lost"):
        power.run(20, seed=1)


@pytest.mark.timeout(120)
def test_a_damaged_file_costs_its_part_only_and_is_told() -> None:
    tell = flips.run(12, seed=10_000)
    assert tell["cases"] == 12


@pytest.mark.timeout(120)
def test_a_full_disk_costs_nothing() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root to mount a small tmpfs: run it with sudo or in a container")
    tell = full.run(2, seed=10_000)
    assert tell["times the historian said so"] >= 1
