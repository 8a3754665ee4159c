"""An output with ``reduce:``, beside a real store: every raw message is in exactly one sum."""

from __future__ import annotations

import random

import orjson
import pytest

from tests.kit.common import until
from tests.kit.procs import service
from tests.kit.reduce_rig import STEP_MS, Judge, Web, chaos, plant


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_anywhere_every_value_is_in_one_sum(seed: int) -> None:
    chaos(6, seed)


def test_minutes_arrive_as_they_were() -> None:
    with (
        Web(random.Random(1), 0) as web,
        plant("web") as world,
        service(world.store()),
        service(web.config(world.run)) as output,
    ):
        world.feed(600)
        world.finish()
        web.wait(world, output.stderr)
        assert output.terminate() == 0
    sums = [orjson.loads(body) for body in web.judge.first.values()]
    whole = [m for m in sums if world.start < m["ts"] < world.start + 9 * STEP_MS]
    assert len(whole) == 8 * 2 * 2
    for m in whole:
        assert (m["count"], m["known_ms"], m["step_ms"]) == (30, STEP_MS, STEP_MS)
        assert (m["site"], m["db"], m["measurement"]) == ("planta-sp", 500, "s7_db1")
        assert "latency_ms" not in m
        assert m["values"]["rodando_duty"] == pytest.approx(1 / 3, abs=0.02)
        assert m["values"]["n_max"] - m["values"]["n_last"] == 0
    size = sum(len(body) for body in web.judge.first.values())
    assert size < sum(len(orjson.dumps(m)) for m in world.fed.values()) / 8
