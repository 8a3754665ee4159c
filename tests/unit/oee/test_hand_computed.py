"""OEE of cases that were computed by hand: the shift is 06:00 to 14:00 with a break from 10:00 to
10:30, so 450 minutes of work; the ideal cycle is 6 s, ten pieces a minute; the least stop 30 s.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.oee.core.evaluate import evaluate
from services.oee.core.figures import total
from services.oee.core.machine import Machine, Signals
from tests.unit.oee.kit import DAY, MACHINE, MIN, MORNING, at, calendar, of, parts_min, plan, signal

ALL_DAY = signal(("05:00", True))
WORDS = {"3": "falta de material", "7": "setup", "9": "manutenção"}
WITH_REASONS = replace(MACHINE, words=WORDS, planned=frozenset({"7", "9"}))
THREE_SHIFTS = calendar(
    plan("manha", "06:00", "14:00"),
    plan("tarde", "14:00", "22:00"),
    plan("noite", "22:00", "06:00"),
)


def test_01_runs_all_the_time() -> None:
    """450 min ran; 4000 + 50 of 4500 possible pieces; 4000 of 4050 good."""
    f = of(ALL_DAY, signal(("05:00", 0), ("07:00", 4000)), signal(("05:00", 0), ("07:00", 50)))
    assert parts_min(f) == {"running": 450, "breaks": 30}
    assert f.availability == 1.0
    assert f.performance == pytest.approx(4050 / 4500)
    assert f.quality == pytest.approx(4000 / 4050)
    assert f.oee == pytest.approx(4000 / 4500)


def test_02_one_stop() -> None:
    """45 of 450 min stopped: 90 %."""
    f = of(signal(("05:00", True), ("07:00", False), ("07:45", True)))
    assert parts_min(f) == {"running": 405, "stopped_unplanned": 45, "breaks": 30}
    assert f.availability == pytest.approx(0.9)
    (stop,) = f.stops
    assert (stop.stopped_ms, stop.began, stop.ended) == (45 * MIN, "seen", "seen")
    assert stop.reasons == (("", 45 * MIN),)


def test_03_never_ran() -> None:
    """Availability 0; nothing ran, so performance is undefined and not 0; nothing was made, so
    quality is too.
    """
    f = of(signal(("05:00", False)))
    assert parts_min(f) == {"stopped_unplanned": 450, "breaks": 30}
    assert (f.availability, f.performance, f.quality, f.oee) == (0.0, None, None, None)


def test_04_nothing_known() -> None:
    """No sample at all: not stopped, not running; nothing is defined, pieces are not 0."""
    f = of(signal(), signal(), signal())
    assert parts_min(f) == {"unknown": 450, "breaks": 30}
    assert (f.availability, f.performance, f.quality, f.oee) == (None, None, None, None)
    assert f.made.total is None


def test_05_a_gap_is_not_a_stop() -> None:
    """07:00 to 09:00 lost; the next sample at 09:00. 330 min known, of which 33 stopped: 90 %."""
    running = signal(
        ("05:00", True),
        ("09:00", True),
        ("12:00", False),
        ("12:33", True),
        lost=[("07:00", "09:00")],
    )
    f = of(running)
    assert parts_min(f) == {"running": 297, "stopped_unplanned": 33, "unknown": 120, "breaks": 30}
    assert f.availability == pytest.approx(0.9)


def test_06_behind_a_gap_nothing_is_known_until_a_value_comes() -> None:
    """The gap ends at 09:00, the next value comes at 09:20: 140 min unknown."""
    f = of(signal(("05:00", True), ("09:20", True), lost=[("07:00", "09:00")]))
    assert parts_min(f) == {"running": 310, "unknown": 140, "breaks": 30}


def test_07_a_value_holds_for_so_long() -> None:
    """Hold 10 min: 05:55 tells until 06:05, then nothing until 06:30; 06:30 until 06:40."""
    f = of(signal(("05:55", True), ("06:30", False), hold_ms=10 * MIN))
    assert parts_min(f) == {"running": 5, "stopped_unplanned": 10, "unknown": 435, "breaks": 30}


def test_08_a_bad_value_ends_what_was_known() -> None:
    """Bad from 08:00 to 08:15."""
    f = of(signal(("05:00", True), ("08:00", None), ("08:15", True)))
    assert parts_min(f) == {"running": 435, "unknown": 15, "breaks": 30}


def test_09_a_stop_over_a_break() -> None:
    """09:50 to 10:40 with the break in between: one stop of 10 + 10 min."""
    f = of(signal(("05:00", True), ("09:50", False), ("10:40", True)))
    assert parts_min(f) == {"running": 430, "stopped_unplanned": 20, "breaks": 30}
    (stop,) = f.stops
    assert (stop.end_ms - stop.begin_ms, stop.stopped_ms) == (50 * MIN, 20 * MIN)


def test_10_a_break_is_a_break_though_the_machine_runs() -> None:
    """Pieces that are seen in it count nowhere: 100 at 09:00, 30 at 10:15, 70 at 11:00."""
    good = signal(("05:00", 0), ("09:00", 100), ("10:15", 130), ("11:00", 200))
    f = of(ALL_DAY, good)
    assert parts_min(f) == {"running": 450, "breaks": 30}
    assert (f.made.good, f.at_rest.good) == (170, 30)


def test_11_shift_change_in_a_stop() -> None:
    """13:40 to 14:30: 20 min belong to the morning, 30 to the afternoon, none to both."""
    running = signal(("05:00", True), ("13:40", False), ("14:30", True))
    early = of(running, shifts=THREE_SHIFTS)
    late = of(running, shifts=THREE_SHIFTS, begin="14:00", end="22:00")
    assert parts_min(early) == {"running": 460, "stopped_unplanned": 20}
    assert parts_min(late) == {"running": 450, "stopped_unplanned": 30}
    assert [(s.began, s.ended) for s in early.stops] == [("seen", "after")]
    assert [(s.began, s.ended) for s in late.stops] == [("before", "seen")]
    both = total([early, late])
    assert both is not None
    assert both.availability == pytest.approx(910 / 960)


def test_12_a_short_stop_is_lost_speed() -> None:
    """20 s: below the least, so it is running, and told as such."""
    f = of(signal(("05:00", True), ("07:00", False), (f"{DAY} 07:00:20", True)))
    assert parts_min(f) == {"running": 450, "breaks": 30}
    assert (f.short_stops, f.short_ms, f.stops) == (1, 20_000, [])


def test_13_the_least_stop_itself_is_a_stop() -> None:
    """30 s: not below."""
    f = of(signal(("05:00", True), ("07:00", False), (f"{DAY} 07:00:30", True)))
    assert parts_min(f) == {"running": 449.5, "stopped_unplanned": 0.5, "breaks": 30}


def test_14_a_stop_that_is_short_only_on_this_side_of_the_edge() -> None:
    """13:59:50 to 14:00:25 lasted 35 s: a stop, 10 s in the morning and 25 in the afternoon."""
    running = signal(("05:00", True), (f"{DAY} 13:59:50", False), (f"{DAY} 14:00:25", True))
    early = of(running, shifts=THREE_SHIFTS)
    late = of(running, shifts=THREE_SHIFTS, begin="14:00", end="22:00")
    assert early.parts_ms["stopped_unplanned"] == 10_000
    assert late.parts_ms["stopped_unplanned"] == 25_000


def test_15_what_was_not_seen_whole_is_not_proved_short() -> None:
    """Stopped for 10 s, then a gap: it may have lasted, so it is a stop, whose end is unknown."""
    running = signal(
        ("05:00", True), ("07:00", False), ("07:05", True), lost=[(f"{DAY} 07:00:10", "07:05")]
    )
    f = of(running)
    assert f.parts_ms["stopped_unplanned"] == 10_000
    assert [s.ended for s in f.stops] == ["unknown"]
    assert f.short_stops == 0


def test_16_counter_wraps() -> None:
    """UINT: 65000 to 300 is 836; of 5000 pieces' worth of time (08:00 to 09:00 is 600 at the ideal
    pace, ten times that is believed).
    """
    f = of(ALL_DAY, signal(("05:00", 64_900), ("08:00", 65_000), ("09:00", 300)))
    assert f.made.good == 100 + 836


def test_17_signed_counter_wraps() -> None:
    """INT: 32760 to -32760 is 16."""
    machine = replace(MACHINE, counters={"good": "INT", "bad": "INT"})
    f = of(ALL_DAY, signal(("05:00", 32_760), ("08:00", -32_760)), machine=machine)
    assert f.made.good == 16


def test_18_counter_is_reset() -> None:
    """20000 to 0, then to 150: the fall is more than half the range, so no wrap; 150 made since."""
    good = signal(("05:00", 19_900), ("07:00", 20_000), ("08:00", 0), ("09:00", 150))
    assert of(ALL_DAY, good).made.good == 100 + 150


def test_19_reset_from_high_up_is_no_wrap() -> None:
    """UINT 40000 to 0 in one second would be 25536 pieces by the type alone. In a second the
    machine makes 1/6; 10 + 10/6 are believed: so it was set to 0.
    """
    good = signal(("05:00", 39_900), ("07:00", 40_000), (f"{DAY} 07:00:01", 0), ("08:00", 60))
    assert of(ALL_DAY, good).made.good == 100 + 60


def test_20_a_counter_that_somebody_corrects() -> None:
    """500 to 498 in a second: neither a wrap (65534) nor 498 pieces since a restart can be."""
    good = signal(("05:00", 400), ("07:00", 500), (f"{DAY} 07:00:01", 498), ("08:00", 508))
    assert of(ALL_DAY, good).made.good == 100 + 10


def test_21_plc_restart() -> None:
    """Offline 08:00 to 08:10, back with the counter at 7: those were made in a time that is not
    known, and count in no index.
    """
    lost = [("08:00", "08:10")]
    running = signal(("05:00", True), ("08:10", False), ("08:12", True), lost=lost)
    good = signal(("05:00", 0), ("07:00", 600), ("08:10", 7), ("09:00", 407), lost=lost)
    f = of(running, good, signal(("05:00", 0), ("08:10", 0), lost=lost))
    assert parts_min(f) == {"running": 438, "stopped_unplanned": 2, "unknown": 10, "breaks": 30}
    assert (f.made.good, f.unseen.good) == (1000, 7)
    assert f.performance == pytest.approx(1000 / 4380)


def test_22_pieces_across_a_gap() -> None:
    """The counter went on from 600 to 900 in the gap: told, in no index."""
    lost = [("08:00", "08:30")]
    running = signal(("05:00", True), ("08:30", True), lost=lost)
    good = signal(("05:00", 0), ("07:00", 600), ("08:30", 900), ("09:00", 1000), lost=lost)
    f = of(running, good, signal(("05:00", 0), ("08:30", 0), lost=lost))
    assert (f.made.good, f.unseen.good) == (700, 300)
    assert f.performance == pytest.approx(700 / 4200)


def test_23_performance_may_be_above_one() -> None:
    """5400 pieces in 450 min are 12 a minute, the ideal is 10."""
    f = of(ALL_DAY, signal(("05:00", 0), ("07:00", 5400)))
    assert f.performance == pytest.approx(1.2)
    assert f.oee == pytest.approx(1.2)


def test_24_planned_stop() -> None:
    """50 min of setup (7, planned) are no lost availability: 360 of 400 min."""
    running = signal(
        ("05:00", True), ("07:00", False), ("07:50", True), ("09:00", False), ("09:40", True)
    )
    code = signal(("05:00", 0), ("07:00", 7), ("07:50", 0), ("09:00", 3), ("09:40", 0))
    f = of(running, None, None, code, machine=WITH_REASONS)
    assert parts_min(f) == {
        "running": 360, "stopped_planned": 50, "stopped_unplanned": 40, "breaks": 30
    }  # fmt: skip
    assert f.availability == pytest.approx(0.9)
    assert f.reasons_ms == {"7": 50 * MIN, "3": 40 * MIN}


def test_25_the_reason_changes_within_a_stop() -> None:
    """3 from 07:00, 7 from 07:20 to 07:50: 20 min unplanned, 30 planned, one stop."""
    running = signal(("05:00", True), ("07:00", False), ("07:50", True))
    code = signal(("05:00", 0), ("07:00", 3), ("07:20", 7), ("07:50", 0))
    f = of(running, None, None, code, machine=WITH_REASONS)
    assert [s.reasons for s in f.stops] == [(("3", 20 * MIN), ("7", 30 * MIN))]
    assert parts_min(f)["stopped_planned"] == 30


def test_26_the_reason_is_given_late_and_taken_back_early() -> None:
    """Stopped 07:00 to 08:00; 3 only from 07:10 to 07:40: it is the whole stop's."""
    running = signal(("05:00", True), ("07:00", False), ("08:00", True))
    code = signal(("05:00", 0), ("07:10", 3), ("07:40", 0))
    f = of(running, None, None, code, machine=WITH_REASONS)
    assert f.reasons_ms == {"3": 60 * MIN}


