"""What must not make a history wrong or silent: late hours, clocks set back, foreign files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from services.historian.asking import answer
from services.historian.keeping import Keeping
from services.historian.rolls import HOUR, LEVELS, Level
from services.historian.shapes import DAY_MS, HOUR_MS, MINUTE_MS, Rolled, Series
from services.historian.work import AGAIN_MS, Work
from tests.unit.historian.rig import H0, STREAMS, Kept, kept, message

FIRST = STREAMS[0]
A, CYCLES = Series(*FIRST, "a"), Series(*FIRST, "ciclos")
DAY0 = H0 // DAY_MS * DAY_MS + DAY_MS


def every(
    begin_ms: int, end_ms: int, step_ms: int = 10_000, seq: int = 0, count: int = 1_000
) -> list[dict[str, Any]]:
    """One cycle each."""
    return [
        message(FIRST, ts, seq + i + 1, {"a": 1.0, "ciclos": count + i})
        for i, ts in enumerate(range(begin_ms, end_ms, step_ms))
    ]


def one(it: Kept, series: Series, begin_ms: int, end_ms: int, step_ms: int) -> Rolled:
    it.history.start()
    return it.history.rolled([series], begin_ms, end_ms, step_ms)[0]


def test_a_counter_counts_on_when_the_clock_is_set_back(tmp_path: Path) -> None:
    before = every(H0, H0 + HOUR_MS // 2)
    after = every(
        H0 + HOUR_MS // 3 + 3_000, H0 + 2 * HOUR_MS, seq=len(before), count=1_000 + len(before)
    )
    with kept(tmp_path) as it:
        it.keep(before + after)
        counted = len(before) + len(after) - 1
        for _ in range(2):
            got = one(it, CYCLES, H0, H0 + 2 * HOUR_MS, MINUTE_MS).increase.sum()
            assert got == counted
            it.condense(0, 1)


@pytest.mark.parametrize("back_h", [1, 3, 26])
def test_no_counter_counts_twice_over_hours_that_come_again(tmp_path: Path, back_h: int) -> None:
    begin_ms, turn_ms = H0 + 30 * HOUR_MS, H0 + 32 * HOUR_MS + HOUR_MS // 2
    before = every(begin_ms, turn_ms)
    after = every(
        turn_ms - back_h * HOUR_MS + 3_000, turn_ms + 2 * HOUR_MS, seq=len(before),
        count=1_000 + len(before),
    )  # fmt: skip
    with kept(tmp_path) as it:
        it.keep(before + after)
        it.condense(*range(40))
        counted = len(before) + len(after) - 1
        got = one(it, CYCLES, H0, H0 + 40 * HOUR_MS, HOUR_MS).increase.sum()
        # What was counted between two turns of the clock can be missing, a message's at a time.
        assert counted - 20 <= got <= counted


def test_hours_that_come_late_are_condensed_in_order(tmp_path: Path) -> None:
    rows = every(H0, H0 + 3 * HOUR_MS)
    clock = [H0 + 9 * HOUR_MS]
    with kept(tmp_path) as it:
        keeping = Keeping(
            tmp_path,
            max_size_bytes=2**40,
            min_free_bytes=0,
            max_age_ms={"raw": 2**50, "minute": 2**50, "hour": 2**50},
            say=lambda *said: None,
            now_ms=lambda: clock[0],
        )
        work = Work(
            it.recent, it.compactor, keeping, lambda *said: None, tmp_path, lambda: clock[0]
        )

        def run() -> None:
            for _ in range(300):
                work._look_s = 0.0
                work.slice(0.02)
                if work.due() is None and work._condensing is None:
                    return

        it.keep(rows[:100])
        work.begin()
        run()
        it.keep(rows[100:])
        work.begin()
        run()
        for _ in range(4):
            clock[0] += AGAIN_MS
            run()
        assert work.due() is None
        got = one(it, CYCLES, H0, H0 + 3 * HOUR_MS, MINUTE_MS)
        assert got.increase.sum() == len(rows) - 1
        assert got.known_ms.sum() == 3 * HOUR_MS - 10_000


@pytest.mark.parametrize("level", LEVELS)
def test_a_foreign_file_costs_only_its_part(tmp_path: Path, level: Level) -> None:
    with kept(tmp_path) as it:
        it.keep(every(DAY0, DAY0 + 2 * DAY_MS, 60_000))
        it.condense(*range((DAY0 - H0) // HOUR_MS, (DAY0 - H0) // HOUR_MS + 48))
        level.path(tmp_path, DAY0).write_bytes(b"not a database at all" * 400)
        for step in (MINUTE_MS * 30, HOUR_MS):
            assert one(it, A, DAY0, DAY0 + 2 * DAY_MS, step).count.sum() == 2 * 1440
        assert it.history.series()
        # And what comes later is condensed all the same.
        it.keep(every(DAY0 + 2 * DAY_MS, DAY0 + 2 * DAY_MS + HOUR_MS, 60_000, 2 * 1440))
        it.keep(every(DAY0 - HOUR_MS, DAY0, 60_000, 5_000))
        it.condense((DAY0 - H0) // HOUR_MS + 48)
        it.keep([message(FIRST, DAY0 + 17, 9_999, {"a": 1.0})])
        it.condense((DAY0 - H0) // HOUR_MS)
        for step in (MINUTE_MS * 30, HOUR_MS):
            assert one(it, A, DAY0, DAY0 + 2 * DAY_MS, step).count.sum() == 2 * 1440 + 1


def test_a_damaged_day_of_hours_is_made_again_of_its_minutes(tmp_path: Path) -> None:
    with kept(tmp_path) as it:
        it.keep(every(DAY0, DAY0 + 10 * HOUR_MS, 60_000))
        at = (DAY0 - H0) // HOUR_MS
        it.condense(*range(at, at + 10))
        db = apsw.Connection(str(HOUR.path(tmp_path, DAY0)))
        db.execute("UPDATE roll SET crc = 0")
        db.close()
        assert it.history.series()
        it.keep(every(DAY0 + 10 * HOUR_MS, DAY0 + 11 * HOUR_MS, 60_000, 600))
        it.condense(at + 10)
        assert one(it, A, DAY0, DAY0 + DAY_MS, HOUR_MS).count.sum() == 11 * 60


def test_hours_serve_where_minutes_are_too_old(tmp_path: Path) -> None:
    with kept(tmp_path) as it:
        it.keep(every(DAY0, DAY0 + 2 * DAY_MS, 60_000))
        at = (DAY0 - H0) // HOUR_MS
        it.condense(*range(at, at + 48))
        for folder in ("raw", "minute"):
            for path in (tmp_path / folder).iterdir():
                path.unlink()
        begin = DAY0 + 3 * HOUR_MS  # a day that begins in São Paulo
        assert one(it, A, begin, begin + DAY_MS, DAY_MS).count.sum() == 1440
        assert one(it, A, begin, begin + DAY_MS, HOUR_MS).known_ms.sum() == DAY_MS


def test_an_hour_of_text_does_not_hide_the_numbers(tmp_path: Path) -> None:
    with kept(tmp_path) as it:
        it.keep(every(DAY0, DAY0 + 2 * HOUR_MS, 60_000))
        texts = every(DAY0 + 2 * HOUR_MS, DAY0 + 3 * HOUR_MS, 60_000, 120)
        for m in texts:
            m["values"]["a"] = "x"
        mixed = every(DAY0 + 3 * HOUR_MS, DAY0 + 4 * HOUR_MS, 60_000, 180)
        for m in mixed[30:]:
            m["values"]["a"] = 3
        it.keep(texts + mixed)
        at = (DAY0 - H0) // HOUR_MS
        for hour in range(4):
            it.condense(at + hour)
        got = one(it, A, DAY0, DAY0 + 4 * HOUR_MS, HOUR_MS)
        assert got.mean[[0, 1, 3]].tolist() == [1.0, 1.0, 2.0]
        assert np.isnan(got.mean[2])
        assert got.count.tolist() == [60] * 4
        day = one(it, A, DAY0, DAY0 + DAY_MS, DAY_MS)
        assert np.isnan(day.mean[0]) or day.mean[0] == pytest.approx(240 / 180)


def test_a_gap_without_times_is_as_old_as_its_message(tmp_path: Path) -> None:
    gap = {"ts": H0, "epoch": 1, "first_seq": 1, "last_seq": 2, "from_ts": None, "to_ts": None}
    with kept(tmp_path) as it:
        it.keep([], [gap])
        it.recent.prune(H0)
        assert it.messages() == [gap]
        it.recent.prune(H0 + 1)
        assert it.messages() == []


HUGE: list[Any] = [10**18, 10**19, 10**30, -(10**19), float("nan"), float("inf"), "x", None, [], {}]


@pytest.mark.parametrize("verb", ["raw", "rolled", "unknown", "gaps", "messages", "series"])
def test_hostile_questions_are_refused_or_answered(tmp_path: Path, verb: str) -> None:
    with kept(tmp_path) as it:
        it.keep(every(H0, H0 + HOUR_MS, 60_000))
        for begin in (0, H0, *HUGE):
            for end in HUGE:
                args: dict[str, Any] = {
                    "series": [[*A.stream, "a"]], "stream": list(FIRST), "plc": "p1",
                    "locatario": "acme", "begin_ms": begin, "end_ms": end,
                }  # fmt: skip
                if verb == "series":
                    args = {"plc": begin, "field": end}
                with contextlib.suppress(ValueError):
                    assert isinstance(answer(it.history, verb, args), dict)
