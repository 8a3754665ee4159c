"""The PLC's local time as Unix time, in the hours that summer time doubles and skips."""

from __future__ import annotations

import datetime
import subprocess
import sys

import pytest

from services.reader.plc_clock import PlcClock
from tests.kit.common import ROOT


def utc_ms(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text + "+00:00").timestamp() * 1_000)


@pytest.mark.parametrize(
    ("zone", "shown", "utc"),
    [
        ("UTC", "2026-07-01T12:00:00.250", "2026-07-01T12:00:00.250"),
        ("Europe/Berlin", "2026-07-01T12:00:00", "2026-07-01T10:00:00"),
        ("Europe/Berlin", "2026-12-01T12:00:00.123456789", "2026-12-01T11:00:00.123"),
        ("America/Sao_Paulo", "2026-07-01T12:00:00", "2026-07-01T15:00:00"),
        # Half an hour off the hour, and a zone that is nobody's summer time.
        ("Asia/Kolkata", "2026-07-01T12:00:00", "2026-07-01T06:30:00"),
        # Just before and after both changes of Berlin's year, and of São Paulo's last one.
        ("Europe/Berlin", "2026-03-29T01:59:59", "2026-03-29T00:59:59"),
        ("Europe/Berlin", "2026-03-29T03:00:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "2026-10-25T01:59:59", "2026-10-24T23:59:59"),
        ("Europe/Berlin", "2026-10-25T03:00:00", "2026-10-25T02:00:00"),
        ("America/Sao_Paulo", "2018-11-03T23:59:59", "2018-11-04T02:59:59"),
        ("America/Sao_Paulo", "2018-11-04T01:00:00", "2018-11-04T03:00:00"),
        ("America/Sao_Paulo", "2019-02-16T22:59:59", "2019-02-17T00:59:59"),
        ("America/Sao_Paulo", "2019-02-17T00:00:00", "2019-02-17T03:00:00"),
        # The hour that is there twice: whichever this PC's clock is near to.
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T01:30:00"),
        ("America/Sao_Paulo", "2019-02-16T23:30:00", "2019-02-17T01:30:00"),
        ("America/Sao_Paulo", "2019-02-16T23:30:00", "2019-02-17T02:30:00"),
    ],
)
@pytest.mark.parametrize("off_s", [-240, 0, 240])
def test_local_time(zone: str, shown: str, utc: str, off_s: int) -> None:
    """``off_s``: the PC's clock beside the PLC's, within what is tolerated."""
    wanted_ms = utc_ms(utc)
    assert PlcClock(zone).unix_ms(shown, wanted_ms + off_s * 1_000) == (wanted_ms, "")


@pytest.mark.parametrize(
    ("zone", "shown", "utc"),
    [
        ("Europe/Berlin", "2026-03-29T02:00:00", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "2026-03-29T02:59:59.999", "2026-03-29T01:59:59"),
        ("America/Sao_Paulo", "2018-11-04T00:30:00", "2018-11-04T03:30:00"),
    ],
)
def test_an_hour_that_does_not_exist(zone: str, shown: str, utc: str) -> None:
    """The PLC does not change to summer time, then; this PC's time stands instead."""
    assert PlcClock(zone).unix_ms(shown, utc_ms(utc)) == (utc_ms(utc), "plc_time_skipped")


def test_a_plc_that_keeps_its_winter_time_is_off_in_summer() -> None:
    now_ms = utc_ms("2026-03-29T01:30:00") + 3_600_000
    assert PlcClock("Europe/Berlin").unix_ms("2026-03-29T03:30:00", now_ms)[1] == "plc_clock_off"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_no_time_at_all(zone: str) -> None:
    assert PlcClock(zone).unix_ms(None, 5) == (5, "no_timestamp")
    # The ends of what the types can say.
    for shown in ("1970-01-01T00:00:00", "2554-12-31T23:59:59.999999999"):
        assert PlcClock(zone).unix_ms(shown, utc_ms("2026-07-01")) == (
            utc_ms("2026-07-01"),
            "plc_clock_off",
        )


def test_only_who_has_a_zone_pays_for_it() -> None:
    code = "import sys; from services.reader.plc_clock import PlcClock; PlcClock(sys.argv[1]);"
    code += " print('zoneinfo' in sys.modules)"
    for zone, imported in (("UTC", "False"), ("America/Sao_Paulo", "True")):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, zone], cwd=ROOT, capture_output=True, text=True,
            check=True, env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.stdout.strip() == imported
