"""The arithmetic of plans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.control_plane import quota
from services.control_plane.quota import GroupPoints

ROWS = st.builds(
    GroupPoints,
    st.just("clp-1"),
    st.just("g1"),
    fields=st.integers(1, 10_000),
    scan_ms=st.integers(10, 3_600_000),
)


@pytest.mark.parametrize(
    ("used", "limit", "state"),
    [
        (0, 100, "ok"), (79, 100, "ok"), (80, 100, "warning"), (100, 100, "warning"),
        (101, 100, "exceeded"), (0, 0, "warning"), (1, 0, "exceeded"),
    ],
)  # fmt: skip
def test_states(used: int, limit: int, state: str) -> None:
    assert quota.state(used, limit) == state


@given(ROWS)
def test_never_less_than_what_is_sent(group: GroupPoints) -> None:
    exact = group.fields * 60_000 / group.scan_ms
    assert exact <= group.per_min < exact + 1


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.integers(0, 10_000))
def test_boxes_within_their_shares_never_meet_above_the_plan(used: list[int], spare: int) -> None:
    limit = sum(used) + spare
    for at, own in enumerate(used):
        others = used[:at] + used[at + 1 :]
        share = quota.share(limit, own, others)
        assert own <= share
        assert share + sum(others) <= limit


def test_a_lowered_plan_takes_nothing_from_who_is_above_it() -> None:
    assert quota.share(5_000, 5_000, [5_000]) == 5_000
    assert quota.share(5_000, 0, [5_000]) == 1, "a box may always send something"


@given(st.lists(ROWS, max_size=5))
def test_the_arithmetic_names_every_addend(groups: list[GroupPoints]) -> None:
    text = quota.arithmetic(groups, {"caixa-2": 7, "caixa-3": 0})
    parts = text.split("; ")
    assert parts.pop() == "box caixa-2 = 7"
    assert [int(part.rpartition(" = ")[2]) for part in parts] == [g.per_min for g in groups]
