"""The manual's table of situations, by hand; engine and model must both agree with it.

A case is rules, then lines: a number of seconds and what happens then, and what must be said:
(second, rule, from, to, notify, reason).
"""

from __future__ import annotations

from typing import Any

import pytest

from services.alerts.core.engine import Engine
from services.alerts.core.rule import Rule
from services.runtime.alert_model import Alerts, specs
from tests.unit.alerts.model import Model

T = 1_764_000_000_000
CORRENTE: dict[str, Any] = {
    "name": "corrente-alta", "type": "threshold", "where": {"plc": "p1", "field": "a"},
    "above": 80, "returns_at": 75, "for": "30s", "cooldown": "5m",
}  # fmt: skip
ALTA: dict[str, Any] = {"name": "alta", "type": "threshold", "where": {"field": "a"}, "above": 80}
SUBIDA: dict[str, Any] = {
    "name": "subida", "type": "rate_change", "where": {"field": "a"}, "above": 2, "per": "1m",
    "window": "60s",
}  # fmt: skip
DESVIO: dict[str, Any] = {
    "name": "desvio", "type": "percentage", "where": {"field": "a"}, "of": {"mean": "60s"},
    "above": 20,
}  # fmt: skip
MUDO: dict[str, Any] = {"name": "mudo", "type": "absence", "where": {"plc": "*"}, "for": "2m"}
PARADA: dict[str, Any] = {
    "name": "parada", "type": "state_for", "where": {"field": "on"}, "equal": False, "for": "1m",
}  # fmt: skip
FIRES, ENDS, COOL = ("ok", "disparando"), ("disparando", "resfriando"), ("resfriando", "ok")
STILL = ("disparando", "disparando")
Case = tuple[list[dict[str, Any]], list[tuple[Any, ...]], list[tuple[Any, ...]]]


def steps(first: int, last: int, value: Any, step: int = 10) -> list[tuple[Any, ...]]:
    """The field ``a`` every ``step`` seconds."""
    return [(s, "a", value) for s in range(first, last + 1, step)]


