"""Bit flips and truncations in each of the historian's files, while it is down: only what that file
held may be missing, and that is told.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.chaos.history.judge import held, unknown
from tests.chaos.history.rig import HistoryRig
from tests.chaos.storage.flips import START_MAX_S, damage
from tests.kit.seeds import each


def one(seed: int, tell: Counter[str]) -> None:
    """Some hours, damage, more work."""
    rig = HistoryRig(seed, step_ms=600_000)
    rng = rig.random
    try:
        rig.start()
        rig.work(rng.randint(30, 150))
        rig.drain()
        for _ in range(rng.choice((0, 40))):
            rig.step(1)  # hours are condensed
        before = set(rig.judge().messages)
        clean = rng.random() < 0.5
        kept = {p: p.read_bytes() for p in rig.history.rglob("*") if p.is_file()}
        rig.stop_historian()
        if not clean:  # killed: the WAL lies beside its file
            for path in [p for p in rig.history.rglob("*") if p.is_file()]:
                path.unlink()
            for path, content in kept.items():
                path.write_bytes(content)
        target = rng.choice(_files(rig.history))
        tell[f"{damage(target, rng)} {_kind(target)}"] += 1
        told_before = len(rig.said)
        began_s = time.perf_counter()
        rig.start()
        took_s = time.perf_counter() - began_s
        assert took_s < START_MAX_S, f"start took {took_s:.1f} s"
        rig.work(20)
        rig.drain()
        found = held(rig.history, rig.plant, rig.plcs)
        assert not found.wrong, f"{target.name}: {found.wrong[:3]}"
        everything = set(rig.oracles["a"].delivered.values())
        missing = everything - set(found.messages)
        new = missing - before
        assert not new, f"{target.name}: {len(new)} that came after it are missing"
        if missing:
            said = rig.said[told_before:]
            if not found.damage and not any("damaged" in event for event in said):
                seen = [i for i in missing if not unknown(rig.history, rig.plant.fed[i])]
                assert not seen, (
                    f"{target.name}: {len(seen)} of {len(missing)} missing, nothing tells: {said}"
                )
                tell["cases told by the hole only"] += 1
            tell["cases with a loss"] += 1
            if target.name.startswith("recent") is False and len(_files(rig.history)) > 3:
                assert len(missing) < len(before), f"{target.name}: all is gone"
        tell["messages"] += len(everything)
        tell["missing, told"] += len(missing)
        tell["cases"] += 1
    finally:
        rig.close()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith("-shm"))


def _kind(path: Path) -> str:
    return f"{path.name if path.name.startswith('recent') else path.parent.name + path.suffix}"


def run(cases: int, seed: int = 1) -> Counter[str]:
    """So many cases."""
    return each(one, range(seed, seed + cases))
