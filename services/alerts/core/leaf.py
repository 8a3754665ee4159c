"""One condition at one place: what each good value makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from services.alerts.core.rule import COUNTER_BITS, Condition
from services.alerts.core.transition import FIRING
from services.alerts.core.window import Window

if TYPE_CHECKING:
    from services.alerts.core.watch import Watch

FOREVER = 2**62
# Signs of life of one PLC come from several groups, whose times need not be in order; one that is
# further back means that the clock was set.
DISORDER_MS = 300_000
# A mean or a share says something once a tenth of its window was measured.
LEAST_PART = 0.1


def number(value: Any) -> float | None:
    """A value to compare: 64-bit integers come as text; None for what is no finite number."""
    if isinstance(value, str):
        try:
            value = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def comparison(op: str, limit: Any) -> Callable[[Any], bool | None]:
    """A function value -> whether it is beyond the limit, None where it cannot be compared."""
    if op == "equal":
        wanted = tuple(limit)

        def equal(value: Any) -> bool | None:
            if value in wanted:
                return True
            if isinstance(value, str) and any(not isinstance(w, str) for w in wanted):
                return number(value) in wanted
            return False

        return equal
    low, high = {
        "above": (-math.inf, limit), "below": (limit, math.inf), "outside": limit
    }[op]  # fmt: skip

    def beyond(value: Any) -> bool | None:
        if type(value) is not float and (value := number(value)) is None:
            return None
        if low <= value <= high:
            return False
        return True if value == value else None  # NaN

    return beyond


class Leaf:
    """State of one condition. ``raw``: what the last value said, None where none is known."""

    __slots__ = (
        "condition", "hold_ms", "keep", "met", "raw", "seen", "since", "test", "value", "watch",
    )  # fmt: skip

    def __init__(self, condition: Condition, watch: Watch, hold_ms: int) -> None:
        self.condition = condition
        self.watch = watch
        self.hold_ms = hold_ms
        self.raw: bool | None = None
        self.since = 0
        """Since when ``raw`` is true without interruption; event time."""
        self.seen = 0
        """The last value's time."""
        self.met = False
        """It held for long enough, and its alarm rings: a gap no longer takes that back."""
        self.value: Any = None
        if condition.op not in ("", "unchanged"):
            self.test = comparison(condition.op, condition.limit)
            returns_at = condition.returns_at
            self.keep = self.test if returns_at is None else comparison(condition.op, returns_at)

    def take(self, ts: int, value: Any, values: Mapping[str, Any]) -> None:
        """A good value."""
        watch = self.watch
        if watch.quiet and self.raw is False and ts >= self.seen:
            hit = self.measure(ts, value, values)
            if hit is False:
                self.seen = ts
                return
        elif self.raw and self._goes_on(ts):
            hit = self.measure(ts, value, values)
            if hit:
                self.seen = ts
                return
        else:
            watch.before(self, ts)
            hit = self.measure(ts, value, values)
        watch.apply(self, ts, hit)

    def _goes_on(self, ts: int) -> bool:
        """Whether, still true, it would change nothing: its alarm waits for ``for``, or rings."""
        if not 0 <= ts - self.seen <= self.hold_ms:
            return False
        if not self.watch.quiet:
            return self.watch.rings
        due = self.due_ms()
        return due is None or ts < due

    def measure(self, ts: int, value: Any, values: Mapping[str, Any]) -> bool | None:
        """What the value says; remembers it."""
        self.value = value
        return (self.keep if self.watch.state == FIRING else self.test)(value)

    def note(self, ts: int, hit: bool) -> None:
        """Takes over what was measured; true again after a silence longer than values hold is a
        new beginning.
        """
        if not hit:
            self.met = False
        elif self.raw is not True or ts > self.until_ms():
            self.begin(ts)
        self.raw = hit
        self.seen = ts

    def begin(self, ts: int) -> None:
        """Counts from here."""
        self.since = ts
        if self.watch.state != FIRING:
            self.met = False

    def settled(self, ts: int) -> None:
        """After the alarm has taken note."""

    def unknown(self) -> None:
        """It cannot be said."""
        self.raw = None
        if self.watch.state != FIRING:
            self.met = False

    def lose(self, *, gap: bool) -> None:
        """A bad value, or a gap."""
        self.unknown()

    def rewind(self, ts: int) -> None:
        """The clock was set back: nothing has happened in the future."""
        self.since = min(self.since, ts)
        self.seen = min(self.seen, ts)

    def due_ms(self) -> int | None:
        """When it holds for long enough, if it goes on."""
        return self.watch.rule.due_ms(self.since, self.condition.for_ms)

    def until_ms(self) -> int:
        """Until when the last value counts as held."""
        return self.seen + self.hold_ms

    def truth(self, t: int) -> bool | None:
        """At a moment not before the last value."""
        if self.raw is None or t > self.until_ms():
            return None
        if not self.raw or self.met:
            return self.raw
        due = self.due_ms()
        return due is not None and due <= t

    def dump(self) -> list[Any]:
        """Plain data."""
        return [self.raw, self.since, self.seen, self.met, self.value]

    def restore(self, data: list[Any]) -> None:
        """What ``dump`` gave."""
        self.raw, self.since, self.seen, self.met, self.value = data[:5]


