"""Short runs of ``python -m tests.chaos.thousand``, and of ingestion on a shared subscription."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.thousand import Load, Plant, steady, storm
from tests.kit.arrivals import judge
from tests.kit.common import until


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_twenty_boxes_lose_nothing(tls: bool) -> None:
    with closing(Plant(Load(20, plcs=5, tls=tls, simulators=2))) as plant:
        outcome = steady(plant, 5, settle_s=0)
        assert outcome.good
        assert outcome.verdict.made == outcome.verdict.acknowledged == outcome.verdict.came
        assert outcome.stretch.rate > 90


def test_live_messages_stay_current_while_all_boxes_drain() -> None:
    with closing(Plant(Load(20, plcs=5))) as plant:
        outcome = storm(plant, "2m", max_rate=50, seconds=40)
        assert outcome.good
        assert outcome.stretch.replayed > 20 * 5 * 100
        assert outcome.stretch.age_ms(50) < 1_000
        assert (outcome.left, outcome.dropped) == (0, 0)


# -- several consumers of one subscription --------------------------------------------------------

Points = dict[str, list[int]]
""""topic ts" -> (checksum of the values, when it came)."""


def points(files: list[Path]) -> Points:
    """What the consumers of these dumps would have written into one database, one after the
    other.
    """
    found: Points = {}
    for file in files:
        for line in map(json.loads, file.read_text().splitlines()):
            found |= line.get("points", {})
    return found


def late(found: Points) -> int:
    """Points that came after a newer one of their PLC."""
    by_plc: dict[str, list[tuple[int, int]]] = {}
    for key, (_, came_ms) in found.items():
        topic, ts_ms = key.split()
        by_plc.setdefault(topic, []).append((int(ts_ms), came_ms))
    count = 0
    for some in by_plc.values():
        newest_ms = 0
        for _, came_ms in sorted(some):
            count += came_ms < newest_ms
            newest_ms = max(newest_ms, came_ms)
    return count


def test_a_shared_subscription_gives_each_message_to_one_and_the_points_are_the_same(
    tmp_path: Path,
) -> None:
    """Three consumers together get every message once. One of them stands still for a while: then
    newer points of a PLC come before older ones. What is stored is the same as with one consumer,
    for a point carries its own time.
    """
    with closing(Plant(Load(10, plcs=4, scan="100ms", subscribers=3, points=True))) as plant:
        alone = plant.subscribe("alone", ["plc/+/+"])
        with plant.boxes() as (boxes,):
            until(lambda: boxes.status()["acknowledged"] > 1_000, 30, "messages")
            plant.counters[0].process.send_signal(signal.SIGSTOP)
            until(lambda: boxes.status()["acknowledged"] > 2_000, 30, "messages meanwhile")
            plant.counters[0].process.send_signal(signal.SIGCONT)
            until(lambda: boxes.status()["acknowledged"] > 3_000, 30, "messages after it")
            boxes.drain()
            assert boxes.end() == 0
            made = judge([boxes.account], []).made
            reports: list[dict[str, Any]] = []

            def all_came() -> bool:
                reports[:] = [c.report() for c in (alone, *plant.counters)]
                first, *others = (int(r["messages"]) for r in reports)
                return first == sum(others) == made

            until(all_came, 20, lambda: f"{made} messages, of which {reports}")
            files = [c.dump(tmp_path / f"shared-{n}") for n, c in enumerate(plant.counters)]
            whole = [alone.dump(tmp_path / "alone")]
            verdict = judge([boxes.account], files)
    # No more than there are, and none missing: each once.
    assert (verdict.came, verdict.lost) == (made, [])
    assert min(r["messages"] for r in reports) > made / 10, "one of them did nothing"
    assert reports[0]["disordered"] == late(points(whole)) == 0
    assert late(points(files)) > 100
    stored = {key: checksum for key, (checksum, _) in points(files).items()}
    assert stored == {key: checksum for key, (checksum, _) in points(whole).items()}
    assert len(stored) == made
