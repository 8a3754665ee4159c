"""Nothing that an OPC UA server told is lost silently: a short run of tests/chaos/opcua."""

from __future__ import annotations

from tests.chaos.opcua.driver import Chaos, Plant


def test_every_change_is_delivered_or_told() -> None:
    with Plant() as plant:
        chaos = Chaos(plant, seed=7)
        verdict = chaos.run(["", "server_suspended", "cut"])
    assert verdict.good, verdict
    assert chaos.counted.good, chaos.counted
    assert verdict.victims["reader-forno-01"]
    # Two connections made anew and two overruns, of three subscribed groups: not at every turn.
    assert chaos.counted.doubts["changes_lost"] < 30, chaos.counted
    assert all(c.count > 10 for c in chaos.counted.courses.values()), chaos.counted
