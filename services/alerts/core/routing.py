"""Who is told what, and when: quiet hours, grouping, escalation, limits of receivers.

Transitions, what people do, and time go in; messages come out. Like the engine: no clock, no I/O,
and its state is plain data, kept by parts in the transaction that keeps the messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any, NamedTuple

from services.alerts.core.digest import MOST, Body, Digest
from services.alerts.core.hours import Hours
from services.alerts.core.transition import FIRING, Place, Transition

Key = tuple[str, ...]
"""An alarm: its rule, and its place's key."""


def alarm_key(rule: str, place: Place) -> Key:
    """Identifies an alarm."""
    return rule, *place.key


@dataclass(frozen=True, slots=True)
class Step:
    """Who else is told of what nobody has acknowledged for so long."""

    after_ms: int
    receivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Where notifications go."""

    receivers: tuple[str, ...]
    group_ms: int = 0
    """What comes within so long after the first goes in one message; 0: each alone."""
    group_most: int = MOST
    """So many stand in it whole; all are counted."""
    steps: tuple[Step, ...] = ()
    """In order of time."""
    quiet: tuple[Hours, ...] = ()


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` messages within ``per_ms``."""

    count: int
    per_ms: int


class Message(NamedTuple):
    """To be told. ``number`` orders the messages of all receivers."""

    receiver: str
    number: int
    body: Body


@dataclass(slots=True)
class _Told:
    """An alarm that rings and can be escalated."""

    route: str
    body: Body
    since_ms: int
    """When its route was told."""
    step: int = 0
    """The next."""
    acknowledged: bool = False
    until_ms: int = 0
    """Silenced."""


@dataclass(slots=True)
class _Held:
    """What a receiver does not know yet of an alarm, because of the hour."""

    route: str
    body: Body
    """The last that became of it."""
    known: bool
    """They were told that it rings, before."""
    others: list[str] = field(default_factory=list)
    """Told by escalation."""
    until_ms: int = 0


@dataclass(slots=True)
class _Group:
    due_ms: int
    digest: Digest


