"""A disk that fills up and is freed again, on a tmpfs of 24 MB: root only, for the mount."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

from tests.kit.seeds import each
from tests.kit.store_rig import Rig


def one(seed: int, tell: Counter[str]) -> None:
    """Fills the disk under a running site, several times; everything must add up at the end."""
    rig = Rig(seed, outputs=("a",))
    rng = rig.random
    rig.config["store"]["max_size_bytes"] = 2**23
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(rig.state)]
    subprocess.run(mount, check=True)
    filler = rig.state / "filler"
    try:
        rig.start()
        for _ in range(rng.randint(2, 4)):
            _work(rig, rng.randint(20, 60), tell)
            fill(filler)
            rig.outputs["a"].on = rng.random() < 0.5
            _work(rig, rng.randint(20, 120), tell)
            store = rig.store
            assert store is not None
            tell["times full"] += bool(store.disk_full)
            if rig.outputs["a"].on and store.disk_full:
                before = store.outbox.pending("a")
                for _ in range(20):
                    rig.step()
                assert store.outbox.pending("a") <= before, "does not drain while full"
            if rng.random() < 0.3:
                store.outbox.close()
                rig.drop_store()
                rig.start()
                tell["restarts while full"] += 1
            filler.unlink()
            rig.outputs["a"].on = True
            rig.drain(600)
            assert rig.store is not None
            assert not rig.store.disk_full, rig.store.disk_full
        rig.oracles["a"].check()
        tell["rows"] += len(rig.source.acquired)
        tell["delivered"] += len(rig.oracles["a"].delivered)
        tell["cases"] += 1
    finally:
        if rig.store is not None:
            rig.store.outbox.close()
        subprocess.run(["umount", "-l", str(rig.state)], check=True)
        rig.close()


def _work(rig: Rig, rounds: int, tell: Counter[str]) -> None:
    for _ in range(rounds):
        for plc in rig.plcs:
            for _ in range(5):
                rig.publish(plc, 3_000)
        tell["scans"] += 1
        rig.step(0.05, lazy=0.3)


def fill(path: Path) -> None:
    """Takes the last byte of its disk."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    continue
            except OSError:
                continue


def run(cases: int, seed: int = 1) -> Counter[str]:
    """So many sites."""
    return each(one, range(seed, seed + cases))