class Steady(Leaf):
    """True while the value does not change."""

    __slots__ = ()

    def take(self, ts: int, value: Any, values: Mapping[str, Any]) -> None:
        """A good value."""
        watch = self.watch
        if watch.quiet and self.raw and self.seen <= ts:
            due = self.due_ms()
            if due is None or ts < due:
                if value != self.value or ts - self.seen > self.hold_ms:
                    self.since, self.value = ts, value
                self.seen = ts
                return
        watch.before(self, ts)
        watch.apply(self, ts, self.measure(ts, value, values))

    def measure(self, ts: int, value: Any, values: Mapping[str, Any]) -> bool | None:
        """Whether it is what it was; the first is."""
        same = self.value is None or value == self.value
        self.value = value
        return same

    def settled(self, ts: int) -> None:
        """The new value may last."""
        if self.raw is False:
            self.raw = True
            self.begin(ts)


class Silence(Leaf):
    """True while no sign comes; ``value`` is the last sign's, if it had one."""

    __slots__ = ()

    def take(self, ts: int, value: Any, values: Mapping[str, Any]) -> None:
        """A sign of life."""
        watch = self.watch
        if self.raw and watch.quiet and self.since <= ts:
            due = self.due_ms()
            if due is None or ts <= due:
                self.since = ts
                return
        if self.raw and watch.context.is_history:  # known to have spoken then; silent now or not
            self.since = max(self.since, ts)
            return
        if self.raw and ts < self.since:
            if self.since - ts <= DISORDER_MS:
                ts = self.since
            else:
                watch.rewind(ts)
        watch.before(self, ts)
        self.value = value
        watch.apply(self, ts, False)
        self.value = None

    def settled(self, ts: int) -> None:
        """From here on it is silent again."""
        self.raw = True
        self.begin(ts)

    def lose(self, *, gap: bool) -> None:
        """A gap is no silence, a bad value no sign."""

    def start(self, now_ms: int) -> None:
        """Silence counts from here: nobody listened before."""
        if self.watch.state != FIRING:
            self.raw, self.since = True, max(now_ms, self.since)

    def until_ms(self) -> int:
        """A silence lasts until it is broken."""
        return FOREVER


class Status(Leaf):
    """True while the link is said to be down."""

    __slots__ = ()

    def measure(self, ts: int, value: Any, values: Mapping[str, Any]) -> bool | None:
        """Of the status that the broker holds."""
        self.value = value
        return bool(value == "offline")

    def until_ms(self) -> int:
        """It is retained."""
        return FOREVER


class Cumulated(Leaf):
    """Base of what looks a window back."""

    __slots__ = ("a", "b", "last", "last_b", "last_ts", "window")

    def __init__(self, condition: Condition, watch: Watch, hold_ms: int) -> None:
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


def increase(last: float, value: float, counter: str) -> float:
    """By how much a counter rose: a fall is a wrap of its type, or else a restart at zero."""
    if value >= last:
        return value - last
    bits = COUNTER_BITS.get(counter)
    if bits is not None:
        wrapped = (value - last) % float(2**bits)
        if wrapped < 2 ** (bits - 1):
            return wrapped
    return max(value, 0.0)


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

    def __init__(self, condition: Condition, watch: Watch, hold_ms: int) -> None:
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


def make(condition: Condition, watch: Watch, hold_ms: int) -> Leaf:
    """The leaf of a condition."""
    kind: type[Leaf] = Leaf
    if condition.kind == "absence":
        kind = Status if condition.of == "link" else Silence
    elif condition.kind == "rate_change":
        kind = Rate
    elif condition.kind == "percentage":
        kind = {"samples": Samples, "increase": Increase}.get(condition.of, Deviation)
    elif condition.op == "unchanged":
        kind = Steady
    return kind(condition, watch, hold_ms)
