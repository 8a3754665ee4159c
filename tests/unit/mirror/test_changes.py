"""What a mirror writes: exactly what differs, never outside its ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mirror.changes import MERGE_GAP_BYTES, Range, pieces
from services.mirror.guard import Guard, WriteRefused


@given(
    old=st.binary(min_size=300, max_size=300),
    new=st.binary(min_size=300, max_size=300),
    limit=st.integers(1, 400),
    data=st.data(),
)
def test_applying_the_pieces_makes_the_target_equal(
    old: bytes, new: bytes, limit: int, data: st.DataObject
) -> None:
    first = 100
    ranges = []
    target = bytearray(b"\xaa" * 1_000)
    at = 0
    for _ in range(data.draw(st.integers(1, 4))):
        length = data.draw(st.integers(1, 60))
        source = data.draw(st.integers(0, 300 - length))
        ranges.append(Range(first + source, length, at))
        target[at : at + length] = old[source : source + length]
        at += length + data.draw(st.integers(0, 40))
    for image in (new, old, new):
        for piece in pieces(ranges, old, image, first, limit):
            assert 1 <= len(piece.data) <= limit
            target[piece.start : piece.start + len(piece.data)] = piece.data
        for r in ranges:
            want = image[r.source - first : r.source - first + r.length]
            assert bytes(target[r.target : r.target + r.length]) == want
        old = image
    covered = {i for r in ranges for i in range(r.target, r.target + r.length)}
    assert all(target[i] == 0xAA for i in range(1_000) if i not in covered)


def test_nothing_changed_writes_nothing() -> None:
    assert pieces([Range(0, 50, 0)], bytes(50), bytes(50), 0, 200) == []


@pytest.mark.parametrize(("gap", "count"), [(MERGE_GAP_BYTES, 1), (MERGE_GAP_BYTES + 1, 2)])
def test_a_gap_is_written_where_that_is_cheaper(gap: int, count: int) -> None:
    new = b"\1" + bytes(gap) + b"\1"
    assert len(pieces([Range(0, len(new), 0)], bytes(len(new)), new, 0, 900)) == count


def test_an_unknown_target_is_written_whole() -> None:
    assert [p.start for p in pieces([Range(0, 500, 10)], None, bytes(500), 0, 200)] == [
        10,
        210,
        410,
    ]


@given(
    ranges=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), min_size=1, max_size=5),
    db=st.integers(1, 3),
    start=st.integers(-5, 110),
    length=st.integers(-1, 20),
)
def test_the_guard_lets_exactly_the_ranges_pass(
    ranges: list[tuple[int, int]], db: int, start: int, length: int
) -> None:
    allowed = {i for a, n in ranges for i in range(a, a + n)}
    guard = Guard(2, [(a, a + n) for a, n in ranges])
    inside = db == 2 and length >= 1 and set(range(start, start + length)) <= allowed
    if inside:
        guard.check(db, start, length)
    else:
        with pytest.raises(WriteRefused):
            guard.check(db, start, length)
        assert guard.refusals == 1
