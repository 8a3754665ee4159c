"""What goes, and when: by age, by size, and never what is being written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from services.historian import keeping as keeping_module
from services.historian.hours import path_of
from services.historian.keeping import Keeping
from services.historian.rolls import HOUR, MINUTE
from services.historian.shapes import DAY_MS, HOUR_MS
from tests.unit.historian.rig import H0

KIB = 1_024


def rig(folder: Path, said: list[str], now_ms: int = H0 + HOUR_MS, **more: int) -> Keeping:
    bounds = {"max_size_bytes": 2**40, "min_free_bytes": 0, **more}
    return Keeping(
        folder,
        **bounds,
        max_age_ms={"raw": 2 * DAY_MS, "minute": 10 * DAY_MS, "hour": 1_000 * DAY_MS},
        say=lambda level, code, text: said.append(f"{level} {code}: {text}"),
        now_ms=lambda: now_ms,
    )


def fill(folder: Path) -> None:
    """Hours of a week, their minutes, and months, of 10 KiB each."""
    paths = [path_of(folder, H0 - n * HOUR_MS, 1) for n in range(1, 7 * 24)]
    paths += [path_of(folder, H0, 0)]
    paths += [MINUTE.path(folder, H0 - n * DAY_MS) for n in range(20)]
    paths += [HOUR.path(folder, H0 - n * 31 * DAY_MS) for n in range(5)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10 * KIB))


def count(folder: Path) -> list[int]:
    return [len(list((folder / kind).iterdir())) for kind in ("raw", "minute", "hour")]


def test_nothing_goes_for_its_age_right_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    keeping = rig(tmp_path, [])
    keeping.look()
    assert count(tmp_path) == [168, 20, 5]
    later_s = time.monotonic() + keeping_module.SETTLED_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    keeping.look()
    # The hour itself, and those that ended within two days.
    assert count(tmp_path) == [49, 11, 5]
    assert keeping.oldest_ms == H0 - 48 * HOUR_MS


def test_the_oldest_goes_first_hours_then_minutes_then_months(tmp_path: Path) -> None:
    fill(tmp_path)
    said: list[str] = []
    rig(tmp_path, said, max_size_bytes=100 * 10 * KIB).look()
    assert count(tmp_path) == [75, 20, 5]
    left = min(p.name for p in (tmp_path / "raw").iterdir())
    assert left == path_of(tmp_path, H0 - 74 * HOUR_MS, 1).name
    assert said == [
        "warning history_dropped: the history was too large: its oldest 93 files of messages are"
        " gone"
    ]
    rig(tmp_path, said, max_size_bytes=10 * 10 * KIB).look()
    raw, minute, hour = count(tmp_path)
    assert (raw, minute + hour) == (1, 9)
    assert hour == 5


def test_what_is_being_written_stays_and_that_is_said_once(tmp_path: Path) -> None:
    fill(tmp_path)
    said: list[str] = []
    keeping = rig(tmp_path, said, max_size_bytes=KIB)
    keeping.look()
    keeping.look()
    assert count(tmp_path)[0] == 1
    assert sum("history_full" in text for text in said) == 1


def test_damaged_files_are_the_first_to_go(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "raw" / "2025-11-20T10.1.damaged").write_bytes(bytes(10 * KIB))
    rig(tmp_path, [], max_size_bytes=193 * 10 * KIB).look()
    assert count(tmp_path) == [168, 20, 5]
