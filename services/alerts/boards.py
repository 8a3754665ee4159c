"""What each rule's topic shows: its state, and every alarm that rings.

Made anew from the engine at each start and compared with what was kept, so that what a death left
unsaid, a rule that is gone, or another configuration needs no thought of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from services.alerts.core.rule import Rule
from services.alerts.core.transition import COOLING, FIRING, OK, Transition
from services.alerts.core.watch import Watch
from services.alerts.shown import shown

# Of one topic: a storm of one rule is shown once a second.
PAUSE_MS = 1_000
# Alarms listed in one message; ``count`` counts all.
LISTED = 1_000
# What two messages of the same content differ in.
_PASSING = ("id", "ts")

Key = tuple[str, str]
"""(tenant, rule)."""


class Boards:
    """All topics of all MQTT receivers. ``receivers``: as rendered."""

    def __init__(
        self,
        site: str,
        tenants: Iterable[str],
        rules: Iterable[Rule],
        receivers: Iterable[Mapping[str, Any]],
        told_by: Mapping[str, Iterable[str]],
    ) -> None:
        """``told_by``: route or "" → names of receivers."""
        self._site = site
        self._rules: dict[Key, Rule] = {
            (tenant, rule.name): rule
            for rule in rules
            for tenant in tenants
            if _may_concern(rule, tenant, site)
        }
        self._receivers = list(receivers)
        self._told_by = told_by
        self._active: dict[Key, dict[Watch, None]] = {key: {} for key in self._rules}
        self._touched: set[Key] = set()
        self._written_ms: dict[Key, int] = {}

    def begin(self, ringing: Iterable[Watch]) -> None:
        """Everything anew."""
        self._active = {key: {} for key in self._rules}
        self._touched = set(self._rules) if self._receivers else set()
        self._written_ms = {}
        for watch in ringing:
            self._note(watch)

    def take(self, t: Transition, watch: Watch | None) -> None:
        """A change; ``watch``: the alarm, where it still exists."""
        if watch is not None and not t.past:
            self._note(watch)
        self._touch((t.place.locatario, t.rule))
        if watch is None:
            # Its PLC is gone, and closed in the same breath.
            alarms = self._active.get((t.place.locatario, t.rule), {})
            for gone in [w for w in alarms if w.place.key == t.place.key]:
                del alarms[gone]

    def touched(self, watch: Watch) -> None:
        """Somebody has acknowledged or silenced it."""
        self._touch((watch.place.locatario, watch.rule.name))

    def _touch(self, key: Key) -> None:
        if self._receivers and key in self._rules:
            self._touched.add(key)

    def _note(self, watch: Watch) -> None:
        alarms = self._active.get((watch.place.locatario, watch.rule.name))
        if alarms is not None:
            if watch.state == OK:
                alarms.pop(watch, None)
            else:
                alarms[watch] = None

    def due(self, now_ms: int) -> bool:
        """Whether something has changed and may be shown now."""
        return any(self._may(key, now_ms) for key in self._touched)

    def _may(self, key: Key, now_ms: int) -> bool:
        written_ms = self._written_ms.get(key, 0)
        return not written_ms <= now_ms < written_ms + PAUSE_MS

    def rows(
        self,
        now_ms: int,
        kept: Callable[[str, str], bytes],
        new_id: Callable[[], tuple[int, str]],
    ) -> list[tuple[str, str, int, bytes]]:
        """(receiver, topic, number, JSON) of what must be shown now.

        ``kept(receiver, topic)``: what the database holds; ``new_id()``: (number, id).
        """
        rows = []
        for key in [k for k in self._touched if self._may(k, now_ms)]:
            self._touched.discard(key)
            self._written_ms[key] = now_ms
            said = self._state(key, now_ms)
            for receiver in self._of(self._rules[key].route):
                topic = self._topic(receiver, key)
                known = kept(receiver["name"], topic)
                if not known or _lasting(orjson.loads(known)) != said:
                    number, identity = new_id()
                    body = orjson.dumps({"v": 1, "id": identity, "ts": now_ms, **said})
                    rows.append((receiver["name"], topic, number, body))
        return rows

    def gone(self, kept: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those (receiver, topic) that belong to no rule."""
        wanted = {
            (receiver["name"], self._topic(receiver, key))
            for key, rule in self._rules.items()
            for receiver in self._of(rule.route)
        }
        return [place for place in kept if place not in wanted]

    def _of(self, route: str) -> list[Mapping[str, Any]]:
        names = self._told_by.get(route, (route,))
        return [r for r in self._receivers if r["name"] in names]

    def _topic(self, receiver: Mapping[str, Any], key: Key) -> str:
        topic = "/".join(("alertas", *key))
        return f"{topic}/{self._site}" if receiver["per_site"] else topic

    def _state(self, key: Key, now_ms: int) -> dict[str, Any]:
        rule, alarms = self._rules[key], list(self._active[key])
        firing = [w for w in alarms if w.state == FIRING]
        listed = sorted(firing, key=lambda w: (w.since, w.place.key))[:LISTED]
        state = FIRING if firing else COOLING if alarms else OK
        return _lasting(
            orjson.loads(
                orjson.dumps(
                    {
                        "locatario_id": key[0],
                        "site": self._site,
                        "rule": rule.name,
                        "severity": rule.severity,
                        "state": state,
                        "count": len(firing),
                        "active": [_instance(w, now_ms) for w in listed],
                    }
                )
            )
        )


def _instance(watch: Watch, now_ms: int) -> dict[str, Any]:
    said = shown(watch, now_ms)
    names = ("group", "machine", "field", "value", "since", "text", "confirmado", "silenciado",
             "sem_medida")  # fmt: skip
    return {"plc_id": said["plc"], **{name: said[name] for name in names}}


def _lasting(said: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in said.items() if k not in (*_PASSING, "v")}


def _may_concern(rule: Rule, tenant: str, site: str) -> bool:
    wheres = [rule.where, *(c.where for c in rule.conditions)]
    return all(where.covers_site(tenant, site) for where in wheres)
