"""Conditions that look a window back: rates, changes in percent, shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.alerts.core.leaf import Alarm, Leaf
from services.alerts.core.rule import Condition
from services.alerts.core.transition import FIRING
from services.alerts.core.window import Window
from services.runtime.measured import comparison, increase, number

# A mean or a share says something once a tenth of its window was measured.
LEAST_PART = 0.1


class Cumulated(Leaf):
    """Base of what looks a window back."""

    __slots__ = ("a", "b", "last", "last_b", "last_ts", "window")

    def __init__(self, condition: Condition, watch: Alarm, hold_ms: int) -> None:
        super().__init__(condition, watch, hold_ms)
        self.window = Window(condition.window_ms)
        self.a = self.b = 0.0
        self.last: float | None = None
        self.last_b: float | None = None
        self.last_ts = 0

    def measure(self, ts: int, value: Any, values: Mapping[str, Any]) -> bool | None:
        """Whether the quantity is beyond its limit; ``value`` becomes the quantity."""
        self.value = quantity = self.quantity(ts, value, values)
        if quantity is None:
            return None
        return (self.keep if self.watch.state == FIRING else self.test)(quantity)

    def quantity(self, ts: int, value: Any, values: Mapping[str, Any]) -> float | None:
        """What is compared."""
        raise NotImplementedError

    def back(self, ts: int) -> tuple[int, float, float]:
        """Notes the pair and answers with the one a window ago."""
        self.window.add(ts, self.a, self.b)
        point = self.window.back(ts)
        assert point is not None
        return point

    def dump(self) -> list[Any]:
        """Plain data."""
        points = [list(p) for p in self.window.points]
        return [*super().dump(), self.a, self.b, self.last, self.last_b, self.last_ts, points]

    def restore(self, data: list[Any]) -> None:
        """What ``dump`` gave."""
        super().restore(data)
        self.a, self.b, self.last, self.last_b, self.last_ts, points = data[5:]
        self.window.points = [(p[0], p[1], p[2]) for p in points]


class Rate(Cumulated):
    """Change per unit of time between now and a window ago, which must be known."""

    __slots__ = ()

    def quantity(self, ts: int, value: Any, values: Mapping[str, Any]) -> float | None:
        """Per ``per_ms``; None while the window is not covered."""
        now = number(value)
        if now is None:
            return None
        if self.condition.counter:
            self.a += 0.0 if self.last is None else increase(self.last, now, self.condition.counter)
            self.last = now
        else:
            self.a = now
        then, a, _ = self.back(ts)
        if ts - then < self.condition.window_ms:
            return None
        return (self.a - a) * self.condition.per_ms / (ts - then)

    def lose(self, *, gap: bool) -> None:
        """Across a gap nobody knows what the counter did."""
        super().lose(gap=gap)
        if gap:
            self.window.points.clear()
            self.last = None


class Increase(Cumulated):
    """This counter's part, in percent, in the increase of itself and another over a window."""

    __slots__ = ()

    def quantity(self, ts: int, value: Any, values: Mapping[str, Any]) -> float | None:
        """None while too little of the window is known, or nothing was counted in it."""
        mine, other = number(value), number(values.get(self.condition.reference))
        if mine is None or other is None:
            return None
        if self.last is not None and self.last_b is not None:
            self.a += increase(self.last, mine, self.condition.counter)
            self.b += increase(self.last_b, other, self.condition.counter)
        self.last, self.last_b = mine, other
        then, a, b = self.back(ts)
        whole = self.a - a + self.b - b
        if whole <= 0 or ts - then < self.condition.window_ms * LEAST_PART:
            return None
        return 100.0 * (self.a - a) / whole

    def lose(self, *, gap: bool) -> None:
        """Across a gap nobody knows what the counters did."""
        super().lose(gap=gap)
        if gap:
            self.window.points.clear()
            self.last = self.last_b = None


class Samples(Cumulated):
    """Which part of a window's samples is beyond a limit, in percent."""

    __slots__ = ("_counts",)

    def __init__(self, condition: Condition, watch: Alarm, hold_ms: int) -> None:
        super().__init__(condition, watch, hold_ms)
        self._counts = comparison(*condition.reference)

    def quantity(self, ts: int, value: Any, values: Mapping[str, Any]) -> float | None:
        """None while too little of the window is known."""
        counts = self._counts(value)
        if counts is None:
            return None
        then, a, b = self.back(ts)
        self.a += counts
        self.b += 1.0
        if ts - then < self.condition.window_ms * LEAST_PART:
            return None
        return 100.0 * (self.a - a) / (self.b - b)


class Deviation(Cumulated):
    """Change, in percent, against a reference: a value, another field, a window's mean."""

    __slots__ = ()

    def quantity(self, ts: int, value: Any, values: Mapping[str, Any]) -> float | None:
        """None while the reference is unknown or zero."""
        now = number(value)
        if now is None:
            return None
        condition = self.condition
        if condition.of == "mean":
            reference = self._mean(ts, now)
        elif condition.of == "field":
            reference = number(values.get(condition.reference))
        else:
            reference = condition.reference
        if not reference:
            return None
        return 100.0 * (now - reference) / abs(reference)

    def _mean(self, ts: int, now: float) -> float | None:
        """Of what was before this value, weighted by how long it held."""
        if self.last is not None and ts > self.last_ts:
            held_ms = min(ts - self.last_ts, self.hold_ms)
            self.a += self.last * held_ms
            self.b += held_ms
        self.last, self.last_ts = now, ts
        _, a, b = self.back(ts)
        if self.b - b < self.condition.window_ms * LEAST_PART:
            return None
        return (self.a - a) / (self.b - b)

    def lose(self, *, gap: bool) -> None:
        """What is not known does not enter the mean."""
        super().lose(gap=gap)
        self.last = None
