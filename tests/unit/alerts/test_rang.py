"""Alarms as spans of time, of transitions as they are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from services.alerts.memory import Change, Memory
from services.alerts.shown import rang


def transition(ts: int, to: str, **more: Any) -> dict[str, Any]:
    return {
        "ts": ts, "rule": "quente", "plc_id": "p1", "machine": None, "field": "t",
        "from": "ok" if to == "disparando" else "disparando", "to": to, "locatario_id": "acme",
        "site": "s", "group": "g", "severity": "aviso", "text": "", "began": None, **more,
    }  # fmt: skip


def spans(*transitions: dict[str, Any], begin: int = 0, end: int = 1_000) -> list[Any]:
    return [(a["begin"], a["end"]) for a in rang(transitions, [], begin, end)]


def test_a_beginning_and_its_end() -> None:
    begun = transition(10, "disparando", began=10)
    assert spans(begun, transition(20, "resfriando", began=10)) == [(10, 20)]
    # From cooling down to quiet nothing rings.
    quiet = transition(30, "ok", **{"from": "resfriando"})
    assert spans(begun, transition(20, "resfriando", began=10), quiet) == [(10, 20)]


def test_an_end_tells_when_it_had_begun() -> None:
    assert spans(transition(20, "ok", began=3), begin=10) == [(3, 20)]
    assert spans(transition(20, "ok", began=3), begin=21) == []


def test_places_are_apart() -> None:
    found = spans(
        transition(10, "disparando", machine="m1"), transition(11, "disparando", machine="m2"),
        transition(12, "ok", machine="m1", began=10), transition(15, "ok", machine="m2", began=11),
    )  # fmt: skip
    assert found == [(10, 12), (11, 15)]


def test_what_does_not_ring_any_more_and_has_no_end() -> None:
    assert spans(transition(10, "disparando")) == [(10, 10)]


def test_the_range_is_asked_of_the_history(tmp_path: Path) -> None:
    kept = Memory(tmp_path / "alerts.db", lambda path, why: pytest.fail(f"{path}: {why}"))
    told = [
        transition(10, "disparando", began=10), transition(20, "ok", began=10),
        transition(50, "disparando", began=50), transition(90, "ok", began=50),
    ]  # fmt: skip
    history = [(n, t["ts"], orjson.dumps(t)) for n, t in enumerate(told, start=1)]
    kept.save(Change({"now_ms": 5, "number": 7}, [], history=history))
    assert kept.touching(0, 30, 9) == told[:2]
    # It rang all through this range: only its end tells.
    assert [(a["begin"], a["end"]) for a in rang(kept.touching(60, 70, 9), [], 60, 70)] == [
        (50, 90)
    ]
    assert kept.touching(0, 100, 3) == told[:3]
