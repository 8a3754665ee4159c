"""Moments as people write them."""

from __future__ import annotations

import contextlib
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.moments import iso, moment_ms

SAO_PAULO, BERLIN = ZoneInfo("America/Sao_Paulo"), ZoneInfo("Europe/Berlin")
# 2026-11-30 22:30:15.250 in São Paulo: in UTC it is the next day already.
NOW_MS = 1_796_088_615_250


def at(*parts: int, zone: ZoneInfo = SAO_PAULO) -> int:
    return round(datetime(*parts, tzinfo=zone).timestamp() * 1_000)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("said", "ms"),
    [
        ("now", NOW_MS),
        ("-2h", NOW_MS - 7_200_000),
        ("-90m", NOW_MS - 5_400_000),
        (" -1.5d ", NOW_MS - 129_600_000),
        ("today", at(2026, 11, 30)),
        ("Yesterday", at(2026, 11, 29)),
        ("yesterday 03:00", at(2026, 11, 29, 3)),
        ("3:07", at(2026, 11, 30, 3, 7)),
        ("23:59:59.5", at(2026, 11, 30, 23, 59, 59, 500_000)),
        ("2026-02-28", at(2026, 2, 28)),
        ("2026-02-28 14:30", at(2026, 2, 28, 14, 30)),
        ("2026-02-28T14:30:01", at(2026, 2, 28, 14, 30, 1)),
        ("2026-02-28T14:30Z", at(2026, 2, 28, 11, 30)),
        ("2026-02-28T14:30+02:00", at(2026, 2, 28, 9, 30)),
        ("1796088615250", NOW_MS),
    ],
)
def test_what_people_write(said: str, ms: int) -> None:
    assert moment_ms(said, NOW_MS, SAO_PAULO) == ms


def test_the_pcs_own_zone_where_none_is_named() -> None:
    noon = datetime(2026, 6, 1, 12).astimezone()
    assert moment_ms("2026-06-01T12:00", NOW_MS) == round(noon.timestamp() * 1_000)
    assert moment_ms(iso(NOW_MS), 0) == NOW_MS


@pytest.mark.parametrize(
    "said",
    ["", "soon", "-", "-2", "-2y", "25:00", "12:60", "today 24:00", "yesterday x", "2026-02-30",
     "tomorrow", "12:00 yesterday", "--2h", "2h", "31/12/2026", "9" * 16],
)  # fmt: skip
def test_anything_else_is_told_with_the_forms(said: str) -> None:
    with pytest.raises(ValueError, match="a time is `2026-11-30`"):
        moment_ms(said, NOW_MS, SAO_PAULO)


def test_an_hour_that_the_clocks_skip_is_no_time() -> None:
    with pytest.raises(ValueError, match="skipped that hour"):
        moment_ms("2026-03-29 02:30", NOW_MS, BERLIN)


def test_an_hour_that_comes_twice_is_its_first() -> None:
    first = at(2026, 10, 25, 2, 30, zone=BERLIN)
    assert moment_ms("2026-10-25 02:30", NOW_MS, BERLIN) == first
    assert moment_ms(iso(first + 3_600_000, BERLIN), NOW_MS, BERLIN) == first + 3_600_000


def test_beyond_all_years() -> None:
    with pytest.raises(ValueError, match="years"):
        moment_ms("-99999999d", NOW_MS)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)),
    st.sampled_from([SAO_PAULO, BERLIN, ZoneInfo("UTC"), ZoneInfo("Australia/Lord_Howe")]),
)
def test_what_is_written_is_read_back(moment: datetime, zone: ZoneInfo) -> None:
    ms = round(moment.replace(tzinfo=zone).timestamp() * 1_000)
    assert moment_ms(iso(ms, zone), 0, zone) == ms
    shown = datetime.fromisoformat(iso(ms, zone)).astimezone(zone).replace(tzinfo=None)
    # Of an hour that comes twice the first is taken.
    assert ms - moment_ms(shown.isoformat(), 0, zone) in (0, 3_600_000, 1_800_000)


@given(st.text(max_size=30))
def test_no_text_is_more_than_a_value_error(said: str) -> None:
    with contextlib.suppress(ValueError):
        assert moment_ms(said, NOW_MS, SAO_PAULO) >= 0
