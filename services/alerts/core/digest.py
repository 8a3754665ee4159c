"""Many notifications in one: the first ones whole, all of them counted by rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.alerts.core.transition import FIRING

MOST = 50
"""Listed whole, where nothing else is said."""

Body = dict[str, Any]
"""A transition as JSON, with ``id``; or a digest: ``alerts``, ``count``, ``rules``, …"""


class Digest:
    """What is gathered for one message; ``parts`` is its plain form."""

    __slots__ = ("count", "listed", "most", "rules")

    def __init__(self, most: int = MOST, parts: list[Any] | None = None) -> None:
        self.most = most
        parts = parts or [0, {}, []]
        self.count: int = parts[0]
        self.rules: dict[str, list[int]] = parts[1]
        """By rule: [begun, ended]."""
        self.listed: list[Body] = parts[2]

    @property
    def parts(self) -> list[Any]:
        """Plain data."""
        return [self.count, self.rules, self.listed]

    def add(self, body: Body) -> None:
        """One more: a transition, or a digest with all that it counts."""
        listed = body.get("alerts")
        if listed is None:
            listed = [body]
            begun = body["to"] == FIRING
            counts = {body["rule"]: [int(begun), int(not begun)]}
        else:
            counts = body["rules"]
        self.count += body.get("count", 1)
        for rule, (begun, ended) in counts.items():
            known = self.rules.setdefault(rule, [0, 0])
            known[0] += begun
            known[1] += ended
        self.listed += listed[: max(0, self.most - len(self.listed))]

    def body(self, identity: str, kind: str, now_ms: int, route: str) -> Body:
        """The message. ``kind``: group | quiet_hours | rate_limit."""
        return {
            "id": identity,
            "kind": kind,
            "ts": now_ms,
            "route": route or None,
            "count": self.count,
            "rules": self.rules,
            "text": self._text(),
            "alerts": self.listed,
        }

    def _text(self) -> str:
        by_rule = sorted(self.rules.items(), key=lambda kv: (-sum(kv[1]), kv[0]))
        words = [f"{rule} {_counts(*counts)}" for rule, counts in by_rule[:10]]
        if len(by_rule) > 10:
            words.append(f"+{len(by_rule) - 10}")
        return f"{self.count}: {', '.join(words)}"


def _counts(begun: int, ended: int) -> str:
    return "/".join(f"{sign}{n}" for sign, n in (("+", begun), ("-", ended)) if n)


def transitions(body: Body) -> Iterator[Body]:
    """What a message tells whole."""
    yield from body.get("alerts", [body])
