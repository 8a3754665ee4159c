"""Shifts as a place's wall clock has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any

from services.oee.core.stretches import Stretch, common, union
from services.runtime.wall_clock import moment

DAY_MIN = 1440


@dataclass(frozen=True, slots=True)
class Pause:
    """A planned break. Minutes of the day; before its shift's beginning: of the next day."""

    name: str
    begin_min: int
    end_min: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A shift of the week."""

    name: str
    days: frozenset[int]
    """Of its beginning; Monday = 0."""
    begin_min: int
    end_min: int
    """At or before ``begin_min``: on the next day."""
    breaks: tuple[Pause, ...] = ()

    @property
    def length_min(self) -> int:
        """What the wall clock shows between beginning and end, 1 to 1440."""
        return (self.end_min - self.begin_min) % DAY_MIN or DAY_MIN

    def breaks_min(self) -> Iterator[tuple[int, int]]:
        """(beginning, end) of each break, counted from midnight of the day the shift begins on."""
        for pause in self.breaks:
            begin = pause.begin_min + (DAY_MIN if pause.begin_min < self.begin_min else 0)
            yield begin, begin + (pause.end_min - pause.begin_min) % DAY_MIN


@dataclass(frozen=True, slots=True)
class Shift:
    """One shift of one day."""

    name: str
    day: date
    """On which it begins."""
    begin_ms: int
    end_ms: int
    breaks: tuple[Stretch, ...]

    @property
    def id(self) -> str:
        """``2026-11-30/manha``: no other is called so."""
        return f"{self.day.isoformat()}/{self.name}"

    def as_json(self, now_ms: int) -> dict[str, Any]:
        """Plain data, with how it stands to a moment."""
        if now_ms < self.begin_ms:
            state = "future"
        else:
            state = "now" if now_ms < self.end_ms else "past"
        return {
            "id": self.id,
            "name": self.name,
            "day": self.day.isoformat(),
            "begin_ms": self.begin_ms,
            "end_ms": self.end_ms,
            "breaks_ms": [list(b) for b in self.breaks],
            "state": state,
        }


@dataclass(frozen=True)
class Calendar:
    """All shifts. A day in ``exceptions`` has exactly the shifts that stand there."""

    zone: tzinfo
    plans: Sequence[Plan]
    exceptions: Mapping[date, Sequence[str]]

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], zone: tzinfo) -> Calendar:
        """As services/runtime/oee_model.py writes it; ``zone`` is its ``timezone``."""
        return cls(
            zone,
            [
                Plan(
                    p["name"],
                    frozenset(p["days"]),
                    p["begin_min"],
                    p["end_min"],
                    tuple(Pause(*b) for b in p["breaks"]),
                )
                for p in spec["plans"]
            ],
            {date.fromisoformat(d): names for d, names in spec["exceptions"].items()},
        )

    def of_day(self, day: date) -> list[Shift]:
        """The shifts that begin on a day, in order. One that a clock set forward leaves nothing of
        is not there.
        """
        wanted = self.exceptions.get(day)
        found = [
            self._shift(plan, day)
            for plan in self.plans
            if (day.weekday() in plan.days if wanted is None else plan.name in wanted)
        ]
        return sorted((s for s in found if s.begin_ms < s.end_ms), key=lambda s: s.begin_ms)

    def between(self, begin_ms: int, end_ms: int) -> list[Shift]:
        """The shifts of which some moment lies in [begin, end), in order."""
        day = self.day_of(begin_ms) - timedelta(days=2)
        last = self.day_of(end_ms) + timedelta(days=1)
        out: list[Shift] = []
        while day <= last:
            out += [s for s in self.of_day(day) if s.begin_ms < end_ms and begin_ms < s.end_ms]
            day += timedelta(days=1)
        return out

    def day_of(self, ts_ms: int) -> date:
        """What the calendar on the wall shows."""
        return datetime.fromtimestamp(ts_ms / 1_000, self.zone).date()

    def _shift(self, plan: Plan, day: date) -> Shift:
        begin_ms = self._ms(day, plan.begin_min)
        end_ms = self._ms(day, plan.begin_min + plan.length_min)
        breaks = union((self._ms(day, b), self._ms(day, e)) for b, e in plan.breaks_min())
        inside = common(breaks, [(begin_ms, end_ms)])
        return Shift(plan.name, day, begin_ms, end_ms, tuple(inside))

    def _ms(self, day: date, minute: int) -> int:
        """Of a moment that comes twice the first, of one that is skipped the skip: so a shift ends
        where the next begins.
        """
        return round(moment(day, minute, self.zone, 0) * 1_000)
