"""Shifts and signals as the cases write them: times are the wall's, `06:00` of one Monday or
`2026-12-01 06:00`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from services.oee.core.calendar import Calendar, Pause, Plan
from services.oee.core.evaluate import evaluate
from services.oee.core.figures import Figures
from services.oee.core.machine import Machine, Signals
from services.oee.core.signal import Signal

ZONE = ZoneInfo("America/Sao_Paulo")
DAY = "2026-11-30"  # a Monday
EVERY_DAY = frozenset(range(7))
FOREVER_MS = 10 * 86_400_000
MIN = 60_000
MACHINE = Machine(
    "prensa", ideal_ms=6_000, min_stop_ms=30_000, counters={"good": "UINT", "bad": "UINT"}
)


def at(wall: str, zone: ZoneInfo = ZONE) -> int:
    """Unix ms."""
    text = wall if len(wall) > 9 else f"{DAY} {wall}"
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1_000)


def minutes(wall: str) -> int:
    hours, _, rest = wall.partition(":")
    return int(hours) * 60 + int(rest)


def plan(name: str, begin: str, end: str, *breaks: tuple[str, str], days: Any = EVERY_DAY) -> Plan:
    pauses = tuple(Pause("pausa", minutes(b), minutes(e)) for b, e in breaks)
    return Plan(name, frozenset(days), minutes(begin), minutes(end), pauses)


def calendar(*plans: Plan, zone: ZoneInfo = ZONE, **exceptions: Sequence[str]) -> Calendar:
    days = {date.fromisoformat(k.lstrip("d").replace("_", "-")): v for k, v in exceptions.items()}
    return Calendar(zone, plans, days)


def signal(
    *samples: tuple[str | int, Any],
    hold_ms: int = FOREVER_MS,
    lost: Sequence[tuple[str, str]] = (),
) -> Signal:
    when = [(t if isinstance(t, int) else at(t), v) for t, v in samples]
    return Signal(when, hold_ms, [(at(b), at(e)) for b, e in lost])


MORNING = calendar(plan("manha", "06:00", "14:00", ("10:00", "10:30")))


def of(
    running: Signal,
    good: Signal | None = None,
    bad: Signal | None = None,
    *reasons: Signal,
    machine: Machine = MACHINE,
    shifts: Calendar = MORNING,
    begin: str = "06:00",
    end: str = "14:00",
) -> Figures:
    """Of the morning of a Monday, 06:00 to 14:00 with a break from 10:00 to 10:30."""
    nothing = signal(("00:00", 0), lost=())
    counters = {"good": good or nothing, "bad": bad or nothing}
    used = {k: v for k, v in counters.items() if k in (machine.counters or {})}
    begin_ms, end_ms = at(begin), at(end)
    days = shifts.between(begin_ms, end_ms)
    return evaluate(machine, days, Signals(running, used, reasons), begin_ms, end_ms)


def parts_min(figures: Figures) -> dict[str, float]:
    """The parts that are there, in minutes; together they are the window."""
    assert sum(figures.parts_ms.values()) == figures.end_ms - figures.begin_ms
    return {part: ms / MIN for part, ms in figures.parts_ms.items() if ms}
