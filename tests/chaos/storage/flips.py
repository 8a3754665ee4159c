"""Bit flips and truncations in every file of outbox and ring, while everything is down."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

from tests.kit.seeds import each
from tests.kit.store_rig import Rig

START_MAX_S = 5.0
"""Of CPU: how many others want it is no matter of the store's."""


def damage(path: Path, rng: random.Random) -> str:
    """One to eight flipped bits, or the end cut off."""
    data = bytearray(path.read_bytes())
    if not data:
        return "empty"
    used = len(data.rstrip(b"\0")) or 1
    if rng.random() < 0.3:
        path.write_bytes(data[: rng.randrange(used)])
        return "truncated"
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(used)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return "flipped"


def one(seed: int, tell: Counter[str]) -> float:
    """A site with a backlog in a few segments; returns how long the store took to start."""
    rig = Rig(seed, outputs=("a",))
    rng = rig.random
    rig.config["store"]["max_size_bytes"] = rng.choice((2**20, 2**30))
    try:
        rig.start()
        rig.outputs["a"].on = rng.random() < 0.5
        for _ in range(rng.randint(5, 60)):
            for plc in rig.plcs:
                rig.publish(plc, rng.choice((10, 100, 1_000)))
            rig.step(lazy=0.4)
        if rng.random() < 0.5 and rig.store is not None:
            rig.store.outbox.save()
        store = rig.store
        assert store is not None
        rig.drop_store()
        clean = rng.random() < 0.3  # SIGTERM: the WAL is folded into the file
        rig.drop_readers()
        rig.outputs = {}
        kept = {p: p.read_bytes() for p in (rig.state / "outbox").iterdir() if p.is_file()}
        store.outbox.close()
        if not clean:
            for path in (rig.state / "outbox").iterdir():
                if path.is_file():
                    path.unlink()
            for path, content in kept.items():
                path.write_bytes(content)
        files = [p for p in (rig.state / "outbox").iterdir() if p.is_file() and p.name != "reserve"]
        files += list((rig.runtime / "ring").iterdir())
        target = rng.choice(files)
        tell[damage(target, rng) + " " + "".join(target.suffixes[-1:])] += 1
        tell["cases"] += 1
        began_s = time.process_time()
        rig.start()
        took_s = time.process_time() - began_s
        assert took_s < START_MAX_S, f"start took {took_s:.1f} s"
        for _ in range(5):
            for plc in rig.plcs:
                rig.publish(plc)
            rig.step()
        rig.drain()
        rig.oracles["a"].check()
        tell["rows"] += len(rig.source.acquired)
        tell["rows told of in a gap only"] += len(rig.source.acquired) - len(
            rig.oracles["a"].delivered
        )
        return took_s
    finally:
        if rig.store is not None:
            rig.store.outbox.close()
        rig.close()


def run(cases: int, seed: int = 1) -> tuple[Counter[str], float]:
    """So many cases; the counts and the longest start, seconds."""
    took_s: list[float] = []
    tell = each(lambda n, tell: took_s.append(one(n, tell)), range(seed, seed + cases))
    return tell, max(took_s, default=0.0)