CASES: dict[str, Case] = {
    "above for 30 s fires at the event time at which it is fulfilled": (
        [CORRENTE], [(0, "a", 50), *steps(10, 50, 85)], [(40, *FIRES, True, "condition")],
    ),
    "a tick fulfils it as well": (
        [CORRENTE], [(0, "a", 85), (29, "tick"), (31, "tick")], [(30, *FIRES, True, "condition")],
    ),
    "the limit itself is not above it": ([ALTA], [(0, "a", 80)], []),
    "29 s are not 30 s": ([CORRENTE], [(0, "a", 85), (29, "a", 79), (31, "a", 85)], []),
    "back at the very moment at which it would fire: it does not": (
        [CORRENTE], [*steps(0, 20, 85), (30, "a", 70)], [],
    ),
    "back a moment later: it did": (
        [CORRENTE], [*steps(0, 20, 85), (31, "a", 70)],
        [(30, *FIRES, True, "condition"), (31, *ENDS, True, "returned")],
    ),
    "a dip to 78 begins the count again": (
        [CORRENTE], [*steps(0, 20, 85), (25, "a", 78), (28, "a", 85), (57, "a", 85), (59, "tick")],
        [(58, *FIRES, True, "condition")],
    ),
    "a dip to 78 does not end it, 75 does; then it cools": (
        [CORRENTE], [*steps(0, 30, 85), (40, "a", 78), (50, "a", 75), (349, "tick"), (350, "tick")],
        [(30, *FIRES, True, "condition"), (50, *ENDS, True, "returned"),
         (350, *COOL, False, "cooldown_over")],
    ),
    "beyond it again while it cools: nobody is told, nothing fires": (
        [CORRENTE],
        [*steps(0, 30, 85), (40, "a", 70), *steps(50, 100, 90), (110, "a", 70), (400, "tick")],
        [(30, *FIRES, True, "condition"), (40, *ENDS, True, "returned"),
         (340, *COOL, False, "cooldown_over")],
    ),
    "still beyond it when it has cooled: it fires then": (
        [CORRENTE], [*steps(0, 30, 85), (40, "a", 70), *steps(50, 350, 90)],
        [(30, *FIRES, True, "condition"), (40, *ENDS, True, "returned"),
         (340, *COOL, False, "cooldown_over"), (340, *FIRES, True, "condition")],
    ),
    "without a cooldown it is ok at once": (
        [ALTA], [(0, "a", 85), (5, "a", 70)],
        [(0, *FIRES, True, "condition"), (5, *ENDS, True, "returned"),
         (5, *COOL, False, "cooldown_over")],
    ),
    "on_change: the value holds between two messages": (
        [CORRENTE], [(0, "a", 85), (60, "a", 85)], [(30, *FIRES, True, "condition")],
    ),
    "longer than max_silence it does not": (
        [{**CORRENTE, "for": "90s"}], [(0, "a", 85), (80, "a", 85), (100, "tick"), (144, "tick")],
        [],
    ),
    "a gap breaks the count": (
        [CORRENTE], [(0, "a", 85), (10, "gap"), (25, "a", 85), (54, "a", 85)], [],
    ),
    "a gap does not end it": (
        [CORRENTE], [*steps(0, 30, 85), (40, "gap"), (50, "a", 85)],
        [(30, *FIRES, True, "condition")],
    ),
    "a gap behind what came already changes nothing": (
        [CORRENTE], [*steps(0, 20, 85), (21, "old gap"), (30, "a", 85)],
        [(30, *FIRES, True, "condition")],
    ),
    "a new epoch breaks the count": (
        [CORRENTE], [*steps(0, 20, 85), (25, "epoch"), (30, "a", 85), (59, "a", 85)], [],
    ),
    "uncertain and bad never fire": (
        [ALTA], [(0, "a", 90, {"quality": "uncertain"}), (5, "a", 90, {"quality": "bad"})], [],
    ),
    "they never end it either": (
        [ALTA], [(0, "a", 90), (5, "a", 20, {"quality": "uncertain"}), (9, "b", 0, {"bad": ["a"]})],
        [(0, *FIRES, True, "condition")],
    ),
    "a bad value breaks the count": (
        [CORRENTE], [*steps(0, 20, 85), (25, "b", 0, {"bad": ["a"]}), (30, "a", 85), (59, "a", 85)],
        [],
    ),
    "a message without the field says nothing of it": (
        [CORRENTE], [*steps(0, 20, 85), (25, "b", 0), (30, "a", 85)],
        [(30, *FIRES, True, "condition")],
    ),
    "a repeat changes nothing": (
        [ALTA], [(0, "a", 85), (1, "again", 1), (5, "a", 70), (6, "again", 2)],
        [(0, *FIRES, True, "condition"), (5, *ENDS, True, "returned"),
         (5, *COOL, False, "cooldown_over")],
    ),
    "a replayed message tells nobody and leaves the live state alone": (
        [ALTA], [(1000, "a", 70), (1001, "replay", 90, 10), (1002, "replay", 60, 20),
                 (1003, "a", 85)],
        [(10, *FIRES, False, "replay"), (20, *ENDS, False, "replay"),
         (20, *COOL, False, "cooldown_over"), (1003, *FIRES, True, "condition")],
    ),
    "a late message tells nobody": (
        [ALTA], [(1000, "tick"), (1000, "late", 90, 600), (1000, "late", 60, 610)],
        [(600, *FIRES, False, "late"), (610, *ENDS, False, "late"),
         (610, *COOL, False, "cooldown_over")],
    ),
    "what began in the backlog and still is, is told when the present is reached": (
        [ALTA], [(1000, "tick"), (1000, "late", 90, 600), (1001, "a", 88)],
        [(600, *FIRES, False, "late"), (1001, *STILL, True, "still_firing")],
    ),
    "what the backlog ended is not told": (
        [ALTA], [(0, "a", 90), (1000, "tick"), (1000, "late", 60, 600), (1001, "a", 60)],
        [(0, *FIRES, True, "condition"), (600, *ENDS, False, "late"),
         (600, *COOL, False, "cooldown_over")],
    ),
    "a backlog is not hurried by ticks": (
        [CORRENTE],
        [(1000, "tick"), (1000, "late", 85, 600), (1001, "tick"), (1001, "late", 70, 610)], [],
    ),
    "the clock set back: the count begins again": (
        [CORRENTE], [(100, "a", 85), (120, "a", 85), (40, "a", 85), (69, "a", 85), (70, "a", 85)],
        [(70, *FIRES, True, "condition")],
    ),
    "rate: a jump is no rise of the whole window": (
        [SUBIDA], [*steps(0, 60, 20), (70, "a", 21), (80, "a", 21)], [],
    ),
    "rate: above 2 a minute over the window": (
        [SUBIDA], [(s, "a", 20 + s / 20) for s in range(0, 70, 10)],
        [(60, *FIRES, True, "condition")],
    ),
    "rate: not before the window is whole": (
        [SUBIDA], [(s, "a", 20 + s) for s in range(0, 60, 10)], [],
    ),
    "rate: a counter that wraps goes on": (
        [{**SUBIDA, "counter": "INT", "above": 5}],
        [(0, "a", 32_764), (30, "a", 32_767), (60, "a", -32_766)],
        [(60, *FIRES, True, "condition")],
    ),
    "rate: a counter that restarts counts from zero": (
        [{**SUBIDA, "counter": True, "above": 5}], [(0, "a", 900), (30, "a", 2), (60, "a", 5)], [],
    ),
    "rate: a gap empties the window": (
        [SUBIDA], [(0, "a", 20), (30, "a", 21.5), (40, "gap"), (60, "a", 23), (70, "a", 24)], [],
    ),
    "percentage: against the mean of the window before": (
        [DESVIO], [*steps(0, 60, 5), (70, "a", 6), (80, "a", 7)],
        [(80, *FIRES, True, "condition")],
    ),
    "percentage: a fall is a negative change": (
        [DESVIO, {**DESVIO, "name": "queda", "above": None, "below": -20}],
        [*steps(0, 60, 5), (70, "a", 3)], [(70, "queda", *FIRES, True, "condition")],
    ),
    "percentage: against a value": (
        [{**DESVIO, "of": {"value": 200}, "above": 10}], [(0, "a", 220), (5, "a", 221)],
        [(5, *FIRES, True, "condition")],
    ),
    "percentage: against another field": (
        [{**DESVIO, "of": {"field": "b"}, "above": 10}],
        [(0, "a", 110, {"b": 100}), (5, "a", 111, {"b": 100}), (6, "a", 111)],
        [(5, *FIRES, True, "condition")],
    ),
    "percentage: share of samples": (
        [{**DESVIO, "of": {"samples": "60s", "equal": True}, "above": 30}],
        [(0, "a", True), (10, "a", False), (20, "a", False), (30, "a", False), (40, "a", True)],
        [(10, *FIRES, True, "condition"), (30, *ENDS, True, "returned"),
         (30, *COOL, False, "cooldown_over"), (40, *FIRES, True, "condition")],
    ),
    "percentage: share in the increase of two counters": (
        [{**DESVIO, "of": {"increase": "60s", "with": "b"}, "above": 5}],
        [(0, "a", 10, {"b": 100}), (10, "a", 10, {"b": 120}), (20, "a", 13, {"b": 140})],
        [(20, *FIRES, True, "condition")],
    ),
    "percentage: no reference, no statement": (
        [{**DESVIO, "of": {"field": "b"}, "above": 10}], [(0, "a", 110, {"b": 0})], [],
    ),
    "absence: neither value nor heartbeat for two minutes": (
        [MUDO], [(0, "a", 1), (119, "tick"), (121, "tick"), (150, "a", 1)],
        [(120, *FIRES, True, "box_silent"), (150, *ENDS, True, "returned"),
         (150, *COOL, False, "cooldown_over")],
    ),
    "absence: bad values are no sign": (
        [MUDO], [(s, "a", 1, {"quality": "bad"} if s else {}) for s in range(0, 130, 10)]
        + [(130, "tick")], [(120, *FIRES, True, "plc_silent")],
    ),
    "absence: a heartbeat that is online is a sign, offline is none": (
        [MUDO],
        [(0, "a", 1), (100, "beat", "online"), (200, "beat", "offline"), (230, "tick")],
        [(220, *FIRES, True, "plc_silent")],
    ),
    "absence: the heartbeat of another PLC of the box tells that the box lives": (
        [MUDO], [(0, "a", 1), (100, "beat p2", "online"), (121, "tick")],
        [(120, *FIRES, True, "plc_silent")],
    ),
    "absence: a backlog is no present sign": (
        [MUDO], [(0, "a", 1), (600, "tick"), (600, "late", 1, 200), (700, "tick"), (701, "a", 1)],
        [(120, *FIRES, True, "box_silent"), (701, *ENDS, True, "returned"),
         (701, *COOL, False, "cooldown_over")],
    ),
    "absence: the time in which nobody listened is no silence": (
        [MUDO], [(0, "a", 1), (1000, "resume"), (1119, "tick"), (1121, "tick")],
        [(1120, *FIRES, True, "box_silent")],
    ),
    "absence: a box with an alarm of its own is told of once": (
        [MUDO, {"name": "caixa", "type": "absence", "of": "box", "for": "1m"}],
        [(0, "a", 1), (61, "tick"), (121, "tick")],
        [(60, "caixa", *FIRES, True, "box_silent"), (120, "mudo", *FIRES, False, "box_silent")],
    ),
    "absence: a dead link likewise; once it is back, who is still silent is told of": (
        [MUDO, {"name": "enlace", "type": "absence", "of": "link", "for": "10s"}],
        [(0, "a", 1), (5, "link", "offline"), (16, "tick"), (121, "tick"), (130, "link", "online"),
         (131, "tick")],
        [(15, "enlace", *FIRES, True, "condition"), (120, "mudo", *FIRES, False, "link_down"),
         (130, "enlace", *ENDS, True, "returned"),
         (130, "enlace", *COOL, False, "cooldown_over"),
         (131, "mudo", *STILL, True, "still_firing")],
    ),
    "absence: of a value": (
        [{**MUDO, "where": {"field": "a"}}],
        [(0, "a", 1), (60, "b", 1), (100, "a", 1, {"quality": "uncertain"}), (119, "b", 1),
         (125, "tick")],
        [(120, *FIRES, True, "no_value")],
    ),
    "state_for: a BOOL held": (
        [PARADA], [(0, "on", True), (10, "on", False), (69, "on", False), (71, "on", False)],
        [(70, *FIRES, True, "condition")],
    ),
    "state_for: a value that stands still": (
        [{"name": "parado", "type": "state_for", "where": {"field": "a"}, "for": "50s"}],
        [(0, "a", 7), (30, "a", 8), (60, "a", 8), (81, "a", 8), (90, "a", 9)],
        [(80, *FIRES, True, "condition"), (90, *ENDS, True, "returned"),
         (90, *COOL, False, "cooldown_over")],
    ),
    "all: only while all hold": (
        [{"name": "ambos", "type": "all", "for": "10s", "of": [
            {"type": "threshold", "where": {"field": "a"}, "above": 80},
            {"type": "threshold", "where": {"field": "b"}, "below": 5}]}],
        [(0, "a", 90), (1, "b", 9), (5, "b", 1), (14, "b", 1), (16, "b", 1), (20, "a", 70)],
        [(15, *FIRES, True, "condition"), (20, *ENDS, True, "returned"),
         (20, *COOL, False, "cooldown_over")],
    ),
    "any: as long as one of them holds": (
        [{"name": "algum", "type": "any", "for": "10s", "of": [
            {"type": "threshold", "where": {"field": "a"}, "above": 80},
            {"type": "threshold", "where": {"field": "b"}, "below": 5}]}],
        [(0, "a", 90), (0, "b", 9), (6, "b", 1), (7, "a", 70), (11, "b", 1), (12, "b", 9)],
        [(10, *FIRES, True, "condition"), (12, *ENDS, True, "returned"),
         (12, *COOL, False, "cooldown_over")],
    ),
    "heartbeat fields can be watched like any": (
        [{"name": "stop", "type": "state_for", "for": "10s", "equal": "cpu_stop",
          "where": {"group": "heartbeat", "field": "failure"}}],
        [(0, "beat", "cpu_stop"), (10, "beat", "cpu_stop"), (20, "beat", "online")],
        [(10, *FIRES, True, "condition"), (20, *ENDS, True, "returned"),
         (20, *COOL, False, "cooldown_over")],
    ),
    "a PLC that left the configuration rings no more": (
        [ALTA], [(0, "a", 90), (5, "beat", "gone"), (500, "tick")],
        [(0, *FIRES, True, "condition"), (5, *ENDS, False, "removed"),
         (5, *COOL, False, "removed")],
    ),
}  # fmt: skip


