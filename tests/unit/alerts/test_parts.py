"""Parts of the engine alone, and what the streams do not reach: bounds, people, changed rules."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.core import plant
from services.alerts.core.engine import BadMessage, Engine
from services.alerts.core.rule import Rule
from services.alerts.core.seen import MAX_RUNS, Seen
from services.alerts.core.transition import Place, Transition
from services.alerts.core.window import POINTS, Window
from services.runtime.measured import comparison, increase, number
from tests.unit.alerts.streams import BASE, SPECS, one, threshold

HIGH = one("high", 10, **threshold("above", 80, "a", for_ms=10_000))


def engine(*specs: dict[str, Any]) -> Engine:
    return Engine(map(Rule.from_spec, specs or [HIGH]))


def send(subject: Engine, second: float, value: Any, plc: str = "p1") -> list[Transition]:
    ts = BASE + round(second * 1_000)
    message = {"ts": ts, "site": "s", "group": "g", "quality": "good", "values": {"a": value}}
    return subject.message(f"plc/acme/{plc}", message, ts)


def changes(said: list[Transition]) -> list[tuple[str, bool, str]]:
    return [(t.to_state, t.notify, t.reason) for t in said]


# --- parts ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([7, 8]), st.integers(1, 30)), max_size=80))
def test_a_number_is_new_once(numbers: list[tuple[int, int]]) -> None:
    seen, known = Seen(), set[tuple[int, int]]()
    for at in numbers:
        assert seen.add(*at) == (at not in known)
        known.add(at)
        assert seen.newest == max(known)
        newest = [s for e, s in known if e == seen.newest[0]]
        assert seen.whole() == (max(newest) - min(newest) + 1 == len(newest))
        again = Seen()
        again.restore(json.loads(json.dumps(seen.dump())))
        assert (again.newest, again.epochs) == (seen.newest, seen.epochs)


def test_what_was_seen_is_bounded() -> None:
    seen = Seen()
    for seq in range(1, 2_000, 2):
        assert seen.add(1, seq)
    assert len(seen.epochs[1]) == MAX_RUNS
    assert not seen.add(1, 2), "a hole that old counts as seen"
    assert seen.add(1, 1_998)
    for epoch in range(2, 50):
        seen.add(epoch, 1)
    assert len(seen.epochs) == 4
    assert not seen.add(1, 5_000), "so does a sequence that old"


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=400), st.integers(1_000, 60_000))
def test_a_window_is_bounded_and_reaches_back_far_enough(steps: list[int], span: int) -> None:
    window, ts, all_points = Window(span), 0, []
    for n, step in enumerate(steps):
        ts += step
        window.add(ts, n, -n)
        all_points.append(ts)
        point = window.back(ts)
        assert point is not None
        assert len(window.points) <= POINTS + 2
        old = [p for p in all_points if p <= ts - span]
        if old:
            assert max(old) - span / POINTS <= point[0] <= ts - span
        else:
            assert point[0] == all_points[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (2.5, 2.5), (True, 1), ("9007199254740993", 9007199254740993), ("-12", -12),
     ("1.5", 1.5), ("on", None), ("", None), (None, None), ([1], None), ({}, None),
     (float("nan"), None), (float("inf"), None)],
)  # fmt: skip
def test_what_can_be_compared(value: Any, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("op", "limit", "value", "expected"),
    [
        ("above", 80, 80, False), ("above", 80, 80.1, True), ("above", 80, "90", True),
        ("above", 80, "x", None), ("above", 0, True, True), ("below", 5, 4, True),
        ("below", 5, 5, False), ("outside", (1, 5), 1, False), ("outside", (1, 5), 0, True),
        ("outside", (1, 5), 6, True), ("equal", (False,), False, True), ("equal", (3, 4), 4, True),
        ("equal", (3,), "3", True), ("equal", ("A",), "A", True), ("equal", ("A",), 3, False),
        ("equal", (3,), [3], False), ("above", 1.0, float("nan"), None),
    ],
)  # fmt: skip
def test_operators(op: str, limit: Any, value: Any, expected: bool | None) -> None:
    assert comparison(op, limit)(value) is expected


@pytest.mark.parametrize(
    ("last", "now", "counter", "expected"),
    [
        (10, 15, "any", 5), (32_767, -32_768, "INT", 1), (32_000, -32_000, "INT", 1_536),
        (1_500, 0, "INT", 0), (1_500, 7, "INT", 7), (65_535, 4, "UINT", 5), (250, 3, "USINT", 9),
        (2**31 - 1, -(2**31), "DINT", 1), (900, 2, "any", 2), (900, 2, "DINT", 2),
    ],
)  # fmt: skip
def test_by_how_much_a_counter_rose(last: int, now: int, counter: str, expected: int) -> None:
    assert increase(last, now, counter) == expected


# --- messages that cannot be understood ----------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("plc/acme/p1", {"values": {"a": 1}}),
        ("plc/acme/p1", {"ts": "now", "values": {"a": 1}}),
        ("plc/acme/p1", {"ts": True, "values": {"a": 1}}),
        ("plc/acme/p1", {"ts": 1, "values": "a"}),
        ("plc/acme/p1/heartbeat", {"status": "online"}),
        ("edge/acme/s/status", {"status": "on"}),
        ("edge/acme/s/status", {}),
    ],
)
def test_a_message_that_says_nothing_changes_nothing(topic: str, message: dict[str, Any]) -> None:
    subject = engine(*SPECS)
    with pytest.raises(BadMessage):
        subject.message(topic, message, BASE)
    assert not list(subject.watches())
    assert subject.message("plc/acme/p1/other/topic", {}, BASE) == []
    assert subject.message("plc/acme/p1", {"ts": 1, "values": None, "bad": None}, BASE) == []


# --- tenants -------------------------------------------------------------------------------------


def test_two_tenants_with_a_plc_of_one_name_have_nothing_in_common() -> None:
    subject = engine(one("high", 0, **threshold("above", 80, "a", where={"locatario": "acme"})))
    for tenant, value in (("beta", 90), ("acme", 50), ("beta", 95)):
        message = {"ts": BASE, "epoch": 1, "seq": 1, "locatario_id": "acme", "values": {"a": value}}
        assert subject.message(f"plc/{tenant}/p1", message, BASE) == []
    message = {"ts": BASE, "epoch": 1, "seq": 2, "values": {"a": 90}}
    (said,) = subject.message("plc/acme/p1", message, BASE)
    assert said.place.locatario == "acme"


# --- people --------------------------------------------------------------------------------------


def test_acknowledged_until_it_ends() -> None:
    subject = engine()
    send(subject, 0, 90)
    watch = subject.find("high", Place("acme", "", "p1", "g", "", "a"))
    assert watch is not None
    assert not watch.acknowledge("ana", BASE)
    send(subject, 10, 90)
    assert watch.acknowledge("ana", BASE + 11_000)
    assert subject.ringing() == [watch]
    assert watch.acknowledged == ("ana", BASE + 11_000)
    send(subject, 12, 10)
    assert watch.acknowledged is None


def test_silenced_and_told_when_the_silence_ends() -> None:
    subject = engine()
    send(subject, 0, 90)
    watch = subject.find("high", Place("acme", "", "p1", "g", "", "a"))
    assert watch is not None
    watch.silence(BASE + 40_000, "manutenção")
    assert changes(send(subject, 10, 90)) == [("disparando", False, "silenced")]
    assert changes(subject.tick(BASE + 39_000)) == []
    assert changes(subject.tick(BASE + 40_000)) == [("disparando", True, "still_firing")]
    assert changes(send(subject, 41, 1)) == [("resfriando", True, "returned")]


def test_without_a_measure() -> None:
    subject = engine()
    for second in range(0, 100, 10):
        send(subject, second, 5)
    watch = subject.find("high", Place("acme", "", "p1", "g", "", "a"))
    assert watch is not None
    assert not watch.is_unmeasured(BASE + 155_000)
    assert watch.is_unmeasured(BASE + 156_000), "it says nothing any more"
    bad = {"ts": BASE + 95_000, "group": "g", "quality": "bad", "values": {}}
    subject.message("plc/acme/p1", bad, BASE + 95_000)
    assert watch.is_unmeasured(BASE + 96_000)
    send(subject, 97, 5)
    assert not watch.is_unmeasured(BASE + 98_000)
    subject.message("plc/acme/p1/gap", {"ts": BASE + 98_000}, BASE + 98_000)
    assert watch.is_unmeasured(BASE + 98_000)


# --- keeping -------------------------------------------------------------------------------------


def test_an_alarm_of_another_rule_is_closed() -> None:
    subject = engine()
    for second in (0, 10):
        send(subject, second, 90)
    kept = subject.dump()
    changed = engine({**HIGH, "cooldown_ms": 11_000})
    assert changes(changed.restore(kept)) == [
        ("resfriando", False, "rule_changed"), ("ok", False, "rule_changed")]  # fmt: skip
    assert changes(send(changed, 20, 90)) == []
    assert changes(send(changed, 30, 90)) == [("disparando", True, "condition")]
    assert changes(engine(one("x", **threshold("above", 1, "b"))).restore(kept)) == [
        ("resfriando", False, "rule_changed"), ("ok", False, "rule_changed")]  # fmt: skip


def test_what_is_dirty_is_all_that_has_changed() -> None:
    """Keeping only that, PLC by PLC, keeps everything."""
    subject = engine(*SPECS)
    store: dict[tuple[str, str], bytes] = {}
    for n in range(200):
        send(subject, n, n * 7 % 100, f"p{n % 3}")
        if n % 10 == 0:
            subject.tick(BASE + n * 1_000 + 500)
        if n % 7 == 0:
            for key in subject.dirty:
                store[key] = msgpack.packb(subject.dump_plc(key))
            subject.dirty.clear()
            now = {tuple(p[:2]): msgpack.packb(p) for p in subject.dump()["plcs"]}
            assert store == now


# --- names that somebody makes up -----------------------------------------------------------

ANY = one("any", 10, **threshold("above", 80, "*"))


def _give(subject: Engine, n: int, values: dict[str, Any], plc: str = "p1", **more: Any) -> None:
    message = {"ts": BASE + n, "site": "s", "group": "g", "values": values, **more}
    subject.message(f"plc/acme/{plc}", message, BASE + n)


@pytest.mark.parametrize("key", ["group", "machine"])
def test_streams_of_a_plc_are_bounded_and_the_known_ones_go_on(key: str) -> None:
    subject = engine(ANY)
    for n in range(plant.STREAMS_PER_PLC + 50):
        _give(subject, n, {"a": 1}, **{key: f"n{n}"})
    plc = subject.plcs["acme", "p1"]
    assert len(plc.streams) == plant.STREAMS_PER_PLC
    assert len(list(subject.watches())) == plant.STREAMS_PER_PLC
    assert subject.full == {("acme", "p1"): 50}
    _give(subject, 9_000, {"a": 99}, **{key: "n7"})
    _give(subject, 9_001, {"a": 99}, **{key: "unknown"})
    assert [getattr(w.place, key) for w in subject.ringing()] == ["n7"]
    _give(subject, 9_002, {"a": 99}, plc="p2", **{key: "unknown"})
    assert len(subject.ringing()) == 2
    assert ("acme", "p2") not in subject.full


def test_fields_of_a_stream_are_bounded_and_the_known_ones_go_on() -> None:
    subject = engine(ANY)
    most = plant.FIELDS_PER_STREAM
    for n in range(0, most + 500, 250):
        _give(subject, n, {f"f{i}": 1 for i in range(n, n + 250)})
    (stream,) = subject.plcs["acme", "p1"].streams.values()
    assert len(stream.fields) == most
    assert subject.full == {("acme", "p1"): 500}
    _give(subject, 9_000, {"f7": 99, "unknown": 99})
    assert [w.place.field for w in subject.ringing()] == ["f7"]
    # What is kept is bounded too, and taken up again.
    other = engine(ANY)
    other.restore(subject.dump())
    assert [w.place.field for w in other.ringing()] == ["f7"]


def test_a_plc_whose_names_are_all_new_still_lives() -> None:
    silent = one("silent", 10, kind="absence", where={"plc": "*"}, of="plc", for_ms=30_000)
    subject = engine(silent)
    for n in range(plant.STREAMS_PER_PLC):
        _give(subject, 0, {"a": 1}, group=f"n{n}")
    for n in range(10):
        _give(subject, 10_000 * n, {"a": 1}, group=f"m{n}")
        subject.tick(BASE + 10_000 * n)
        assert subject.ringing() == []
    subject.tick(BASE + 200_000)
    assert len(subject.ringing()) == 1
