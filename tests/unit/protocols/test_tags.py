"""Whatever order and times a subscription's changes come in, each is told, in its own reading."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.protocols.source import Reading
from services.protocols.tags import (
    FILL_MS,
    GATHER_MS,
    LATE_MS,
    NO_VALUE,
    TIME_TOLERANCE_MS,
    Change,
    Tags,
)
from tests.kit.engine_rig import tags

NOW_MS = 1_764_000_000_000


class Group:
    """Three subscribed INT tags that have had their first values."""

    def __init__(self, names: str = "abc") -> None:
        self.now_ms = NOW_MS
        self.tags = Tags(tags("g1", *names, mode="subscribe"), lambda: self.now_ms)
        self.first = self.tell(*(Change(name, 0) for name in names))

    def tell(self, *changes: Change) -> list[Reading]:
        return list(self.tags.changed(changes))


def values(reading: Reading) -> dict[str, Any]:
    ((_, found, _),) = reading.records
    return dict(found)


times = st.integers(NOW_MS - 5_000, NOW_MS + 50)
batches = st.lists(
    st.lists(st.tuples(st.sampled_from("abc"), times), min_size=1, max_size=20), max_size=8
)


@given(batches)
def test_every_change_is_in_a_reading_in_the_order_of_its_tag(
    given_batches: list[list[tuple[str, int]]],
) -> None:
    group = Group()
    told: dict[str, list[int]] = {name: [0] for name in "abc"}
    sent: dict[str, list[int]] = {name: [0] for name in "abc"}
    number, stamps = 0, [group.first[0].ts_ms]
    for batch in given_batches:
        changes = []
        for name, ts_ms in batch:
            number += 1
            sent[name].append(number)
            changes.append(Change(name, number, ts_ms=ts_ms))
        for reading in group.tell(*changes):
            stamps.append(reading.ts_ms)
            for name, value in values(reading).items():
                if value != told[name][-1]:
                    told[name].append(value)
    assert told == sent
    # No two at one time; back only by more than what is merely late.
    assert all(b > a or a - b > LATE_MS for a, b in pairwise(stamps))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3_000)), max_size=60))
def test_times_are_the_sources_own(moves: list[tuple[str, int]]) -> None:
    """Of one batch in good order: a reading has the time of a change in it, and none differs from
    its change's by more than what is gathered.
    """
    group = Group()
    group.now_ms += 10_000
    moves.sort(key=lambda move: move[1])
    changes = [Change(name, n, ts_ms=NOW_MS + 10 + ms) for n, (name, ms) in enumerate(moves, 1)]
    by_number = {c.value: c.ts_ms for c in changes}
    before = {"a": 0, "b": 0, "c": 0}
    for reading in group.tell(*changes):
        found = values(reading)
        new = [v for name, v in found.items() if v != before[name]]
        offs = [reading.ts_ms - by_number[v] for v in new]
        # Two changes of one tag in one ms are a ms apart.
        assert all(0 <= off <= GATHER_MS + len(moves) for off in offs)
        before = found


def test_a_sweep_of_the_server_is_one_moment_and_the_next_another() -> None:
    names = "abcdefgh"
    group = Group(names)
    group.now_ms += 1_000
    first = [Change(n, 1, ts_ms=NOW_MS + 500 + i) for i, n in enumerate(names)]
    second = [Change(n, 2, ts_ms=NOW_MS + 600 + i) for i, n in enumerate(names)]
    told = group.tell(*first, *second)
    assert [reading.ts_ms for reading in told] == [NOW_MS + 507, NOW_MS + 607]
    assert [set(values(reading).values()) for reading in told] == [{1}, {2}]


def test_what_was_told_stays_as_it_was() -> None:
    group = Group()
    told = group.tell(*(Change("a", n, ts_ms=NOW_MS + n) for n in range(1, 5)))
    assert [values(reading)["a"] for reading in told] == [1, 2, 3, 4]


def test_a_server_that_lies_about_the_time() -> None:
    group = Group()
    (far,) = group.tell(Change("a", 1, ts_ms=NOW_MS - TIME_TOLERANCE_MS - 1))
    assert (far.doubt, far.ts_ms) == ("source_time_off", NOW_MS + 1)
    group.now_ms += 1_000
    (future,) = group.tell(Change("a", 2, ts_ms=NOW_MS + TIME_TOLERANCE_MS + 2_000))
    assert (future.doubt, future.ts_ms) == ("source_time_off", NOW_MS + 1_000)
    (good,) = group.tell(Change("a", 3, ts_ms=NOW_MS + 1_100))
    assert (good.doubt, good.ts_ms) == ("", NOW_MS + 1_100)


def test_first_values_are_waited_for_but_not_for_ever() -> None:
    now_ms = NOW_MS
    group = Tags(tags("g1", "a", "b", mode="subscribe"), lambda: now_ms)
    assert group.held() is None
    assert not list(group.changed([Change("a", 1)]))
    assert group.held() is None
    now_ms += FILL_MS + 1
    reading = group.held()
    assert reading is not None
    ((changed, found, bad),) = reading.records
    assert (changed, found, bad) == (True, {"a": 1}, {"b": NO_VALUE})
    (late,) = group.changed([Change("b", 5, ts_ms=now_ms)])
    assert late.records == [(True, {"a": 1, "b": 5}, {})]


def test_a_change_does_not_wait_for_first_values() -> None:
    now_ms = NOW_MS
    group = Tags(tags("g1", "a", "b", mode="subscribe"), lambda: now_ms)
    told = list(group.changed([Change("a", 1), Change("a", 2, ts_ms=NOW_MS)]))
    assert [r.records[0][1:] for r in told] == [
        ({"a": 1}, {"b": NO_VALUE}),
        ({"a": 2}, {"b": NO_VALUE}),
    ]


def test_a_repeat_does_not_overtake_a_change_on_its_way() -> None:
    """What is held is told for a moment before which every change has arrived."""
    group = Group()
    group.now_ms += 60_000
    repeat = group.tags.held()
    assert repeat is not None
    # Sampled right after the last publishing interval, here one later.
    on_its_way_ms = group.now_ms - 50
    (told,) = group.tell(Change("a", 1, ts_ms=on_its_way_ms))
    assert repeat.ts_ms < told.ts_ms == on_its_way_ms


def test_a_repeat_of_a_server_whose_clock_is_behind() -> None:
    group = Group()
    behind_ms = 20_000
    group.now_ms += 60_000
    group.tell(Change("a", 1, ts_ms=group.now_ms - behind_ms))
    group.now_ms += 60_000
    repeat = group.tags.held()
    (told,) = group.tell(Change("a", 2, ts_ms=group.now_ms - behind_ms - 30))
    assert repeat is not None
    assert repeat.ts_ms < told.ts_ms == group.now_ms - behind_ms - 30


def test_refused_and_given_again() -> None:
    group = Group()
    group.tell(Change("a", bad="BadNodeIdUnknown", ts_ms=NOW_MS))
    assert group.tags.refused == {"n=a": "BadNodeIdUnknown"}
    (told,) = group.tell(Change("a", 4, ts_ms=NOW_MS + 50))
    assert group.tags.refused == {}
    assert values(told) == {"a": 4, "b": 0, "c": 0}


def test_first_values_that_come_with_changes_are_older_than_those() -> None:
    """A server that tells every 10 s tells both at once."""
    group = Tags(tags("g1", "a", mode="subscribe"), lambda: NOW_MS)
    told = list(group.changed([Change("a", 0), *later("a", NOW_MS - 8_000, NOW_MS - 1_000)]))
    assert [values(reading)["a"] for reading in told] == [0, 1, 2]
    assert [r.ts_ms for r in told] == [NOW_MS - 8_001, NOW_MS - 8_000, NOW_MS - 1_000]


def test_a_repeat_goes_on_where_the_sources_time_is_none() -> None:
    group = Group()
    group.tell(Change("a", 1, ts_ms=NOW_MS - TIME_TOLERANCE_MS - 1))
    group.now_ms += 60_000
    repeat = group.tags.held()
    assert repeat is not None
    assert repeat.ts_ms > group.now_ms - 10_000


def test_a_late_change_shows_no_other_tag_as_it_was_not_yet() -> None:
    group = Group()
    group.now_ms += 100_000
    (new,) = group.tell(Change("b", 1, ts_ms=NOW_MS + 50_000))
    (late,) = group.tell(Change("a", 1, ts_ms=NOW_MS + 10_000))
    assert (late.ts_ms, values(late)["b"]) == (NOW_MS + 10_000, 1)  # it was 0 then
    assert (new.doubt, late.doubt) == ("", "late_change")
    repeat = group.tags.held()
    assert repeat is not None
    assert (repeat.doubt, repeat.ts_ms > new.ts_ms) == ("", True)


def test_a_late_change_of_what_nothing_else_has_passed() -> None:
    group = Group()
    group.now_ms += 100_000
    group.tell(Change("a", 1, ts_ms=NOW_MS + 50_000), Change("b", 1, ts_ms=NOW_MS + 10_000))
    (back,) = group.tell(Change("a", 2, ts_ms=NOW_MS + 30_000))  # the server's clock was set
    assert (back.ts_ms, back.doubt) == (NOW_MS + 30_000, "")


def later(name: str, *times_ms: int) -> list[Change]:
    return [Change(name, n, ts_ms=ts_ms) for n, ts_ms in enumerate(times_ms, 1)]
