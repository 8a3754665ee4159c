"""What the next commit must hold of what was said: history, messages, and what topics show.

Gathered as the engine says it, dropped when it is committed; a commit that fails is made again
from what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from services.alerts.boards import Boards
from services.alerts.core.hours import Hours
from services.alerts.core.routing import Message, Rate, Route, Routing, Step
from services.alerts.core.rule import Rule
from services.alerts.core.transition import Place, Transition
from services.alerts.core.watch import Watch
from services.alerts.memory import Change, Memory

Find = Callable[[str, Place], Watch | None]


class Telling:
    """Of one box. ``config``: as rendered."""

    def __init__(self, config: Mapping[str, Any], rules: Iterable[Rule], memory: Memory) -> None:
        self._config = config
        self._memory = memory
        self._identity = f"{config['site']}-{memory.born}-"
        self._boards_of = [r["name"] for r in config["receivers"] if r["type"] == "mqtt"]
        tenants = {tenant for tenant, *_ in config["roster"]}
        boards = [r for r in config["receivers"] if r["type"] == "mqtt"]
        self._boards = Boards(config["site"], tenants, rules, boards, self._told_by())
        self._routing = self._new_routing()
        self._history: list[tuple[int, int, bytes]] = []
        self._messages: list[Message] = []
        self._board: list[tuple[str, str, int, bytes]] = []

    def _told_by(self) -> dict[str, list[str]]:
        routes = {name: route["receivers"] for name, route in self._config["routes"].items()}
        return {"": [r["name"] for r in self._config["receivers"]], **routes}

    def _new_routing(self) -> Routing:
        receivers = self._config["receivers"]
        people = [r["name"] for r in receivers if r["name"] not in self._boards_of]
        routes = {"": Route(tuple(people))}
        routes |= {name: Route((name,)) for name in people}
        routes |= {name: Route(()) for name in self._boards_of}
        for name, route in self._config["routes"].items():
            routes[name] = _route(route, people)
        rates = {r["name"]: Rate(r["rate"]["messages"], round(r["rate"]["per"] * 1_000))
                 for r in receivers if r.get("rate")}  # fmt: skip
        return Routing(
            routes, rates, zone=ZoneInfo(self._config["timezone"]), identity=self._identity
        )

    def begin(self, first_number: int, ringing: Iterable[Watch]) -> None:
        """From the last commit on. ``first_number``: messages have later ones."""
        self._routing = self._new_routing()
        self._routing.number = first_number  # they once went by the engine's numbers
        self._routing.restore(self._memory.routing())
        self._history, self._messages, self._board = [], [], []
        self._boards.begin(ringing)
        kept = [
            (name, topic)
            for name in self._boards_of
            for topic, _, body in self._memory.board(name)
            if body
        ]
        for receiver, topic in self._boards.gone(kept):
            self._board.append((receiver, topic, self._routing.next_number(), b""))

    def take(self, said: Sequence[Transition], find: Find, now_ms: int) -> None:
        """What the engine has said."""
        for t in said:
            body = {"id": f"{self._identity}{t.number}", **t.as_json()}
            self._history.append((t.number, now_ms, orjson.dumps(body)))
            self._routing.take(t, body, now_ms)
            if self._boards_of:
                self._boards.take(t, find(t.rule, t.place))
        self._messages += self._routing.said()

    def touch(self, watch: Watch) -> None:
        """Somebody has acknowledged or silenced it."""
        rule, place = watch.rule.name, watch.place
        if watch.acknowledged is not None:
            self._routing.acknowledge(rule, place)
        if watch.silenced is not None:
            self._routing.silence(rule, place, watch.silenced[0])
        self._boards.touched(watch)

    def pass_time(self, now_ms: int) -> None:
        """Ends waits."""
        self._routing.pass_time(now_ms)
        self._messages += self._routing.said()

    def kept_back(self) -> dict[str, int]:
        """How many notifications wait, by why."""
        return self._routing.kept_back()

    def pending(self, now_ms: int) -> bool:
        """Whether there is something to commit."""
        said = self._history or self._messages or self._board or self._routing.dirty
        return bool(said) or self._boards.due(now_ms)

    def fill(self, change: Change, now_ms: int) -> None:
        """Adds its part of a commit."""
        if self._boards.due(now_ms):
            fresh = self._boards.rows(now_ms, self._memory.board_body, self._new_id)
            names = {row[:2] for row in fresh}
            self._board = [row for row in self._board if row[:2] not in names] + fresh
        change.history = list(self._history)
        change.queue = [(m.receiver, m.number, orjson.dumps(m.body)) for m in self._messages]
        change.board = list(self._board)
        change.routing = list(self._routing.dump())

    def _new_id(self) -> tuple[int, str]:
        number = self._routing.next_number()
        return number, f"{self._identity}b{number}"

    def committed(self) -> None:
        """It is kept."""
        self._history, self._messages, self._board = [], [], []
        self._routing.dirty.clear()


def _route(config: Mapping[str, Any], people: Sequence[str]) -> Route:
    group_ms, most = config["group"] or (0, 0)
    return Route(
        tuple(name for name in dict.fromkeys(config["receivers"]) if name in people),
        group_ms=group_ms,
        group_most=most,
        steps=tuple(Step(after_ms, tuple(to)) for after_ms, to in config["steps"]),
        quiet=tuple(
            Hours(frozenset(days), begin, end, frozenset(severities))
            for days, begin, end, severities in config["quiet"]
        ),
    )
