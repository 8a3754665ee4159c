"""The read plan: which telegrams bring a group's bytes, made once per connection.

Neighbours are merged across a gap where its bytes cost less than another item; runs are cut only
between fields (a REAL that arrives in two telegrams would be two halves of different scans) unless
a field alone exceeds a PDU; items are packed into as few telegrams as both budgets of the granted
PDU allow: request 12 + 12·n, reply 14 + Σ(4 + even(length)).

Which gaps are worth reading depends on which of the two budgets is short: an item is dear where
requests are full (many small fields), a gap where replies are. So a plan is made for several widths
of gap and the one with the fewest telegrams is taken: round trips decide the scan time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.s7.telegram import (
    REPLY_HEAD_BYTES,
    REPLY_ITEM_BYTES,
    REQUEST_HEAD_BYTES,
    REQUEST_ITEM_BYTES,
    GoodReply,
    Item,
    read_request,
)

# What another item costs: 12 bytes asked and 4 answered. In bytes a wider gap is cheaper left out.
MERGE_GAP_BYTES = REQUEST_ITEM_BYTES + REPLY_ITEM_BYTES
GAPS_TRIED_BYTES = (MERGE_GAP_BYTES, 32, 24, 8, 4, 0)
PDU_MIN_BYTES, PDU_MAX_BYTES = 112, 960


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """Bytes that hold one field: they belong together."""

    area: str
    db: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.start + self.length


@dataclass(slots=True)
class Telegram:
    """One prebuilt request. ``places`` says where each item's bytes go in the image."""

    items: list[Item]
    places: list[int]
    data: bytes = b""
    """Encoded, with PDU reference 0: the session gives each request its own."""
    good_reply: GoodReply = field(init=False)

    @property
    def request_bytes(self) -> int:
        """S7 PDU length of the request."""
        return REQUEST_HEAD_BYTES + REQUEST_ITEM_BYTES * len(self.items)

    @property
    def reply_bytes(self) -> int:
        """S7 PDU length of a good reply."""
        return REPLY_HEAD_BYTES + sum(i.reply_bytes for i in self.items)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive bytes that are read, where they lie in the image, and the fields they hold."""

    area: str
    db: int
    start: int
    length: int
    place: int
    extents: list[Extent]


@dataclass(slots=True)
class Plan:
    """Everything one scan of a group sends, and the map of the image it fills."""

    telegrams: list[Telegram]
    runs: list[Run]
    image_bytes: int
    _places: dict[Extent, int] = field(default_factory=dict)

    def place(self, extent: Extent) -> int:
        """Where a field lies in the image. Raises KeyError where it is not read."""
        if not self._places:
            self._places = {e: r.place + e.start - r.start for r in self.runs for e in r.extents}
        return self._places[extent]

    def within(self, place: int, length: int) -> list[Extent]:
        """The fields that have bytes in that part of the image."""
        run = self.runs[bisect_right(self.runs, place, key=lambda r: r.place) - 1]
        start = run.start + place - run.place
        return [e for e in run.extents if e.start < start + length and start < e.end]

    def stretch(self, area: str, db: int, start: int, length: int) -> slice | None:
        """Where consecutive bytes of the PLC lie in the image; None unless all lie in a row."""
        at, found = start, -1
        for run in self.runs:
            if (run.area, run.db) != (area, db) or not run.start <= at < run.start + run.length:
                continue
            place = run.place + at - run.start
            if found < 0:
                found = place
            elif place != found + at - start:
                return None
            at = run.start + run.length
            if at >= start + length:
                return slice(found, found + length)
        return None

    @property
    def data_bytes(self) -> int:
        """Bytes of PLC memory per scan."""
        return sum(i.length for t in self.telegrams for i in t.items)

    @property
    def cost(self) -> tuple[int, int]:
        """What to compare plans by: round trips first, then bytes on the wire."""
        return len(self.telegrams), sum(t.request_bytes + t.reply_bytes for t in self.telegrams)

    def scan_s(self, rtt_s: float, jobs: int) -> float:
        """What a scan takes at least, at that round trip time and so many jobs in flight."""
        return -(-len(self.telegrams) // jobs) * rtt_s


def make_plan(
    extents: Iterable[Extent],
    pdu_bytes: int,
    *,
    apart: frozenset[Extent] = frozenset(),
    cuts: frozenset[tuple[str, int, int]] = frozenset(),
    avoid: Iterable[Extent] = (),
    max_items: int = 0,
) -> Plan:
    """The plan for these fields.

    ``cuts`` are (area, db, byte) where nothing is merged (bisecting a refused item); no gap that
    holds a byte of ``avoid`` is read (what the PLC refuses); extents in ``apart`` each get an item
    of their own, even where they share bytes with others. ``max_items`` is a limit of the PLC's
    own, besides its PDU; 0 for none. Raises ValueError for a PDU that is too small for an item.
    """
    if pdu_bytes < PDU_MIN_BYTES:
        raise ValueError(f"a PDU of {pdu_bytes} bytes is too small")
    wanted = sorted(set(extents) - apart)
    alone = [[e] for e in sorted(apart)]
    borders = cuts | _fences(wanted, avoid)
    best: list[list[Extent]] = []
    plan = Plan([], [], 0)
    cost = (0, 0)
    for gap_bytes in GAPS_TRIED_BYTES:
        groups = _merge(wanted, borders, gap_bytes) + alone
        if len(groups) == len(best):
            continue
        tried = _lay_out(groups, pdu_bytes, max_items)
        tried_cost = tried.cost
        if not best or tried_cost < cost:
            best, plan, cost = groups, tried, tried_cost
    for telegram in plan.telegrams:
        telegram.data = read_request(0, telegram.items)
        telegram.good_reply = GoodReply(telegram.items, telegram.places)
    return plan


def _lay_out(groups: list[list[Extent]], pdu_bytes: int, max_items: int) -> Plan:
    limit = pdu_bytes - REPLY_HEAD_BYTES - REPLY_ITEM_BYTES
    runs: list[Run] = []
    items: list[tuple[Item, int]] = []
    place = 0
    for group in groups:
        start, end = group[0].start, max(e.end for e in group)
        runs.append(Run(group[0].area, group[0].db, start, end - start, place, group))
        for a, b in _cut(group, limit):
            items.append((Item(group[0].area, group[0].db, a, b - a), place + a - start))
        place += end - start
    return Plan(_pack(items, pdu_bytes, max_items), runs, place)


def _fences(extents: Sequence[Extent], avoid: Iterable[Extent]) -> frozenset[tuple[str, int, int]]:
    """Starts of extents before which a gap holds bytes to avoid."""
    starts = [(e.area, e.db, e.start) for e in extents]
    out: set[tuple[str, int, int]] = set()
    for e in avoid:
        inside = bisect_right(starts, (e.area, e.db, e.start))
        behind = bisect_left(starts, (e.area, e.db, e.end))
        out.update(starts[inside : behind + 1])
    return frozenset(out)


def _merge(
    extents: Sequence[Extent], cuts: frozenset[tuple[str, int, int]], gap_bytes: int
) -> list[list[Extent]]:
    groups: list[list[Extent]] = []
    end = 0
    for e in extents:
        last = groups[-1][-1] if groups else None
        if (
            last is not None
            and (e.area, e.db) == (last.area, last.db)
            and (e.start < end or (e.area, e.db, e.start) not in cuts)
            and e.start - end <= gap_bytes
        ):
            groups[-1].append(e)
            end = max(end, e.end)
        else:
            groups.append([e])
            end = e.end
    return groups


def _cut(group: list[Extent], limit: int) -> Iterable[tuple[int, int]]:
    """Cuts a run into pieces of at most ``limit`` bytes, between fields where that is possible."""
    start, end = group[0].start, max(e.end for e in group)
    if end - start <= limit:
        yield start, end
        return
    borders: list[int] = []
    reached = start
    for e in group:
        if e.start >= reached:
            borders.append(e.start)
        reached = max(reached, e.end)
    borders.append(end)
    unit = 2 if group[0].area in ("T", "C") else 1
    while end - start > limit:
        at = borders[bisect_right(borders, start + limit) - 1]
        if at <= start:  # one field alone is longer: it cannot come in one piece
            upper = borders[bisect_left(borders, start + 1)]
            at = min(upper, start + limit - limit % unit)
        yield start, at
        # What lies between two fields need not be read when the cut falls there.
        start = at
    yield start, end


def _pack(items: list[tuple[Item, int]], pdu_bytes: int, max_items: int) -> list[Telegram]:
    """First fit, largest first: few telegrams without looking at all combinations."""
    most = (pdu_bytes - REQUEST_HEAD_BYTES) // REQUEST_ITEM_BYTES
    most = min(most, max_items or most)
    bins: list[tuple[int, Telegram]] = []
    full: list[Telegram] = []
    for item, place in sorted(items, key=lambda pair: -pair[0].length):
        need = item.reply_bytes
        for n, (left, telegram) in enumerate(bins):
            if need <= left and len(telegram.items) < most:
                telegram.items.append(item)
                telegram.places.append(place)
                bins[n] = (left - need, telegram)
                break
        else:
            telegram = Telegram([item], [place])
            n = len(bins)
            bins.append((pdu_bytes - REPLY_HEAD_BYTES - need, telegram))
        # Who has no room for the smallest item leaves the search: packing stays linear.
        if bins[n][0] < REPLY_ITEM_BYTES + 2 or len(bins[n][1].items) == most:
            full.append(bins.pop(n)[1])
    return full + [telegram for _, telegram in bins]
