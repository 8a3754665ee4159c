"""``alerts.db``: all of a commit or nothing, and bounds."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from services.alerts import memory
from services.alerts.memory import Change, Memory

HEAD = {"now_ms": 5, "number": 7}


def fresh(folder: Path) -> Memory:
    return Memory(folder / "alerts" / "alerts.db", lambda path, why: pytest.fail(f"{path}: {why}"))


def test_what_was_saved_is_there_and_position_only_where_given(tmp_path: Path) -> None:
    kept = fresh(tmp_path)
    assert kept.state() is None
    assert kept.position() == b""
    plcs = {("acme", "p1"): [1, None, True, 0.5, "x"], ("acme", "p2"): [2]}
    kept.save(Change(HEAD, [["acme", "box"]], plcs, [(7, 5, b"{}")], position=b"here"))
    kept.save(Change(HEAD, [], {("acme", "p2"): None}))
    assert kept.state() == {**HEAD, "boxes": [], "plcs": [plcs["acme", "p1"]]}
    assert kept.position() == b"here"
    assert kept.history(10) == [{}]


def test_half_a_change_is_none(tmp_path: Path) -> None:
    kept = fresh(tmp_path)
    kept.save(Change(HEAD, [], history=[(1, 5, b"1")], position=b"a"))
    with pytest.raises(apsw.ConstraintError):
        kept.save(Change(HEAD, [], history=[(2, 5, b"2"), (1, 5, b"1")], position=b"b"))
    assert (kept.history(10), kept.position()) == ([1], b"a")


def test_the_queue_keeps_order_and_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "QUEUE_ROWS", 3)
    kept = fresh(tmp_path)
    queue = [(name, n, b"%d" % n) for name in ("one", "gone") for n in range(1, 6)]
    kept.save(Change(HEAD, [], queue=queue))
    assert kept.next("one") == (1, b"1")
    assert kept.prune(0, ["one"]) == {"one": 2}
    assert (kept.waiting("one"), kept.waiting("gone")) == (3, 0)
    assert kept.next("one") == (3, b"3")
    assert kept.told("one", 3)
    assert kept.next("one") == (4, b"4")


def test_history_ends_by_age_and_by_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "HISTORY_ROWS", 3)
    kept = fresh(tmp_path)
    kept.save(Change(HEAD, [], history=[(n, n, b"%d" % n) for n in range(1, 7)]))
    kept.prune(0, [])
    assert kept.history(10) == [6, 5, 4]
    kept.prune(memory.HISTORY_MS + 6, [])
    assert kept.history(10) == [6]
