"""Power cuts of a real disk: an ext4 file system in a file, of which a copy is taken while store
and historian work on it (``tests/kit/power_disk.py``). Root only, for the mount.

The readers' box stays up, so that all they have acquired must be there in the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from tests.chaos.history.kills import world
from tests.kit.power_disk import Disk

DISK_MB = 256


def run(cuts: int, seed: int = 1) -> Counter[str]:
    """So many, on one site."""
    tell: Counter[str] = Counter()
    draw = random.Random(seed)
    with Disk(DISK_MB) as disk, world(draw, disk.folder) as w:
        for _ in range(cuts):
            w.start("historian")
            end_s = time.monotonic() + draw.uniform(0.5, 3)
            while time.monotonic() < end_s:
                w.feed(5)
                time.sleep(0.01)
            w.stop()  # a copy that others write to meanwhile is no moment
            disk.snapshot()
            w.kill("historian")
            w.kill("store_forward")
            disk.come_back()
            w.start("store_forward")
        w.start("historian")
        found = w.settle()
        tell["messages"], tell["in the history"] = len(w.plant.fed), len(found.messages)
        w.close()
    tell["cases"] = cuts
    return tell
