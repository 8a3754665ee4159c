"""Whom the meter warns and whom it stops, against a plain telling of the rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.control_plane.quota import (
    BLOCK_MINUTES,
    CREDIT_MINUTES,
    WINDOW_S,
    Minute,
    Standing,
    idle,
    judge,
    window,
)

LIMIT = 500
BEGIN_S = 1_764_000_000 // WINDOW_S * WINDOW_S
LOADS = st.lists(st.integers(0, 5 * LIMIT), max_size=200)


def run(minutes: list[tuple[int, int]], limit: int = LIMIT) -> list[tuple[int, str]]:
    """(minute, what was said) of loads and how much of them was late."""
    standing, said = Standing(), []
    for i, (load, late) in enumerate(minutes):
        standing, words = judge(standing, Minute(BEGIN_S + 60 * i, load, late), limit)
        assert 0 <= standing.credit <= CREDIT_MINUTES * limit
        said += [(i, word) for word in words]
    return said


@given(LOADS)
def test_the_right_goes_at_the_fifth_minute_in_a_row_beyond_twice_and_at_no_other(
    loads: list[int],
) -> None:
    expected, in_a_row, until_s = [], 0, 0
    for i, load in enumerate(loads):
        in_a_row = in_a_row + 1 if load > 2 * LIMIT else 0
        end_s = BEGIN_S + 60 * (i + 1)
        if in_a_row >= BLOCK_MINUTES and end_s >= until_s:
            expected.append(i)
            in_a_row = 0
            until_s = end_s // WINDOW_S * WINDOW_S + WINDOW_S
    assert [i for i, w in run([(n, 0) for n in loads]) if w == "withdrawn"] == expected


@given(LOADS)
def test_a_warning_and_a_passed_plan_are_told_once_a_window(loads: list[int]) -> None:
    said = run([(n, 0) for n in loads])
    for word, share in (("warning", 0.8), ("exceeded", 1.0)):
        told = [i for i, w in said if w == word]
        windows = [window(BEGIN_S + 60 * i) for i in told]
        assert len(windows) == len(set(windows))
        passed = {
            window(BEGIN_S + 60 * i)
            for i, n in enumerate(loads)
            if (n >= share * LIMIT if share < 1 else n > LIMIT)
        }
        assert set(windows) == passed


@given(st.lists(st.integers(0, LIMIT), min_size=1, max_size=60), st.integers(1, 5), st.data())
def test_a_box_that_was_cut_off_is_never_stopped(
    read: list[int], minutes: int, data: st.DataObject
) -> None:
    """What it read within its plan comes later, in few minutes."""
    standing = idle(Standing(), len(read), LIMIT)
    left = sum(read)
    for i in range(minutes):
        part = left if i == minutes - 1 else data.draw(st.integers(0, left))
        left -= part
        now = data.draw(st.integers(0, LIMIT))
        minute = Minute(BEGIN_S + 60 * i, part + now, part)
        standing, words = judge(standing, minute, LIMIT)
        assert not {"exceeded", "withdrawn"} & set(words)


@given(st.integers(0, 10 * CREDIT_MINUTES), st.integers(1, 10**6))
def test_old_dates_open_no_more_than_what_was_left_unused(unused_minutes: int, limit: int) -> None:
    standing = idle(Standing(), unused_minutes, limit)
    flood = (3 + unused_minutes) * limit
    said = []
    for i in range(BLOCK_MINUTES + 1):
        standing, words = judge(standing, Minute(BEGIN_S + 60 * i, flood, flood), limit)
        said += words
    assert "withdrawn" in said


@given(st.integers(0, 10**5), st.integers(0, 10**5))
def test_idle_minutes_are_so_many_empty_ones(before: int, minutes: int) -> None:
    start = Standing(over_minutes=4, credit=before * LIMIT // 7)
    one_by_one = start
    for i in range(min(minutes, 50)):
        one_by_one, words = judge(one_by_one, Minute(BEGIN_S + 60 * i), LIMIT)
        assert not words
    assert idle(start, min(minutes, 50), LIMIT) == one_by_one
