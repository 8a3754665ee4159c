"""The ledger against a simple model: what may be receipted is what was settled, and no more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.consumer.ledger import Ledger, PositionsChanged
from services.consumer.row import Row

WINDOW = 5


def wired(
    position: int, plc: str = "p1", epoch: int = 1
) -> tuple[int, int, str, str, int, int, int, bytes]:
    return (position, 0, plc, "acme", 0, epoch, position, b"{}")


def rows(*positions: int) -> list[tuple[int, int, str, str, int, int, int, bytes]]:
    return [wired(p) for p in positions]


def begun() -> Ledger:
    ledger = Ledger("central", WINDOW)
    ledger.begin(1)
    return ledger


def test_only_the_contiguous_prefix_is_receipted() -> None:
    ledger = begun()
    first, second, third = ledger.take("live", rows(3, 5, 9))
    assert ledger.settle(third)
    assert ledger.receipts() == []
    assert ledger.settle(first)
    assert [r.position for r in ledger.receipts()] == [3]
    assert ledger.settle(second)
    (receipt,) = ledger.receipts()
    assert (receipt.lane, receipt.position, receipt.session, receipt.refused) == ("live", 9, 1, [])
    ledger.sent(receipt)
    assert ledger.receipts() == []
    assert ledger.flying == 0


def test_rows_in_flight_and_settled_rows_are_not_sent_again() -> None:
    ledger = begun()
    first, _ = ledger.take("live", rows(1, 2))
    ledger.settle(first)
    for receipt in ledger.receipts():
        ledger.sent(receipt)
    assert ledger.take("live", rows(1, 2)) == []
    assert [r.position for r in ledger.receipts()] == [1], "the receipt is said again"
    assert [r.position for r in ledger.take("live", rows(2, 3))] == [3]
    assert not ledger.settle(first), "settled twice"


def test_a_dead_letter_is_said_again_when_its_receipt_was_lost() -> None:
    ledger = begun()
    (row,) = ledger.take("live", rows(1))
    ledger.settle(row, "too large")
    for receipt in ledger.receipts():
        assert receipt.refused == [(1, "too large")]
        ledger.sent(receipt)
    ledger.take("live", rows(1))
    assert ledger.receipts()[0].refused == [(1, "too large")]


@pytest.mark.parametrize("settled", [True, False])
def test_other_rows_under_known_positions(settled: bool) -> None:
    ledger = begun()
    (row,) = ledger.take("live", rows(1))
    if settled:
        ledger.settle(row)
    with pytest.raises(PositionsChanged):
        ledger.take("live", [wired(1, epoch=2)])
    ledger.begin(2)
    assert [r.position for r in ledger.take("live", [wired(1, epoch=2)])] == [1]
    assert not ledger.settle(row), "a row of the old session settled one of the new"
    assert ledger.receipts() == []


def test_lanes_are_apart() -> None:
    ledger = begun()
    ledger.take("live", rows(100))
    (old,) = ledger.take("backfill", rows(1))
    ledger.settle(old)
    assert [(r.lane, r.position) for r in ledger.receipts()] == [("backfill", 1)]


def test_it_remembers_a_bounded_number_of_rows() -> None:
    ledger = begun()
    for position in range(1, 2_000):
        (row,) = ledger.take("live", rows(position))
        ledger.settle(row)
    assert len(ledger._lanes["live"].known) <= 8 * WINDOW
    with pytest.raises(PositionsChanged):
        ledger.take("live", rows(1))


@given(st.data())
def test_whatever_happens_nothing_unsettled_is_receipted(data: st.DataObject) -> None:
    """A store that restarts at its durable cursor, an output that settles in any order."""
    ledger = begun()
    total, durable, given_to = 30, 0, 0
    settled: set[int] = set()
    sent: list[int] = []
    flying: list[Row] = []

    def note(new: Sequence[Row]) -> None:
        sent.extend(r.position for r in new)
        flying.extend(new)

    for _ in range(60):
        what = data.draw(st.sampled_from(["give", "settle", "receipt", "restart"]))
        if what == "give":
            upto = min(total, durable + WINDOW)
            note(ledger.take("live", rows(*range(given_to + 1, upto + 1))))
            given_to = max(given_to, upto)
        elif what == "settle" and flying:
            row = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
            assert ledger.settle(row)
            settled.add(row.position)
        elif what == "receipt":
            for receipt in ledger.receipts():
                assert set(range(1, receipt.position + 1)) <= settled
                durable = max(durable, receipt.position)
                given_to = max(given_to, durable)
                ledger.sent(receipt)
        elif what == "restart":
            given_to = durable
    assert sent == sorted(set(sent)), "a row was sent twice or out of order"
