"""Holes: which rows join, and which losses nobody tells of."""

from __future__ import annotations

from typing import Any

from services.historian.sequences import TOLD_WITHIN_MS, Sequences
from services.historian.shapes import Stream

A, B = Stream("acme", "p1", "a", ""), Stream("acme", "p1", "b", "")


def gap(first: int, last: int | None, **more: Any) -> dict[str, Any]:
    return {"epoch": 5, "first_seq": first, "last_seq": last, **more}


def test_a_row_joins_where_nothing_of_its_plc_is_missing_since() -> None:
    s = Sequences()
    rows = [(A, 5, 1), (B, 5, 2), (A, 5, 3), (B, 5, 5), (A, 5, 6), (B, 5, 7), (B, 5, 6), (A, 6, 1)]
    joined = [s.add(*row) for row in rows]
    assert joined == [False, False, True, False, False, True, False, False]


def test_it_is_taken_up_where_it_was() -> None:
    s, again = Sequences(), Sequences()
    s.add(A, 5, 1)
    again.restore(s.dump(), [(A, (5, 1))])
    assert again.add(A, 5, 2)
    assert not again.add(A, 5, 4)


def test_a_hole_that_no_gap_names_is_told_once() -> None:
    s = Sequences()
    for seq in (1, 2, 6, 7, 20, 30):
        s.add(A, 5, seq, now_ms=1_000)
    s.tell("acme", "p1", gap(3, 5))
    s.tell("acme", "p2", gap(8, 19))  # another PLC's
    s.tell("acme", "p1", gap(8, 19, seqs=[[8, 9], [12, 19]]))
    assert s.untold(1_000 + TOLD_WITHIN_MS - 1) == []
    assert [(h.first, h.last) for h in s.untold(1_000 + TOLD_WITHIN_MS)] == [(10, 11), (21, 29)]
    assert s.untold(10**9) == []


def test_an_open_gap_and_a_new_epoch_tell_of_no_hole() -> None:
    s = Sequences()
    s.add(A, 5, 1, 0)
    s.add(A, 5, 9, 0)
    s.tell("acme", "p1", gap(2, None))
    s.add(A, 6, 1, 0)
    assert s.untold(10**9) == []
