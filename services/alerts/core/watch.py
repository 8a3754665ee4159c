"""One rule at one place: the states of its alarm, by event time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.alerts.core.context import Box, Context
from services.alerts.core.leaf import Leaf, Silence, Status, Steady
from services.alerts.core.rule import Condition, Rule
from services.alerts.core.transition import COOLING, FIRING, OK, Place, Transition
from services.alerts.core.windowed import Deviation, Increase, Rate, Samples

TEXT = "{rule}: {value} {unit}"
# Words of a message template.
WORDS = (
    "rule", "value", "unit", "plc", "machine", "field", "group", "site", "locatario", "severity",
)  # fmt: skip


class Watch:
    """The alarm of one rule at one place.

    ``before`` and ``apply`` enclose a measurement: the first brings time up to it with what was
    held until then, the second takes it over.
    """

    __slots__ = (
        "acknowledged", "at", "box", "context", "cool_until", "leaves", "onset", "past",
        "place", "plc", "quiet", "rings", "rule", "silenced", "since", "state", "told",
    )  # fmt: skip

    def __init__(
        self, rule: Rule, place: Place, context: Context, plc: Any, box: Box | None,
        past: bool = False,
    ) -> None:  # fmt: skip
        self.rule = rule
        self.place = place
        self.context = context
        self.plc = plc
        """Whose sequence drives it; None for a box's own alarms."""
        self.box = box
        self.past = past
        """It only sees what came out of order: history beside the live state."""
        self.leaves: list[Leaf] = [_leaf(c, self, 0) for c in rule.conditions]
        self.state = OK
        self.since = 0
        """Since when it is in this state."""
        self.cool_until = 0
        self.onset: int | None = None
        """Of several conditions: since when they hold together, as of the last message."""
        self.at = 0
        """The last message's time, of several conditions."""
        self.told = False
        """Whether people know that it rings."""
        self.acknowledged: tuple[str, int] | None = None
        """(by whom, when)."""
        self.silenced: tuple[int, str] | None = None
        """(until when, why)."""
        self.quiet = rule.mode == "one"
        """It is ok, and of one condition: see Leaf.take, which need not ask it much."""
        self.rings = False
        """Likewise: it fires, and people know."""

    # -- a message ----------------------------------------------------------------------------

    def before(self, leaf: Leaf, ts: int) -> None:
        """Time passes up to a value of ``leaf``."""
        if ts < leaf.seen:
            self.rewind(ts)
        self.advance(ts - 1)  # at ``ts`` itself the new value counts
        self._carry(ts)

    def _carry(self, ts: int) -> None:
        """Of several conditions: since when they hold together, a moment later."""
        if self.rule.mode != "one" and self.state != FIRING:
            held = [start for start, reach in self._spans() if start <= ts <= reach]
            self.onset, self.at = (held[0] if held else None), ts

    def apply(self, leaf: Leaf, ts: int, hit: bool | None) -> None:
        """Takes over what the value said."""
        if hit is None:
            leaf.unknown()
        else:
            leaf.note(ts, hit)
        self._settle(ts)
        leaf.settled(ts)
        self.wait()

    def lose(self, leaf: Leaf, ts: int, *, gap: bool = False) -> None:
        """The value is not known any more; that neither begins nor ends anything."""
        self._carry(ts)
        leaf.lose(gap=gap)
        if self.truth(ts) is not True:
            self.onset = None

    def rewind(self, ts: int) -> None:
        """The clock was set back: whatever was noted later than now counts from now."""
        for leaf in self.leaves:
            leaf.rewind(ts)
        self.since = min(self.since, ts)
        self.cool_until = min(self.cool_until, ts + self.rule.cooldown_ms)
        if self.onset is not None:
            self.onset = min(self.onset, ts)

    def _settle(self, ts: int) -> None:
        truth = self.truth(ts)
        if self.state == FIRING:
            if truth is False:
                self._end(ts, "returned")
                return
            self._latch(ts)
            if truth:
                self.tell(ts)
            return
        if self.rule.mode != "one":
            self.onset = (ts if self.onset is None else self.onset) if truth else None
        self.advance(ts)

    # -- time -----------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> bool:
        """Time passes without a message; whether that has changed anything."""
        before = self.context.number
        started = [x for x in self.leaves if isinstance(x, Silence) and x.raw is None]
        for leaf in started:
            leaf.start(now_ms)
        self.advance(now_ms)
        if self.state == FIRING and not self.told and self.truth(now_ms):
            self.tell(now_ms)
        self.wait()
        return bool(started) or self.context.number != before

    def advance(self, t: int) -> None:
        """What time alone brings until ``t``: the end of cooling, and the beginning of an alarm
        whose condition holds, as far as values count as held.
        """
        if self.state == COOLING:
            if self.cool_until > t:
                return
            self._go(OK, self.cool_until, False, "cooldown_over")
        if self.state == OK:
            for start, reach in self._spans():
                due = start if self.rule.mode == "one" else self._due(start)
                if due is not None and (at := max(due, self.since)) <= min(t, reach):
                    self._fire(at)
                    return

    def _due(self, start: int) -> int | None:
        return self.rule.due_ms(start, self.rule.for_ms)

    def _spans(self) -> Iterator[tuple[int, int]]:
        """(first, last moment) in which the condition is true, by what is known now."""
        spans = []
        for leaf in self.leaves:
            due = leaf.due_ms() if leaf.raw else None
            if due is not None and due <= leaf.until_ms():
                spans.append((due, leaf.until_ms()))
            elif self.rule.mode != "any":
                return
        if self.rule.mode == "all":
            spans = [(max(s for s, _ in spans), min(e for _, e in spans))]
        if self.onset is not None:
            spans += [(self.onset, end) for start, end in spans if start <= self.at <= end]
        yield from _merged(spans)

    def truth(self, t: int) -> bool | None:
        """Whether the condition holds, at a moment not before the last message."""
        found = [leaf.truth(t) for leaf in self.leaves]
        if len(found) == 1:
            return found[0]
        decisive = self.rule.mode == "any"
        if decisive in found:
            return decisive
        return None if None in found else not decisive

    def _latch(self, t: int) -> None:
        for leaf in self.leaves:
            leaf.met = leaf.met or leaf.truth(t) is True

    def wait(self) -> None:
        """Is among those that ticks are for, or is not."""
        if self.past:
            return
        waits = (
            any(leaf.raw is True or isinstance(leaf, Silence) for leaf in self.leaves)
            if self.state == OK
            else self.state == COOLING or not self.told
        )
        if waits:
            self.context.waiting[self] = None
        else:
            self.context.waiting.pop(self, None)

    # -- changes of state -----------------------------------------------------------------------

    def _fire(self, ts: int) -> None:
        suppressed = self._suppressed(ts)
        cause = self._cause(ts)
        if not suppressed and self._told_elsewhere(cause):
            suppressed = cause
        self.told = not suppressed
        self._go(FIRING, ts, self.told, suppressed or cause or "condition")
        self._latch(ts)
        self.onset = None

    def _end(self, ts: int, reason: str) -> None:
        suppressed = self._suppressed(ts) or ("" if self.told else "not_told")
        ts = max(ts, self.since)
        self._go(COOLING, ts, not suppressed, suppressed or reason)
        self.cool_until = ts + self.rule.cooldown_ms
        self.told = False
        self.acknowledged = None
        for leaf in self.leaves:
            leaf.met = False
        self.advance(ts)

    def close(self, ts: int, reason: str) -> None:
        """Its place or its rule is gone: nothing stays open."""
        if self.state == FIRING:
            self._go(COOLING, max(ts, self.since), False, reason)
        if self.state == COOLING:
            self._go(OK, max(ts, self.since), False, reason)
        self.context.waiting.pop(self, None)

    def tell(self, ts: int) -> None:
        """It rings, and nobody was told: out of a backlog, a silence, or behind a dead link."""
        if self.told or self._suppressed(ts) or self._told_elsewhere(self._cause(ts)):
            return
        self.told = True
        self._go(FIRING, ts, True, "still_firing")

    def _suppressed(self, ts: int) -> str:
        """Why nobody is told; empty where somebody is."""
        context = self.context
        if self.past or context.is_history:
            return "replay" if context.mode == "replay" else "late"
        if ts < context.now_ms - context.late_after_ms and not self._is_silence():
            return "late"
        if self.silenced is not None and context.now_ms < self.silenced[0]:
            return "silenced"
        return ""

    def _is_silence(self) -> bool:
        """A silence is true now, whenever it began."""
        return self.rule.mode == "one" and isinstance(self.leaves[0], Silence)

    def _cause(self, ts: int) -> str:
        """Of a silence: what is silent."""
        if not self._is_silence():
            return ""
        of = self.leaves[0].condition.of
        if of == "box":
            return "box_silent"
        if self.box is not None and self.box.name:
            if self.box.is_down:
                return "link_down"
            # Boxes say something every few seconds: silent too, if not a word for half as long.
            if ts - self.box.heard_ms >= self.leaves[0].condition.for_ms / 2:
                return "box_silent"
        return "no_value" if of == "value" else "plc_silent"

    def _told_elsewhere(self, cause: str) -> bool:
        """Whether the box has an alarm of its own for what made this one."""
        if cause not in ("link_down", "box_silent") or self.plc is None or self.box is None:
            return False
        return self.box.has_alarm("link" if cause == "link_down" else "box")

    def _go(self, state: str, ts: int, notify: bool, reason: str) -> None:
        before, self.state = self.state, state
        began = self.since if before == FIRING else ts if state == FIRING else None
        if state != before:
            self.since = ts
        self._note_state()
        self.context.number += 1
        value, number = self.value(), self.context.number
        self.context.out.append(
            Transition(
                ts, self.rule.name, self.place, before, state, value, notify, reason, number,
                self.rule.severity, self.rule.route, self.text(), began, self.past,
            )
        )  # fmt: skip

    def is_unmeasured(self, now_ms: int) -> bool:
        """`sem_medida`: what it depends on is not known; it neither fires nor ends."""
        return self.truth(now_ms) is None

    def _note_state(self) -> None:
        one = self.rule.mode == "one"
        self.quiet = one and self.state == OK
        self.rings = one and self.state == FIRING and self.told

    def value(self) -> Any:
        """What was measured last; of several conditions, by field."""
        if len(self.leaves) == 1:
            return self.leaves[0].value
        return {
            leaf.condition.where.field: leaf.value
            for leaf in self.leaves
            if leaf.condition.where.field is not None
        }

    def text(self) -> str:
        """The rule's message, with what was measured last."""
        value = self.value()
        if isinstance(value, dict):
            value = ", ".join(f"{k} = {_shown(v)}" for k, v in value.items())
        p = self.place
        words = {
            "rule": self.rule.name, "value": _shown(value), "unit": self.rule.unit, "plc": p.plc,
            "machine": p.machine, "field": p.field, "group": p.group, "site": p.site,
            "locatario": p.locatario, "severity": self.rule.severity,
        }  # fmt: skip
        return (self.rule.message or TEXT).format_map(words).strip()

    # -- what people do -------------------------------------------------------------------------

    def acknowledge(self, who: str, now_ms: int) -> bool:
        """Somebody takes care of it; False where nothing rings."""
        if self.state != FIRING:
            return False
        self.acknowledged = (who, now_ms)
        return True

    def silence(self, until_ms: int, why: str) -> None:
        """Nobody is told until then."""
        self.silenced = (until_ms, why)
        if self.state == FIRING:
            self.context.waiting[self] = None

    # -- keeping --------------------------------------------------------------------------------

    def dump(self) -> list[Any]:
        """Plain data."""
        return [
            self.state, self.since, self.cool_until, self.onset, self.told, self.at,
            self.acknowledged, self.silenced, [leaf.dump() for leaf in self.leaves],
        ]  # fmt: skip

    def restore(self, data: list[Any]) -> None:
        """What ``dump`` gave."""
        self.state, self.since, self.cool_until, self.onset, self.told, self.at = data[:6]
        self.acknowledged = tuple(data[6]) if data[6] else None
        self.silenced = tuple(data[7]) if data[7] else None
        for leaf, kept in zip(self.leaves, data[8], strict=True):
            leaf.restore(kept)
        self._note_state()
        self.wait()

    def reopen(self, data: list[Any]) -> None:
        """Only the state of what ``dump`` gave: the rule was another, its measures mean nothing."""
        self.state, self.since = data[0], data[1]


def _leaf(condition: Condition, watch: Watch, hold_ms: int) -> Leaf:
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


def _merged(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Overlapping spans as one, in order."""
    begin = end = None
    for start, stop in sorted(spans):
        if begin is None or end is None or start > end:
            if begin is not None and end is not None:
                yield begin, end
            begin, end = start, stop
        else:
            end = max(end, stop)
    if begin is not None and end is not None:
        yield begin, end


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
