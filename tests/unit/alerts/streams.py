"""Streams of messages, ticks and restarts, for engine and model alike."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from services.alerts.core.engine import Engine
from services.alerts.core.rule import Rule
from services.alerts.core.transition import Place, Transition
from tests.unit.alerts.model import Model, Said

BASE = 1_764_000_000_000
TENANT, SITE = "acme", "s"


def one(name: str, cooldown_s: int = 0, **condition: Any) -> dict[str, Any]:
    where = condition.get("where", {})
    return {
        "name": name, "cooldown_ms": cooldown_s * 1_000, "where": where, "conditions": [condition],
    }  # fmt: skip


def threshold(op: str, limit: Any, field: str, **more: Any) -> dict[str, Any]:
    where = {"field": field} | more.pop("where", {})
    return {"kind": "threshold", "op": op, "limit": limit, "where": where, **more}


SHIFT = {"days": [0, 1, 2, 3, 4, 5, 6], "begin_min": 965, "end_min": 967, "utc_offset_min": 0}
"""BASE is a Monday, 16:00: from five minutes behind it for two minutes."""
SPECS: list[dict[str, Any]] = [
    one("above", 30, **threshold("above", 6, "a", returns_at=4, for_ms=10_000)),
    one("at-once", 0, **threshold("above", 7, "a")),
    one("below", 5, **threshold("below", 2, "a", where={"plc": "p1", "machine": "m*"})),
    one("outside", 0, **threshold("outside", [2, 7], "a", returns_at=[4, 5], for_ms=20_000)),
    one("code", 20, kind="state_for", op="equal", limit=[3, 8], for_ms=15_000,
        where={"field": "a", "group": "g"}),
    one("still", 0, kind="state_for", op="unchanged", for_ms=40_000, where={"field": "c"}),
    one("rate", 10, kind="rate_change", op="above", limit=3, per_ms=10_000, window_ms=20_000,
        where={"field": "a"}),
    one("count", 0, kind="rate_change", op="below", limit=2, per_ms=60_000, window_ms=30_000,
        counter="INT", where={"field": "c"}, for_ms=5_000),
    one("mean", 0, kind="percentage", of="mean", op="above", limit=50, window_ms=60_000,
        where={"field": "a"}),
    one("share", 0, kind="percentage", of="samples", op="above", limit=40, window_ms=60_000,
        reference=["equal", [8]], where={"field": "a"}),
    one("scrap", 0, kind="percentage", of="increase", op="above", limit=30, window_ms=60_000,
        reference="a", counter="any", where={"field": "c"}),
    one("more", 0, kind="percentage", of="field", reference="c", op="outside", limit=[-50, 50],
        where={"field": "a"}),
    one("silent", 10, kind="absence", of="plc", where={"plc": "*"}, for_ms=60_000),
    one("beats", 0, kind="absence", of="heartbeat", where={}, for_ms=50_000),
    one("no-value", 0, kind="absence", of="value", where={"field": "a", "group": "g"},
        for_ms=70_000),
    one("no-record", 0, kind="absence", of="value", where={"group": "h"}, for_ms=40_000),
    one("stop", 0, **threshold("equal", ["cpu_stop"], "failure", for_ms=5_000,
                               where={"group": "heartbeat"})),
    {"name": "all", "mode": "all", "for_ms": 10_000, "cooldown_ms": 10_000, "conditions": [
        threshold("above", 5, "a", for_ms=5_000), threshold("above", 5, "b", returns_at=3)]},
    {"name": "any", "mode": "any", "for_ms": 20_000, "conditions": [
        threshold("above", 7, "a"), threshold("below", 2, "b", for_ms=5_000)]},
    {"name": "idle", "mode": "all", "conditions": [
        {"kind": "absence", "of": "plc", "where": {}, "for_ms": 30_000},
        threshold("equal", [0, 1, 2], "b", for_ms=5_000)]},
    {**one("shift", 0, **threshold("below", 5, "a", for_ms=30_000)), "shift": SHIFT},
]  # fmt: skip
BOX_SPECS: list[dict[str, Any]] = [
    one("box", 0, kind="absence", of="box", where={"site": "*"}, for_ms=60_000),
    one("link", 5, kind="absence", of="link", where={}, for_ms=20_000),
]


# --- streams ---------------------------------------------------------------------------------

seconds = st.sampled_from([0, 1, 1, 2, 5, 5, 10, 10, 15, 30, 60, 66, 130, 400])
numbers = st.integers(0, 9)
plcs = st.sampled_from(["p1", "p1", "p2"])
records = st.sampled_from([("g", "m0"), ("g", "m0"), ("g", "m1"), ("h", "")])


@st.composite
def data(draw: st.DrawFn) -> tuple[Any, ...]:
    group, _ = record = draw(records)
    a, b, c = draw(numbers), draw(numbers), draw(st.sampled_from([0, 1, 2, 5, 32_767, -32_768]))
    values = {"b": b} if group == "h" else {"a": a, "c": c}
    bad = draw(st.sampled_from([(), (), (), (), (), ("a",), ("b",), ("*",)]))
    quality = draw(st.sampled_from(["good"] * 8 + ["uncertain", "bad"]))
    how = draw(
        st.sampled_from(["live"] * 10 + ["replay", "late", "back", "skip", "behind", "step"])
    )
    return "data", draw(plcs), record, values, bad, quality, how, draw(seconds)


events = st.one_of(
    data(), data(), data(), data(), data(), data(),
    st.tuples(st.just("burst"), plcs, records, numbers, st.integers(2, 8), seconds),
    st.tuples(st.just("tick"), seconds),
    st.tuples(st.just("tick"), seconds),
    st.tuples(st.just("again"), st.integers(0, 5)),
    st.tuples(st.just("gap"), plcs, st.integers(-3, 3), st.booleans()),
    st.tuples(st.just("epoch"), plcs),
    st.tuples(st.just("beat"), plcs, st.sampled_from(["online", "degraded", "offline", "gone"]),
              st.sampled_from([0, 0, 1, 400])),
    st.tuples(st.just("link"), st.sampled_from(["online", "offline"]), st.booleans()),
    st.just(("restart",)), st.just(("restart",)),
    st.just(("resume",)),
    st.tuples(st.just("silence"), st.integers(0, 20), seconds),
)  # fmt: skip
streams = st.lists(events, min_size=8, max_size=50)
rule_sets = st.lists(
    st.sampled_from(SPECS + BOX_SPECS), min_size=1, max_size=8, unique_by=lambda s: str(s["name"])
)


class Twins:
    """Engine and model on the same stream; they must say the same at every step."""

    def __init__(self, specs: list[dict[str, Any]]) -> None:
        self.rules = [Rule.from_spec(s) for s in specs]
        self.engine = Engine(self.rules)
        self.model = Model(self.rules)
        self.now = BASE
        self.epoch: dict[str, int] = {}
        self.seq: dict[str, int] = {}
        self.holes: dict[str, list[tuple[int, int]]] = {}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.said: list[Said] = []
        self.numbers: set[int] = set()

    def run(self, stream: list[tuple[Any, ...]]) -> None:
        for kind, *event in stream:
            getattr(self, f"do_{kind}")(*event)

    # -- what may happen --

    def do_data(
        self, plc: str, record: tuple[str, str], values: dict[str, Any], bad: tuple[str, ...],
        quality: str, how: str, wait_s: int,
    ) -> None:  # fmt: skip
        if how != "step":
            self.now += wait_s * 1_000
        group, machine = record
        message: dict[str, Any] = {
            "ts": self.now, "group": group, "quality": quality, "site": SITE,
            "values": {k: v for k, v in values.items() if k not in bad and "*" not in bad},
        }  # fmt: skip
        if machine:
            message["machine"] = machine
        if bad:
            message["bad"] = dict.fromkeys(bad, "short")
        message |= dict(zip(("epoch", "seq"), self.number(plc, how), strict=True))
        if how == "replay":
            message |= {"replay": True, "ts": self.now - 600_000}
        if how == "late":
            message["ts"] -= 400_000
        if how in ("back", "behind"):
            message["ts"] -= 7_000
        if how == "step":  # the box's clock was set back
            message["ts"] -= 60_000
        self.send(f"plc/{TENANT}/{plc}", message)

    def do_burst(
        self, plc: str, record: tuple[str, str], value: int, count: int, step_s: int
    ) -> None:
        """Every ``step_s`` the same value, or nearly."""
        for n in range(count):
            values = {"b": value} if record[0] == "h" else {"a": value, "c": n // 2}
            self.do_data(plc, record, values, (), "good", "live", min(step_s, 30))

    def number(self, plc: str, how: str) -> tuple[int, int]:
        epoch = self.epoch.setdefault(plc, BASE)
        holes = self.holes.setdefault(plc, [])
        if how == "skip":
            holes.append((epoch, self.seq.get(plc, 0) + 1))
            self.seq[plc] = self.seq.get(plc, 0) + 1
        if how in ("behind", "replay") and holes:
            return holes.pop(0)
        self.seq[plc] = self.seq.get(plc, 0) + 1
        return epoch, self.seq[plc]

    def do_tick(self, wait_s: int) -> None:
        self.now += wait_s * 1_000
        self.same(self.engine.tick(self.now), self.model.tick(self.now))

    def do_again(self, back: int) -> None:
        """At least once: a message, or gap, or heartbeat, comes again."""
        if len(self.sent) > back:
            self.send(*copy.deepcopy(self.sent[-1 - back]), note=False)

    def do_gap(self, plc: str, first: int, open_end: bool) -> None:
        seq = self.seq.get(plc, 0)
        last = None if open_end else seq + max(first, 0)
        self.send(f"plc/{TENANT}/{plc}/gap", {
            "ts": self.now, "epoch": self.epoch.get(plc, BASE), "first_seq": seq + first,
            "last_seq": last, "reason": "space"})  # fmt: skip

    def do_epoch(self, plc: str) -> None:
        if self.epoch.get(plc, BASE) < BASE + 2:
            self.epoch[plc] = self.epoch.get(plc, BASE) + 1
            self.seq[plc] = 0

    def do_beat(self, plc: str, status: str, ago_s: int) -> None:
        topic = f"plc/{TENANT}/{plc}/heartbeat"
        if status == "gone":
            self.send(topic, None)
            for known in (self.epoch, self.seq, self.holes):
                known.pop(plc, None)
            return
        beat = {"ts": self.now - ago_s * 1_000, "status": status, "site": SITE, "interval_s": 30}
        if status == "degraded":
            beat["failure"] = {"code": "cpu_stop"}
        self.send(topic, beat)

    def do_link(self, status: str, will: bool) -> None:
        message = {"status": status} | ({} if will else {"ts": self.now})
        self.send(f"edge/{TENANT}/{SITE}/status", message)

    def do_restart(self) -> None:
        kept = json.loads(json.dumps(self.engine.dump()))
        self.engine = Engine(self.rules)
        assert self.engine.restore(kept) == []
        assert ordered(json.loads(json.dumps(self.engine.dump()))) == ordered(kept)

    def do_resume(self) -> None:
        self.engine.resume(self.now)
        self.model.resume(self.now)

    def do_silence(self, which: int, for_s: int) -> None:
        alarms = [a for a in self.model.all_alarms() if not a.past]
        if which < len(alarms):
            alarm = alarms[which]
            until = alarm.silenced_until = self.now + for_s * 1_000
            site = SITE if alarm.plc is None else ""
            place = Place(TENANT, site, *alarm.place)
            watch = self.engine.find(alarm.rule.name, place)
            assert watch is not None
            watch.silence(until, "manutenção")

    # -- comparing --

    def send(self, topic: str, message: dict[str, Any] | None, note: bool = True) -> None:
        if note:
            self.sent.append((topic, copy.deepcopy(message or {})))
        got = self.engine.message(topic, message, self.now)
        self.same(got, self.model.message(topic, message, self.now))

    def same(self, got: list[Transition], expected: list[Said]) -> None:
        mine = sorted(map(said, got))
        theirs = sorted(expected)
        assert mine == theirs, f"\nengine: {mine}\nmodel:  {theirs}"
        self.said += theirs
        for t in got:
            assert t.number not in self.numbers
            self.numbers.add(t.number)


def ordered(dump: dict[str, Any]) -> dict[str, Any]:
    """Its alarms by name: their order means nothing."""
    for plc in dump["plcs"]:
        plc[-1].sort(key=lambda watch: json.dumps(watch[:4]))
    return dump


def said(t: Transition) -> Said:
    p = t.place
    value = json.dumps(t.value, sort_keys=True)
    return (t.ts, t.rule, p.plc, p.group, p.machine, p.field, t.from_state, t.to_state, t.notify,
            t.reason, value)  # fmt: skip
