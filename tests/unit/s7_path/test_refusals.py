"""Which fields a PLC refuses is found in few rounds, whatever is refused and however it lies."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.protocols.s7.group import RETRY_S, S7Group, extent
from services.protocols.s7.source import ROUNDS_MAX
from services.s7.plan import Extent, Plan, Telegram
from services.s7.telegram import GOOD

DENIED = 0x03


def group(fields: list[dict[str, Any]]) -> S7Group:
    config = {"name": "g1", "measurement": "m", "db": 1, "scan_s": 1.0, "publish": "always",
              "max_silence_s": 60.0, "raw": None, "consistent": False, "timestamp": None,
              "machines": [[None, 0]], "fields": fields}  # fmt: skip
    return S7Group(config)


def answered(plan: Plan, denied: set[int]) -> list[tuple[Telegram, list[int]]]:
    """What a PLC that denies these bytes of DB1 answers."""
    out = []
    for telegram in plan.telegrams:
        codes = [
            DENIED if denied & set(range(i.start, i.start + i.length)) else GOOD
            for i in telegram.items
        ]
        if any(code != GOOD for code in codes):
            out.append((telegram, codes))
    return out


def search(g: S7Group, denied: set[int], pdu_bytes: int) -> tuple[dict[Extent, str], int]:
    """Reads as the engine does; (what is missing then, rounds)."""
    for rounds in range(ROUNDS_MAX + 1):
        missing, halved = g.note_refused(answered(g.make_plan(pdu_bytes, 0), denied))
        if not halved:
            return missing, rounds
    raise AssertionError("the search does not end")


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], set[int]]:
    fields, at = [], 0
    for n in range(draw(st.integers(1, 120))):
        kind = draw(st.sampled_from(["INT", "REAL", "LREAL", "STRING[40]", "BYTE"]))
        fields.append({"name": f"f{n}", "type": kind, "db": 1, "byte": at})
        size = {"INT": 2, "REAL": 4, "LREAL": 8, "STRING[40]": 42, "BYTE": 1}[kind]
        # Now and then two fields share bytes.
        at += draw(st.sampled_from([size] * 6 + [size + 4, size + 20, size + 50, size // 2]))
    denied = draw(st.sets(st.integers(0, at + 8), max_size=8))
    if draw(st.booleans()):
        denied |= set(range(draw(st.integers(0, at)), at + 50))  # a short block
    return fields, denied


@settings(max_examples=150)
@given(cases(), st.sampled_from([240, 480, 960]))
def test_exactly_the_refused_fields_are_missing(
    case: tuple[list[dict[str, Any]], set[int]], pdu_bytes: int
) -> None:
    fields, denied = case
    g = group(fields)
    missing, _ = search(g, denied, pdu_bytes)
    wanted = {extent(f) for f in g.machines[0].fields}
    refused = {e for e in wanted if denied & set(range(e.start, e.end))}
    assert set(missing) | set(g.refused) == refused == set(g.refused)
    # Settled: the next scans ask for nothing that is refused, and learn nothing new.
    plan = g.make_plan(pdu_bytes, 0)
    assert answered(plan, denied) == []
    read = {b for t in plan.telegrams for i in t.items for b in range(i.start, i.start + i.length)}
    assert all(set(range(e.start, e.end)) <= read for e in wanted - refused)
    # Forgetting the cuts, as every RETRY_S, brings no refused field back into a block.
    now_s = g._retry_at_s + RETRY_S
    retry = g.retry_plan(pdu_bytes, 0, now_s)
    if retry is not None:
        g.note_retry(retry, answered(retry, denied))
        assert set(g.refused) == refused
        g.note_retry(retry, [])  # the PLC gives everything now
        assert not g.refused
        assert search(g, set(), pdu_bytes) == ({}, 0)


@settings(max_examples=30)
@given(st.integers(2, 2_000), st.data())
def test_one_wrong_field_among_many_takes_a_logarithm(count: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, count - 1))
    fields = [{"name": f"f{i}", "type": "BYTE", "db": 1, "byte": i} for i in range(count)]
    _, rounds = search(group(fields), {wrong}, 960)
    assert rounds <= 11