class Routing:
    """All routes. ``identity`` begins every id; ``default`` is the route without a name."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        rates: Mapping[str, Rate] | None = None,
        *,
        zone: tzinfo = UTC,
        identity: str = "",
    ) -> None:
        """``routes``: with "" among them, for what names none, or one that is gone."""
        self._routes = dict(routes)
        self._rates = dict(rates or {})
        self._zone = zone
        self._identity = identity
        self.number = 0
        """Of the last message."""
        self._now_ms = 0
        self._out: list[Message] = []
        self._told: dict[Key, _Told] = {}
        self._held: dict[Key, _Held] = {}
        self._groups: dict[str, _Group] = {}
        self._over: dict[str, Digest] = {}
        """By receiver: what its limit keeps back."""
        self._sent: dict[str, list[int]] = {}
        """By limited receiver: when it was sent its last messages."""
        self.dirty: set[tuple[str, Any]] = set()
        """(kind, key) of parts that have changed since the caller last cleared it."""

    def next_number(self) -> int:
        """For something else that must have an order among the messages."""
        self.number += 1
        self.dirty.add(("head", ""))
        return self.number

    # -- input ----------------------------------------------------------------------------------

    def take(self, t: Transition, body: Body, now_ms: int) -> None:
        """A change of an alarm; ``body`` is its JSON, with its id."""
        self._rewind(now_ms)
        if t.past:  # beside the live state
            return
        key, begins = alarm_key(t.rule, t.place), t.to_state == FIRING
        if not t.notify:
            if not begins:
                self._ended_unsaid(key, body)
            return
        held = self._held.get(key)
        if held is not None or self._is_quiet(t.route, t.severity, now_ms):
            self._hold(key, held, t.route, body)
            return
        route, told = self._route(t.route), self._told.get(key)
        if not begins and told is not None:
            self._drop("told", self._told, key)
            self._send(self._others(told, route), body, now_ms)
        if route.group_ms == 0:
            told_ms = now_ms
            self._send(route.receivers, body, now_ms)
        else:
            told_ms = self._gather(t.route, route, body, now_ms)
        if begins:
            self._watch(key, t.route, body, told_ms)

    def acknowledge(self, rule: str, place: Place) -> None:
        """Somebody takes care of it: nobody else need be told."""
        if (told := self._told.get(key := alarm_key(rule, place))) is not None:
            told.acknowledged = True
            self.dirty.add(("told", key))

    def silence(self, rule: str, place: Place, until_ms: int) -> None:
        """Nobody is told until then."""
        key = alarm_key(rule, place)
        if (told := self._told.get(key)) is not None:
            told.until_ms = until_ms
            self.dirty.add(("told", key))
        if (held := self._held.get(key)) is not None:
            held.until_ms = until_ms
            self.dirty.add(("held", key))

    def pass_time(self, now_ms: int) -> None:
        """Ends quiet hours, groups and waits."""
        self._rewind(now_ms)
        self._release(now_ms)
        for name, group in list(self._groups.items()):
            if group.due_ms <= now_ms:
                self._drop("group", self._groups, name)
                self._send_digest(name, group.digest, "group", now_ms)
        self._escalate(now_ms)
        for receiver, digest in list(self._over.items()):
            if self._has_room(receiver, now_ms):
                self._drop("over", self._over, receiver)
                self._emit(receiver, self._body(digest, "rate_limit", "", now_ms), now_ms)

    def said(self) -> list[Message]:
        """What has been said since; forgets it."""
        out, self._out = self._out, []
        return out

    def kept_back(self) -> dict[str, int]:
        """How many notifications wait, by why."""
        return {
            "quiet_hours": len(self._held),
            "group": sum(group.digest.count for group in self._groups.values()),
            "rate_limit": sum(digest.count for digest in self._over.values()),
        }

    # -- routes -----------------------------------------------------------------------------------

    def _route(self, name: str) -> Route:
        return self._routes.get(name) or self._routes[""]

    def _is_quiet(self, route: str, severity: str, now_ms: int) -> bool:
        return any(
            severity in hours.severities and hours.cover(now_ms, self._zone)
            for hours in self._route(route).quiet
        )

    def _hold(self, key: Key, held: _Held | None, route: str, body: Body) -> None:
        ends = body["to"] != FIRING
        if held is None:
            held = self._held[key] = _Held(route, body, known=ends)
        held.body = body
        if ends and (told := self._told.get(key)) is not None:
            self._drop("told", self._told, key)
            held.others += self._others(told, self._route(route))
        self.dirty.add(("held", key))

    def _ended_unsaid(self, key: Key, body: Body) -> None:
        if key in self._told:
            self._drop("told", self._told, key)
        if (held := self._held.get(key)) is not None:
            if held.known:  # they still believe that it rings
                held.body = body
                self.dirty.add(("held", key))
            else:
                self._drop("held", self._held, key)

    def _release(self, now_ms: int) -> None:
        free: dict[tuple[str, str], bool] = {}
        digests: dict[str, Digest] = {}
        for key, held in list(self._held.items()):
            place = (held.route, held.body["severity"])
            if place not in free:
                free[place] = not self._is_quiet(*place, now_ms)
            if not free[place] or held.until_ms > now_ms:
                continue
            self._drop("held", self._held, key)
            begins = held.body["to"] == FIRING
            if not (begins or held.known):
                continue  # it came and went: nobody need know
            route = self._route(held.route)
            digest = digests.setdefault(held.route, Digest(route.group_most))
            digest.add(held.body)
            self._send(held.others, held.body, now_ms)
            if begins:
                self._watch(key, held.route, held.body, now_ms)
        for name, digest in digests.items():
            self._send_digest(name, digest, "quiet_hours", now_ms)

    def _gather(self, name: str, route: Route, body: Body, now_ms: int) -> int:
        """Into the route's group; when that is told."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(now_ms + route.group_ms, Digest(route.group_most))
        group.digest.add(body)
        self.dirty.add(("group", name))
        return group.due_ms

    # -- escalation -------------------------------------------------------------------------------

    def _watch(self, key: Key, name: str, body: Body, told_ms: int) -> None:
        if self._route(name).steps:
            self._told[key] = _Told(name, body, told_ms)
            self.dirty.add(("told", key))

    def _escalate(self, now_ms: int) -> None:
        for key, told in list(self._told.items()):
            steps = self._route(told.route).steps
            while (
                not told.acknowledged
                and told.step < len(steps)
                and told.since_ms + steps[told.step].after_ms <= now_ms
                and told.until_ms <= now_ms
                and not self._is_quiet(told.route, told.body["severity"], now_ms)
            ):
                step = steps[told.step]
                told.step += 1
                self.dirty.add(("told", key))
                identity = f"{told.body['id']}-e{told.step}"
                body = {**told.body, "id": identity, "escalation": told.step}
                self._send(step.receivers, body, now_ms)

    def _others(self, told: _Told, route: Route) -> list[str]:
        """Told by escalation, and not by the route."""
        steps = self._route(told.route).steps[: told.step]
        names = dict.fromkeys(name for step in steps for name in step.receivers)
        return [name for name in names if name not in route.receivers]

    # -- receivers --------------------------------------------------------------------------------

    def _send_digest(self, name: str, digest: Digest, kind: str, now_ms: int) -> None:
        self._send(self._route(name).receivers, self._body(digest, kind, name, now_ms), now_ms)

    def _body(self, digest: Digest, kind: str, route: str, now_ms: int) -> Body:
        if digest.count == 1 and kind != "quiet_hours" and digest.listed:
            return dict(digest.listed[0])
        return digest.body(f"{self._identity}m{self.next_number()}", kind, now_ms, route)

    def _send(self, receivers: Iterable[str], body: Body, now_ms: int) -> None:
        for receiver in receivers:
            if receiver in self._over or not self._has_room(receiver, now_ms):
                self._over.setdefault(receiver, Digest()).add(body)
                self.dirty.add(("over", receiver))
            else:
                self._emit(receiver, body, now_ms)

    def _has_room(self, receiver: str, now_ms: int) -> bool:
        rate = self._rates.get(receiver)
        if rate is None:
            return True
        # What lies ahead of now was sent before the clock was set back.
        sent = self._sent.get(receiver, ())
        return sum(now_ms - rate.per_ms < at <= now_ms for at in sent) < rate.count

    def _emit(self, receiver: str, body: Body, now_ms: int) -> None:
        self._out.append(Message(receiver, self.next_number(), body))
        if (rate := self._rates.get(receiver)) is not None:
            self._sent[receiver] = [*self._sent.get(receiver, ()), now_ms][-rate.count :]
            self.dirty.add(("sent", receiver))

    def _rewind(self, now_ms: int) -> None:
        """The clock was set back: what was noted later than now counts from now."""
        if now_ms < self._now_ms:
            for key, told in self._told.items():
                told.since_ms = min(told.since_ms, now_ms)
                self.dirty.add(("told", key))
            for name, group in self._groups.items():
                group.due_ms = min(group.due_ms, now_ms + self._route(name).group_ms)
                self.dirty.add(("group", name))
        self._now_ms = now_ms

    # -- keeping ----------------------------------------------------------------------------------

    def _drop(self, kind: str, where: dict[Any, Any], key: Any) -> None:
        del where[key]
        self.dirty.add((kind, key))

    def dump(self) -> Iterator[tuple[str, Any, Any]]:
        """(kind, key, plain data) of every part that has changed; None for what is gone."""
        for kind, key in self.dirty:
            yield kind, key, self._dump(kind, key)

    def _dump(self, kind: str, key: Any) -> Any:
        if kind == "head":
            return [self.number, self._now_ms]
        if kind == "told" and (told := self._told.get(key)) is not None:
            return [told.route, told.body, told.since_ms, told.step, told.acknowledged,
                    told.until_ms]  # fmt: skip
        if kind == "held" and (held := self._held.get(key)) is not None:
            return [held.route, held.body, held.known, held.others, held.until_ms]
        if kind == "group" and (group := self._groups.get(key)) is not None:
            return [group.due_ms, group.digest.parts]
        if kind == "over" and (digest := self._over.get(key)) is not None:
            return digest.parts
        return self._sent.get(key) if kind == "sent" else None

    def restore(self, parts: Iterable[tuple[str, Any, Any]]) -> None:
        """Takes up what ``dump`` gave, of all times."""
        for kind, key, data in parts:
            match kind:
                case "head":
                    self.number, self._now_ms = data
                case "told":
                    self._told[tuple(key)] = _Told(*data)
                case "held":
                    self._held[tuple(key)] = _Held(*data)
                case "group":
                    due_ms, digest = data
                    most = self._route(key).group_most
                    self._groups[key] = _Group(due_ms, Digest(most, digest))
                case "over":
                    self._over[key] = Digest(parts=data)
                case "sent":
                    self._sent[key] = data