def test_27_overlapping_reasons_of_two_fields() -> None:
    """The first field that names one holds: from 07:20 the operator's 9, before it the PLC's 3."""
    running = signal(("05:00", True), ("07:00", False), ("08:00", True))
    operator = signal(("05:00", 0), ("07:20", 9), ("08:00", 0))
    program = signal(("05:00", 0), ("07:00", 3), ("08:00", 0))
    f = of(running, None, None, operator, program, machine=WITH_REASONS)
    assert f.reasons_ms == {"3": 20 * MIN, "9": 40 * MIN}


def test_28_a_reason_that_is_given_after_the_shift() -> None:
    """Stopped from 13:50, the reason at 14:05: the morning's 10 min stay without one, the
    afternoon's 20 have it.
    """
    running = signal(("05:00", True), ("13:50", False), ("14:20", True))
    code = signal(("05:00", 0), ("14:05", 3), ("14:20", 0))
    early = of(running, None, None, code, machine=WITH_REASONS, shifts=THREE_SHIFTS)
    late = of(
        running,
        None,
        None,
        code,
        machine=WITH_REASONS,
        shifts=THREE_SHIFTS,
        begin="14:00",
        end="22:00",
    )
    assert (early.reasons_ms, late.reasons_ms) == ({"": 10 * MIN}, {"3": 20 * MIN})


