"""Whatever samples say: the parts are the window, and two windows side by side are one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.oee.core.calendar import Calendar
from services.oee.core.evaluate import evaluate
from services.oee.core.figures import PARTS, total
from services.oee.core.machine import Machine, Signals
from services.oee.core.signal import Run, Signal, runs
from services.oee.core.stretches import common, holds, length_ms, meets, union, without
from tests.unit.oee.kit import MIN, at, calendar, plan

BEGIN = at("2018-02-16 00:00")  # the night of 25 h is in it
SPAN = 4 * 1440 * MIN
CALENDAR = calendar(
    plan("manha", "06:00", "14:00", ("10:00", "10:30")),
    plan("tarde", "14:00", "22:00", ("18:00", "19:00")),
    plan("noite", "23:30", "05:30", ("23:45", "00:15"), days=(0, 1, 4, 5)),
    d2018_02_18=["manha"],
)
MACHINE = Machine(
    "m", ideal_ms=5_000, min_stop_ms=90_000, counters={"good": "UINT", "bad": "any"},
    planned=frozenset({"2"}),
)  # fmt: skip


def moments() -> st.SearchStrategy[int]:
    """With many of them exactly at edges."""
    edges = [e for s in CALENDAR.between(BEGIN, BEGIN + SPAN) for e in (s.begin_ms, s.end_ms)]
    return st.one_of(
        st.sampled_from(edges),
        st.integers(0, SPAN // MIN).map(lambda m: BEGIN + m * MIN),
        st.integers(BEGIN - MIN, BEGIN + SPAN + MIN),
    )


def samples(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[int, Any]]]:
    """Mostly in order; a clock may be set back."""
    pairs = st.lists(st.tuples(moments(), st.one_of(st.none(), values)), max_size=40)
    return st.one_of(pairs.map(lambda p: sorted(p, key=lambda s: s[0])), pairs)


def signals(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Signal]:
    lost = st.lists(st.tuples(moments(), moments()).map(lambda t: (min(t), max(t))), max_size=4)
    return st.builds(
        Signal, samples(values), st.sampled_from([MIN, 30 * MIN, 1440 * MIN]), lost.map(union)
    )


counters = st.one_of(st.integers(0, 65_535), st.integers(0, 50))
of_a_machine = st.builds(
    Signals,
    signals(st.booleans()),
    st.fixed_dictionaries({"good": signals(counters), "bad": signals(counters)}),
    st.lists(signals(st.integers(0, 3)), max_size=2).map(tuple),
)


def look(machine: Machine, found: Signals, begin: int, end: int, days: Calendar = CALENDAR) -> Any:
    return evaluate(machine, days.between(begin, end), found, begin, end)


@settings(max_examples=300, deadline=None)
@given(of_a_machine, moments(), moments())
def test_parts_are_the_window(found: Signals, a: int, b: int) -> None:
    begin, end = min(a, b), max(a, b)
    f = look(MACHINE, found, begin, end)
    assert set(f.parts_ms) == set(PARTS)
    assert all(ms >= 0 for ms in f.parts_ms.values())
    assert sum(f.parts_ms.values()) == end - begin
    stopped = f.parts_ms["stopped_planned"] + f.parts_ms["stopped_unplanned"]
    assert sum(s.stopped_ms for s in f.stops) == stopped == sum(f.reasons_ms.values())
    assert all(sum(ms for _, ms in s.reasons) == s.stopped_ms for s in f.stops)
    assert f.counted_ms <= f.parts_ms["running"]
    for ratio in (f.availability, f.quality):
        assert ratio is None or 0 <= ratio <= 1
    assert f.as_json()["parts_ms"] == f.parts_ms


@settings(max_examples=300, deadline=None)
@given(of_a_machine, moments(), moments(), moments())
def test_two_windows_side_by_side_are_one(found: Signals, a: int, b: int, c: int) -> None:
    a, b, c = sorted((a, b, c))
    whole = look(MACHINE, found, a, c)
    both = total([look(MACHINE, found, a, b), look(MACHINE, found, b, c)])
    assert both is not None
    for part in ("running", "unknown", "breaks", "outside"):
        assert both.parts_ms[part] == whole.parts_ms[part], part
    for of in ("unseen", "at_rest", "made"):
        one, two = getattr(whole, of).as_json(), getattr(both, of).as_json()
        assert {k: v or 0 for k, v in one.items()} == {k: v or 0 for k, v in two.items()}, of
    assert both.counted_ms == whole.counted_ms


@settings(max_examples=200, deadline=None)
@given(signals(st.integers(0, 2)))
def test_runs_against_a_plain_reading(signal: Signal) -> None:
    """At each moment: the sample that was last taken among those of that time or before, dropping
    what a clock set back makes invalid.
    """
    found = runs(signal)
    assert all(r.begin_ms < r.end_ms for r in found)
    assert all(a.end_ms <= b.begin_ms for a, b in pairwise(found))
    edges = {
        e + d for ts, _ in signal.samples for e in (ts, ts + signal.hold_ms) for d in (-1, 0, 1)
    }
    edges |= {e + d for stretch in signal.lost for e in stretch for d in (-1, 0, 1)}
    for t in edges:
        assert _at(found, t) == plainly(signal, t), t


def _at(found: list[Run], t: int) -> Any:
    return next((r.value for r in found if r.begin_ms <= t < r.end_ms), None)


def plainly(signal: Signal, t: int) -> Any:
    """What is known at t, looked up without any run."""
    left: list[tuple[int, Any]] = []
    for ts, value in signal.samples:
        left = [s for s in left if s[0] < ts] + [(ts, value)]
    at = max((i for i, s in enumerate(left) if s[0] <= t), default=None)
    if at is None:
        return None
    ts, value = left[at]
    lost = any(ts <= b <= t or (b <= ts < e) for b, e in signal.lost if b < e)
    return None if value is None or t >= ts + signal.hold_ms or lost else value


stretch_lists = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda t: (min(t), max(t))), max_size=6
)


@given(stretch_lists, stretch_lists)
def test_sets_of_moments(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    def points(stretches: list[tuple[int, int]]) -> set[int]:
        return {t for begin, end in stretches for t in range(begin, end)}

    x, y = union(a), union(b)
    assert points(x) == points(a)
    assert length_ms(x) == len(points(a))
    assert points(common(x, y)) == points(a) & points(b)
    assert points(without(x, y)) == points(a) - points(b)
    assert {t for t in range(31) if holds(x, t)} == points(a)
    assert meets(x, 7, 19) == bool(points(a) & set(range(7, 19)))


@given(st.integers(0, 366 * 20))
def test_shifts_of_a_day_follow_each_other(day: int) -> None:
    """Twenty years of days of this zone, DST and all: no moment in two shifts, no hole between
    those whose hours touch.
    """
    three = calendar(
        plan("a", "06:00", "14:00"), plan("b", "14:00", "23:30"), plan("c", "23:30", "06:00")
    )
    date = three.day_of(at("2005-01-01 12:00")) + timedelta(days=day)
    shifts = three.of_day(date) + three.of_day(date + timedelta(days=1))
    assert len({s.id for s in shifts}) == 6
    assert all(a.end_ms == b.begin_ms for a, b in pairwise(shifts))
    assert replace(three, exceptions={date: ()}).of_day(date) == []
