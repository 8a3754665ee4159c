"""How far an output has come, against a set: lanes that open again and again, receipts, drops,
restarts from what was saved.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.store_forward.latest import Latest
from services.store_forward.state import EARLIER_MAX, Cursor, State

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["rows", "part", "live", "backfill", "drop", "restart"]), st.integers(1, 9)
    ),
    max_size=60,
)


def lacking(cursor: Cursor, last: int) -> list[int]:
    return [pos for pos in range(1, last + 1) if cursor.lacks(pos)]


def restarted(cursor: Cursor, folder: Path, synced: Cursor) -> Cursor:
    """What another process finds; state.db may be older than the small file."""
    for saved in (synced, cursor):
        latest, state = Latest(folder / "latest.cursors"), State(folder / "state.db", put_aside)
        if saved is synced:
            state.save_cursors({"a": saved})
        else:
            latest.save({"a": saved})
        state.close()
        latest.close()
    state, latest = State(folder / "state.db", put_aside), Latest(folder / "latest.cursors")
    found = state.cursors()
    assert found["a"] == synced
    latest.bring_up(found)
    state.close()
    latest.close()
    return found["a"]


def put_aside(path: Path, why: str) -> None:
    raise AssertionError(f"{path}: {why}")


@given(steps=STEPS)
def test_it_lacks_what_was_not_delivered_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    cursor, last, delivered = Cursor(0, 0, 0), 0, set[int]()
    synced = Cursor(0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="pe", dir="/tmp") as name:
        for what, count in steps:
            before = cursor.done
            if what == "rows":
                last += count
            elif what == "part":
                cursor.part(last)
            elif what == "drop":
                cursor.pass_over(min(last, cursor.done + count))
                delivered |= set(range(1, min(last, before + count) + 1))
            elif what == "restart":
                cursor = restarted(cursor, Path(name), synced)
                synced.copy_from(cursor)
            elif what == "live" or not cursor.behind:
                first = cursor.skip_to + 1
                rows = range(first, min(last, first + count - 1) + 1)
                delivered |= set(rows)
                cursor.settle("live", max(rows, default=0))
            else:
                rows = range(cursor.done + 1, cursor.skip_from + 1)
                for pos in [pos for pos in rows if pos not in delivered][:count]:
                    assert cursor.backlog_after(pos - 1) == pos - 1
                    delivered.add(pos)
                    cursor.settle("backfill", pos)
            assert cursor.done >= before
            assert lacking(cursor, last) == [n for n in range(1, last + 1) if n not in delivered]
            beside = last - cursor.done - cursor.delivered_beside(cursor.done)
            assert beside == len(lacking(cursor, last))


def test_a_line_that_flaps_for_days_costs_repeats_not_memory() -> None:
    cursor = Cursor(0, 0, 0)
    for n in range(1, 100):
        cursor.part(100 * n)
        cursor.settle("live", 100 * n + (5 if n == 7 else 50))
    assert len(cursor.earlier) == EARLIER_MAX
    assert (700, 705) not in cursor.earlier, "the narrowest is forgotten first"
    cursor.settle("backfill", cursor.skip_from)
    assert not cursor.behind
    assert cursor.done == 9_950


@pytest.mark.parametrize("damage", ["crc", "order"])
def test_a_damaged_range_costs_repeats(tmp_path: Path, damage: str) -> None:
    state = State(tmp_path / "state.db", put_aside)
    state.save_cursors({"a": Cursor(1, 30, 35, [(5, 10), (20, 25)])})
    with state._db:
        if damage == "crc":
            state._db.execute("UPDATE beside SET skip_to = 15 WHERE skip_from = 5")
        else:  # what an older version left: the output came further meanwhile
            state._db.execute("DELETE FROM cursor")
    if damage == "order":
        state._saved.clear()
        state._db.execute("CREATE TEMP TABLE keep AS SELECT * FROM beside")
        state.save_cursors({"a": Cursor(22, 30, 35)})
        state._db.execute("INSERT INTO beside SELECT * FROM keep")
    state.close()
    state = State(tmp_path / "state.db", put_aside)
    assert state.cursors()["a"].earlier == ([(20, 25)] if damage == "crc" else [])
    state.close()
