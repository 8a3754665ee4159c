"""Whatever stands in a message: the engine understands it or says ``BadMessage``, and what it keeps
can be kept. At the centre a tenant writes what it likes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.alerts.core.engine import BadMessage, Engine
from services.alerts.core.rule import Rule
from services.alerts.memory import Change, Memory
from services.runtime.measured import number
from tests.unit.alerts.streams import BASE, BOX_SPECS, SITE, SPECS, TENANT

DATA, BEAT = f"plc/{TENANT}/p1", f"plc/{TENANT}/p1/heartbeat"
GAP, STATUS = f"plc/{TENANT}/p1/gap", f"edge/{TENANT}/{SITE}/status"
DIGITS, DEEP = "9" * 400, "[" * 900 + "]" * 900
GOOD: dict[str, dict[str, Any]] = {
    DATA: {"ts": BASE, "epoch": BASE, "seq": 1, "site": SITE, "group": "g", "machine": "m0",
           "quality": "good", "values": {"a": 9, "b": 9, "c": 9}, "bad": {}, "replay": False},
    BEAT: {"ts": BASE, "site": SITE, "status": "degraded", "interval_s": 10, "scan_ms": 5,
           "failure": {"code": "cpu_stop"}},
    GAP: {"ts": BASE, "epoch": BASE, "first_seq": 1, "last_seq": 5, "seqs": [[1, 5]]},
    STATUS: {"ts": BASE, "status": "online", "site": SITE},
}  # fmt: skip

# What orjson reads from JSON: integers of 64 bits, no lone surrogate, no NaN.
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(codec="utf-8")),
    st.sampled_from([1e30, 1e20, -1e308, -1, 2**53, 253_402_300_800_000, "*", DIGITS, DIGITS[:300],
                     "-" + DIGITS[:19], "²", orjson.loads(DEEP)]),
)  # fmt: skip
json = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
values = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), json)


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Some fields of a good one are others, or gone; or it is anything."""
    topic = draw(st.sampled_from(list(GOOD)))
    if draw(st.integers(0, 9)) == 0:
        return topic, draw(st.dictionaries(st.text(max_size=4), json))
    good = GOOD[topic]
    names = draw(st.lists(st.sampled_from(list(good)), max_size=3))
    message = {**good, **{name: draw(json) for name in names}}
    if topic == DATA:
        message["seq"] = draw(st.integers(-1, 9)) if "seq" not in names else message["seq"]
        message["values"] = draw(values) if "values" not in names else message["values"]
        message["ts"] = (
            BASE + draw(st.integers(-90_000, 90_000)) if "ts" not in names else message["ts"]
        )
    return topic, message


def ruled() -> Engine:
    engine = Engine([Rule.from_spec(spec) for spec in SPECS + BOX_SPECS])
    engine.expect([(TENANT, SITE, "p1", [("g", "m0", ["a", "c"]), ("h", "", ["b"])])])
    return engine


def data(**more: Any) -> tuple[str, dict[str, Any]]:
    return DATA, {**GOOD[DATA], **more}


def beat(**more: Any) -> tuple[str, dict[str, Any]]:
    return BEAT, {**GOOD[BEAT], **more}


EVIL = [
    data(bad=True), data(bad=7), data(bad=[[1]]), data(bad=[{}, "a"]), data(bad="a"),
    data(ts=1e30), data(ts=-1), data(ts=253_402_300_800_000), data(epoch=-1), data(seq=2**63),
    data(values={"a": DIGITS}), data(values={"a": DIGITS[:300], "c": "-" + DIGITS[:19]}),
    data(values={"a": orjson.loads(DEEP), "c": [1]}), data(group=orjson.loads(DEEP)),
    data(machine=["m0"]), data(group=1.5),
    beat(ts=1e30), beat(interval_s=1e20), beat(interval_s=-1e20), beat(interval_s=2**64 - 1),
    beat(failure={"code": orjson.loads(DEEP)}), (STATUS, {"status": "online", "ts": 1e30}),
    (GAP, {"epoch": 2**64 - 1, "last_seq": -(2**63)}),
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL, ids=lambda evil: repr(evil)[-60:])
def test_it_can_be_kept_and_goes_on(evil: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    kept = Memory(tmp_path / "alerts.db", lambda path, why: pytest.fail(f"{path}: {why}"))
    hear_all([evil, evil, data(seq=5, ts=BASE + 60_000), data(seq=6, ts=BASE + 90_000)], kept)
    kept.close()


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    file = tmp_path_factory.mktemp("any") / "alerts.db"
    return Memory(file, lambda path, why: pytest.fail(f"{path}: {why}"))


@settings(max_examples=300, deadline=None)
@given(stream=st.lists(messages(), min_size=1, max_size=6))
@example(stream=EVIL)
def test_any_message_is_understood_or_bad_and_the_state_can_be_kept(
    memory: Memory, stream: list[tuple[str, dict[str, Any]]]
) -> None:
    hear_all(stream, memory)


def hear_all(stream: list[tuple[str, dict[str, Any]]], kept: Memory) -> None:
    engine, now = ruled(), BASE + 500
    for topic, message in stream:
        said = []
        with contextlib.suppress(BadMessage):
            said += engine.message(topic, message, now)
        said += engine.tick(now)
        for transition in said:
            orjson.dumps(transition.as_json())
        now += 20_000
    engine.dirty |= engine.plcs.keys()
    plcs = {key: engine.dump_plc(key) for key in engine.dirty}
    kept.save(Change(engine.dump_head(), engine.dump_boxes(), plcs))
    state = kept.state()
    assert state is not None
    again = ruled()
    again.restore({**state, "plcs": [p for p in plcs.values() if p]})
    again.tick(now)


@pytest.mark.parametrize("text", [DIGITS, "-" + DIGITS, "1e999", "²", "", "x", "--1"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert number(text) is None


@pytest.mark.parametrize("text", ["18446744073709551615", "-9223372036854775808", "12"])
def test_integers_of_64_bits_stay_exact(text: str) -> None:
    assert number(text) == int(text)
    assert type(number(text)) is int
    assert type(number(text + DIGITS[:50])) is float
