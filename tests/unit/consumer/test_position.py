"""What a consumer has taken already, and what only looks like it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bus.frames import GAP_ROW, SAMPLE_ROW
from services.consumer.position import Position
from services.consumer.row import Row


def row(position: int, seq: int, epoch: int = 1, plc: str = "p1", kind: int = SAMPLE_ROW) -> Row:
    return Row(1, "live", 0, position, kind, plc, "acme", 0, epoch, seq, b"{}")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5))
def test_whatever_is_given_again_is_taken_once(committed: int, cursor: int, plcs: int) -> None:
    rows = [row(n, n // plcs + 1, plc=f"p{n % plcs}") for n in range(31)]
    before = Position()
    before.take(rows[:committed])
    again = Position(before.pack()).take(rows[min(cursor, committed) :])
    assert again == rows[committed:]


def test_new_rows_under_old_positions_are_taken() -> None:
    position = Position()
    position.take([row(n, n) for n in range(1, 11)])
    # The store's files were lost and it counts from 5 on again.
    again = [row(5, 11), row(6, 1, epoch=2), row(7, 1, plc="p2")]
    assert position.take(again) == again
    assert position.take(again) == []


def test_a_gap_and_a_message_sent_again_are_taken_at_their_new_place() -> None:
    position = Position()
    position.take([row(1, 1), row(2, 2)])
    again = [row(3, 1), row(4, 1, kind=GAP_ROW)]
    assert position.take(again) == again
    assert Position(position.pack()).take([row(5, 3)])