def test_29_a_change_exactly_at_the_edge() -> None:
    """It stops at 14:00:00.000: not a ms of the morning's. The piece seen then is the afternoon's,
    the one seen at 06:00:00.000 the morning's.
    """
    running = signal(("05:00", True), ("14:00", False))
    good = signal(("05:00", 0), ("06:00", 1), ("14:00", 3))
    early = of(running, good)
    late = of(running, good, shifts=THREE_SHIFTS, begin="14:00", end="22:00")
    assert parts_min(early) == {"running": 450, "breaks": 30}
    assert (early.made.good, early.stops) == (1, [])
    assert parts_min(late) == {"stopped_unplanned": 480}
    assert late.made.good == 2
    assert [s.began for s in late.stops] == ["seen"]


def test_30_clock_set_back() -> None:
    """At 08:00 the clock goes back to 07:00. The hour is lived twice, the later one counts: stopped
    from 07:00 to 07:30. What was counted in the first is in no index.
    """
    running = signal(("05:00", True), (f"{DAY} 07:59:59", True), ("07:00", False), ("07:30", True))
    good = signal(("05:00", 0), ("06:30", 100), ("07:40", 300), ("07:00", 310), ("08:30", 400))
    bad = signal(("05:00", 0), ("07:00", 0))
    f = of(running, good, bad)
    assert parts_min(f) == {"running": 420, "stopped_unplanned": 30, "breaks": 30}
    assert (f.made.good, f.unseen.good) == (100 + 90, 200 + 10)


