"""A box whose rows are made again and again: the same ones, as from an outbox that keeps them."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.frames import GAP_ROW
from services.reader.message import Message
from services.simulator.fleet.rows import MadeRows
from services.simulator.fleet.schedule import Scanned, Schedule
from services.store_forward.segment import Row

OUTPUT = "central"
BEGIN_MS = 1_700_000_000_000


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, list[Scanned]]:
    plcs = draw(st.integers(1, 4))
    scanned, record = [], 0
    for plc in range(plcs):
        for _ in range(draw(st.integers(1, 3))):
            records = draw(st.integers(1, 3))
            scan_ms = draw(st.sampled_from((100, 200, 250, 500, 1_000)))
            phase_ms = draw(st.integers(0, 1_200))
            scanned.append(Scanned(plc, scan_ms, phase_ms, range(record, record + records)))
            record += records
    return plcs, scanned


@given(schedules())
def test_arithmetic_says_what_counting_says(given: tuple[int, list[Scanned]]) -> None:
    plcs, scanned = given
    schedule = Schedule(plcs, scanned)
    until_ms = 3 * schedule.cycle_ms
    counted = sorted(
        (s.phase_ms % s.scan_ms + n * s.scan_ms, s.plc, record)
        for s in scanned
        for n in range(until_ms // s.scan_ms)
        for record in s.records
    )
    newest = [0] * plcs
    for n, (due_ms, plc, record) in enumerate(counted):
        assert [schedule.seq(p, n) for p in range(plcs)] == newest
        newest[plc] += 1
        slot, seq = schedule.slot(n)
        assert (schedule.due_ms(n), slot.plc, slot.record, seq) == (
            due_ms,
            plc,
            record,
            newest[plc],
        )
    for at_ms in range(0, until_ms, 37):
        assert schedule.count(at_ms) == sum(due_ms <= at_ms for due_ms, _, _ in counted)
    assert schedule.count(-1) == 0


def test_scan_times_that_never_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="repeat only after"):
        Schedule(1, [Scanned(0, 997, 0, [0]), Scanned(0, 1_009, 0, [1]), Scanned(0, 10, 0, [2])])


def rows(plcs: int = 2, keep_s: float = 1e6) -> MadeRows:
    """A message a second of each PLC."""
    names = [(f"clp-{n}", "acme") for n in range(plcs)]
    schedule = Schedule(plcs, [Scanned(n, 1_000, n * 10, [n]) for n in range(plcs)])
    messages = [
        Message(site="caixa", locatario=t, plc=p, ip="10.0.0.1", group="g", measurement="m",
                db=1, machine=None)
        for p, t in names
    ]  # fmt: skip
    moments: list[list[Any]] = [[({"n": i}, {}) for i in range(7)] for _ in names]
    return MadeRows(OUTPUT, "caixa", names, schedule, messages, moments, begin_ms=BEGIN_MS,
                    first_step=3, keep_ms=round(keep_s * 1_000))  # fmt: skip


def test_a_row_is_the_same_whenever_it_is_made() -> None:
    one, other = rows(), rows()
    one.advance(BEGIN_MS + 60_000)
    whole = one.read(OUTPUT, "live", 0, 1_000)
    parts: list[Row] = []
    for at_ms in range(0, 60_001, 600):
        other.advance(BEGIN_MS + at_ms)
        after = parts[-1].pos if parts else 0
        parts += other.read(OUTPUT, "live", after, 250)
    assert parts == whole
    assert [r.seq for r in whole if r.plc == "clp-1"] == list(range(1, 61))
    assert all(one.row(r.pos) == r for r in whole)
    first = orjson.loads(whole[0].body)
    assert (first["ts"], first["epoch"], first["seq"]) == (BEGIN_MS, BEGIN_MS, 1)


def test_lanes_part_the_rows() -> None:
    made = rows()
    made.advance(BEGIN_MS + 9_500)
    made.settle(OUTPUT, "live", made.read(OUTPUT, "live", 0, 4)[-1].pos)
    made.open_lanes(OUTPUT)
    made.advance(BEGIN_MS + 12_500)
    cursor = made.cursors[OUTPUT]
    old = made.read(OUTPUT, "backfill", cursor.done, 1_000)
    new = made.read(OUTPUT, "live", cursor.skip_to, 1_000)
    assert (len(old), len(new), made.pending(OUTPUT)) == (16, 6, 22)
    made.settle(OUTPUT, "live", new[-1].pos)
    assert made.pending(OUTPUT) == 16
    assert made.acknowledged(0) == [[1, 2], [11, 13]]
    made.settle(OUTPUT, "backfill", old[-1].pos)
    assert (made.pending(OUTPUT), made.acknowledged(0)) == (0, [[1, 13]])


@pytest.mark.parametrize("lanes", [False, True])
def test_what_is_past_the_bound_is_told_and_nothing_else(lanes: bool) -> None:
    """Hours without a line, ten minutes of outbox: each number is delivered or in one notice."""
    made = rows(keep_s=600)
    delivered: dict[str, list[int]] = {"clp-0": [], "clp-1": []}
    told: dict[str, list[int]] = {"clp-0": [], "clp-1": []}

    def take(lane: str, after: int, most: int) -> None:
        for row in made.read(OUTPUT, lane, after, most):
            if row.kind == GAP_ROW:
                gap = orjson.loads(row.body)
                assert gap["count"] == gap["last_seq"] - gap["first_seq"] + 1
                told[row.plc] += range(gap["first_seq"], gap["last_seq"] + 1)
            else:
                delivered[row.plc].append(row.seq)
            made.settle(OUTPUT, lane, row.pos)

    made.advance(BEGIN_MS + 5_500)
    take("live", 0, 1_000)
    for hours in range(1, 4):
        made.advance(BEGIN_MS + hours * 3_600_000)
        made.drop_old(BEGIN_MS + hours * 3_600_000)
    if lanes:
        made.open_lanes(OUTPUT)
    now_ms = BEGIN_MS + 3 * 3_600_000
    for n in itertools.count():
        now_ms += 10_000
        made.advance(now_ms)
        made.drop_old(now_ms)
        cursor = made.cursors[OUTPUT]
        if cursor.behind:
            take("backfill", cursor.done, 40)
            take("live", cursor.skip_to, 40)
        else:
            take("live", cursor.done, 80)
        if made.last_pos == made.cursors[OUTPUT].done:
            break
        assert n < 1_000
    for plc, name in enumerate(delivered):
        whole = list(range(1, made.schedule.seq(plc, made.count) + 1))
        assert sorted(delivered[name] + told[name]) == whole
        assert told[name] == [s for first, last in made.lost[plc] for s in range(first, last + 1)]
        assert len(told[name]) > 10_000
    assert made.pending(OUTPUT) == 0
