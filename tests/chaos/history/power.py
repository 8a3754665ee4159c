"""Power cuts: outbox and history on one disk that forgets what was not synced."""

from __future__ import annotations

from collections import Counter
from itertools import count

from tests.chaos.history.rig import HistoryRig
from tests.kit.power_vfs import PowerDisk
from tests.kit.seeds import each


def one(seed: int, disk: PowerDisk, tell: Counter[str]) -> None:
    """A site that loses its power one to three times, then lives on."""
    rig = HistoryRig(seed)
    rng = rig.random
    try:
        for _ in range(rng.randint(1, 3)):
            rig.start()
            rig.work(rng.randint(3, 60))
            rig.note_acked()
            _cut(rig, disk, tell)
        rig.start()
        rig.work(10)
        rig.drain()
        found = rig.judge()
        acked = {key for n, key in rig.source.acquired.items() if n in rig.acked}
        lost = [i for i in acked if i not in found.messages and not found.told(i)]
        assert not lost, f"{len(lost)} acknowledged rows lost: {lost[:3]}"
        tell["messages"] += len(rig.plant.fed)
        tell["in the history"] += len(found.messages)
        tell["unacknowledged, lost with the ring"] += len(rig.plant.fed) - len(found.messages)
    finally:
        rig.close()
        disk.forget()


def _cut(rig: HistoryRig, disk: PowerDisk, tell: Counter[str]) -> None:
    store = rig.store
    assert store is not None
    outbox, abandoned = store.outbox, rig.abandoned()
    rig.drop_store()
    rig.drop_historian()
    if rig.random.random() < 0.7:  # tmpfs: the rings are gone with the power
        for path in (rig.runtime / "ring").iterdir():
            path.unlink()
        rig.drop_readers()
        rig.outputs = {}
    tell["hours' files at a cut"] += sum(1 for _ in rig.history.rglob("*.[0-9].db"))
    tell["half made at a cut"] += sum(1 for _ in rig.history.rglob("*.building"))
    disk.cut(rig.state, rig.random, [*outbox.segments, outbox.state, abandoned])
    tell["cases"] += 1


def run(cuts: int, seed: int = 1) -> Counter[str]:
    """At least so many cuts."""
    disk = PowerDisk()
    try:
        return each(
            lambda seed, tell: one(seed, disk, tell),
            count(seed),
            lambda tell: tell["cases"] >= cuts,
        )
    finally:
        disk.unregister()
