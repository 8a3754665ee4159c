"""Documents of the history, and the events that outlive the panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.metrics import event_log
from services.metrics.curves import rows, with_raw, with_rolled
from services.metrics.event_log import EventLog
from services.runtime.log import Log

DOCUMENT = {"v": 1, "from": 0, "to": 4_000, "now": 3_500}


def series(kind: str) -> dict[str, Any]:
    return {"key": f"p//{kind}", "stream": "p//", "name": kind, "kind": kind}


def rolled(**more: Any) -> dict[str, Any]:
    return {
        "begin_ms": [0, 1_000, 2_000, 3_000], "known_ms": [1_000, 400, 0, 0],
        "mean": [1.0, 2.0, None, None], "weighted": [1.5, None, None, None],
        "low": [1.0, 2.0, None, None], "high": [1.0, 2.0, None, None],
        "last": [1.0, 2.0, None, None], "increase": [3.0, 4.0, None, None],
        "edges": [1, 0, 0, 0], "count": [2, 1, 0, 0], **more,
    }  # fmt: skip


def test_each_kind_has_what_it_is_drawn_by() -> None:
    kinds = ("number", "bool", "counter", "text")
    found = with_rolled(DOCUMENT, [series(k) for k in kinds], 1_000, [rolled() for _ in kinds], {})[
        "series"
    ]
    number, switch, counter, text = found
    # Of a value that came and did not hold only the mean of values is known.
    assert number["mean"] == [1.5, 2.0, None, None]
    assert (number["min"], number["max"]) == ([1.0, 2.0, None, None],) * 2
    assert (switch["duty"], switch["edges"]) == ([1.5, None, None, None], [1, 0, 0, 0])
    assert (counter["last"][1], counter["increase"][1]) == (2.0, 4.0)
    assert text["last"] == [1.0, 2.0, None, None]


def test_holes_are_one_span_and_end_now() -> None:
    (one,) = with_rolled(DOCUMENT, [series("number")], 1_000, [rolled()], {})["series"]
    assert one["unknown"] == [(2_000, 3_500, "")]
    why = {"p//": [{"begin_ms": 1_400, "end_ms": 3_500, "why": "gap"}]}
    (one,) = with_rolled(DOCUMENT, [series("number")], 1_000, [rolled()], why)["series"]
    assert one["unknown"] == [(1_400, 3_500, "gap")]


def test_rows_of_values_and_of_steps() -> None:
    raw = {"ts_ms": [5, 9], "values": [True, None], "quality": [0, 2],
           "reasons": {"1": "cpu_stop"}, "cut": False}  # fmt: skip
    why = {"p//": [{"begin_ms": 9, "end_ms": 20, "why": "cpu_stop"}]}
    document = with_raw(DOCUMENT, [series("bool")], [raw], why)
    assert document["series"][0]["reasons"] == ["", "cpu_stop"]
    found = rows(document)
    about = {"name": "bool", "key": "p//bool"}
    assert found["rows"] == [
        {**about, "time": 5, "value": True, "min": None, "max": None, "known": 1.0},
        {**about, "time": 9, "value": None, "min": None, "max": None, "known": 0.0},
    ]
    assert found["unknown"] == [{**about, "begin": 9, "end": 20, "why": "cpu_stop"}]
    steps = rows(with_rolled(DOCUMENT, [series("number")], 1_000, [rolled()], {}))["rows"]
    assert [s["known"] for s in steps] == [1.0, 0.4, 0.0, 0.0]
    assert steps[0] | {"min": 1.0, "max": 1.0, "value": 1.5} == steps[0]


# -- events ---------------------------------------------------------------------------------------


def event(ts: int, **more: Any) -> dict[str, Any]:
    return {"process": "reader-p1", "ts": ts, "level": "info", "code": "x", "text": "t", **more}


def test_events_are_there_for_the_next_start(tmp_path: Path) -> None:
    kept = EventLog(tmp_path, Log("metrics"))
    kept.add([event(3), event(1)])
    kept.add([])
    kept.add([event(2)])
    again = EventLog(tmp_path, Log("metrics"))
    found, complete = again.between(1, 2)
    assert ([e["ts"] for e in found], complete) == ([1, 2], True)


def test_two_bounded_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "FILE_MAX_BYTES", 500)
    kept = EventLog(tmp_path, Log("metrics"))
    for ts in range(100):
        kept.add([event(ts)])
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 2 * (500 + 100)
    found, _ = kept.between(0, 99)
    assert found[-1]["ts"] == 99
    assert [e["ts"] for e in found] == list(range(100 - len(found), 100))
    assert 5 < len(found) < 20


def test_a_line_that_was_cut_spoils_no_other(tmp_path: Path) -> None:
    kept = EventLog(tmp_path, Log("metrics"))
    kept.add([event(1)])
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"ts": 2, "te')
    kept.add([event(3)])
    assert [e["ts"] for e in kept.between(0, 9)[0]] == [1, 3]


def test_no_more_than_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "SHOWN", 3)
    kept = EventLog(tmp_path, Log("metrics"))
    kept.add([event(ts) for ts in range(5)])
    found, complete = kept.between(0, 9)
    assert ([e["ts"] for e in found], complete) == ([2, 3, 4], False)


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = EventLog(tmp_path / "none", Log("metrics"))
    kept.add([event(1)])
    kept.add([event(2)])
    assert capfd.readouterr().err.count("events not kept") == 1
