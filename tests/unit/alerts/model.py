"""The alert engine once more, slow and obvious: it keeps every value it was given, and searches
time second by second. docs/ESPECIFICACAO_MOTOR_ALERTAS.md says what it does and why.

All times are whole seconds in ms, windows at most 60 s (else the engine thins what it keeps).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.alerts.core.rule import Condition, Rule
from services.runtime.patterns import matches

HOLD = 65_000
LATE = 300_000
SECOND = 1_000
Said = tuple[Any, ...]
"""(ts, rule, plc, group, machine, field, from, to, notify, reason, value as JSON)"""


def beyond(op: str, limit: Any, value: Any) -> bool | None:
    if op == "equal":
        return value in limit
    if isinstance(value, str):
        return None
    if op == "above":
        return bool(value > limit)
    if op == "below":
        return bool(value < limit)
    return not limit[0] <= value <= limit[1]


@dataclass
class Entry:
    """What one condition got: a value and what it was taken for; ``value`` None: lost."""

    ts: int
    value: Any
    hit: bool | None
    gap: bool = False
    other: Any = None
    at: int = 0
    """Its time as it counts now: never later than a clock that was set back."""


@dataclass
class Part:
    """One condition of an alarm."""

    condition: Condition
    hold: int = 0
    log: list[Entry] = field(default_factory=list)
    met: bool = False
    sign: int | None = None
    """Of an absence: the last sign."""
    speaks: bool = False
    """Just now."""
    shown: Any = None

    @property
    def is_absence(self) -> bool:
        return self.condition.kind == "absence" and self.condition.of != "link"

    def run(self) -> list[Entry]:
        """The unbroken run of hits at the end of what is known."""
        if self.condition.of == "link":
            self.hold = 2**62
        out: list[Entry] = []
        for e in reversed(self.log):
            if not e.hit or (out and out[-1].at - e.at > self.hold):
                break
            out.append(e)
        return out

    def since(self) -> int | None:
        if self.is_absence:
            return self.sign
        return min((e.at for e in self.run()), default=None)

    def known_until(self) -> int:
        if self.condition.kind == "absence":
            return 2**62
        if not self.log:
            return 0
        return self.log[-1].at + self.hold

    def truth(self, rule: Rule, t: int) -> bool | None:
        if self.is_absence:
            if self.sign is None or self.speaks:
                return False if self.speaks else None
        elif not self.log or self.log[-1].hit is None or t > self.known_until():
            return None
        elif not self.log[-1].hit:
            return False
        if self.met:
            return True
        since = self.since()
        due = None if since is None else rule.due_ms(since, self.condition.for_ms)
        return due is not None and due <= t

    # -- what the last entry says --

    def measure(self, firing: bool) -> bool | None:
        c = self.condition
        now = self.log[-1]
        if c.kind == "absence":
            self.shown = now.value
            return bool(now.value == "offline")
        if c.op == "unchanged":
            self.shown = now.value
            values = [e.value for e in self.log[:-1] if e.value is not None]
            return not values or values[-1] == now.value
        self.shown = quantity = self.quantity()
        if quantity is None:
            return None
        limit = c.returns_at if firing and c.returns_at is not None else c.limit
        return beyond(c.op, limit, quantity)

    def quantity(self) -> Any:
        c, now = self.condition, self.log[-1]
        if c.kind in ("threshold", "state_for"):
            return now.value
        if isinstance(now.value, str):
            return None
        if c.kind == "percentage" and c.of in ("value", "field"):
            reference = c.reference if c.of == "value" else now.other
            return percent(now.value, reference)
        if c.of == "increase" and now.other is None:
            return None
        return self.windowed()

    def windowed(self) -> Any:
        """Of what looks a window back. Each usable sample with what was added since the last."""
        c = self.condition
        steps: list[tuple[int, float, float]] = []  # (ts, added to a, added to b)
        before: Entry | None = None
        clears = c.kind == "rate_change" or c.of == "increase"
        for e in self.log:
            if e.value is None:  # lost: nothing is known of the time until the next value
                if clears and e.gap:
                    steps, before = [], None
                elif c.of == "mean":
                    before = None
                continue
            if isinstance(e.value, str) or (c.of == "increase" and e.other is None):
                continue
            a = b = 0.0
            if c.of == "mean":
                if before is not None and e.ts > before.ts:
                    b = min(e.ts - before.ts, self.hold)
                    a = before.value * b
            elif c.of == "samples":
                a, b = float(bool(beyond(c.reference[0], c.reference[1], e.value))), 1.0
            elif before is not None:
                a = added(before.value, e.value, c.counter)
                b = added(before.other or 0, e.other or 0, c.counter)
            if steps and e.ts < steps[-1][0]:  # the clock was set back
                steps = []
            steps.append((e.ts, a, b))
            before = e
        now = steps[-1][0]
        old = [i for i, s in enumerate(steps) if s[0] <= now - c.window_ms]
        base = old[-1] if old else 0
        while base and steps[base - 1][0] == steps[base][0]:  # the first of that moment
            base -= 1
        own = 0 if c.of == "samples" else 1  # a share counts the sample at its beginning, too
        a = sum(s[1] for s in steps[base + own :])
        b = sum(s[2] for s in steps[base + own :])
        span = now - steps[base][0]
        if c.kind == "rate_change":
            return a * c.per_ms / span if span >= c.window_ms else None
        if c.of == "mean":
            return percent(self.log[-1].value, a / b) if b >= c.window_ms / 10 else None
        if span < c.window_ms / 10:
            return None
        if c.of == "samples":
            return 100 * a / b
        return 100 * a / (a + b) if a + b > 0 else None


def percent(value: Any, reference: Any) -> Any:
    if not reference or isinstance(value, str) or isinstance(reference, str):
        return None
    return 100 * (value - reference) / abs(reference)


def added(before: float, after: float, counter: str) -> float:
    if not counter or after >= before:
        return after - before
    if counter == "INT" and after - before + 65_536 < 32_768:
        return after - before + 65_536
    return max(after, 0)


@dataclass
class Alarm:
    rule: Rule
    place: tuple[str, str, str, str]
    """(plc, group, machine, field)"""
    plc: Plc | None
    past: bool = False
    state: str = "ok"
    since: int = 0
    cool_until: int = 0
    told: bool = False
    silenced_until: int = 0
    held: int | None = None
    """Of several conditions: since when they held together, at ``held_at``."""
    held_at: int = 0
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = [Part(c) for c in self.rule.conditions]

    def truth(self, t: int) -> bool | None:
        found = [p.truth(self.rule, t) for p in self.parts]
        if self.rule.mode == "any":
            return True if True in found else None if None in found else False
        return False if False in found else None if None in found else True

    def held_since(self, t: int) -> int | None:
        """Since when it has been true without interruption, at a moment when it is."""
        if not self.truth(t):
            return None
        first = t
        while first - SECOND >= self.earliest() and self.truth(first - SECOND):
            first -= SECOND
        if self.held is not None and first <= self.held_at:
            return min(self.held, first)
        return first

    def earliest(self) -> int:
        known = [s for p in self.parts if (s := p.since()) is not None]
        return min(known, default=2**62)

    def due(self, t: int) -> bool:
        """Whether it has held for long enough at ``t``."""
        if self.rule.mode == "one":
            return bool(self.truth(t))
        since = self.held_since(t)
        if since is None:
            return False
        due = self.rule.due_ms(since, self.rule.for_ms)
        return due is not None and due <= t


@dataclass
class Plc:
    name: str
    site: str
    numbers: set[tuple[int, int]] = field(default_factory=set)
    newest: tuple[int, int] = (0, 0)
    ts: int = 0
    late_at: int | None = None
    beat: int = 0
    alarms: dict[tuple[str, tuple[str, str, str, str], bool], Alarm] = field(default_factory=dict)
    known: set[tuple[bool, str, str, str]] = field(default_factory=set)
    """(past, group, machine, field) that came; field empty: the record."""


class Model:
    """One tenant, one box ``s``."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = list(rules)
        self.now = 0
        self.mode = "live"
        self.out: list[Said] = []
        self.plcs: dict[str, Plc] = {}
        self.heard = 0
        self.down = False
        self.box: dict[str, Alarm] = {}

    # -- input ----------------------------------------------------------------------------------

    def tick(self, now: int) -> list[Said]:
        self.now, self.mode = now, "tick"
        for alarm in self.all_alarms():
            late_at = alarm.plc.late_at if alarm.plc else None
            if alarm.past or (late_at is not None and now - late_at < HOLD):
                continue
            for p in alarm.parts:
                if p.is_absence and p.sign is None:
                    p.sign = now
            self.advance(alarm, now)
            if alarm.state == "disparando" and alarm.truth(now):
                self.tell(alarm, now)
        return self.said()

    def resume(self, now: int) -> None:
        self.now = now
        for alarm in self.all_alarms():
            for p in alarm.parts:
                if p.is_absence and alarm.state != "disparando":
                    p.sign = max(now, p.sign or 0)

    def message(self, topic: str, m: dict[str, Any] | None, now: int) -> list[Said]:
        self.now = now
        kind, _, name, *rest = topic.split("/")
        if kind == "edge":
            self.status(m or {})
        elif not rest:
            self.data(name, m or {})
        elif rest == ["gap"]:
            self.gap(name, m or {})
        else:
            self.heartbeat(name, m)
        return self.said()

    def said(self) -> list[Said]:
        out, self.out = self.out, []
        return out

    def all_alarms(self) -> list[Alarm]:
        return [*self.box.values(), *(a for p in self.plcs.values() for a in p.alarms.values())]

    # -- messages -------------------------------------------------------------------------------

    def data(self, name: str, m: dict[str, Any]) -> None:
        plc, ts, at = self.plc(name), m["ts"], (m["epoch"], m["seq"])
        if at in plc.numbers:
            return
        before = plc.newest
        plc.numbers.add(at)
        plc.newest = max(before, at)
        self.mode = "replay" if m.get("replay") else "late" if ts < self.now - LATE else "live"
        history = self.mode != "live"
        past = at < before or (history and ts < plc.ts)
        if not past:
            plc.ts = ts
            plc.late_at = self.now if history else None
            if before[0] not in (0, at[0]):
                self.break_all(plc, ts)
        group, machine = m.get("group", ""), m.get("machine", "")
        self.meet(plc, past, group, machine, "")
        good = m["quality"] == "good"
        bad = m.get("bad", {})
        if good:
            for f, value in m["values"].items():
                self.meet(plc, past, group, machine, f)
                self.value(plc, past, group, machine, f, ts, value, m["values"])
        for _, g, k, f in sorted(plc.known & {(past, group, machine, x[3]) for x in plc.known}):
            if f and (not good or ((f in bad or "*" in bad) and f not in m["values"])):
                self.lost(plc, past, g, k, f, ts)
        if good and m["values"] and not past:
            self.sign(plc, "record", ts, (group, machine))
            self.sign(plc, "plc", ts)
        if not history:
            self.box_heard(ts)
        if not past and self.is_whole(plc):
            for key in [k for k in plc.alarms if k[2]]:
                alarm = plc.alarms.pop(key)
                measured = [e.at for e in alarm.parts[0].log if e.hit is not None]
                self.close(alarm, measured[-1] if measured else 0, "replay")
            plc.known = {k for k in plc.known if not k[0]}

    def is_whole(self, plc: Plc) -> bool:
        seqs = [s for e, s in plc.numbers if e == plc.newest[0]]
        return max(seqs) - min(seqs) + 1 == len(seqs)

    def gap(self, name: str, m: dict[str, Any]) -> None:
        plc = self.plcs.get(name)
        if plc is None:
            return
        last = m["last_seq"]
        if plc.newest[0] and (m["epoch"], 2**62 if last is None else last) <= plc.newest:
            return
        self.break_all(plc, plc.ts)

    def break_all(self, plc: Plc, ts: int) -> None:
        for past, group, machine, f in sorted(plc.known):
            if f and not past and group != "heartbeat":
                self.lost(plc, past, group, machine, f, ts, gap=True)

    def heartbeat(self, name: str, m: dict[str, Any] | None) -> None:
        if not m:
            plc = self.plcs.pop(name, None)
            for alarm in plc.alarms.values() if plc else ():
                self.close(alarm, self.now, "removed")
            return
        plc, ts = self.plc(name), m["ts"]
        if ts == plc.beat or ts < self.now - LATE:
            return
        plc.beat, self.mode = ts, "live"
        self.meet(plc, False, "heartbeat", "", "")
        values = {k: v for k, v in m.items() if isinstance(v, int | float | str)}
        values["failure"] = m.get("failure", {}).get("code", "")
        for f, value in values.items():
            self.meet(plc, False, "heartbeat", "", f)
            self.value(plc, False, "heartbeat", "", f, ts, value, values)
        self.sign(plc, "heartbeat", ts)
        if m["status"] in ("online", "degraded"):
            self.sign(plc, "plc", ts)
        self.box_heard(ts)

    def status(self, m: dict[str, Any]) -> None:
        self.meet_box()
        ts, self.mode = m.get("ts", self.now), "live"
        self.down = m["status"] == "offline"
        for alarm in self.box.values():
            if alarm.parts[0].condition.of == "link":
                self.take(alarm, 0, ts, m["status"], {})
        if not self.down:
            self.box_heard(ts)

    def box_heard(self, ts: int) -> None:
        if ts > self.heard:
            self.heard = ts
            for alarm in self.box.values():
                if alarm.parts[0].condition.of == "box":
                    self.sign_of(alarm, 0, ts)

    # -- which alarms there are -----------------------------------------------------------------

    def meet_box(self) -> None:
        for r in self.rules:
            if r.mode == "one" and r.conditions[0].scope == "site" and r.name not in self.box:
                self.box[r.name] = Alarm(r, ("", "", "", ""), None)

    def plc(self, name: str) -> Plc:
        self.meet_box()
        if name not in self.plcs:
            plc = self.plcs[name] = Plc(name, "s")
            for r in self.rules:
                c = r.conditions[0]
                if r.mode == "one" and c.scope == "plc" and matches(c.where.plc or "*", name):
                    self.add(plc, r, ("", "", ""), False)
        return self.plcs[name]

    def add(self, plc: Plc, rule: Rule, place: tuple[str, str, str], past: bool) -> None:
        key = (rule.name, (plc.name, *place), past)
        if key not in plc.alarms:
            plc.alarms[key] = Alarm(rule, key[1], plc, past)

    def meet(self, plc: Plc, past: bool, group: str, machine: str, f: str) -> None:
        """Alarms that a series seen for the first time calls for."""
        if (past, group, machine, f) in plc.known:
            return
        plc.known.add((past, group, machine, f))
        for rule in self.rules:
            for c in rule.conditions:
                if not self.watches(c, plc, group, machine, f):
                    continue
                if past and (c.kind == "absence" or rule.mode != "one"):
                    continue
                if rule.mode == "one":
                    self.add(plc, rule, (group, machine, f), past)
                    continue
                mine = {k: a for k, a in plc.alarms.items() if k[0] == rule.name}
                if machine and any(not k[1][2] for k in mine):
                    for k, alarm in mine.items():
                        if not k[1][2]:
                            self.close(alarm, self.now, "removed")
                            del plc.alarms[k]
                if machine or not mine:
                    self.add(plc, rule, ("", machine, ""), False)

    @staticmethod
    def watches(c: Condition, plc: Plc, group: str, machine: str, f: str) -> bool:
        if c.scope != ("field" if f else "stream") or not matches(c.where.plc or "*", plc.name):
            return False
        if group == "heartbeat" and c.where.group != "heartbeat":
            return False
        pairs = [(c.where.group, group), (c.where.machine, machine), (c.where.field, f)]
        return all(matches(pattern or "*", text) for pattern, text in pairs)

    def concerned(
        self, plc: Plc, past: bool, group: str, machine: str, f: str
    ) -> list[tuple[Alarm, int]]:
        """(alarm, condition) on a series."""
        out = []
        for alarm in list(plc.alarms.values()):
            if alarm.past != past:
                continue
            for i, c in enumerate(alarm.rule.conditions):
                if not self.watches(c, plc, group, machine, f):
                    continue
                place = (plc.name, group, machine, f)
                if alarm.rule.mode == "one" and alarm.place != place:
                    continue
                if alarm.rule.mode != "one" and machine and alarm.place[2] != machine:
                    continue
                out.append((alarm, i))
        return out

    # -- what a series says ---------------------------------------------------------------------

    def value(
        self, plc: Plc, past: bool, group: str, machine: str, f: str, ts: int, value: Any,
        values: dict[str, Any],
    ) -> None:  # fmt: skip
        for alarm, i in self.concerned(plc, past, group, machine, f):
            if alarm.parts[i].is_absence:
                self.sign_of(alarm, i, ts, value)
            else:
                alarm.parts[i].hold = 95_000 if group == "heartbeat" else HOLD
                self.take(alarm, i, ts, value, values)

    def take(self, alarm: Alarm, i: int, ts: int, value: Any, values: dict[str, Any]) -> None:
        part = alarm.parts[i]
        if part.log and ts < part.log[-1].at:
            self.set_back(alarm, ts)
        self.advance(alarm, ts - 1)
        self.carry(alarm, ts)
        reference = part.condition.reference
        other = values.get(reference) if isinstance(reference, str) else None
        part.log.append(Entry(ts, value, None, other=other, at=ts))
        hit = part.log[-1].hit = part.measure(alarm.state == "disparando")
        if hit is False:
            part.met = False
        self.settle(alarm, ts)
        if part.condition.op == "unchanged" and hit is False:
            part.log[-1].hit = True  # the new value begins to last...
            for e in part.log[:-1]:
                e.hit = False  # ...and not before

    def lost(
        self, plc: Plc, past: bool, group: str, machine: str, f: str, ts: int, gap: bool = False
    ) -> None:
        for alarm, i in self.concerned(plc, past, group, machine, f):
            part = alarm.parts[i]
            self.carry(alarm, ts)
            if not part.is_absence:
                at = part.log[-1].at if part.log else 0
                part.log.append(Entry(at, None, None, gap, at=at))
                if alarm.state != "disparando":
                    part.met = False
            if not alarm.truth(ts):
                alarm.held = None

    def sign(self, plc: Plc, of: str, ts: int, record: tuple[str, str] | None = None) -> None:
        for alarm in list(plc.alarms.values()):
            for i, c in enumerate(alarm.rule.conditions):
                if c.kind != "absence" or alarm.past:
                    continue
                if record is not None:
                    ours = c.scope == "stream" and alarm.place[1:3] == record
                else:
                    ours = c.of == of and c.scope == "plc"
                if ours:
                    self.sign_of(alarm, i, ts)

    def sign_of(self, alarm: Alarm, i: int, ts: int, value: Any = None) -> None:
        part = alarm.parts[i]
        if part.sign is not None:
            if self.mode != "live":
                part.sign = max(part.sign, ts)
                return
            if ts < part.sign:
                if part.sign - ts > LATE:
                    self.set_back(alarm, ts)
                else:
                    ts = part.sign
        self.advance(alarm, ts - 1)
        self.carry(alarm, ts)
        part.shown, part.sign, part.met, part.speaks = value, ts, False, True
        self.settle(alarm, ts)
        part.shown, part.speaks = None, False

    @staticmethod
    def set_back(alarm: Alarm, ts: int) -> None:
        """Nothing has happened in the future."""
        for p in alarm.parts:
            for e in p.log:
                e.at = min(e.at, ts)
            p.sign = None if p.sign is None else min(p.sign, ts)
        alarm.since = min(alarm.since, ts)
        alarm.cool_until = min(alarm.cool_until, ts + alarm.rule.cooldown_ms)
        alarm.held = None if alarm.held is None else min(alarm.held, ts)

    # -- states ---------------------------------------------------------------------------------

    def carry(self, alarm: Alarm, ts: int) -> None:
        if alarm.rule.mode != "one" and alarm.state != "disparando":
            alarm.held, alarm.held_at = alarm.held_since(ts), ts

    def advance(self, alarm: Alarm, t: int) -> None:
        if alarm.state == "resfriando" and alarm.cool_until <= t:
            self.go(alarm, "ok", alarm.cool_until, False, "cooldown_over")
        if alarm.state == "ok":
            moment = max(alarm.since, alarm.earliest())
            while moment <= min(t, max(p.known_until() for p in alarm.parts)):
                if alarm.due(moment):
                    self.fire(alarm, moment)
                    return
                moment += SECOND

    def settle(self, alarm: Alarm, ts: int) -> None:
        truth = alarm.truth(ts)
        if alarm.state == "disparando":
            if truth is False:
                self.end(alarm, ts)
                return
            self.latch(alarm, ts)
            if truth:
                self.tell(alarm, ts)
            return
        if alarm.rule.mode != "one":
            alarm.held = None if not truth else ts if alarm.held is None else alarm.held
        self.advance(alarm, ts)

    @staticmethod
    def latch(alarm: Alarm, ts: int) -> None:
        for p in alarm.parts:
            p.met = p.met or p.truth(alarm.rule, ts) is True

    def fire(self, alarm: Alarm, ts: int) -> None:
        cause = self.cause(alarm, ts)
        why_not = self.suppressed(alarm, ts) or (cause if self.elsewhere(alarm, cause) else "")
        alarm.told = not why_not
        self.go(alarm, "disparando", ts, alarm.told, why_not or cause or "condition")
        self.latch(alarm, ts)
        alarm.held = None

    def end(self, alarm: Alarm, ts: int) -> None:
        why_not = self.suppressed(alarm, ts) or ("" if alarm.told else "not_told")
        ts = max(ts, alarm.since)
        self.go(alarm, "resfriando", ts, not why_not, why_not or "returned")
        alarm.cool_until = ts + alarm.rule.cooldown_ms
        alarm.told = False
        for p in alarm.parts:
            p.met = False
        self.advance(alarm, ts)

    def tell(self, alarm: Alarm, ts: int) -> None:
        if alarm.told or self.suppressed(alarm, ts) or self.elsewhere(alarm, self.cause(alarm, ts)):
            return
        alarm.told = True
        self.go(alarm, "disparando", ts, True, "still_firing")

    def close(self, alarm: Alarm, ts: int, reason: str) -> None:
        if alarm.state == "disparando":
            self.go(alarm, "resfriando", max(ts, alarm.since), False, reason)
        if alarm.state == "resfriando":
            self.go(alarm, "ok", max(ts, alarm.since), False, reason)

    def suppressed(self, alarm: Alarm, ts: int) -> str:
        if alarm.past or self.mode in ("late", "replay"):
            return "replay" if self.mode == "replay" else "late"
        is_absence = alarm.rule.mode == "one" and alarm.parts[0].is_absence
        if ts < self.now - LATE and not is_absence:
            return "late"
        return "silenced" if self.now < alarm.silenced_until else ""

    def cause(self, alarm: Alarm, ts: int) -> str:
        part = alarm.parts[0]
        if alarm.rule.mode != "one" or not part.is_absence:
            return ""
        if part.condition.of == "box":
            return "box_silent"
        if self.down:
            return "link_down"
        if ts - self.heard >= part.condition.for_ms / 2:
            return "box_silent"
        return "no_value" if part.condition.of == "value" else "plc_silent"

    def elsewhere(self, alarm: Alarm, cause: str) -> bool:
        if alarm.plc is None:
            return False
        of = {"link_down": "link", "box_silent": "box"}.get(cause)
        return any(a.parts[0].condition.of == of for a in self.box.values())

    def go(self, alarm: Alarm, state: str, ts: int, notify: bool, reason: str) -> None:
        before, alarm.state = alarm.state, state
        if state != before:
            alarm.since = ts
        shown: Any = alarm.parts[0].shown
        if len(alarm.parts) > 1:
            shown = {
                p.condition.where.field: p.shown for p in alarm.parts if p.condition.where.field
            }
        value = json.dumps(shown, sort_keys=True)
        said = (ts, alarm.rule.name, *alarm.place, before, state, notify, reason, value)
        self.out.append(said)
