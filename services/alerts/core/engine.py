"""The engine: messages and ticks in, transitions out.

Order and time. A PLC's messages drive its own alarms, by their ``ts``; ``tick`` drives everything.
So it makes no difference how the messages of different PLCs are interleaved between two ticks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.alerts.core.leaf import FOREVER, Leaf, Silence
from services.alerts.core.plc import Plc, Stream
from services.alerts.core.rule import HEARTBEAT, Condition, Rule
from services.alerts.core.transition import OK, Place, Transition
from services.alerts.core.watch import Box, Context, Watch

# What a value is held for where nothing else is known: `max_silence`'s default, and slack for a
# scan and a slow line.
HOLD_MS = 65_000
LATE_AFTER_MS = 300_000
Roster = Iterable[tuple[str, str, str, Iterable[tuple[str, str, Iterable[str]]]]]
"""(locatario, site, PLC, its (group, machine, fields)): what ought to speak."""


class BadMessage(ValueError):
    """A message that cannot be understood: says what is wrong with it."""


class Engine:
    """All rules over all series. Deterministic: its state and its input decide everything."""

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        hold_ms: int = HOLD_MS,
        holds_ms: Mapping[tuple[str, str], int] | None = None,
        late_after_ms: int = LATE_AFTER_MS,
    ) -> None:
        """``holds_ms``: by (PLC, group), where it differs. Rules have different names."""
        self.rules = {rule.name: rule for rule in rules}
        self.hold_ms = hold_ms
        self._holds_ms = dict(holds_ms or {})
        self._context = Context(late_after_ms)
        self.boxes: dict[tuple[str, str], Box] = {}
        self.plcs: dict[tuple[str, str], Plc] = {}
        self.dirty: set[tuple[str, str]] = set()
        """(locatario, PLC) of what has changed since the caller last cleared it."""
        # Literal PLC and field → candidates; None where the rule has a pattern.
        self._fields: dict[tuple[str | None, str | None], list[tuple[Rule, int]]] = {}
        self._plc_wide: list[tuple[Rule, int]] = []
        self._box_wide: list[tuple[Rule, int]] = []
        for rule in self.rules.values():
            for i, condition in enumerate(rule.conditions):
                if condition.scope == "site":
                    self._box_wide.append((rule, i))
                elif condition.scope == "plc":
                    self._plc_wide.append((rule, i))
                else:
                    where = condition.where
                    key = (_literal(where.plc), _literal(where.field))
                    if condition.scope == "stream":
                        key = (key[0], "")
                    self._fields.setdefault(key, []).append((rule, i))

    @property
    def now_ms(self) -> int:
        """The newest time that a caller gave."""
        return self._context.now_ms

    # -- input ----------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Transition]:
        """Time has passed."""
        context = self._context
        context.now_ms, context.mode = now_ms, "tick"
        for watch in list(context.waiting):
            plc = watch.plc
            late_at = plc.late_at if plc is not None else None
            if late_at is not None and now_ms - late_at < self.hold_ms:
                continue  # its backlog is coming in: time passes there by its messages
            if watch.tick(now_ms) and plc is not None:
                self.dirty.add(plc.key)
        return self._said()

    def resume(self, now_ms: int) -> None:
        """Nobody has listened until now: silence counts from here."""
        self._context.now_ms = now_ms
        for watch in self._context.waiting:
            for leaf in watch.leaves:
                if isinstance(leaf, Silence):
                    leaf.start(now_ms)

    def expect(self, roster: Roster) -> None:
        """Names what ought to speak, so that it is missed although it never did."""
        for locatario, site, name, streams in roster:
            plc = self._plc(locatario, name, site)
            for group, machine, fields in streams:
                stream = self._stream(plc, group, machine, False)
                for field in fields:
                    self._watched(plc, stream, field)

    def message(
        self, topic: str, message: Mapping[str, Any] | None, now_ms: int
    ) -> list[Transition]:
        """One message of CONTRACT §4 as it came in at ``now_ms``; None for an empty one.

        Topics that are not ours change nothing. Raises BadMessage.
        """
        self._context.now_ms = now_ms
        match topic.split("/"):
            case ["plc", locatario, plc]:
                self._data(locatario, plc, message or {})
            case ["plc", locatario, plc, "heartbeat"]:
                self._heartbeat(locatario, plc, message)
            case ["plc", locatario, plc, "gap"]:
                self._gap(locatario, plc, message or {})
            case ["edge", locatario, site, "status"]:
                self._status(locatario, site, message or {})
        return self._said()

    def _said(self) -> list[Transition]:
        out = self._context.out
        if not out:
            return []
        self._context.out = []
        return sorted(out, key=lambda t: (t.ts, t.rule, _names(t.place), t.number))

    # -- data -----------------------------------------------------------------------------------

    def _data(self, locatario: str, name: str, message: Mapping[str, Any]) -> None:
        ts = _time(message)
        values = message.get("values") or {}
        if not isinstance(values, dict):
            raise BadMessage("`values` holds no fields with their values")
        plc = self._plc(locatario, name, message.get("site"))
        epoch, seq = message.get("epoch"), message.get("seq")
        before = plc.seen.newest
        at = (epoch, seq) if type(epoch) is int and type(seq) is int else None
        if at is not None and not plc.seen.add(*at):
            return
        self.dirty.add(plc.key)
        context = self._context
        context.mode = "live"
        if message.get("replay") is True:
            context.mode = "replay"
        elif ts < context.now_ms - context.late_after_ms:
            context.mode = "late"
        history = context.is_history
        past = (at is not None and at < before) or (history and ts < plc.ts)
        if not past:
            plc.ts = ts
            plc.late_at = context.now_ms if history else None
            if at is not None and before[0] not in (0, at[0]):
                self._break(plc, ts)
        stream = self._stream(
            plc, str(message.get("group") or ""), str(message.get("machine") or ""), past
        )
        if message.get("quality", "good") == "good":
            self._good(plc, stream, ts, values, message.get("bad"))
        elif stream.leaves:
            for leaf in stream.leaves:
                leaf.watch.lose(leaf, ts)
        if plc.box is not None and not history:
            self._box_heard(plc.box, ts)
        if plc.past and at is not None and not past and plc.seen.whole():
            plc.forget_past()

    def _good(self, plc: Plc, stream: Stream, ts: int, values: Mapping[str, Any], bad: Any) -> None:
        known = stream.fields
        for name, value in values.items():
            leaves = known.get(name)
            if leaves is None:
                leaves = self._watched(plc, stream, name)
            for leaf in leaves:
                leaf.take(ts, value, values)
        if bad:
            for name in known if "*" in bad else bad:
                if name not in values:
                    for leaf in known.get(name, ()):
                        leaf.watch.lose(leaf, ts)
        if values and not stream.past:
            for leaf in stream.signs:
                leaf.take(ts, None, values)
            for leaf in plc.alive:
                leaf.take(ts, None, values)

    def _break(self, plc: Plc, ts: int) -> None:
        for stream in plc.streams.values():
            if stream.group != HEARTBEAT:
                for leaf in stream.leaves:
                    leaf.watch.lose(leaf, ts, gap=True)

    def _gap(self, locatario: str, name: str, message: Mapping[str, Any]) -> None:
        plc = self.plcs.get((locatario, name))
        if plc is None:
            return
        epoch, last = message.get("epoch"), message.get("last_seq")
        newest = plc.seen.newest
        if type(epoch) is int and newest[0]:
            end = (epoch, last if type(last) is int else FOREVER)
            if end <= newest:  # of what lies behind the newest message nothing waits any more
                return
        self.dirty.add(plc.key)
        self._break(plc, plc.ts)

    # -- state of PLCs and boxes ----------------------------------------------------------------

    def _heartbeat(self, locatario: str, name: str, message: Mapping[str, Any] | None) -> None:
        if not message:
            self._remove(locatario, name)
            return
        ts = _time(message)
        context = self._context
        plc = self._plc(locatario, name, message.get("site"))
        # It is retained and comes again with every subscription; an old one says nothing of now.
        if ts == plc.beat_ms or ts < context.now_ms - context.late_after_ms:
            return
        self.dirty.add(plc.key)
        plc.beat_ms = ts
        context.mode = "live"
        stream = self._stream(plc, HEARTBEAT, "", False)
        failure = message.get("failure")
        values = {k: v for k, v in message.items() if isinstance(v, int | float | str)}
        values["failure"] = failure.get("code", "") if isinstance(failure, dict) else ""
        interval_s = message.get("interval_s")
        if isinstance(interval_s, int | float):
            stream.set_hold(round(interval_s * 3_000) + 5_000)
        for field, value in values.items():
            for leaf in self._watched(plc, stream, field):
                leaf.take(ts, value, values)
        for leaf in plc.beats:
            leaf.take(ts, None, values)
        if message.get("status") in ("online", "degraded"):
            for leaf in plc.alive:
                leaf.take(ts, None, values)
        if plc.box is not None:
            self._box_heard(plc.box, ts)

    def _remove(self, locatario: str, name: str) -> None:
        plc = self.plcs.pop((locatario, name), None)
        if plc is not None:
            self.dirty.add(plc.key)
            for watch in plc.watches():
                watch.close(self._context.now_ms, "removed")
                plc.drop(watch)

    def _status(self, locatario: str, site: str, message: Mapping[str, Any]) -> None:
        status = message.get("status")
        if status not in ("online", "offline"):
            raise BadMessage("`status` is neither online nor offline")
        ts = message.get("ts")
        ts = self._context.now_ms if ts is None else _time(message)  # a will has none
        self._context.mode = "live"
        box = self._box(locatario, site)
        box.is_down = status == "offline"
        for of, leaf in box.signs:
            if of == "link":
                leaf.take(ts, status, message)
        if status == "online":
            self._box_heard(box, ts)

    def _box_heard(self, box: Box, ts: int) -> None:
        if ts > box.heard_ms:
            box.heard_ms = ts
            for of, leaf in box.signs:
                if of == "box":
                    leaf.take(ts, None, {})

    # -- which rules watch what -----------------------------------------------------------------

    def _plc(self, locatario: str, name: str, site: Any) -> Plc:
        plc = self.plcs.get((locatario, name))
        if plc is None:
            box = self._box(locatario, site) if isinstance(site, str) and site else None
            plc = self.plcs[locatario, name] = Plc(locatario, name, box)
            for rule, i in self._plc_wide:
                condition = rule.conditions[i]
                if not condition.where.covers_plc(locatario, plc.site, name):
                    continue
                if rule.mode == "one":
                    watch = self._watch(rule, Place(locatario, plc.site, name), plc)
                    plc.join(watch, i)
                elif all(c.scope in ("plc", "site") for c in rule.conditions):
                    self._several(rule, plc, "")
        elif site and plc.box is None and isinstance(site, str):
            plc.box = self._box(locatario, site)
        return plc

    def _box(self, locatario: str, name: str) -> Box:
        box = self.boxes.get((locatario, name))
        if box is None:
            box = self.boxes[locatario, name] = Box(locatario, name)
            for rule, i in self._box_wide:
                if rule.mode == "one" and rule.conditions[i].where.covers_site(locatario, name):
                    watch = Watch(rule, Place(locatario, name), self._context, None, box)
                    watch._wait()
                    box.watches[rule.name] = watch
                    box.signs.append((rule.conditions[i].of, watch.leaves[i]))
        return box

    def _stream(self, plc: Plc, group: str, machine: str, past: bool) -> Stream:
        streams = plc.past if past else plc.streams
        stream = streams.get((group, machine))
        if stream is None:
            hold_ms = self._holds_ms.get((plc.name, group), self.hold_ms)
            stream = streams[group, machine] = Stream(group, machine, hold_ms, past)
            if not past:
                for rule, i in self._candidates(plc, stream, ""):
                    for watch in self._watches(rule, i, plc, stream, ""):
                        stream.signs.append(watch.leaves[i])
        return stream

    def _watched(self, plc: Plc, stream: Stream, name: str) -> list[Leaf]:
        """The conditions on a field; found once."""
        leaves = stream.fields.get(name)
        if leaves is None:
            leaves = stream.fields[name] = []
            for rule, i in self._candidates(plc, stream, name):
                if not (stream.past and rule.conditions[i].kind == "absence"):
                    for watch in self._watches(rule, i, plc, stream, name):
                        stream.add(name, watch.leaves[i])
        return leaves

    def _candidates(self, plc: Plc, stream: Stream, name: str) -> Iterator[tuple[Rule, int]]:
        keys: list[tuple[str | None, str | None]] = [(plc.name, name), (None, name)]
        if name:
            keys += [(plc.name, None), (None, None)]
        found = [c for key in keys for c in self._fields.get(key, ())]
        for rule, i in found:
            where = rule.conditions[i].where
            if (
                where.covers_plc(plc.locatario, plc.site, plc.name)
                and where.covers_stream(stream.group, stream.machine)
                and (not name or where.covers_field(name))
            ):
                yield rule, i

    def _watches(self, rule: Rule, i: int, plc: Plc, stream: Stream, name: str) -> Iterable[Watch]:
        """The alarms that a condition on a series belongs to; made where there is none yet."""
        if rule.mode == "one":
            place = Place(plc.locatario, plc.site, plc.name, stream.group, stream.machine, name)
            return [self._watch(rule, place, plc, stream.past)]
        if stream.past:
            return []
        machines = plc.machines_of(rule.name)
        if stream.machine:
            if stream.machine not in machines:
                self._several(rule, plc, stream.machine)
            return [plc.several[rule.name, stream.machine]]
        if not machines:
            self._several(rule, plc, "")
        return [plc.several[rule.name, m] for m in plc.machines_of(rule.name)]

    def _watch(self, rule: Rule, place: Place, plc: Plc, past: bool = False) -> Watch:
        watch = Watch(rule, place, self._context, plc, plc.box, past)
        plc.add(watch)
        watch._wait()
        return watch

    def _several(self, rule: Rule, plc: Plc, machine: str) -> Watch:
        """The alarm of several conditions at one machine of one PLC."""
        watch = self._watch(rule, Place(plc.locatario, plc.site, plc.name, "", machine), plc)
        alone = plc.several.pop((rule.name, ""), None) if machine else None
        if alone is not None:  # it only saw what all machines share
            alone.close(self._context.now_ms, "removed")
            plc.drop(alone)
        plc.several[rule.name, machine] = watch
        for i, condition in enumerate(rule.conditions):
            if condition.scope == "plc":
                plc.join(watch, i)
            elif condition.scope == "site" and plc.box is not None:
                plc.box.signs.append((condition.of, watch.leaves[i]))
            elif machine:
                self._share(plc, watch, i, condition)
        return watch

    def _share(self, plc: Plc, watch: Watch, i: int, condition: Condition) -> None:
        """Groups without machines count for every machine."""
        for stream in plc.streams.values():
            if stream.machine or not condition.where.covers_stream(stream.group, ""):
                continue
            for name in stream.fields:
                if condition.where.covers_field(name):
                    stream.add(name, watch.leaves[i])

    # -- what people do, and what they see --------------------------------------------------------

    def watches(self) -> Iterator[Watch]:
        """Every alarm there is, ringing or not."""
        for box in self.boxes.values():
            yield from box.watches.values()
        for plc in self.plcs.values():
            yield from plc.watches()

    def ringing(self) -> list[Watch]:
        """What is not ok, history aside."""
        return [w for w in self.watches() if w.state != OK and not w.past]

    def find(self, rule: str, place: Place) -> Watch | None:
        """The alarm of a rule at a place."""
        wanted = (rule, _names(place))
        live = (w for w in self.watches() if not w.past)
        return next((w for w in live if (w.rule.name, _names(w.place)) == wanted), None)

    # -- keeping ----------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All of the state as plain data, for JSON or msgpack. See also ``dump_plc``."""
        return {
            **self.dump_head(),
            "boxes": [self._dump_box(box) for box in self.boxes.values()],
            "plcs": [self.dump_plc(key) for key in self.plcs],
        }

    def dump_head(self) -> dict[str, int]:
        """What belongs to no PLC and no box."""
        return {"now_ms": self.now_ms, "number": self._context.number}

    def dump_plc(self, key: tuple[str, str]) -> list[Any] | None:
        """One PLC's part of it (``dirty`` tells which have changed); None where it is gone."""
        plc = self.plcs.get(key)
        if plc is None:
            return None
        streams = [
            [
                s.group,
                s.machine,
                s.past,
                s.hold_ms,
                [name for name, found in s.fields.items() if found],
            ]
            for s in (*plc.streams.values(), *plc.past.values())
        ]
        head = [
            plc.locatario,
            plc.name,
            plc.site,
            plc.ts,
            plc.late_at,
            plc.beat_ms,
            plc.seen.dump(),
        ]
        return [*head, streams, [_dump(w) for w in plc.watches()]]

    def _dump_box(self, box: Box) -> list[Any]:
        watches = [_dump(w) for w in box.watches.values()]
        return [box.locatario, box.name, box.heard_ms, box.is_down, watches]

    def restore(self, data: Mapping[str, Any]) -> list[Transition]:
        """Takes up what ``dump`` gave. What was open under a rule that is gone or has changed is
        closed: those transitions come back.
        """
        self._context.now_ms, self._context.number = data["now_ms"], data["number"]
        for locatario, name, heard_ms, is_down, watches in data["boxes"]:
            box = self._box(locatario, name)
            box.heard_ms, box.is_down = heard_ms, is_down
            self._restore(watches, box.watches.values())
        for locatario, name, site, ts, late_at, beat_ms, seen, streams, watches in data["plcs"]:
            plc = self._plc(locatario, name, site)
            plc.ts, plc.late_at, plc.beat_ms = ts, late_at, beat_ms
            plc.seen.restore(seen)
            for group, machine, past, hold_ms, fields in streams:
                stream = self._stream(plc, group, machine, past)
                for field in fields:
                    self._watched(plc, stream, field)
                stream.set_hold(hold_ms)
            self._restore(watches, plc.watches())
        return self._said()

    def _restore(self, kept: list[list[Any]], watches: Iterable[Watch]) -> None:
        found = {(w.rule.name, _names(w.place), w.past): w for w in watches}
        for rule, digest, place, past, data in kept:
            watch = found.get((rule, _names(Place(*place)), past))
            if watch is not None and watch.rule.digest == digest:
                watch.restore(data)
                continue
            if watch is None:
                watch = Watch(Rule(rule, ()), Place(*place), self._context, None, None, past)
            watch.reopen(data)
            watch.close(self.now_ms, "rule_changed")


def _dump(watch: Watch) -> list[Any]:
    p = watch.place
    place = [p.locatario, p.site, p.plc, p.group, p.machine, p.field]
    return [watch.rule.name, watch.rule.digest, place, watch.past, watch.dump()]


def _names(place: Place) -> tuple[str, ...]:
    """Identifies a place: a PLC stays itself where its box gets another name."""
    site = "" if place.plc else place.site
    return place.locatario, site, place.plc, place.group, place.machine, place.field


def _literal(pattern: str | None) -> str | None:
    return None if pattern is None or "*" in pattern else pattern


def _time(message: Mapping[str, Any]) -> int:
    ts = message.get("ts")
    if isinstance(ts, bool) or not isinstance(ts, int | float):
        raise BadMessage("`ts` is missing or no number of milliseconds")
    return int(ts)