def test_31_clock_set_forward() -> None:
    """From 07:00 to 08:00 at once, values hold 2 min: 58 min that nobody lived are not known."""
    before = [
        (f"{DAY} {h:02d}:{m:02d}", True) for h, m in [(5, 59), *((6, m) for m in range(60)), (7, 0)]
    ]
    after = [(f"{DAY} {h:02d}:{m:02d}", True) for h in range(8, 14) for m in range(60)]
    f = of(signal(*before, *after, hold_ms=2 * MIN))
    assert parts_min(f) == {"running": 450 - 58, "unknown": 58, "breaks": 30}


@pytest.mark.parametrize(
    ("begin", "end", "hours"),
    [
        ("2018-11-03 22:00", "2018-11-04 06:00", 7),  # 23 h: 00:00 became 01:00
        ("2018-02-17 22:00", "2018-02-18 06:00", 9),  # 25 h: 23:00 to 24:00 twice
    ],
)
def test_32_dst_nights(begin: str, end: str, hours: int) -> None:
    """The night shift is as long as it was; one hour of it stopped."""
    night = calendar(plan("noite", "22:00", "06:00"))
    day = end[:10]
    running = signal((f"{begin[:10]} 20:00", True), (f"{day} 03:00", False), (f"{day} 04:00", True))
    f = of(running, shifts=night, begin=begin, end=end)
    assert parts_min(f) == {"running": (hours - 1) * 60, "stopped_unplanned": 60}
    assert f.availability == pytest.approx((hours - 1) / hours)


