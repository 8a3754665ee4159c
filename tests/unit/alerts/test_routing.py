"""Routes, against a slow model: quiet hours, groups, escalation, limits; kept over restarts."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.alerts.core.digest import MOST, Digest
from services.alerts.core.hours import Hours
from services.alerts.core.routing import Message, Rate, Route, Routing, Step
from services.alerts.core.transition import COOLING, FIRING, OK, Place, Transition
from tests.unit.alerts.routing_model import MINUTE_MS, Event, Plan, Told, expected, quiet_minutes

EVERY_DAY = frozenset(range(7))
LOW = frozenset(("informacao", "aviso"))
SEVERITY = {"a": "aviso", "b": "aviso", "c": "critica", "d": "informacao", "e": "aviso"}
ROUTE_OF = {"a": "day", "b": "day", "c": "day", "d": "flat", "e": "flat"}
PLANS = {
    "day": Plan(("ana", "rui"), group=3, steps=((5, ("chefe",)), (20, ("diretor", "ana"))),
                quiet=((EVERY_DAY, 23 * 60 + 30, 90),)),
    "flat": Plan(("rui",), steps=((1, ("chefe",)),), quiet=((frozenset((5, 6)), 0, 45),)),
}  # fmt: skip
MINUTES = 240
# An evening of summer time's beginning and of its end, where both fall into the quiet hours, and a
# usual one.
STARTS = [
    ("Europe/Lisbon", "2025-03-29T22:30+00:00"),
    ("Europe/Lisbon", "2025-10-25T21:30+00:00"),
    ("America/Sao_Paulo", "2018-11-04T01:50+00:00"),  # midnight itself is skipped
    ("America/Sao_Paulo", "2025-06-07T01:00+00:00"),
]


def routes() -> dict[str, Route]:
    made = {
        name: Route(
            plan.receivers,
            group_ms=plan.group * MINUTE_MS,
            steps=tuple(Step(after * MINUTE_MS, to) for after, to in plan.steps),
            quiet=tuple(Hours(*hours, LOW) for hours in plan.quiet),
        )
        for name, plan in PLANS.items()
    }
    return {"": Route(()), **made}


def transition(alarm: str, begins: bool, notify: bool, number: int, ts: int) -> Transition:
    states = (OK, FIRING) if begins else (FIRING, COOLING)
    place = Place("acme", "planta", "p1", "g", "", alarm)
    return Transition(
        ts, alarm, place, *states, 1, notify, "condition", number, SEVERITY[alarm], ROUTE_OF[alarm]
    )


class Run:
    """A Routing that may die at any moment."""

    def __init__(self, zone: str, start_ms: int, rates: dict[str, Rate] | None = None) -> None:
        self._zone = ZoneInfo(zone)
        self._rates = rates or {}
        self._start_ms = start_ms
        self._kept: dict[tuple[str, Any], Any] = {}
        self.told: list[tuple[int, Message]] = []
        self._new()

    def _new(self) -> None:
        self._routing = Routing(routes(), self._rates, zone=self._zone, identity="x-")
        parts = ((kind, key, msgpack.unpackb(s)) for (kind, key), s in self._kept.items())
        self._routing.restore(parts)

    def commit(self) -> None:
        for kind, key, state in self._routing.dump():
            self._kept[kind, key] = msgpack.packb(state)
            if state is None:
                del self._kept[kind, key]
        self._routing.dirty.clear()

    def restart(self) -> None:
        self.commit()
        self._new()

    def ms(self, minute: int) -> int:
        return self._start_ms + minute * MINUTE_MS

    def do(self, e: Event, number: int) -> None:
        place = Place("acme", "planta", "p1", "g", "", e.alarm)
        if e.what == "ack":
            self._routing.acknowledge(e.alarm, place)
        elif e.what == "silence":
            self._routing.silence(e.alarm, place, self.ms(e.until))
        else:
            t = transition(e.alarm, e.what == "begins", e.notify, number, self.ms(e.minute))
            self._routing.take(t, {"id": e.id, **t.as_json()}, self.ms(e.minute))
        self._collect(e.minute)

    def tick(self, minute: int) -> None:
        self._routing.pass_time(self.ms(minute))
        self._collect(minute)

    def _collect(self, minute: int) -> None:
        self.told += [(minute, m) for m in self._routing.said()]


def told(run: Run) -> list[Told]:
    out = []
    for minute, m in run.told:
        kind = m.body.get("kind") or ("escalation" if "escalation" in m.body else "single")
        ids = [b["id"] for b in m.body.get("alerts", [m.body])]
        assert m.body.get("count", 1) == len(ids)
        out.append((minute, m.receiver, kind, tuple(sorted(ids) if kind == "quiet_hours" else ids)))
    return out


ACTION = st.tuples(
    st.sampled_from((0, 1, 2, 3, 7, 20)),
    st.sampled_from("abcde"),
    st.sampled_from(("toggle", "toggle", "toggle", "quietly", "later", "ack", "silence")),
    st.sampled_from((0, 4, 40)),
)


def log_of(actions: list[tuple[int, str, str, int]]) -> list[Event]:
    """What an engine may say: alarms begin and end by turns; silent ones may be told of later."""
    log: list[Event] = []
    rings: dict[str, bool | None] = dict.fromkeys(SEVERITY)  # None: no; else whether it is told
    minute = 0
    for gap, alarm, what, until in actions:
        minute += gap
        if minute >= MINUTES - 1:
            break
        e = Event(minute, alarm, what, id=f"x-{len(log):03}", until=minute + until)
        known = rings[alarm]
        if what in ("toggle", "quietly", "later"):
            if what == "later" and known is False:
                e.what, rings[alarm] = "begins", True  # still_firing
            elif known is None:
                e.what, e.notify = "begins", what != "quietly"
                rings[alarm] = e.notify
            else:
                e.what, e.notify = "ends", what != "quietly" and known
                rings[alarm] = None
        log.append(e)
    return log


LOGS = st.lists(ACTION, min_size=25, max_size=60).map(log_of)


def play(run: Run, log: list[Event], restarts: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    for minute in range(MINUTES):
        for n, e in enumerate(log):
            if e.minute == minute:
                run.do(e, n)
        run.tick(minute)
        if minute in restarts:
            run.restart()


def start_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(STARTS), LOGS, st.sets(st.integers(0, MINUTES), max_size=5))
def test_people_are_told_what_the_model_says(
    start: tuple[str, str], log: list[Event], restarts: set[int]
) -> None:
    zone, begin_ms = ZoneInfo(start[0]), start_ms(start[1])
    by_route = {
        route: set().union(*(quiet_minutes(begin_ms, MINUTES, zone, h) for h in plan.quiet))
        for route, plan in PLANS.items()
    }
    quiet = {a: by_route[r] if SEVERITY[a] in LOW else set() for a, r in ROUTE_OF.items()}
    run = Run(start[0], begin_ms)
    play(run, log, restarts)
    wanted = expected(log, PLANS, ROUTE_OF, quiet, MINUTES)
    assert sorted(told(run)) == sorted(wanted)


@settings(max_examples=100, deadline=None)
@given(LOGS, st.integers(1, 3), st.sampled_from((2, 10, 60)), st.sets(st.integers(0, MINUTES)))
def test_a_limit_sums_up_and_loses_nothing(
    log: list[Event], count: int, per: int, restarts: set[int]
) -> None:
    zone, begin = STARTS[3]
    free, limited = Run(zone, start_ms(begin)), Run(
        zone, start_ms(begin), {"rui": Rate(count, per * MINUTE_MS)}
    )  # fmt: skip
    play(free, log)
    play(limited, log, restarts)
    for minute in range(MINUTES, MINUTES + per * 3):
        free.tick(minute)
        limited.tick(minute)
    others = [[m for m in r.told if m[1].receiver != "rui"] for r in (free, limited)]
    assert [(t, m.body["text"]) for t, m in others[0]] == [
        (t, m.body["text"]) for t, m in others[1]
    ]
    plain = [(t, m.body) for t, m in free.told if m.receiver == "rui"]
    given_out = [(t, m.body) for t, m in limited.told if m.receiver == "rui"]
    minutes = [t for t, _ in given_out]
    assert all(sum(t <= x < t + per for x in minutes) <= count for t in minutes)
    # The obvious limit: sent if there is room and nothing waits, else gathered until there is.
    sent: list[int] = []
    waits: list[str] = []
    wanted: list[tuple[int, list[str]]] = []
    for minute in range(MINUTES + per * 3):
        for _, body in (p for p in plain if p[0] == minute):
            if waits or sum(minute - per < x for x in sent) >= count:
                waits += ids(body)
            else:
                sent.append(minute)
                wanted.append((minute, ids(body)))
        if waits and sum(minute - per < x for x in sent) < count:
            sent.append(minute)
            wanted.append((minute, waits))
            waits = []
    # What comes in one minute has an order only until a restart.
    assert [(t, sorted(ids(b))) for t, b in given_out] == [(t, sorted(i)) for t, i in wanted]
    assert all(body.get("count", 1) == len(ids(body)) for _, body in given_out)


def ids(body: dict[str, Any]) -> list[str]:
    return [b["id"] for b in body.get("alerts", [body])]


@pytest.mark.parametrize("zone", ["Europe/Lisbon", "America/Sao_Paulo", "Australia/Lord_Howe"])
@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["2025-03-29", "2025-10-25", "2018-11-03", "2018-02-17", "2025-04-05",
                     "2025-10-04", "2025-06-11"]),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(0, 1440),
)  # fmt: skip
def test_hours_are_those_of_the_wall_clock(
    zone: str, day: str, days: set[int], begin: int, end: int
) -> None:
    start = start_ms(f"{day}T00:00+00:00")
    hours = Hours(frozenset(days), begin, end, LOW)
    slow = quiet_minutes(start, 2 * 1440, ZoneInfo(zone), (frozenset(days), begin, end))
    fast = {
        m for m in range(2 * 1440) if hours.cover(start + m * MINUTE_MS, ZoneInfo(zone))
    }  # fmt: skip
    assert fast == slow


def test_a_storm_is_one_message_that_counts_all() -> None:
    routing = Routing({"": Route(("ana",), group_ms=10_000)}, identity="x-")
    for n in range(5_000):
        place = Place("acme", "planta", "p1", "g", f"m{n}", "f")
        t = Transition(n, "mudo", place, OK, FIRING, 1, True, "condition", n)
        routing.take(t, {"id": f"x-{n}", **t.as_json()}, n)
    assert routing.said() == []
    assert routing.kept_back() == {"quiet_hours": 0, "group": 5_000, "rate_limit": 0}
    routing.pass_time(10_000)
    assert not any(routing.kept_back().values())
    (message,) = routing.said()
    assert message.body["count"] == 5_000
    assert message.body["rules"] == {"mudo": [5_000, 0]}
    assert [b["machine"] for b in message.body["alerts"]] == [f"m{n}" for n in range(MOST)]
    assert message.body["text"] == "5000: mudo +5000"


def test_a_digest_of_digests_counts_what_neither_lists() -> None:
    storm, two = Digest(2), Digest()
    for n in range(5):
        storm.add({"id": str(n), "rule": "a", "to": FIRING})
    two.add({"id": "z", "rule": "b", "to": COOLING})
    two.add(storm.body("g", "group", 0, ""))
    assert (two.count, two.rules) == (6, {"b": [0, 1], "a": [5, 0]})
    assert [b["id"] for b in two.listed] == ["z", "0", "1"]


def test_a_clock_set_back_delays_nothing_for_long() -> None:
    hour = 3_600_000
    routing = Routing(
        {"": Route(("ana",), group_ms=10_000, steps=(Step(60_000, ("rui",)),))},
        {"ana": Rate(1, 60_000)},
    )
    t = transition("a", True, True, 1, 2 * hour)
    routing.take(t, {"id": "1", **t.as_json()}, 2 * hour)
    routing.pass_time(hour)
    routing.pass_time(hour + 10_000)
    assert [m.receiver for m in routing.said()] == ["ana"]
    routing.pass_time(hour + 60_000)
    assert [m.receiver for m in routing.said()] == ["rui"]
