"""What the history gives is thinned before it is evaluated: that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.historian.oee import thinned
from services.historian.reading import Raw, Series
from services.oee.core.signal import NEVER, Signal, counts, runs

SERIES = Series("acme", "p1", "g1", "", "a")
HOLD_MS = 70
rows = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 3), st.integers(-40, 200)),  # ms since the one before
        st.integers(0, 3),
        st.sampled_from([0, 0, 0, 0, 1, 2]),  # quality
        st.sampled_from([True, True, True, True, False]),  # joined
    ),
    max_size=40,
)


@settings(max_examples=500, deadline=None)
@given(rows)
def test_thinned_says_the_same(given_rows: list[tuple[int, int, int, bool]]) -> None:
    ts, at = [], 1_000
    for step, *_ in given_rows:
        at += step
        ts.append(at)
    raw = Raw(
        SERIES,
        np.array(ts, np.int64),
        np.array([r[1] for r in given_rows], np.int64),
        np.array([r[2] for r in given_rows], np.uint8),
        [],
        np.array([r[3] for r in given_rows], np.bool_),
    )
    samples: list[tuple[int, Any]] = [
        (t, r[1] if r[2] == 0 else None) for t, r in zip(ts, given_rows, strict=True)
    ]
    # The same in the core's own words: what is missing between two messages is a loss.
    whole: list[tuple[int, Any]] = []
    for i, sample in enumerate(samples):
        if i and not given_rows[i][3] and ts[i] > ts[i - 1] + 1 and samples[i - 1][1] is not None:
            whole.append((ts[i - 1] + 1, None))
        whole.append(sample)
    plain = Signal(whole, HOLD_MS)
    thin = Signal(thinned(raw, HOLD_MS), NEVER)
    assert runs(thin) == runs(plain)
    assert len(thin.samples) <= 2 * len(samples) + 1
    for kind in ("UINT", "any"):
        assert counts(thin, kind, 10.0) == counts(plain, kind, 10.0)


def test_a_week_without_a_change_is_two_samples() -> None:
    ts = np.arange(0, 600_000, 10, dtype=np.int64)
    one = np.ones(len(ts), np.bool_)
    raw = Raw(SERIES, ts, one, np.zeros(len(ts), np.uint8), [], one)
    assert thinned(raw, HOLD_MS) == [(0, True), (599_990, True), (599_990 + HOLD_MS, None)]
