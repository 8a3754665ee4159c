"""The same answers wherever rows lie: as they came, in parts, condensed; and what damage costs."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import apsw
import msgpack
import numpy as np
import pytest

from services.historian.compact import Steps
from services.historian.reading import History
from services.historian.shapes import HOUR_MS, MINUTE_MS, Series
from tests.unit.historian.rig import H0, STREAMS, Kept, all_series, kept, message, plant

FIGURES = ("count", "mean", "low", "high", "last", "known_ms", "weighted", "increase", "edges")
FIRST = STREAMS[0]


def answers(history: History) -> dict[str, Any]:
    """Everything that can be asked."""
    begin_ms, end_ms = H0 - HOUR_MS, H0 + 3 * HOUR_MS
    series = all_series(history)
    return {
        "messages": [m for _, m in history.messages("p1", begin_ms, end_ms)],
        "series": history.series(),
        "minutes": history.rolled(series, begin_ms, end_ms, MINUTE_MS),
        "hours": history.rolled(series, H0, H0 + 2 * HOUR_MS, HOUR_MS),
        "odd": history.rolled(series[:3], H0 + 7 * MINUTE_MS, end_ms, 7 * MINUTE_MS),
        "fine": history.rolled(series[:3], H0 + 12_345, H0 + 700_000, 1_500),
        "raw": history.raw(series, H0 + 1_000_000, H0 + 5_000_000, 10_000),
        "known": [history.known(s, begin_ms, end_ms) for s in STREAMS],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["messages"] == other["messages"]
    # Roll-ups know of fields too that the newest messages do not have.
    assert {s.series for s in one["series"]} <= {s.series for s in other["series"]}
    assert one["known"] == other["known"]
    for kind in ("minutes", "hours", "odd", "fine"):
        for a, b in zip(one[kind], other[kind], strict=True):
            assert (a.series, a.kind, a.step_ms) == (b.series, b.kind, b.step_ms)
            for name in FIGURES:
                x, y = getattr(a, name), getattr(b, name)
                if x.dtype == object or y.dtype == object:
                    assert x.tolist() == y.tolist(), (kind, a.series, name)
                else:
                    np.testing.assert_allclose(
                        x, y, 1e-9, 1e-6, err_msg=f"{kind} {a.series} {name}"
                    )
    for a, b in zip(one["raw"], other["raw"], strict=True):
        assert a.ts_ms.tolist() == b.ts_ms.tolist()
        assert repr(a.values.tolist()) == repr(b.values.tolist())
        assert (a.quality.tolist(), a.reasons) == (b.quality.tolist(), b.reasons)
        assert a.joined.tolist() == b.joined.tolist()


def test_the_same_answers_at_every_stage(tmp_path: Path) -> None:
    draw = random.Random(1)
    made = plant(draw, 2.2, 4_000)
    with kept(tmp_path) as k:
        for at in range(0, len(made), 40):
            k.keep(made[at : at + 40])
        first = answers(k.history)
        assert first["messages"] == made
        for stream, hour_ms, _, _ in list(k.recent.held()):
            if draw.random() < 0.6:
                run(k.compactor.flush(stream, hour_ms))
        same(first, answers(k.history))
        k.condense(-1, 0)
        same(first, answers(k.history))
        k.flush()
        k.condense(1)
        same(first, answers(k.history))
        assert not k.said
        assert not k.history.damage


def run(steps: Steps) -> None:
    for _ in steps:
        pass


def test_killed_between_any_two_steps_nothing_is_lost_or_twice(tmp_path: Path) -> None:
    draw = random.Random(2)
    made = plant(draw, 1.0, 30_000)
    late = [m for m in made if draw.random() < 0.1]
    before: dict[str, Any] = {}
    for attempt in range(16):
        k = Kept(tmp_path)
        if not attempt:
            k.keep([m for m in made if m not in late])
            k.keep(late)
            before = answers(k.history)
            assert before["messages"] == made
            k.condense(-1)  # hours are condensed in order: counters count on
        steps = draw.choice(
            [
                k.compactor.condense(H0),
                k.compactor.flush(draw.choice(STREAMS), H0),
            ]
        )
        for _ in range(draw.randrange(120)):
            if next(steps, steps) is steps:
                break
        same(before, answers(k.history))
        # Dead: what was not committed is gone.
        steps.close()
        k.close()
    with kept(tmp_path) as k:
        k.condense(0)
        same(before, answers(k.history))


def test_a_late_row_joins_an_hour_that_is_condensed(tmp_path: Path) -> None:
    made = [message(FIRST, H0 + i * 10_000, i + 1, {"a": i / 2}) for i in range(300)]
    with kept(tmp_path) as k:
        k.keep(made[:100] + made[101:])
        k.condense(0)
        k.keep([made[100]])
        assert k.messages() == made
        assert k.history.rolled([Series(*FIRST, "a")], H0, H0 + HOUR_MS, HOUR_MS)[0].count[0] == 300
        k.condense(0)
        assert k.messages() == made
        assert [p.name for p in sorted((tmp_path / "raw").iterdir())] == ["2025-11-24T16.2.db"]


def test_a_row_that_comes_twice_is_there_once(tmp_path: Path) -> None:
    made = [message(FIRST, H0 + i * 10_000, i + 1, {"a": 1.5}) for i in range(20)]
    with kept(tmp_path) as k:
        k.keep(made)
        k.flush()
        k.keep(made[5:])
        assert k.messages() == made
        k.condense(0)
        assert k.messages() == made


def test_a_hole_of_another_group_is_a_hole_of_the_plc(tmp_path: Path) -> None:
    """Its groups share one sequence: what is missing may have been any of them."""
    a, b = STREAMS[0], STREAMS[2]
    with kept(tmp_path) as k:
        k.keep([
            message(a, H0, 1, {"a": 1.0}), message(b, H0 + 5_000, 2, {"a": 1.0}),
            message(a, H0 + 10_000, 3, {"a": 1.0}), message(b, H0 + 15_000, 5, {"a": 1.0}),
            message(a, H0 + 20_000, 6, {"a": 1.0}), message(a, H0 + 30_000, 7, {"a": 1.0}),
        ])  # fmt: skip
        (raw,) = k.history.raw([Series(*a, "a")], H0, H0 + HOUR_MS, 100)
        assert raw.joined.tolist() == [False, True, False, True]
        found = k.history.known(a, H0, H0 + 30_000)
        assert [(u.begin_ms - H0, u.end_ms - H0, u.why) for u in found] == [(10_000, 20_000, "gap")]


@pytest.mark.parametrize("column", ["values/a", "quality", "seq", "latency_ms"])
def test_a_damaged_column_costs_its_part_and_is_told(tmp_path: Path, column: str) -> None:
    draw = random.Random(3)
    made = plant(draw, 1.0, 20_000)
    with kept(tmp_path) as k:
        k.keep(made)
        k.condense(-1, 0)
        k.history.close()
        file = tmp_path / "raw" / "2025-11-24T16.1.db"
        with apsw.Connection(str(file)) as db:
            sql = "SELECT part.id, body FROM part JOIN names ON names.id = names WHERE part.id = 1"
            ((number, names),) = db.execute(sql)
            listed = msgpack.unpackb(zlib.decompress(names))
            at = number * (1 << 20) + listed.index(column)
            sql = "UPDATE cell SET body = substr(body, 1, length(body) - 1) || x'a5' WHERE id = ?"
            db.execute(sql, (at,))
        got = k.messages()
        hit = STREAMS[0]
        mine = [
            m
            for m in made
            if (m["group"], m.get("machine", "")) == hit[2:] and H0 <= m["ts"] < H0 + HOUR_MS
        ]
        assert [m for m in made if m not in mine] == got
        assert any(column in text for text in k.history.damage)
        later = [message(hit, H0 + 5, 10**6, {"a": 0.25})]
        k.keep(later)
        k.condense(0)
        assert any("history_damaged" in said for said in k.said)
        assert [m for m in k.messages() if m not in later] == got
        assert later[0] in k.messages()


def test_a_damaged_block_costs_its_rows_and_is_told(tmp_path: Path) -> None:
    made = [message(FIRST, H0 + i * 10_000, i + 1, {"a": i / 4}) for i in range(30)]
    with kept(tmp_path) as k:
        for at in (0, 10, 20):
            k.keep(made[at : at + 10])
        k.recent.db.execute("UPDATE block SET body = x'00' WHERE id = 2")
        assert k.messages() == made[:10] + made[20:]
        assert k.history.damage
        # What follows does not join what was before: between them the value is not known.
        gaps = [u.why for u in k.history.known(FIRST, H0, H0 + 290_000)]
        assert gaps == ["gap"]
        k.condense(0)
        assert k.messages() == made[:10] + made[20:]
        assert any("history_damaged" in said for said in k.said)
