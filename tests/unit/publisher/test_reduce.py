"""What becomes of a record's messages in steps: by hand, and against a plain model."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.publisher.reduce.stream import Stream, Sum

STEP_MS, HOLD_MS = 60_000, 65_000
HEAD = {"v": 1, "site": "s", "locatario_id": "acme", "plc_id": "p1", "group": "g"}


def said(ts: int, seq: int, values: dict[str, Any], quality: str = "good", **more: Any) -> Any:
    return {
        **HEAD, "ts": ts, "epoch": 7, "seq": seq, "quality": quality, "latency_ms": 2.0,
        "values": values, **more,
    }  # fmt: skip


def stream(step_ms: int = STEP_MS) -> Stream:
    return Stream(step_ms, HOLD_MS, {"ciclos": 65_536}, ["big"])


def sums(*messages: Any) -> list[Sum]:
    s = stream()
    out = [a for m in messages for a in s.take(m)]
    return out + s.end()


def test_a_mean_is_over_time_and_min_max_last_over_what_was_there() -> None:
    s = stream()
    assert s.take(said(0, 1, {"t": 10.0})) == []
    assert s.take(said(45_000, 2, {"t": 30.0})) == []
    (one,) = s.take(said(61_000, 3, {"t": 50.0}))
    assert one == {
        **HEAD, "ts": 0, "step_ms": STEP_MS, "known_ms": STEP_MS, "count": 2, "raw": [[7, 1, 2]],
        "quality": "good", "values": {"t_last": 30.0, "t_mean": 15.0, "t_min": 10.0, "t_max": 30.0},
    }  # fmt: skip
    (two,) = s.take(said(120_000, 4, {"t": 0.0}))
    # 30 until 61 s, then 50.
    assert two["values"]["t_mean"] == pytest.approx((30 * 1 + 50 * 59) / 60)
    assert (two["values"]["t_min"], two["count"], two["known_ms"]) == (30.0, 1, STEP_MS)


def test_a_value_holds_no_longer_than_it_may() -> None:
    first, second, third, last = sums(said(50_000, 1, {"t": 4.0}), said(200_000, 2, {"t": 5.0}))
    assert (first["known_ms"], first["values"]["t_mean"]) == (10_000, 4.0)
    assert (second["known_ms"], second["count"], second["raw"]) == (55_000, 0, [])
    assert (third["ts"], third["count"], third["known_ms"]) == (180_000, 1, 40_000)
    assert (last["count"], last["known_ms"], last["values"]["t_mean"]) == (0, 25_000, 5.0)


def test_behind_a_hole_in_the_sequence_nothing_is_known() -> None:
    s = stream()
    s.take(said(0, 1, {"on": True}))
    s.lose(12_000)
    s.take(said(30_000, 9, {"on": False}))
    (one,) = s.take(said(60_000, 10, {"on": False}))
    assert one["known_ms"] == 42_000
    assert one["values"]["on_duty"] == pytest.approx(12 / 42)
    assert one["raw"] == [[7, 1, 9]]


def test_counters_grow_across_steps_an_overflow_and_a_restart() -> None:
    one, two, _ = sums(
        said(0, 1, {"ciclos": 32_700}),
        said(10_000, 2, {"ciclos": 32_767}),
        said(20_000, 3, {"ciclos": -32_768}),
        said(61_000, 4, {"ciclos": -32_700}),
        said(62_000, 5, {"ciclos": 4}),
    )
    assert one["values"] == {"ciclos_last": -32_768, "ciclos_inc": 68}
    # From -32,700 to 4: forwards.
    assert two["values"] == {"ciclos_last": 4, "ciclos_inc": 68 + 32_704}
    one, _ = sums(said(0, 1, {"ciclos": 900}), said(1, 2, {"ciclos": 3}))
    assert one["values"] == {"ciclos_last": 3, "ciclos_inc": 3}


def test_switches_texts_arrays_and_large_numbers() -> None:
    (one,) = sums(
        said(0, 1, {"on": False, "nome": "a", "eixo": [1, 2], "big": "9007199254740995"}),
        said(15_000, 2, {"on": True, "nome": "b", "eixo": [3, 2], "big": "9007199254740996"}),
        said(30_000, 3, {"on": False, "nome": "b", "eixo": [3, 2], "big": 5}),
        said(45_000, 4, {}, "bad", bad={"*": "plc_offline"}),
    )
    v = one["values"]
    assert (v["on_duty"], v["on_edges"], v["on_last"]) == (pytest.approx(1 / 3), 1, False)
    assert v["nome_last"] == "b"
    assert (v["eixo.0_min"], v["eixo.0_max"], v["eixo.1_mean"]) == (1, 3, 2.0)
    assert (v["big_max"], v["big_min"]) == ("9007199254740996", 5)
    assert (one["known_ms"], one["quality"], one["count"]) == (45_000, "good", 4)
    assert "bad" not in one


def test_only_the_best_quality_of_a_step_counts() -> None:
    one, two, three = sums(
        said(0, 1, {"t": 100.0, "ciclos": 5}, "uncertain", bad={"*": "cpu_stop"}),
        said(20_000, 2, {"t": 1.0, "ciclos": 7}),
        said(40_000, 3, {"t": 100.0, "ciclos": 9}, "uncertain", bad={"*": "cpu_stop"}),
        said(60_000, 4, {"t": 200.0, "ciclos": 9}, "uncertain", bad={"*": "cpu_stop"}),
        said(120_000, 5, {}, "bad", bad={"*": "plc_offline"}),
    )
    assert one["quality"] == "good"
    assert (one["values"]["t_max"], one["known_ms"], one["count"]) == (1.0, 20_000, 3)
    assert one["values"]["ciclos_inc"] == 2, "it has grown, whatever the quality"
    assert (two["quality"], two["values"]["t_mean"]) == ("uncertain", 200.0)
    assert (three["quality"], three["values"]) == ("bad", {})
    assert three["bad"] == {"*": "plc_offline"}


def test_a_doubtful_value_counts_in_the_next_step() -> None:
    """It stood in a step that had better ones, and holds beyond it."""
    one, two, _ = sums(
        said(0, 1, {"t": 1.0, "ciclos": 5}),
        said(50_000, 2, {"t": 9.0, "ciclos": 8}, "uncertain", bad={"*": "cpu_stop"}),
        said(90_000, 3, {"t": 7.0, "ciclos": 9}, "uncertain", bad={"*": "cpu_stop"}),
    )
    assert (one["values"]["t_max"], one["known_ms"]) == (1.0, 50_000)
    assert (two["values"]["t_mean"], two["known_ms"]) == (8.0, 60_000)
    assert (two["quality"], two["values"]["ciclos_inc"]) == ("uncertain", 4)


def test_a_field_that_is_bad_throughout_is_named() -> None:
    one, _ = sums(said(0, 1, {"t": 1.0}, bad={"on": "address"}), said(9, 2, {"t": 1.0, "on": True}))
    assert "bad" not in one
    one, _ = sums(said(0, 1, {"t": 1.0}, bad={"on": "address"}))
    assert one["bad"] == {"on": "address"}


def test_a_clock_that_is_set_back_makes_parts_with_times_of_their_own() -> None:
    got = sums(
        said(10_000, 1, {"t": 1.0}), said(70_000, 2, {"t": 2.0}), said(15_000, 3, {"t": 3.0}),
        said(75_000, 4, {"t": 4.0}),
    )  # fmt: skip
    assert [(g["ts"], g["count"], g["raw"][0][1]) for g in got[:3]] == [
        (0, 1, 1), (60_000, 1, 2), (15_000, 1, 3),
    ]  # fmt: skip
    assert got[3]["ts"] == 75_000
    assert len({g["ts"] for g in got}) == len(got)


def test_another_type_than_before_begins_anew() -> None:
    one, _ = sums(said(0, 1, {"t": 1.0}), said(1, 2, {"t": "nan?"}), said(2, 3, {"t": True}))
    assert one["values"] == {"t_last": True, "t_duty": 1.0, "t_edges": 0}


values = st.fixed_dictionaries(
    {}, optional={"t": st.integers(-9, 9), "on": st.booleans(), "ciclos": st.integers(0, 99)}
)
steps = st.lists(
    st.tuples(
        st.integers(1, 90_000), values, st.sampled_from(["good", "good", "uncertain", "bad"])
    ),
    min_size=1,
    max_size=25,
)  # fmt: skip


@given(steps, st.integers(0, 60_000), st.booleans())
def test_every_message_is_in_one_sum_and_the_arithmetic_holds(
    given_steps: list[tuple[int, Any, str]], begin: int, restart: bool
) -> None:
    """Also where the state is dumped and restored after each message."""
    s, got, messages, ts = stream(), [], [], begin
    for seq, (pause, vs, quality) in enumerate(given_steps, 1):
        ts += pause
        messages.append(said(ts, seq, vs if quality != "bad" else {}, quality))
        got += s.take(messages[-1])
        if restart:
            kept, s = msgpack.unpackb(msgpack.packb(s.dump())), stream()
            assert s.restore(kept) == []
    got += s.end()
    assert [n for g in got for _, a, b in g["raw"] for n in range(a, b + 1)] == [
        m["seq"] for m in messages
    ]
    assert sum(g["count"] for g in got) == len(messages)
    assert [g["ts"] for g in got] == sorted({g["ts"] for g in got})
    for g in got:
        area, known = model(messages, g["ts"], g["quality"])
        assert g["known_ms"] == known["*"]
        if known["t"]:
            assert math.isclose(g["values"]["t_mean"], area["t"] / known["t"], abs_tol=1e-6)
        if known["on"]:
            assert math.isclose(g["values"]["on_duty"], area["on"] / known["on"], abs_tol=1e-6)


def model(messages: list[Any], start: int, quality: str) -> tuple[dict[str, float], dict[str, int]]:
    """(value × ms, ms) by field of one step, of values of a quality."""
    area, known = {"t": 0.0, "on": 0.0}, {"t": 0, "on": 0, "*": 0}
    for m, after in zip(messages, [*messages[1:], None], strict=True):
        to = m["ts"] + HOLD_MS if after is None else min(after["ts"], m["ts"] + HOLD_MS)
        ms = min(to, start + STEP_MS) - max(m["ts"], start)
        if ms <= 0 or m["quality"] != quality or quality == "bad":
            continue
        known["*"] += ms if m["values"] else 0
        for name in area:
            if name in m["values"]:
                known[name] += ms
                area[name] += ms * m["values"][name]
    return area, known


def test_a_step_of_another_length_ends_what_was_open() -> None:
    s = stream()
    s.take(said(10_000, 1, {"ciclos": 5}))
    kept = s.dump()
    s = stream(10_000)
    (one,) = s.restore(kept)
    assert (one["step_ms"], one["count"]) == (60_000, 1)
    held, two, *_ = [*s.take(said(25_000, 2, {"ciclos": 9})), *s.end()]
    assert (held["ts"], held["count"], held["known_ms"]) == (10_000, 0, 10_000)
    assert (two["step_ms"], two["values"]["ciclos_inc"]) == (10_000, 4)
