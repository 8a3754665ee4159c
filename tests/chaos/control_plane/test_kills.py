"""A short run of the model test; the long one is ``python -m tests.chaos.control_plane``."""

from __future__ import annotations

import pytest

from tests.chaos.control_plane.driver import Driver
from tests.kit.centre import Centre


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("database", "sequences"), [("sqlite", 6), ("postgresql", 3)])
def test_a_killed_control_plane_ends_where_an_undisturbed_one_would(
    database: str, sequences: int
) -> None:
    with Centre(database) as centre:
        verdict = Driver(centre, seed=7).run(sequences)
    assert verdict.wrong == []
    assert (verdict.sequences, verdict.kills) == (sequences, sequences)


@pytest.mark.timeout(120)
def test_undisturbed_it_does_what_the_model_says() -> None:
    with Centre("sqlite") as centre:
        verdict = Driver(centre, seed=11, kills=0).run(5)
    assert verdict.wrong == []
    assert verdict.operations > 60
