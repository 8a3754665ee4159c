"""A disk that fills up and gets room again, under outbox and history or under the
history alone. A tmpfs of 24 MB: root only, for the mount.
"""

from __future__ import annotations

import subprocess
from collections import Counter

from tests.chaos.history.rig import NAME, HistoryRig
from tests.chaos.storage.full import fill
from tests.kit.seeds import each


def one(seed: int, tell: Counter[str]) -> None:
    """Fills it some times; everything must add up at the end."""
    rig = HistoryRig(seed)
    rng = rig.random
    # A small outbox drops while nobody takes from it: gaps, which the history keeps too.
    rig.config["store"]["max_size_bytes"] = rng.choice((2**18, 2**23))
    alone = rng.random() < 0.5
    disk = rig.history if alone else rig.state
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    filler = disk / "filler"
    try:
        rig.start()
        for _ in range(rng.randint(2, 4)):
            rig.work(rng.randint(20, 60), (5,), 1_000)
            fill(filler)
            rig.work(rng.randint(20, 120), (5,), 1_000)
            held = sum("disk_full" in event for event in rig.said)
            tell["times the historian said so"] += held > 0
            if rng.random() < 0.3:
                rig.abandoned().close()
                rig.drop_historian()
                rig.start()
                tell["restarts while full"] += 1
            filler.unlink()
            rig.drain(600)
            assert rig.store is not None
            assert not rig.store.outbox.pending(NAME)
        found = rig.judge()
        missing = [i for i in rig.plant.fed if i not in found.messages and not found.told(i)]
        assert not missing, f"{len(missing)} neither there nor in a gap: {missing[:3]}"
        tell["messages"] += len(rig.plant.fed)
        tell["in a gap only"] += len(rig.plant.fed) - len(found.messages)
        tell["cases"] += 1
        tell["of the history's disk alone"] += alone
    finally:
        if rig.keeper is not None:
            rig.abandoned().close()
            rig.drop_historian()
        if rig.store is not None:
            rig.store.close()
            rig.store = None
        subprocess.run(["umount", "-l", str(disk)], check=True)
        rig.close()


def run(cases: int, seed: int = 1) -> Counter[str]:
    """So many sites."""
    return each(one, range(seed, seed + cases))