class Player:
    """Plays the lines of a case to an engine or a model."""

    def __init__(self, subject: Engine | Model) -> None:
        self.subject = subject
        self.now = self.seq = 0
        self.epoch = T
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def play(self, at: int, what: str, value: Any = None, more: Any = None) -> list[Any]:
        self.now = max(self.now, at)
        now = T + self.now * 1_000
        if what == "tick":
            return list(self.subject.tick(now))
        if what == "resume":
            self.subject.resume(now)
            return []
        if what == "epoch":
            self.epoch, self.seq = self.epoch + 1, 0
            return []
        topic, message = "plc/acme/p1", {"ts": T + at * 1_000, "site": "s"}
        if what == "again":
            topic, message = self.sent[-value]
        elif what in ("gap", "old gap"):
            first = self.seq + 1 if what == "gap" else 1
            if what == "gap":
                self.seq += 3
            topic += "/gap"
            message |= {
                "epoch": self.epoch,
                "first_seq": first,
                "last_seq": first + 2 - (first < 2),
            }
        elif what == "link":
            topic, message = "edge/acme/s/status", {"status": value}
        elif what.startswith("beat"):
            topic = f"plc/acme/{what.partition(' ')[2] or 'p1'}/heartbeat"
            if value == "gone":
                return list(self.subject.message(topic, None, now))
            failing = value == "cpu_stop"
            message |= {"status": "degraded" if failing else value, "interval_s": 10}
            message |= {"failure": {"code": value}} if failing else {}
        else:
            message |= self.data(what, value, more)
        self.sent.append((topic, message))
        return list(self.subject.message(topic, message, now))

    def data(self, what: str, value: Any, more: Any) -> dict[str, Any]:
        self.seq += 1
        out = {"epoch": self.epoch, "seq": self.seq, "quality": "good", "group": "g"}
        if what in ("replay", "late"):
            out |= {"ts": T + more * 1_000, "values": {"a": value}}
            return out | ({"replay": True} if what == "replay" else {})
        more = dict(more or {})
        out |= {"quality": more.pop("quality", "good")}
        if bad := more.pop("bad", None):
            out["bad"] = dict.fromkeys(bad, "short")
        return out | {"values": {what: value, **more}}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [Engine, Model])
def test_case(name: str, kind: type[Engine] | type[Model]) -> None:
    rules, lines, expected = CASES[name]
    player = Player(kind(map(Rule.from_spec, specs(Alerts.model_validate({"rules": rules})))))
    got = [t for line in lines for t in player.play(*line)]
    said = [
        (t[0], t[1], *t[6:10]) if isinstance(t, tuple) else
        (t.ts, t.rule, t.from_state, t.to_state, t.notify, t.reason) for t in got
    ]  # fmt: skip
    full = [e if len(e) == 6 else (e[0], rules[0]["name"], *e[1:]) for e in expected]
    assert said == [(T + s * 1_000, *rest) for s, *rest in full]
