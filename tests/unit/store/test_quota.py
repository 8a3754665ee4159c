"""Quotas at the box: the arithmetic, and that everything withheld is told, whatever dies."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from typing import Any

import apsw
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.store_forward import quota
from services.store_forward.gaps import EXACT_GAPS, Tally
from services.store_forward.quota import BURST_S, Bucket, Head, Meter
from services.store_forward.segment import Row as SegmentRow
from tests.kit.store_rig import Rig

GOOD = ("good",)


def body(group: str, points: int, quality: str = "good", **more: object) -> str:
    """Members of a message."""
    values = {f"f{i}": i for i in range(points)}
    fields = {"group": group, "quality": quality, "values": values, **more}
    return "," + orjson.dumps(fields).decode()[1:-1]


# -- the arithmetic --------------------------------------------------------------------------


@given(
    st.integers(1, 100_000),
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from("abc"), st.integers(0, 400)), max_size=80),
)
def test_no_more_than_a_burst_and_the_rate_passes(
    per_min: int, rows: list[tuple[float, str, int]]
) -> None:
    meter, now_s, sent, largest = Meter(per_min, 0.0), 0.0, 0, 0
    for plc in "abc":
        meter.passes(plc, Head("g/", 0, GOOD), now_s)  # the first of each is a change
    for pause_s, plc, points in rows:
        now_s += pause_s
        largest = max(largest, points)
        if meter.passes(plc, Head("g/", points, GOOD), now_s):
            sent += points
    assert sent <= per_min / 60 * (BURST_S + now_s) + largest + 1e-6


@given(st.integers(1, 100_000), st.floats(0, 1e6), st.integers(0, 10**9))
def test_a_bucket_says_when_it_has_something_again(per_min: int, at_s: float, points: int) -> None:
    bucket = Bucket(per_min, at_s)
    bucket.take(points)
    wait_s = bucket.wait_s(at_s)
    assert bucket.level(at_s + wait_s) >= 1 - 1e-3
    bucket = Bucket(per_min, at_s)
    bucket.owe(points)
    bucket.owe(points)
    assert bucket.wait_s(at_s) <= BURST_S + 60 / per_min + 1e-3, "what is owed is bounded"


def test_a_change_of_quality_passes_an_empty_bucket_and_the_next_like_it_does_not() -> None:
    meter = Meter(60, 0.0)
    meter.bucket.take(100)
    good, bad = Head("g/", 1, GOOD), Head("g/", 1, ("bad", "f1"))
    assert [meter.passes("p", h, 0.0) for h in (good, good, bad, bad, good)] == [
        True, False, True, False, True,
    ]  # fmt: skip


def test_the_smaller_of_two_limits_holds() -> None:
    centre = orjson.dumps({"v": 1, "points_per_min": {"acme": 500, "beta": 900, "gama": 7}})
    assert quota.limits({"acme": 1_000, "beta": 100}, centre) == {
        "acme": 500, "beta": 100, "gama": 7,
    }  # fmt: skip
    assert quota.limits({"acme": 1}, b"") == {"acme": 1}


@pytest.mark.parametrize(
    "document", [b"{", b"[]", b'{"v":1}', b'{"points_per_min":{"a":0}}', b'{"points_per_min":[1]}']
)
def test_a_file_of_the_centre_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        quota.limits({}, document)


# -- with the real store ---------------------------------------------------------------------


def settle(rig: Rig, seconds: float = 900.0) -> None:
    """Until nothing waits anywhere, and nothing is left to tell."""
    end_s = rig.clock.now_s + seconds
    while True:
        rig.drain(seconds)
        assert rig.store is not None
        if not rig.store.outbox.withheld:
            return
        assert rig.clock.now_s < end_s, rig.store.outbox.withheld.held
        for _ in range(20):
            rig.step(0.1)


def kill_store(rig: Rig) -> None:
    """``kill -9``: what is in the files, and nothing else, is there afterwards. A copy of them,
    because whoever ends so in this process still has their locks.
    """
    rig.drop_store()
    copy = rig.folder / f"s{rig.restarts}"
    shutil.copytree(rig.state, copy)
    rig.state = copy
    rig.config["state"] = str(copy)


def fill_disk(rig: Rig) -> None:
    """The next commit finds no room."""
    assert rig.store is not None
    if rig.store.outbox.segments:
        segment: Any = rig.store.outbox.segments[-1]
        append = segment.append

        def fail(*_: object, **__: object) -> None:
            segment.append = append
            raise apsw.FullError

        segment.append = fail


def flooded(rig: Rig, plc: str, group: str, points: int, **more: object) -> None:
    rig.publish(plc, more=body(group, points, **more))  # type: ignore[arg-type]


@pytest.mark.timeout(180)
def test_a_tenant_is_thinned_to_its_quota_and_everything_is_accounted_for() -> None:
    rig = Rig(1, plcs=2)
    rig.config |= {
        "quotas": {"acme": 6_000},
        "plcs": [{"id": p, "locatario": "acme"} for p in rig.plcs],
    }
    rig.start()
    begin_s = rig.clock.now_s
    for i in range(3_000):  # 60 s: both PLCs at 10 times the quota, one group of each slower
        rig.step(0.02)
        for plc in rig.plcs:
            flooded(rig, plc, "fast", 20)
            if i % 100 == 0:
                flooded(rig, plc, "slow", 20)
    lasted_s = rig.clock.now_s - begin_s
    newest = dict.fromkeys(rig.plcs, 0)
    for plc, _epoch, seq in rig.source.acquired.values():
        newest[plc] = max(newest[plc], seq)
    settle(rig)
    oracle = rig.oracles["a"]
    oracle.check(duplicates=0)
    withheld = oracle.check_quota()
    delivered = len(oracle.delivered)
    assert withheld + delivered == len(oracle.acquired)
    # A minute's burst, the rate, and one flush of what waited.
    assert 20 * delivered <= 6_000 + 100 * (lasted_s + 2) + 80
    assert 20 * delivered >= 0.95 * (6_000 + 100 * lasted_s), "no more than needed is withheld"
    came = {(plc, seq) for plc, _, seq in oracle.delivered.values()}
    assert {(plc, seq) for plc, seq in newest.items()} <= came, "the newest value comes"
    assert oracle.ahead == 0, "behind what is newer"
    for gaps in oracle.gaps.values():
        assert 0 < len(gaps.notices) <= lasted_s / quota.NOTICE_S + 2
    rig.close()


@pytest.mark.timeout(180)
def test_the_slower_group_loses_nothing_and_two_plcs_get_the_same_share() -> None:
    rig = Rig(2, plcs=2)
    rig.config |= {
        "quotas": {"acme": 600},
        "plcs": [{"id": p, "locatario": "acme"} for p in rig.plcs],
    }
    rig.start()
    groups: dict[int, tuple[str, str]] = {}
    for i in range(6_000):  # 600 s
        rig.step(0.1)
        for plc, points in zip(rig.plcs, (10, 10), strict=True):
            groups[len(rig.source.acquired) + 1] = (plc, "fast")
            flooded(rig, plc, "fast", points)
            rig.step(0.0)
            if plc == "p1" and i % 600 == 0:
                groups[len(rig.source.acquired) + 1] = (plc, "slow")
                flooded(rig, plc, "slow", points)
                rig.step(0.0)
    settle(rig)
    oracle = rig.oracles["a"]
    oracle.check(duplicates=0)
    oracle.check_quota()
    came: dict[tuple[str, str], int] = defaultdict(int)
    for n in oracle.delivered:
        came[groups[n]] += 1
    assert came["p1", "slow"] == 10
    assert abs(came["p1", "fast"] - came["p2", "fast"]) <= 0.1 * came["p2", "fast"], dict(came)
    rig.close()


@pytest.mark.timeout(180)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_dies_nothing_withheld_is_silent_or_told_twice(seed: int) -> None:
    draw = random.Random(seed)
    rig = Rig(seed, plcs=3, max_size_bytes=2**30)
    rig.config |= {
        "quotas": {"acme": draw.choice([60, 600, 6_000])},
        "plcs": [{"id": p, "locatario": "acme"} for p in rig.plcs],
    }
    rig.start()
    try:
        for _ in range(draw.randint(50, 400)):
            plc = draw.choice(rig.plcs)
            for _ in range(draw.randint(1, 12)):
                quality = "good" if draw.random() < 0.98 else "bad"
                flooded(rig, plc, draw.choice("gh"), draw.randint(0, 9), quality=quality)
            rig.step(draw.choice([0.0, 0.01, 0.3, 2.0]), lazy=draw.random() * 0.5)
            if draw.random() < 0.05:
                kill_store(rig)
                rig.start()
            if draw.random() < 0.05:
                fill_disk(rig)
            if draw.random() < 0.02:
                rig.drop_readers()
                rig.start()
            if draw.random() < 0.02:
                rig.config["quotas"] = {"acme": draw.choice([60, 600, 6_000])}
                if draw.random() < 0.3:
                    rig.config["quotas"] = {}
                rig._node.reconfigure(rig.config)
        settle(rig, 7_200)
        oracle = rig.oracles["a"]
        oracle.check()
        oracle.check_quota()
    finally:
        rig.close()


def test_the_centre_s_file_is_taken_while_it_runs_and_a_broken_one_changes_nothing() -> None:
    rig = Rig(3, plcs=1)
    rig.config |= {"quotas": {"acme": 6_000}, "plcs": [{"id": "p1", "locatario": "acme"}]}
    rig.config["fleet"] = True
    file = rig.state / "quotas.json"
    rig.start()
    assert rig.store is not None

    def limit() -> int | None:
        rig.step(1.1)
        assert rig.store is not None
        found = rig.store.status().get("quotas", {}).get("acme")
        return int(found["points_per_min"]) if found else None

    assert limit() == 6_000
    file.write_text('{"v": 1, "points_per_min": {"acme": 600, "nobody": 1}}')
    assert limit() == 600
    file.write_text('{"v": 1, "points_per_min": {"acme": 0}}')
    assert limit() == 600
    assert any("quotas_file" in e for e in rig._node.events)
    file.write_text('{"v": 1, "points_per_min": {"acme": 9000}}')
    assert limit() == 6_000, "the smaller one holds"
    rig.config["quotas"] = {}
    rig._node.reconfigure(rig.config)
    assert limit() == 9_000
    rig.config["fleet"] = False
    rig._node.reconfigure(rig.config)
    assert limit() is None, "nobody follows the centre any more: its file is a leftover"
    rig.config["fleet"] = True
    rig._node.reconfigure(rig.config)
    assert limit() == 9_000
    file.unlink()
    assert limit() is None
    assert rig.store._take_in == rig.store.outbox.offer, "as if there had never been one"
    rig.close()


def test_what_is_dropped_of_a_thinned_plc_fits_in_a_few_gaps() -> None:
    tally = Tally()
    for seq in range(3, 6_003, 3):
        tally.add(SegmentRow(seq, 0, "p1", "acme", seq, 1, seq, b""), frozenset())
    assert len(tally.gaps) == EXACT_GAPS
    assert sum(gap.count or 0 for gap in tally.gaps) == 2_000
    last = tally.gaps[-1]
    assert last.last_seq == 6_000
    assert last.count == 2_000 - EXACT_GAPS + 1


@pytest.mark.timeout(180)
def test_a_full_outbox_of_a_thinned_tenant() -> None:
    """Segments come and go while rows are held and notices wait; the oldest rows are dropped."""
    rig = Rig(4, plcs=3, max_size_bytes=2**19)
    rig.config |= {
        "quotas": {"acme": 6_000},
        "plcs": [{"id": p, "locatario": "acme"} for p in rig.plcs],
    }
    rig.start()
    assert rig.store is not None
    rig.outputs["a"].on = False
    for i in range(1_200):
        rig.step(0.1)
        for plc in rig.plcs:
            flooded(rig, plc, "g", 20, text="x" * 900)
        if i in (400, 800):
            kill_store(rig)
            rig.start()
    dropped = rig.store.outbox.dropped
    assert dropped.get("max_size"), dropped
    assert dropped.get("quota"), dropped
    rig.outputs["a"].on = True
    settle(rig)
    oracle = rig.oracles["a"]
    oracle.check(duplicates=0)
    oracle.check_quota()
    assert oracle.told + len(oracle.delivered) == len(oracle.acquired), "each is told of once"
    rig.close()
