"""Questions are bounded, and what is refused says how to ask for less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.historian import bounds
from services.historian.asking import answer, step_for
from services.historian.shapes import DAY_MS, HOUR_MS, MINUTE_MS
from tests.unit.historian.rig import H0, STREAMS, Kept, kept, message

A = [*STREAMS[0], "a"]
SPAN = {"begin_ms": H0, "end_ms": H0 + HOUR_MS}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Kept]:
    with kept(tmp_path) as k:
        k.keep([message(STREAMS[0], H0 + i * 1_000, i + 1, {"a": i / 2}) for i in range(600)])
        yield k


@pytest.mark.parametrize(
    ("verb", "args", "said"),
    [
        ("rolled", {"series": [A] * 21, **SPAN}, "21 series are more than 20: ask for fewer"),
        ("rolled", {"series": [], **SPAN}, "name a series"),
        ("rolled", {"series": [A], **SPAN, "step_ms": 500}, "a step is 1000 ms at least"),
        ("rolled", {"series": [A], "begin_ms": H0, "end_ms": H0 + DAY_MS, "step_ms": 1_000},
         "86,400 points are more than 5,000: ask for a step of 17.28 s at least"),
        ("raw", {"series": [A], "begin_ms": 5, "end_ms": 5}, "ends .5. before it begins"),
        ("raw", {"series": [A[:2]], **SPAN}, "raw: "),
        ("raw", {"series": [A], "begin_ms": H0}, "'end_ms' is missing"),
        ("series", {"nonsense": "a"}, "series: "),
        ("drop", {}, "unknown question 'drop'; known: series, raw"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(full: Kept, verb: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        answer(full.history, verb, args)


def test_a_question_ends_when_it_costs_too_much(
    full: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(600, 640):
        full.keep([message(STREAMS[0], H0 + at * 1_000, at + 1, {"a": 1.5})])
    monkeypatch.setattr(bounds.Bound.__init__, "__defaults__", (20, 2.0))
    with pytest.raises(ValueError, match="more than 20 pieces would have to be read: ask for"):
        answer(full.history, "raw", {"series": [A], **SPAN})
    monkeypatch.setattr(bounds.Bound.__init__, "__defaults__", (None, 0.0))
    with pytest.raises(ValueError, match="longer than 0 s: ask for a shorter time"):
        answer(full.history, "raw", {"series": [A], **SPAN})


def test_answers_are_plain(full: Kept) -> None:
    rolled = answer(full.history, "rolled", {"series": [A], **SPAN, "points": 60})
    (one,) = orjson.loads(orjson.dumps(rolled))["series"]
    assert rolled["step_ms"] == MINUTE_MS
    assert one["known_ms"][:11] == [60_000] * 9 + [59_000, 0]
    assert one["weighted"][10] is None
    assert one["mean"][0] == 14.75
    raw = answer(full.history, "raw", {"series": [A], **SPAN, "limit": 3})
    assert orjson.loads(orjson.dumps(raw))["series"][0] == {
        "series": A, "ts_ms": [H0, H0 + 1_000, H0 + 2_000], "values": [0.0, 0.5, 1.0],
        "quality": [0, 0, 0], "reasons": {}, "joined": [False, True, True], "cut": True,
    }  # fmt: skip
    where = {"stream": list(STREAMS[0]), "begin_ms": H0 + 590_000, "end_ms": H0 + 700_000}
    assert answer(full.history, "unknown", where)["unknown"] == [
        {"begin_ms": H0 + 599_000, "end_ms": H0 + 700_000, "why": "silent"}
    ]


@pytest.mark.parametrize(
    ("range_ms", "points", "step_ms"),
    [
        (60_000, 100, 1_000),
        (HOUR_MS, 1_000, 3_600),
        (DAY_MS, 1_000, 2 * MINUTE_MS),
        (7 * DAY_MS, 1_000, 15 * MINUTE_MS),
        (31 * DAY_MS, 1_000, HOUR_MS),
        (3_660 * DAY_MS, 1_000, 7 * DAY_MS),
    ],
)
def test_the_step_fits_the_points(range_ms: int, points: int, step_ms: int) -> None:
    assert step_for(range_ms, points) == step_ms
