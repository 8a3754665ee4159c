"""One condition at one place: what each good value makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from services.alerts.core.rule import Condition, Rule
from services.alerts.core.transition import FIRING
from services.runtime.measured import comparison

FOREVER = 2**62
# Signs of life of one PLC come from several groups, whose times need not be in order; one that is
# further back means that the clock was set.
DISORDER_MS = 300_000


class Alarm(Protocol):
    """What a condition knows of the alarm that it is of: services/alerts/core/watch.py."""

    rule: Rule
    plc: Any
    context: Any
    leaves: list[Leaf]
    state: str
    quiet: bool
    rings: bool

    def before(self, leaf: Leaf, ts: int) -> None:
        """Time passes up to a value of ``leaf``."""

    def apply(self, leaf: Leaf, ts: int, hit: bool | None) -> None:
        """Takes over what the value said."""

    def lose(self, leaf: Leaf, ts: int, *, gap: bool = False) -> None:
        """The value is not known any more."""

    def rewind(self, ts: int) -> None:
        """The clock was set back."""

    def tick(self, now_ms: int) -> bool:
        """Time passes without a message; whether that has changed anything."""

    def close(self, ts: int, reason: str) -> None:
        """Its place or its rule is gone."""


class Leaf:
    """State of one condition. ``raw``: what the last value said, None where none is known."""

    __slots__ = (
        "condition", "hold_ms", "keep", "met", "raw", "seen", "since", "test", "value", "watch",
    )  # fmt: skip

    def __init__(self, condition: Condition, watch: Alarm, hold_ms: int) -> None:
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
