"""What people must be told, worked out slowly from a whole log, minute by minute."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import cache
from typing import Any

MINUTE_MS = 60_000

Told = tuple[int, str, str, tuple[str, ...]]
"""(minute, receiver, single | escalation | group | quiet_hours, ids)."""


@dataclass(frozen=True)
class Plan:
    """A route: times in minutes; ``steps``: (after, receivers); ``quiet``: (days, from, to)."""

    receivers: tuple[str, ...]
    group: int = 0
    steps: tuple[tuple[int, tuple[str, ...]], ...] = ()
    quiet: tuple[tuple[frozenset[int], int, int], ...] = ()


@dataclass
class Event:
    """``what``: begins | ends (``notify``) | ack | silence (``until``)."""

    minute: int
    alarm: str
    what: str
    id: str = ""
    notify: bool = True
    until: int = 0


@cache
def quiet_minutes(
    start_ms: int, count: int, zone: tzinfo, hours: tuple[frozenset[int], int, int]
) -> set[int]:
    """Minutes (from ``start_ms``) that lie in the hours, found by looking at the clock each minute:
    from the first that shows the beginning until after the last that shows less than the end.
    """
    days, begin, end = hours
    before = 3 * 1440
    walls = [
        (m, datetime.fromtimestamp(start_ms / 1_000 + m * 60, zone).replace(tzinfo=None))
        for m in range(-before, count + before)
    ]
    quiet: set[int] = set()
    length = (end - begin) % 1440 or 1440
    for midnight in {datetime(w.year, w.month, w.day) for _, w in walls}:
        if midnight.weekday() in days:
            opens = midnight + timedelta(minutes=begin)
            closes = midnight + timedelta(minutes=begin + length)
            first = next((m for m, w in walls if w >= opens), None)
            last = next((m for m, w in reversed(walls) if w < closes), None)
            if first is not None and last is not None:
                quiet |= set(range(first, last + 1))
    return quiet & set(range(count))


@dataclass
class _Alarm:
    """What is said of one alarm, before anything is grouped."""

    now: list[tuple[int, Event]] = field(default_factory=list)
    summed: list[tuple[int, Event]] = field(default_factory=list)


def _say(events: list[Event], quiet: set[int], minutes: int) -> _Alarm:
    said, held, until = _Alarm(), [], 0  # type: ignore[var-annotated]
    for minute in range(minutes):
        for e in (e for e in events if e.minute == minute):
            if e.what == "silence":
                until = e.until if held else 0
            elif e.what in ("begins", "ends"):
                if e.notify and (held or minute in quiet):
                    held.append(e)
                elif e.notify:
                    said.now.append((minute, e))
                elif e.what == "ends" and held:
                    # They need not know, unless they believe that an older one rings.
                    held = [*held, e] if held[0].what == "ends" else []
            if not held:
                until = 0
        if held and minute not in quiet and until <= minute:
            if held[-1].what == "begins" or held[0].what == "ends":
                said.summed.append((minute, held[-1]))
            held, until = [], 0
    return said


def expected(
    log: list[Event], plans: dict[str, Plan], route_of: dict[str, str],
    quiet: dict[str, set[int]], minutes: int,
) -> list[Told]:  # fmt: skip
    """All that is told, in no order within a minute. ``quiet``: by alarm."""
    told: list[Told] = []
    said = {
        alarm: _say([e for e in log if e.alarm == alarm], quiet[alarm], minutes)
        for alarm in route_of
    }
    for route, plan in plans.items():
        mine = [a for a, r in route_of.items() if r == route]
        order = {e.id: n for n, e in enumerate(log)}
        now = sorted((x for a in mine for x in said[a].now), key=lambda x: order[x[1].id])
        heard: dict[str, int] = {}
        """When the route heard of it, by id."""
        groups: dict[int, list[str]] = defaultdict(list)
        due = -1
        for minute, e in now:
            if plan.group == 0:
                heard[e.id] = minute
                told += [(minute, r, "single", (e.id,)) for r in plan.receivers]
                continue
            if minute > due:
                due = minute + plan.group
            heard[e.id] = due
            if due < minutes:
                groups[due].append(e.id)
        for minute, ids in groups.items():
            kind = "group" if len(ids) > 1 else "single"
            told += [(minute, r, kind, tuple(ids)) for r in plan.receivers]
        sums: dict[int, list[str]] = defaultdict(list)
        for minute, e in sorted((x for a in mine for x in said[a].summed), key=lambda x: x[0]):
            heard[e.id] = minute
            sums[minute].append(e.id)
        for minute, ids in sums.items():
            told += [(minute, r, "quiet_hours", tuple(sorted(ids))) for r in plan.receivers]
        for alarm in mine:
            events = [e for e in log if e.alarm == alarm]
            told += _escalated(alarm, events, plan, heard, said[alarm], quiet[alarm], minutes)
    return told


def _escalated(
    alarm: str, events: list[Event], plan: Plan, heard: dict[str, int], said: _Alarm,
    quiet: set[int], minutes: int,
) -> list[Told]:  # fmt: skip
    """Each alarm that the route has heard of, until it ends: who else is told, and who of them is
    told of its end.
    """
    told: list[Told] = []
    order = {e.id: n for n, e in enumerate(events) if e.id}
    summed = {e.id: minute for minute, e in said.summed}
    for begin in [e for e in events if e.what == "begins" and e.id in heard]:
        later = events[order[begin.id] + 1 :]
        end = next((e for e in later if e.what in ("begins", "ends")), None)
        others: list[str] = []
        step = 0
        acked, until = False, 0
        # Of one that is told in a summary, only what people do after that counts.
        since = heard[begin.id] if begin.id in summed else begin.minute
        for minute in range(begin.minute, minutes):
            over = end is not None and minute >= end.minute
            after_end = False
            for e in (e for e in later if e.minute == minute):
                after_end = after_end or e is end
                if after_end or minute < since + (begin.id in summed):
                    continue
                acked = acked or e.what == "ack"
                until = e.until if e.what == "silence" else until
            if over:
                break
            while (
                step < len(plan.steps)
                and not acked
                and until <= minute
                and minute not in quiet
                and heard[begin.id] + plan.steps[step][0] <= minute
            ):
                told += [(minute, r, "escalation", (f"{begin.id}-e{step + 1}",))
                         for r in plan.steps[step][1]]  # fmt: skip
                others += [
                    r for r in plan.steps[step][1] if r not in plan.receivers + tuple(others)
                ]
                step += 1
        if end is not None and others:
            told += _end_told(events[order[end.id] :], others, said, summed)
    return told


def _end_told(rest: list[Event], others: list[str], said: _Alarm, summed: dict[str, int]) -> Any:
    """The end goes to the others at once, or in place of it what its summary says."""
    end = rest[0]
    for minute, e in said.now:
        if e.id == end.id:
            return [(minute, r, "single", (end.id,)) for r in others]
    if end.notify:  # held
        for e in rest:
            if e.id in summed:
                return [(summed[e.id], r, "single", (e.id,)) for r in others]
    return []
