"""An output with ``reduce:``, beside a real store: every raw message is in exactly one sum."""

from __future__ import annotations

import random

import orjson
import pytest

from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import mqtt_config
from tests.kit.reduce_rig import STEP_MS, Judge, Kept, Web, chaos, plant, reduced


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


def test_a_broker_that_is_away_is_waited_for() -> None:
    """Killed meanwhile; a session that the broker kept gets all of it."""
    with (
        plant("central") as world,
        Broker(options="persistence true") as broker,
        service(world.store()),
    ):
        with Kept(broker.port):
            pass
        broker.stop()
        config = reduced(mqtt_config(world.run, broker.port, window=5))
        doomed = Service(config, {"PLC_EDGE_FAILPOINT": "consumer.after_commit"})
        world.feed(300)
        for source in world.sources:
            source.drain()
        until(lambda: doomed.process.poll() is not None, 10, doomed.stderr)
        doomed.end()
        judge = Judge()
        with service(config) as output:
            world.feed(300)
            world.finish()
            broker.start()
            with Kept(broker.port) as late:

                def all_came() -> bool:
                    while late.bodies:
                        judge.take(late.bodies.popleft())
                    return judge.covered(world.fed)

                until(all_came, 20, output.stderr)
            assert output.terminate() == 0
        judge.check(world.fed)


def test_what_finds_no_room_is_told_in_a_gap() -> None:
    with Web(random.Random(1), 0) as web, plant("web") as world, service(world.store()):
        web.is_away = True
        config = web.config(world.run, max_size_bytes=6_000, step_ms=10_000)
        with service(config) as output:
            world.feed(600)
            world.finish()
            until(lambda: output.said("are lost (max_size)"), 12, output.stderr)
            web.is_away = False
            # 600 s of each machine, 10 s a step, and what ends them.
            whole = {plc: set(range(1, 122)) for plc in ("p1", "p2")}
            until(lambda: all(whole[p] <= web.told(p) for p in whole), 10, output.stderr)
            assert output.terminate() == 0
        gaps = [m for m in web.messages if "first_seq" in m]
        assert gaps
        for gap in gaps:
            assert (gap["reason"], gap["site"]) == ("max_size", "planta-sp")
            assert gap["count"] == gap["last_seq"] - gap["first_seq"] + 1
            assert gap["from_ts"] <= gap["to_ts"]


def test_a_record_that_falls_silent_is_told_none_the_less() -> None:
    """What nobody ends by a later message ends when its values hold no longer."""
    with (
        Web(random.Random(1), 0) as web,
        plant("web") as world,
        service(world.store()),
        service(web.config(world.run, hold_ms=1_000)) as output,
    ):
        world.feed(4)
        for source in world.sources:
            source.drain()
        world.fed = dict(world.raw)
        web.wait(world, output.stderr)
        assert output.terminate() == 0
