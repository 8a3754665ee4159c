"""The table of what must happen outside: whose turn it is, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.control_plane import effects
from services.control_plane.db import Database
from services.control_plane.effects import BACKOFF_MAX_MS, Due


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/c.db")
    made.migrate()
    with made.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_head VALUES (1, 0, '')")
    yield made
    made.close()


def test_many_changes_of_a_tenant_are_one_turn_and_the_oldest_comes_first(
    database: Database,
) -> None:
    with database.writing(None) as session:
        for tenant, due_ms in (("b", 10), ("a", 10), ("b", 10), ("a", 99), ("c", 99)):
            effects.add(session, "broker", tenant, due_ms)
    with database.writing(None) as session:
        turn = effects.due(session, "broker", 10)
        assert turn == [Due("b", "broker", 3), Due("a", "broker", 2)]
        effects.add(session, "broker", "b", 10)  # while the turn is carried out
        for one in turn:
            effects.finish(session, one, 10)
    with database.reading(None) as session:
        assert effects.due(session, "broker", 10) == [Due("b", "broker", 6)]
        assert effects.due(session, "broker", 99) == [
            Due("b", "broker", 6),
            Due("a", "broker", 4),
            Due("c", "broker", 5),
        ]
        assert effects.next_due_ms(session, "broker") == 10


def test_what_is_refused_comes_again_later_and_later(database: Database) -> None:
    with database.writing(None) as session:
        effects.add(session, "broker", "a", 0)
    waits, now_ms = [], 0
    for _ in range(9):
        with database.writing(None) as session:
            (one,) = effects.due(session, "broker", now_ms)
            effects.postpone(session, one, now_ms, "no")
        with database.reading(None) as session:
            next_ms = effects.next_due_ms(session, "broker")
            assert next_ms is not None
            assert not effects.due(session, "broker", next_ms - 1)
        waits.append(next_ms - now_ms)
        now_ms = next_ms
    assert waits[:4] == [1_000, 2_000, 4_000, 8_000]
    assert waits == sorted(waits)
    assert waits[-1] == BACKOFF_MAX_MS
