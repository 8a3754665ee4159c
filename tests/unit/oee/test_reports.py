"""When a shift's report is due, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from services.historian.reports import CATCH_UP_MS, SETTLE_MS, Reports
from services.runtime import stats
from tests.unit.oee.kit import MIN, at

SPEC: dict[str, Any] = {
    "site": "planta-sp",
    "shifts": {
        "timezone": "America/Sao_Paulo",
        "plans": [
            {
                "name": "manha",
                "days": list(range(7)),
                "begin_min": 360,
                "end_min": 840,
                "breaks": [],
            }
        ],
        "exceptions": {},
    },
    "machines": [],
    "email": {"late_after": 86_400.0, "to": ["a@example.com"], "language": "pt"},
}
END = at("14:00")


class Box:
    """A process without a loop, and what it tells."""

    def __init__(self, started_ms: int) -> None:
        self.started_ms = started_ms
        self.told: list[str] = []
        self.stats = stats.Stats("historian", 1, started_ms)
        self.event = lambda level, code, text, **more: self.told.append(code)
        self.on_readable = lambda *_: None
        self.every = lambda *_: None


def reports(folder: Path, since: str, newest: int | None, started_ms: int = END) -> Reports:
    folder.mkdir(exist_ok=True)
    kept = {"since_ms": at(since), "done": {}}
    (folder / "reports.json").write_bytes(orjson.dumps(kept))
    found = Reports(Box(started_ms), folder, SPEC, lambda: newest)  # type: ignore[arg-type]
    found.open()
    return found


def test_due_once_the_shift_has_ended_and_is_known(tmp_path: Path) -> None:
    it = reports(tmp_path / "h", "12:00", END + 1)
    assert it.due(END + SETTLE_MS - 1) is None
    shift = it.due(END + SETTLE_MS)
    assert shift is not None
    assert shift.id == "2026-11-30/manha"
    it._end(shift, "sent", "")
    assert it.due(END + SETTLE_MS) is None
    # Another life knows.
    again = Reports(Box(END), tmp_path / "h", SPEC, lambda: END + 1)  # type: ignore[arg-type]
    again.open()
    assert again.due(END + SETTLE_MS) is None


@pytest.mark.parametrize("newest", [None, END - 1])
def test_waits_for_what_the_store_still_has(tmp_path: Path, newest: int | None) -> None:
    """Not for ever: nothing may speak any more. From its own start on, if that was later."""
    it = reports(tmp_path / "h", "12:00", newest, started_ms=END + 30 * MIN)
    assert it.due(END + CATCH_UP_MS) is None
    assert it.due(END + 30 * MIN + CATCH_UP_MS) is not None


def test_the_past_of_a_new_receiver_is_not_told(tmp_path: Path) -> None:
    assert reports(tmp_path / "h", "14:00", END + MIN).due(END + SETTLE_MS) is None


def test_a_damaged_memory_is_told_and_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "h"
    folder.mkdir()
    (folder / "reports.json").write_bytes(b'{"since_ms": ')
    box = Box(END)
    it = Reports(box, folder, SPEC, lambda: END + 1)  # type: ignore[arg-type]
    it.open()
    assert box.told == ["report_memory_damaged"]
    assert orjson.loads((folder / "reports.json").read_bytes())["done"] == {}


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "h").write_text("a file where the folder should be")
    box = Box(END)
    Reports(box, tmp_path / "h", SPEC, lambda: None).open()  # type: ignore[arg-type]
    assert box.told[-1] == "report_memory_failed"
