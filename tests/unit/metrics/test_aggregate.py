"""Counters that survive the processes that count, and a bound on how many there are."""

from __future__ import annotations

import math
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from bus.frames import Stats
from services.metrics.aggregate import MAX_SERIES_PER_PROCESS, Aggregate, Histogram

KNOWN = {"process": {"reader-p1", "reader-p2", "store_forward"}, "plc": {"p1", "p2"}}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def stats(process: str, pid: int, *samples: tuple[str, str, dict[str, str], Any]) -> Stats:
    return Stats(process, pid, pid * 1_000, 0, list(samples))


def counter(value: float, plc: str = "p1") -> tuple[str, str, dict[str, str], Any]:
    return "counter", "plc_edge_reconnects_total", {"plc": plc}, value


def fresh() -> tuple[Aggregate, Clock]:
    clock = Clock()
    return Aggregate(KNOWN, clock), clock


@given(st.lists(st.lists(st.integers(0, 1_000), min_size=1, max_size=5), min_size=1, max_size=6))
def test_sum_of_all_lives(lives: list[list[int]]) -> None:
    """Each life counts up from 0; the total is the sum of what each counted last, and no fall."""
    aggregate, _ = fresh()
    seen = 0.0
    for pid, steps in enumerate(lives, start=1):
        for value in sorted(steps):
            aggregate.apply(stats("reader-p1", pid, counter(value)))
            now = aggregate.value("plc_edge_reconnects_total", plc="p1")
            assert now is not None
            assert now >= seen
            seen = now
    assert seen == sum(max(steps) for steps in lives)


def test_same_pid_another_start_is_another_life() -> None:
    aggregate, _ = fresh()
    aggregate.apply(Stats("reader-p1", 7, 1, 0, [counter(5)]))
    assert aggregate.apply(Stats("reader-p1", 7, 2, 0, [counter(1)]))
    assert aggregate.value("plc_edge_reconnects_total", plc="p1") == 6


def test_histogram_carries_buckets_and_sum() -> None:
    aggregate, _ = fresh()
    labels = {"plc": "p1"}

    def sample(counts: list[int], total: float) -> tuple[str, str, dict[str, str], Any]:
        bounds = [0.1, 1.0, math.inf]
        value = {"buckets": list(zip(bounds, counts, strict=True)), "sum": total}
        return "histogram", "plc_edge_scan_duration_seconds", labels, value

    aggregate.apply(stats("reader-p1", 1, sample([3, 1, 0], 0.9)))
    aggregate.apply(stats("reader-p1", 2, sample([1, 0, 2], 5.0)))
    ((_, _, kind, value),) = aggregate.items()
    assert kind == "histogram"
    assert isinstance(value, Histogram)
    assert value.buckets == {0.1: 4, 1.0: 1, math.inf: 2}
    assert value.sum == 5.9


def test_saved_bases_survive_metrics_itself() -> None:
    before, _ = fresh()
    before.apply(stats("reader-p1", 1, counter(40)))
    before.apply(stats("reader-p1", 2, counter(2)))
    assert before.bases_changed
    bounds = {"buckets": [[0.1, 3], [math.inf, 1]], "sum": 0.9}
    timed = ("histogram", "plc_edge_scan_duration_seconds", {"plc": "p1"}, bounds)
    before.apply(stats("reader-p1", 2, counter(2), timed))
    before.apply(stats("reader-p1", 3, counter(0)))
    saved = orjson.loads(orjson.dumps(before.bases()))
    after, _ = fresh()
    after.restore(saved)
    assert after.value("plc_edge_reconnects_total", plc="p1") == 42
    after.apply(stats("reader-p1", 3, counter(3)))
    assert after.value("plc_edge_reconnects_total", plc="p1") == 45


def test_saved_bases_of_a_removed_process_are_forgotten() -> None:
    after, _ = fresh()
    after.restore({"reader-gone": {"life": [1, 1], "series": []}})
    assert list(after.items()) == []


def test_gauges_end_with_their_process_counters_stay() -> None:
    aggregate, clock = fresh()
    gauge = ("gauge", "plc_edge_fields_bad", {"plc": "p1"}, 2)
    aggregate.apply(stats("reader-p1", 1, gauge, counter(1)))
    clock.now_s += 11
    assert [name for name, *_ in aggregate.items()] == ["plc_edge_reconnects_total"]
    aggregate.apply(stats("reader-p1", 2, counter(1)))
    assert [name for name, *_ in aggregate.items()] == ["plc_edge_reconnects_total"]


def test_shared_counter_is_added_up_shared_gauge_is_the_newest() -> None:
    aggregate, clock = fresh()
    name = "plc_edge_bus_dropped_total"
    aggregate.apply(stats("reader-p1", 1, ("counter", name, {}, 3), ("gauge", "plc_edge_x", {}, 1)))
    clock.now_s += 1
    aggregate.apply(stats("reader-p2", 2, ("counter", name, {}, 4), ("gauge", "plc_edge_x", {}, 9)))
    found = {n: v for n, _, _, v in aggregate.items()}
    assert found == {name: 7, "plc_edge_x": 9}


def test_what_is_refused_and_counted() -> None:
    aggregate, _ = fresh()
    aggregate.apply(
        stats(
            "reader-p1",
            1,
            counter(1, plc="stranger"),
            ("counter", "plc_edge_no_suffix", {}, 1),
            ("gauge", "plc_edge_wrong_total", {}, 1),
            ("gauge", "Other name", {}, 1),
            ("summary", "plc_edge_y", {}, 1),
            ("gauge", "plc_edge_ok", {}, "words"),
            ("histogram", "plc_edge_h_seconds", {}, {"no": "buckets"}),
        )
    )
    aggregate.apply(stats("reader-stranger", 1, counter(1)))
    assert aggregate.refused == {"name": 3, "kind": 1, "label": 2, "value": 2, "limit": 0}


def test_number_of_series_has_a_bound() -> None:
    aggregate, _ = fresh()
    samples = [("gauge", "plc_edge_z", {"n": str(n)}, 1) for n in range(MAX_SERIES_PER_PROCESS + 9)]
    aggregate.apply(stats("reader-p1", 1, *samples))
    assert len(list(aggregate.items())) == MAX_SERIES_PER_PROCESS
    assert aggregate.refused["limit"] == 9
