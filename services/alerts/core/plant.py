"""What there is: boxes, PLCs, their series, and which rules watch which of them; and keeping it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from services.alerts.core.context import Box, Context
from services.alerts.core.leaf import Leaf
from services.alerts.core.plc import Plc, Stream
from services.alerts.core.rule import Condition, Rule
from services.alerts.core.transition import OK, Place, Transition
from services.alerts.core.watch import Watch
from services.runtime.measured import HOLD_MS

LATE_AFTER_MS = 300_000
# Whoever may publish for a PLC chooses names; what is known of them must end somewhere.
STREAMS_PER_PLC = 1_000
FIELDS_PER_STREAM = 2_000


class Plant:
    """Rules and series as far as they are known; the state of the engine."""

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
        self.full: dict[tuple[str, str], int] = {}
        """(locatario, PLC) → how often a new name came there and was passed over, because there
        were too many already: no rule sees it. Since the start of the process.
        """
        # Of groups and machines beyond the bound: a sign of life, and nothing else.
        self._beyond = Stream("", "", 0, False), Stream("", "", 0, True)
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
                    watch.wait()
                    box.watches[rule.name] = watch
                    box.signs.append((rule.conditions[i].of, watch.leaves[i]))
        return box

    def _stream(self, plc: Plc, group: str, machine: str, past: bool) -> Stream:
        streams = plc.past if past else plc.streams
        stream = streams.get((group, machine))
        if stream is None and len(streams) >= STREAMS_PER_PLC:
            self._pass_over(plc)
            return self._beyond[past]
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
        if stream in self._beyond:
            return []
        if leaves is None and len(stream.fields) >= FIELDS_PER_STREAM:
            self._pass_over(plc)
            return []
        if leaves is None:
            leaves = stream.fields[name] = []
            for rule, i in self._candidates(plc, stream, name):
                if not (stream.past and rule.conditions[i].kind == "absence"):
                    for watch in self._watches(rule, i, plc, stream, name):
                        stream.add(name, watch.leaves[i])
        return leaves

    def _pass_over(self, plc: Plc) -> None:
        self.full[plc.key] = self.full.get(plc.key, 0) + 1

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
        watch.wait()
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
        if not place.plc:
            box = self.boxes.get((place.locatario, place.site))
            return box.watches.get(rule) if box is not None else None
        plc = self.plcs.get((place.locatario, place.plc))
        return plc.find(rule, place) if plc is not None else None

    # -- keeping ----------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All of the state as plain data, for JSON or msgpack. See also ``dump_plc``."""
        return {
            **self.dump_head(),
            "boxes": self.dump_boxes(),
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

    def dump_boxes(self) -> list[Any]:
        """The boxes' part of it; there are few."""
        return [self._dump_box(box) for box in self.boxes.values()]

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
        return self._context.said()

    def _restore(self, kept: list[list[Any]], watches: Iterable[Watch]) -> None:
        found = {(w.rule.name, w.place.key, w.past): w for w in watches}
        for rule, digest, place, past, data in kept:
            watch = found.get((rule, Place(*place).key, past))
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


def _literal(pattern: str | None) -> str | None:
    return None if pattern is None or "*" in pattern else pattern
