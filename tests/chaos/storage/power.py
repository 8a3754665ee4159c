"""Power cuts: outbox and rings together, thousands of them."""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

from tests.kit.power_vfs import PowerDisk
from tests.kit.seeds import each
from tests.kit.store_rig import Rig


def one(seed: int, disk: PowerDisk, tell: Counter[str]) -> None:
    """A site that loses its power one to three times, then lives on."""
    rig = Rig(seed, outputs=("a", "b"))
    rng, own = rig.random, random.Random(seed)
    rig.config["store"]["max_size_bytes"] = 2**24
    if seed % 4 == 0:  # a tenant over its quota: rows wait, and notices
        tell["with a quota"] += 1
        plcs = [{"id": plc, "locatario": "acme"} for plc in rig.plcs]
        rig.config |= {"plcs": plcs, "quotas": {"acme": own.choice((60, 6_000))}}
    try:
        for _ in range(rng.randint(1, 3)):
            rig.start()
            for _ in range(rng.randint(3, 40)):
                for plc in rig.plcs:
                    for _ in range(rng.choice((0, 1, 1, 1, 20))):
                        rig.publish(plc, rng.choice((10, 100, 3_000)), _members(own.choice("gh")))
                rig.step(rng.choice((0.002, 0.01, 0.3)), lazy=0.4)
                rig.outputs["b"].on = rng.random() < 0.7
            rig.note_acked()
            _cut(rig, disk, tell)
        fresh = rng.random() < 0.05
        if fresh:  # the store's files are gone altogether
            for path in (rig.state / "outbox").iterdir():
                if path.is_file():
                    path.unlink()
            tell["files gone"] += 1
        rig.start()
        rig.outputs["b"].on = True
        before = set(rig.source.acquired)
        for _ in range(10):
            for plc in rig.plcs:
                rig.publish(plc)
            rig.step()
        rig.drain()
        while rig.store is not None and rig.store.outbox.withheld:
            rig.step(0.5)
            rig.drain(3_600)
        _judge(rig, before, fresh, tell)
    finally:
        if rig.store is not None:
            rig.store.close()
        disk.forget()
        rig.close()


def _members(group: str) -> str:
    return f',"group":"{group}","quality":"good","values":{{"a":1,"b":2,"c":3}}'


def _cut(rig: Rig, disk: PowerDisk, tell: Counter[str]) -> None:
    store = rig.store
    assert store is not None
    outbox = store.outbox
    rig.drop_store()
    if rig.random.random() < 0.7:
        # tmpfs: the rings are gone with the power, and all processes.
        for path in (rig.runtime / "ring").iterdir():
            path.unlink()
        rig.drop_readers()
        rig.outputs = {}
        tell["rings gone"] += 1
    elif rig.random.random() < 0.5:
        rig.drop_readers()  # the box stays up, the store's disk went
        tell["rings kept"] += 1
    disk.cut(rig.state, rig.random, [*outbox.segments, outbox.state])
    tell["cuts"] += 1


def _judge(rig: Rig, new: set[int], fresh: bool, tell: Counter[str]) -> None:
    for name, oracle in rig.oracles.items():
        assert not oracle.wrong, (name, oracle.wrong[:3])
        missing = {n for n, _ in oracle.missing()}
        if fresh:
            missing -= rig.acked  # what was only in the outbox went with it
        lost = missing & rig.acked
        assert not lost, f"{len(lost)} acknowledged rows lost at {name}: {sorted(lost)[:5]}"
        tell["withheld"] += oracle.check_quota()
        unseen = [n for n in oracle.acquired if n not in new and n not in oracle.delivered]
        if rig.config.get("quotas"):
            unseen = [n for n in unseen if n in missing]
        assert not unseen, f"{len(unseen)} new rows not delivered at {name}"
        tell["unacknowledged rows lost with the ring"] += len(missing)
        tell["repeats"] += oracle.duplicates
    tell["rows"] += len(rig.source.acquired)
    tell["acknowledged"] += len(rig.acked)


def run(cuts: int, seed: int = 1) -> Counter[str]:
    """At least so many cuts."""
    disk = PowerDisk()
    try:
        return each(
            lambda seed, tell: one(seed, disk, tell),
            count(seed),
            lambda tell: tell["cuts"] >= cuts,
        )
    finally:
        disk.unregister()
