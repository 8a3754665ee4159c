"""What roll-ups say: known time, counters across wrap and reset, parts and the whole; and that
whole columns give the same.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.historian.condense import Buckets, Times, condense
from services.historian.rolls import pack, unpack
from services.history.rollup import Reducer, Rollup, increase

HOLD_MS, STEP_MS = 65_000, 60_000
Sample = tuple[int, float | None, bool]
"""(ms since the one before, value or None, joined)."""
SAMPLES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 5_000), st.sampled_from([0, 60_000, 65_000, 65_001, 300_000])),
        st.one_of(st.none(), st.integers(-3, 40).map(float)),
        st.booleans(),
    ),
    max_size=60,
)


def reduced(samples: list[Sample], span: int = 0) -> dict[int, Rollup]:
    reducer, ts = Reducer(STEP_MS, HOLD_MS, span), 0
    for dt, value, joined in samples:
        ts += dt
        reducer.take(ts, value, joined)
    return reducer.open


@pytest.mark.parametrize(
    ("before", "now", "span", "counted"),
    [
        (10, 13, 0, 3),
        (10, 10, 0, 0),
        (32_760, -32_760, 65_536, 16),  # an INT went round
        (65_530, 4, 65_536, 10),  # a UINT
        (40_000, 3, 65_536, 3),  # set to zero: it was nowhere near its end
        (32_000, 0, 65_536, 0),
        (500, 20, 0, 20),  # a REAL, or scaled, never goes round
        (500, -4, 0, 0),
        (2**32 - 1, 1, 2**32, 2),
    ],
)
def test_a_counter_across_wrap_and_reset(
    before: float, now: float, span: int, counted: float
) -> None:
    assert increase(before, now, span) == counted


def test_a_gap_bad_quality_and_silence_are_not_known() -> None:
    second = 1_000
    made = reduced([
        (0, 1.0, False), (10 * second, 1.0, True), (10 * second, None, True),
        (10 * second, 3.0, True), (10 * second, 3.0, False), (5 * second, 0.0, True),
    ])[0]  # fmt: skip
    # Known: 0 to 20 s (up to the bad one), 40 to 45 s; not behind the bad one, hole, the end.
    assert made.known_ms == 25_000
    assert made.weighted == (20 * 1.0 + 5 * 3.0) / 25
    assert (made.count, made.low, made.high, made.last) == (5, 0.0, 3.0, 0.0)
    assert reduced([(0, 1.0, False), (HOLD_MS + 1, 1.0, True)])[0].known_ms == 0
    assert (
        sum(r.known_ms for r in reduced([(0, 1.0, False), (HOLD_MS, 1.0, True)]).values())
        == HOLD_MS
    )


def test_duty_and_edges_of_a_bool() -> None:
    made = reduced([(0, 0.0, False), (6_000, 1.0, True), (24_000, 0.0, True), (30_000, 1.0, True)])
    assert (made[0].weighted, made[0].edges) == (24 / 60, 1)
    assert made[60_000].edges == 1


@given(SAMPLES, st.integers(0, 60))
def test_parts_merge_to_the_whole(samples: list[Sample], at: int) -> None:
    """Wherever the state is kept and taken up again, and whatever is merged with what."""
    first, second = Reducer(STEP_MS, HOLD_MS), Reducer(STEP_MS, HOLD_MS)
    ts = 0
    for i, (dt, value, joined) in enumerate(samples):
        ts += dt
        if i == at:
            first, second = second, first
            first.restore(second.dump())
        first.take(ts, value, joined)
    assert {b: r.dump() for b, r in first.open.items()} == {
        b: r.dump() for b, r in reduced(samples).items()
    }
    whole = Rollup()
    for _, part in first.finish(2**60):
        whole.merge(part)
    good = [v for _, v, _ in samples if v is not None]
    assert (whole.count, whole.total) == (len(good), sum(good))
    assert whole.low == min(good, default=None)
    assert whole.high == max(good, default=None)
    assert whole.increase == sum(increase(a, b) for a, b in pairwise(good))
    if whole.weighted is not None:
        assert min(good) - 1e-9 <= whole.weighted <= max(good) + 1e-9


@given(SAMPLES, st.sampled_from([0, 32, 256]))
def test_columns_give_the_same(samples: list[Sample], span: int) -> None:
    ts = np.cumsum([dt for dt, _, _ in samples], dtype=np.int64)
    good = np.array([v is not None for _, v, _ in samples], np.bool_)
    joined = np.array([j for _, _, j in samples], np.bool_)
    values = np.array([v or 0.0 for _, v, _ in samples], np.float64)
    size = int(ts[-1]) // STEP_MS + 1 if len(ts) else 1
    made = condense(Times(ts, good, joined, 0, STEP_MS, size, HOLD_MS), values, span)
    wanted = reduced(samples, span)
    for i in range(size):
        same(made, i, wanted.get(i * STEP_MS, Rollup()))
    again = unpack(pack(made, 0), size, 0)
    for name in Buckets.__slots__:
        assert repr(getattr(again, name).tolist()) == repr(getattr(made, name).tolist()), name


def same(made: Buckets, i: int, wanted: Rollup) -> None:
    assert made.count[i] == wanted.count
    assert made.known_ms[i] == wanted.known_ms
    assert made.edges[i] == wanted.edges
    assert math.isclose(made.total[i], wanted.total, abs_tol=1e-9)
    assert math.isclose(made.area[i], wanted.area, abs_tol=1e-6)
    assert math.isclose(made.increase[i], wanted.increase, abs_tol=1e-9)
    for name in ("low", "high", "last"):
        value: Any = getattr(wanted, name)
        assert (
            np.isnan(getattr(made, name)[i]) if value is None else getattr(made, name)[i] == value
        )
