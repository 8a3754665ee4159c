"""The read plan: every field once, whole where it fits, no telegram over either budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.s7 import plan as plan_module
from services.s7.plan import MERGE_GAP_BYTES, Extent, make_plan
from services.s7.telegram import TPKT_COTP_BYTES

PDUS = (240, 480, 960)


@st.composite
def layouts(draw: st.DrawFn) -> list[Extent]:
    out = []
    for area, db in draw(st.lists(st.sampled_from([("DB", 1), ("DB", 2), ("M", 0), ("T", 0)]),
                                  min_size=1, max_size=3, unique=True)):  # fmt: skip
        at = draw(st.integers(0, 50)) * 2
        for _ in range(draw(st.integers(1, 60))):
            size = draw(st.sampled_from([2] if area == "T" else [1, 2, 4, 8, 12, 256, 1_200]))
            out.append(Extent(area, db, at, size))
            at += size + draw(st.sampled_from([0, 0, 0, 2, 8, 16, 18, 40, 500])) * (area != "T")
    return draw(st.permutations(out))


@settings(max_examples=150)
@given(layouts(), st.sampled_from(PDUS))
def test_every_byte_of_every_field_comes_once_and_no_budget_is_passed(
    extents: list[Extent], pdu_bytes: int
) -> None:
    plan = make_plan(extents, pdu_bytes)
    covered: dict[int, tuple[str, int, int]] = {}
    for t in plan.telegrams:
        assert t.request_bytes == len(t.data) - TPKT_COTP_BYTES <= pdu_bytes
        assert t.reply_bytes <= pdu_bytes
        for item, place in zip(t.items, t.places, strict=True):
            for i in range(item.length):
                assert place + i not in covered, "a byte is read twice"
                covered[place + i] = (item.area, item.db, item.start + i)
    assert set(covered) == set(range(plan.image_bytes))
    for e in extents:
        place = plan.place(e)
        for i in range(e.length):
            assert covered[place + i] == (e.area, e.db, e.start + i)


@settings(max_examples=150)
@given(layouts(), st.sampled_from(PDUS))
def test_a_field_that_fits_one_telegram_is_never_split(extents: list[Extent], pdu: int) -> None:
    plan = make_plan(extents, pdu)
    items = [i for t in plan.telegrams for i in t.items]
    for e in extents:
        if e.length > pdu - 18:
            continue
        # Overlapping fields may force a cut; these layouts have none.
        inside = [i for i in items if (i.area, i.db) == (e.area, e.db)
                  and i.start <= e.start and e.end <= i.start + i.length]  # fmt: skip
        assert len(inside) == 1


@pytest.mark.parametrize(("gap", "items"), [(MERGE_GAP_BYTES, 1), (MERGE_GAP_BYTES + 1, 2)])
def test_a_gap_is_read_where_that_is_cheaper_than_another_item(gap: int, items: int) -> None:
    plan = make_plan([Extent("DB", 1, 0, 4), Extent("DB", 1, 4 + gap, 4)], 240)
    assert sum(len(t.items) for t in plan.telegrams) == items


@pytest.mark.parametrize(("pdu", "telegrams"), [(240, 19), (480, 9), (960, 5)])
def test_contiguous_bytes_fill_the_telegrams(pdu: int, telegrams: int) -> None:
    plan = make_plan([Extent("DB", 1, i, 4) for i in range(0, 4_000, 4)], pdu)
    # One item reads at most PDU - 18 bytes, here in whole REALs.
    assert len(plan.telegrams) == telegrams == -(-4_000 // ((pdu - 18) // 4 * 4))


@pytest.mark.parametrize(("pdu", "most"), [(240, 19), (480, 39), (960, 79)])
def test_scattered_fields_use_the_plcs_limit_not_twenty(pdu: int, most: int) -> None:
    plan = make_plan([Extent("DB", 1, i * 100, 4) for i in range(200)], pdu)
    assert max(len(t.items) for t in plan.telegrams) == most
    assert len(plan.telegrams) == -(-200 // most)


def test_cuts_and_apart_keep_fields_in_items_of_their_own() -> None:
    extents = [Extent("DB", 1, i * 4, 4) for i in range(10)]
    cut = make_plan(extents, 240, cuts=frozenset({("DB", 1, 20)}))
    assert [(i.start, i.length) for t in cut.telegrams for i in t.items] == [(0, 20), (20, 20)]
    apart = make_plan(extents, 240, apart=frozenset(extents))
    assert sum(len(t.items) for t in apart.telegrams) == 10


@settings(max_examples=100)
@given(layouts(), st.sampled_from(PDUS), st.data())
def test_what_is_to_be_avoided_is_in_no_gap(
    extents: list[Extent], pdu_bytes: int, data: st.DataObject
) -> None:
    avoid = set(data.draw(st.lists(st.sampled_from(extents), max_size=5)))
    kept = [e for e in extents if e not in avoid]
    plan = make_plan(kept, pdu_bytes, avoid=avoid)
    own = {(e.area, e.db, b) for e in kept for b in range(e.start, e.end)}
    never = {(e.area, e.db, b) for e in avoid for b in range(e.start, e.end)} - own
    for t in plan.telegrams:
        for item in t.items:
            for b in range(item.start, item.start + item.length):
                assert (item.area, item.db, b) not in never


@pytest.mark.parametrize("step", [8, 12, 16, 20, 24, 36])
@pytest.mark.parametrize("size", [1, 4, 8])
@pytest.mark.parametrize("pdu", PDUS)
def test_the_width_of_gap_with_the_fewest_telegrams_is_taken(
    step: int, size: int, pdu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    extents = [Extent("DB", 1, i * step, size) for i in range(1_000)]
    count = len(make_plan(extents, pdu).telegrams)
    for gap in (0, 4, 8, 16, 24, 32):
        monkeypatch.setattr(plan_module, "GAPS_TRIED_BYTES", (gap,))
        assert count <= len(make_plan(extents, pdu).telegrams)


def test_consecutive_bytes_are_found_in_a_row_or_not_at_all() -> None:
    extents = [Extent("DB", 1, i * 4, 4) for i in range(100)]
    plan = make_plan(extents, 240, cuts=frozenset({("DB", 1, 200)}))
    assert plan.stretch("DB", 1, 10, 380) == slice(10, 390)
    assert plan.stretch("DB", 1, 10, 391) is None
    assert plan.stretch("DB", 2, 0, 4) is None
    apart = make_plan(extents, 240, apart=frozenset(extents[50:51]))
    assert apart.stretch("DB", 1, 0, 200) == slice(0, 200)
    assert apart.stretch("DB", 1, 0, 400) is None


def test_what_is_not_read_has_no_place() -> None:
    plan = make_plan([Extent("DB", 1, 10, 4)], 240)
    for where in (("DB", 1, 9), ("DB", 1, 14), ("DB", 2, 10), ("M", 0, 10)):
        with pytest.raises(KeyError):
            plan.place(Extent(*where, 1))


def test_scan_time_counts_round_trips_of_what_is_in_flight() -> None:
    plan = make_plan([Extent("DB", 1, i, 4) for i in range(0, 4_000, 4)], 240)
    assert plan.scan_s(0.010, 3) == pytest.approx(0.07)
