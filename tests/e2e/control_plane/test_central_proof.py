"""A short form of ``python -m tests.e2e.central_proof``, which says what it shows."""

from __future__ import annotations

import pytest

from tests.e2e.central_proof import AFTER, BEFORE, BUSY, DURING, OTHER, prove
from tests.kit.centre import DATABASES


@pytest.mark.parametrize("database", DATABASES)
def test_one_tenant_is_changed_under_load_and_nobody_loses_a_message(database: str) -> None:
    verdict = prove(database, seconds=3.0, rotations=1)
    assert verdict.wrong == [], "\n".join(verdict.lines)
    assert verdict.rotations >= 1
    assert len(verdict.latency) == len((BEFORE, DURING, AFTER)) * len((BUSY, OTHER))
    # What waited while it was suspended came late, and came.
    assert verdict.latency[DURING, BUSY]["p90 ms"] > 1_000