@pytest.mark.parametrize(
    ("day", "hours"), [("2018-11-04", 23), ("2018-02-17", 25), ("2018-03-01", 24)]
)
def test_33_days_of_three_shifts_have_no_hole(day: str, hours: int) -> None:
    """23, 25 and 24 h, no moment in no shift and none in two."""
    day_after = {
        "2018-11-04": "2018-11-05",
        "2018-02-17": "2018-02-18",
        "2018-03-01": "2018-03-02",
    }[day]
    f = of(
        signal((f"{day} 00:00", True), hold_ms=40 * 1440 * MIN),
        shifts=THREE_SHIFTS,
        begin=f"{day} 00:00",
        end=f"{day_after} 00:00",
    )
    assert sum(f.parts_ms.values()) == hours * 60 * MIN
    assert f.parts_ms["outside"] == 0


def test_34_outside_and_holidays() -> None:
    """A day of one shift: 16 h outside. On a holiday 24 h, though the machine runs."""
    one_day = of(signal(("2026-11-29 00:00", True)), begin=f"{DAY} 00:00", end="2026-12-01 00:00")
    assert parts_min(one_day) == {"running": 450, "breaks": 30, "outside": 16 * 60}
    closed = replace(
        MORNING, exceptions={MORNING.of_day(MORNING.day_of(one_day.begin_ms))[0].day: ()}
    )
    f = of(
        signal(("2026-11-29 00:00", True)),
        shifts=closed,
        begin=f"{DAY} 00:00",
        end="2026-12-01 00:00",
    )
    assert parts_min(f) == {"outside": 24 * 60}
    assert f.availability is None


def test_35_running_by_a_condition() -> None:
    """Runs while its speed is above 5: 5 itself is not."""
    machine = Machine("linha", op="above", limit=5)
    f = of(signal(("05:00", 5.1), ("07:00", 5), ("08:00", 12)), machine=machine)
    assert parts_min(f) == {"running": 390, "stopped_unplanned": 60, "breaks": 30}
    assert f.performance is None
    assert f.quality is None


def test_36_total_and_bad() -> None:
    """1000 in all, 40 bad: 960 good."""
    machine = replace(MACHINE, counters={"total": "DINT", "bad": "DINT"})
    signals = Signals(
        ALL_DAY,
        {
            "total": signal(("05:00", 0), ("07:00", 1000)),
            "bad": signal(("05:00", 0), ("07:00", 40)),
        },
    )
    shifts = MORNING.between(at("06:00"), at("14:00"))
    f = evaluate(machine, shifts, signals, at("06:00"), at("14:00"))
    assert f.made.good == 960
    assert f.quality == pytest.approx(0.96)


def test_37_performance_is_of_the_time_in_which_pieces_were_known() -> None:
    """The counter is bad from 07:00 to 09:00, the machine ran: 330 of 450 min count for pace."""
    good = signal(("05:00", 0), ("06:30", 300), ("07:00", None), ("09:00", 1500), ("12:00", 3000))
    f = of(ALL_DAY, good)
    assert f.availability == 1.0
    assert (f.made.good, f.unseen.good) == (1800, 1200)
    assert f.performance == pytest.approx(1800 / 3300)


def test_38_sums_are_not_means() -> None:
    """Four hours at 100 % and one at 50 % are 90 %, not 75."""
    running = signal(("05:00", True), ("13:00", False), ("13:30", True))
    long = of(running, begin="06:00", end="10:00")
    short = of(running, begin="13:00", end="14:00")
    both = total([long, short])
    assert both is not None
    assert both.availability == pytest.approx(270 / 300)
