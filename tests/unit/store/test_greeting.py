"""A reader greets until the store answers; several answers of one store are one."""

from __future__ import annotations

from bus.frames import Hello, pack
from tests.kit.store_rig import Rig


def test_a_second_answer_sends_nothing_again() -> None:
    rig = Rig(1)
    try:
        rig.start()
        rig.publish("p1")
        rig.drain()
        node, _ = rig.readers["p1"]
        pipe = rig.wire("keep-").frames
        store, rig.store = rig.store, None  # it is busy for a moment
        for _ in range(20):
            rig.publish("p1")
        assert len(pipe) == 20
        # An earlier greeting that the store answers only now: from what it then has.
        pipe.appendleft(pack(Hello("p1", "acme", node.boot)))
        rig.store = store
        rig.drain()
        assert node.stats.counter("plc_edge_keep_resends_total", plc="p1").value == 0
        assert rig.oracles["a"].duplicates == 0
        assert not rig.oracles["a"].missing()
    finally:
        if rig.store is not None:
            rig.store.close()
        rig.close()
