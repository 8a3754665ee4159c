"""What the centre has taken, against a plain set."""

from __future__ import annotations

from itertools import pairwise

import orjson
from hypothesis import given
from hypothesis import strategies as st

from bus.frames import GAP_ROW, SAMPLE_ROW
from services.consumer.row import Row
from services.consumer.seen import MAX_EPOCHS, MAX_RANGES, Seen, add


def row(seq: int, epoch: int = 1, plc: str = "p1", locatario: str = "acme") -> Row:
    return Row(1, "live", 0, 0, SAMPLE_ROW, plc, locatario, 0, epoch, seq, b"{}")


def gap(first: int, last: int | None) -> Row:
    body = orjson.dumps({"first_seq": first, "last_seq": last})
    return Row(1, "live", 0, 0, GAP_ROW, "p1", "acme", 0, 1, first, body)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5))))
def test_ranges_are_a_set(spans: list[tuple[int, int]]) -> None:
    ranges: list[list[int]] = []
    plain: set[int] = set()
    for first, more in spans:
        span = set(range(first, first + more + 1))
        assert add(ranges, first, first + more) == bool(span - plain)
        plain |= span
        assert plain == {n for a, b in ranges for n in range(a, b + 1)}
        assert all(b + 1 < c for (_, b), (c, _) in pairwise(ranges))


@given(st.lists(st.integers(1, 30)), st.integers(0, 30))
def test_each_message_once_in_whatever_order_and_over_a_restart(seqs: list[int], half: int) -> None:
    rows = [row(n) for n in seqs]
    first = Seen()
    taken = first.take(rows[:half])
    taken += Seen(first.pack()).take(rows[half:])
    assert [r.seq for r in taken] == list(dict.fromkeys(seqs))


def test_tenants_plcs_and_epochs_are_apart() -> None:
    rows = [row(1), row(1, epoch=2), row(1, plc="p2"), row(1, locatario="beta")]
    seen = Seen()
    assert seen.take(rows) == rows
    assert seen.take(rows) == []


def test_a_gap_closes_its_hole() -> None:
    seen = Seen()
    rows = [row(1), row(5), gap(2, 4), gap(6, None)]
    assert seen.take(rows) == rows
    assert seen.take([gap(2, 4), row(3)]) == [], "told again, and what was told of"
    assert orjson.loads(seen.pack()) == {"acme/p1": {"1": [[1, 6]]}}


def test_it_stays_small() -> None:
    seen = Seen()
    seen.take(row(2 * n, epoch=e) for e in range(1, 20) for n in range(1, 3 * MAX_RANGES))
    (epochs,) = orjson.loads(seen.pack()).values()
    assert len(epochs) == MAX_EPOCHS
    assert min(epochs, key=int) == str(20 - MAX_EPOCHS)
    assert max(len(r) for r in epochs.values()) == MAX_RANGES


def notice(seqs: object, first: int, **more: object) -> Row:
    body = orjson.dumps({"first_seq": first, "reason": "quota", "seqs": seqs, **more})
    return Row(1, "live", 0, 0, GAP_ROW, "p1", "acme", 0, 1, first, body)


def test_a_quota_notice_closes_what_it_names_and_not_what_lies_between() -> None:
    seen = Seen()
    rows = [row(1), notice([[2, 3], [5, 8]], 2, last_seq=8, count=6), row(9)]
    assert seen.take(rows) == rows
    assert seen.take([row(3), row(8), rows[1]]) == []
    assert [r.seq for r in seen.take([row(4)])] == [4], "on its way all the while"
    assert orjson.loads(seen.pack()) == {"acme/p1": {"1": [[1, 9]]}}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=8,
    )
)
def test_whatever_a_notice_says_nobody_dies_of_it(seqs: object) -> None:
    try:
        rows = [notice(seqs, 7), notice(None, 8, last_seq=seqs)]
    except TypeError:  # no JSON: an integer that is too large
        return
    seen = Seen()
    seen.take(rows)
    orjson.loads(seen.pack())
