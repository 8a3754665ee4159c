"""Live rows beside a backlog: nothing is missing, new rows are current, and replay is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.frames import Sample
from services.store_forward.outbox import Outbox
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


def test_a_backlog_ends_though_its_last_row_is_for_another(tmp_path: Path) -> None:
    """Else nothing behind it would count as delivered, and no segment could be given up."""
    outbox = Outbox(tmp_path / "outbox", "site", [("a", "oldest"), ("b", "oldest")])

    def put(seq: int) -> None:
        outbox.offer(Sample("p1", "acme", 1_764_000_000_000, seq, seq, b"{}"))
        outbox.commit()

    for seq in (1, 2, 3):
        put(seq)
    row = outbox.row(outbox.last_pos)
    assert row is not None
    outbox.settle("a", "live", outbox.last_pos)
    outbox.state.bury("a", [(row, "refused")])
    outbox.retry_dead("a")
    outbox.open_lanes("b")
    put(4)
    outbox.settle("b", "live", outbox.last_pos)
    cursor = outbox.cursors["b"]
    backlog = outbox.read("b", "backfill", cursor.done, 100)
    assert [r.seq for r in backlog] == [1, 2, 3]
    assert not outbox.read("b", "backfill", backlog[-1].pos, 100)
    assert cursor.behind, "they are on their way"
    outbox.settle("b", "backfill", backlog[-1].pos)
    assert not outbox.read("b", "backfill", cursor.done, 100)
    assert (cursor.behind, cursor.done, outbox.pending("b")) == (False, outbox.last_pos, 0)
    outbox.close()
