"""Live rows beside a backlog: nothing is missing, new rows are current, and replay is bounded."""

from __future__ import annotations

import pytest

from tests.kit.store_rig import Rig


@pytest.mark.parametrize("max_rate", [None, 500])
@pytest.mark.parametrize("lived", [False, True], ids=["output-begins", "output-lived-on"])
def test_lanes_deliver_everything_and_keep_live_rows_current(
    max_rate: int | None, lived: bool
) -> None:
    """Whether the output was stopped, or only its destination away."""
    rig = Rig(3, replay={"mode": "lanes", "live_weight": 4, "max_rate": max_rate})
    try:
        rig.start()
        if lived:
            rig.publish("p1")
            rig.drain()
        rig.outputs["a"].cut_off = lived
        rig.outputs["a"].on = lived
        for _ in range(1_000):
            for plc in rig.plcs:
                rig.publish(plc)
            rig.step()
        rig.outputs["a"].on = True
        rig.outputs["a"].cut_off = False
        oracle, late = rig.oracles["a"], 0
        for _ in range(50):
            rig.publish("p1")
            newest = max(oracle.acquired)
            rig.step()
            rig.step()
            late += newest not in oracle.delivered
        assert late <= 3, f"{late} of 50 live rows were not delivered within two turns"
        rig.drain(60)
        assert not oracle.missing()
        assert oracle.duplicates == 0
    finally:
        if rig.store is not None:
            rig.store.close()
        rig.close()


@pytest.mark.parametrize("lived", [False, True], ids=["output-begins", "output-lived-on"])
def test_live_rows_pass_every_backlog_of_a_line_that_comes_and_goes(lived: bool) -> None:
    """Each outage begins while the backlog of those before it still waits."""
    rig = Rig(5, replay={"mode": "lanes", "live_weight": 4, "max_rate": 100})
    try:
        rig.start()
        rig.publish("p1")
        rig.drain()
        oracle, output = rig.oracles["a"], rig.outputs["a"]
        for _ in range(4):
            output.cut_off, output.on = lived, lived
            for _ in range(1_200):
                rig.publish("p1")
                rig.step()
            output.on, output.cut_off = True, False
            late = 0
            for _ in range(60):
                rig.publish("p1")
                newest = max(oracle.acquired)
                rig.step()
                rig.step()
                late += newest not in oracle.delivered
            assert late <= 6, f"{late} of 60 live rows were not delivered within two turns"
            assert oracle.missing(), "the backlog was gone already"
        rig.drain(120)
        assert not oracle.missing()
        assert oracle.duplicates == 0
    finally:
        if rig.store is not None:
            rig.store.close()
        rig.close()


def test_a_short_absence_opens_no_lanes() -> None:
    rig = Rig(4, replay={"mode": "lanes", "live_weight": 4, "max_rate": None})
    try:
        rig.start()
        rig.publish("p1")
        rig.drain()
        rig.outputs["a"].cut_off = True
        for _ in range(300):
            rig.publish("p1")
            rig.step()
        rig.outputs["a"].cut_off = False
        rig.drain(60)
        rig.oracles["a"].check(duplicates=0)  # in order, for nothing came by another lane
    finally:
        if rig.store is not None:
            rig.store.close()
        rig.close()
