"""A short run of the model test; the long one is ``python -m tests.chaos.control_plane``."""

from __future__ import annotations

import pytest

from tests.chaos.control_plane.driver import Driver
from tests.kit.centre import Centre
from tests.kit.dynsec import Accounts


@pytest.mark.parametrize(("database", "sequences"), [("sqlite", 5), ("postgresql", 6)])
def test_what_was_killed_ends_where_an_undisturbed_one_would(database: str, sequences: int) -> None:
    with Accounts() as broker, Centre(database, broker.section()) as centre:
        driver = Driver(centre, seed=7, broker=broker)
        verdict = driver.run(sequences)
    assert verdict.wrong == []
    assert (verdict.sequences, verdict.kills.total()) == (sequences, sequences)
    assert set(verdict.kills) == set(driver.victims)


def test_undisturbed_it_does_what_the_model_says() -> None:
    with Centre("sqlite") as centre:
        verdict = Driver(centre, seed=11, kills=0).run(5)
    assert verdict.wrong == []
    assert verdict.operations > 60
