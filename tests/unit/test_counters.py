"""The oracle of counters (tests/kit/counters.py) sees what is missing, and where it was told."""

from __future__ import annotations

from typing import Any

from tests.kit.counters import course, in_order


def data(seq: int, n: int | None, why: str = "") -> dict[str, Any]:
    values = {} if n is None else {"n": n}
    return {"epoch": 1, "seq": seq, "values": values, "bad": {"*": why} if why else {}}


def test_a_hole_that_nobody_tells() -> None:
    c = course([data(1, 5), data(2, 6), data(3, 9)], "n")
    assert (c.first, c.last, c.count) == (5, 9, 3)
    assert (c.untold, c.told) == ([(6, 9)], [])


def test_a_hole_is_told_where_it_is_and_nowhere_else() -> None:
    for why in ("changes_lost", "plc_offline"):
        c = course([data(1, 5), data(2, None, why), data(3, 9), data(4, 12)], "n")
        assert (c.told, c.untold, c.missing) == ([(5, 9)], [(9, 12)], 3)
    before = course([data(1, None, "plc_offline"), data(2, 5), data(3, 9)], "n")
    assert before.untold == [(5, 9)]
    after = course([data(1, 5), data(2, 9), data(3, 9, "changes_lost")], "n")
    assert after.untold == [(5, 9)]
    assert course([data(1, 5), data(2, 9, "server_suspended")], "n").untold == [(5, 9)]


def test_a_gap_tells_at_its_place() -> None:
    gap = {"epoch": 1, "first_seq": 2, "last_seq": 3}
    c = course(in_order([data(4, 9), data(1, 5), gap, data(5, 11)]), "n")
    assert (c.told, c.untold) == ([(5, 9)], [(9, 11)])


def test_what_goes_back() -> None:
    assert course([data(1, 5), data(2, 6), data(3, 5)], "n").back == [(6, 5)]


def test_from_a_number_on() -> None:
    c = course([data(1, 3), data(2, 7)], "n", after=5)
    assert (c.untold, c.count) == ([(5, 7)], 1)
