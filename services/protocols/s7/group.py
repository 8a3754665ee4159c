"""One scan group by address: its plan, what the PLC refuses of it, its bytes made into records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from services.protocols.source import Record as Decoded
from services.s7 import telegram as t
from services.s7.decode import Record
from services.s7.encode import Encoder, pays_for
from services.s7.field import Field
from services.s7.plan import Extent, Plan, Telegram, make_plan

# A refused field is asked for again after this time, doubling up to so often: it costs a request of
# its own. A block that is downloaded anew is away for a few seconds only.
RETRY_FIRST_S, RETRY_S = 2.0, 30.0


class _Machine:
    """One record of the group."""

    def __init__(self, fields: list[Field]) -> None:
        self.fields = fields
        self.record: Record | Encoder | None = None
        """Decodes what is read of it; None where all of it is refused."""


class S7Group:
    """Makes records of a group's scans; keeps apart what the PLC refuses."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.name: str = config["name"]
        self.db: int | None = config["db"]
        self.consistent: bool = config["consistent"]
        self._always = config["publish"] == "always"
        self._timestamp: str | None = config["timestamp"]
        template = [Field.from_dict(f) for f in config["fields"]]
        self.machines = [
            _Machine([f.at(f.byte + base) for f in template]) for _, base in config["machines"]
        ]
        self._extents = {extent(f) for machine in self.machines for f in machine.fields}
        self.raw_range = _raw_range(config["raw"], self._extents)
        if self.raw_range is not None and self.db is not None:
            self._extents |= set(_fill(self._extents, self.db, *self.raw_range))
        self._cuts: set[tuple[str, int, int]] = set()
        """Where items were halved to find what the PLC refuses; forgotten at each retry, as are"""
        self._apart: set[Extent] = set()
        """fields that share bytes with a refused one."""
        self.refused: dict[Extent, str] = {}
        """What the PLC refuses, with the reason; asked for again by itself."""
        self._refused_places: dict[str, str] | None = None
        self._retry_at_s = 0.0
        self._retry_s = RETRY_FIRST_S
        self.plan = Plan([], [], 0)
        self.replan_needed = True
        self._mapped = False

    def make_plan(self, pdu_bytes: int, max_items: int) -> Plan:
        """The plan for what is not refused."""
        kept = self._extents - self.refused.keys()
        self.plan = make_plan(
            kept,
            pdu_bytes,
            cuts=frozenset(self._cuts),
            apart=frozenset(self._apart & kept),
            avoid=self.refused,
            max_items=max_items,
        )
        self.replan_needed = False
        self._mapped = False
        return self.plan

    def map_records(self) -> None:
        """Maps records to the plan's image: 5 µs a field, so on connecting rather than between the
        first two scans. Not for every plan: a search makes some that bring no message.
        """
        for machine in self.machines:
            places = [
                (f, self.plan.place(e))
                for f in machine.fields
                if (e := extent(f)) not in self.refused
            ]
            base = min((place for _, place in places), default=0)
            fields = [f.at(place - base) for f, place in places]
            machine.record = self._decoder(fields, base) if fields else None
        self._mapped = True

    def _decoder(self, fields: list[Field], base: int) -> Record | Encoder:
        """Decodes only what somebody looks at: a deadband, the clock."""
        looked_at = self._timestamp is not None or (
            not self._always and any(f.deadband is not None for f in fields)
        )
        return Encoder(fields, base) if not looked_at and pays_for(fields) else Record(fields, base)

    def reset(self) -> None:
        """A new connection: nothing is known of what the PLC refuses."""
        self._cuts.clear()
        self._apart.clear()
        self.refused.clear()
        self._refused_places = None
        self.replan_needed = True
        self._retry_s = RETRY_FIRST_S

    def also_read(self, wanted: Extent) -> None:
        """Reads these bytes with every scan, for no field of this group."""
        self._extents.add(wanted)

    def all_missing(self, reason: str) -> dict[Extent, str]:
        """Every extent with one reason: the PLC refused the whole scan."""
        return dict.fromkeys(self._extents, reason)

    # -- what the PLC refuses ------------------------------------------------------------

    def note_refused(
        self, refused: Iterable[tuple[Telegram, list[int]]]
    ) -> tuple[dict[Extent, str], bool]:
        """Learns from return codes: halves what holds several fields, sets a single one apart.

        Returns every field's extent that this scan did not bring, with the reason; and whether
        something was halved, so that reading at once again brings some of them.
        """
        missing: dict[Extent, str] = {}
        halved = False
        for telegram, codes in refused:
            for item, place, code in zip(telegram.items, telegram.places, codes, strict=True):
                if code == t.GOOD:
                    continue
                reason = t.item_error(code)
                inside = self.plan.within(place, item.length)
                missing.update(dict.fromkeys(inside, reason))
                if len(inside) == 1:
                    self._retry_s = RETRY_FIRST_S
                self._retry_at_s = time.monotonic() + self._retry_s
                self.replan_needed = True
                if len(inside) == 1:
                    self.refused[inside[0]] = reason
                    self._refused_places = None
                    continue
                halved = True
                starts = _separable(inside)
                if len(starts) > 1:
                    self._cuts.add((item.area, item.db, starts[len(starts) // 2]))
                else:
                    self._apart.update(inside)
        return missing, halved

    def retry_plan(self, pdu_bytes: int, max_items: int, now_s: float) -> Plan | None:
        """Asks again for what was refused, each field alone; None when it is not time."""
        searched = self._cuts or self._apart
        if not (self.refused or searched) or now_s < self._retry_at_s:
            return None
        self._retry_s = min(RETRY_S, 2 * self._retry_s)
        self._retry_at_s = now_s + self._retry_s
        if searched:
            self._cuts.clear()
            self._apart.clear()
            self.replan_needed = True
        if not self.refused:
            return None
        apart = frozenset(self.refused)
        return make_plan(self.refused, pdu_bytes, apart=apart, max_items=max_items)

    def note_retry(self, plan: Plan, refused: Iterable[tuple[Telegram, list[int]]]) -> None:
        """Takes back what the PLC now gives."""
        still: dict[Extent, str] = {}
        for telegram, codes in refused:
            for item, place, code in zip(telegram.items, telegram.places, codes, strict=True):
                if code != t.GOOD:
                    still.update(dict.fromkeys(plan.within(place, item.length), t.item_error(code)))
        self._refused_places = None
        for e in list(self.refused):
            if e in still:
                self.refused[e] = still[e]
            else:
                del self.refused[e]
                self.replan_needed = True

    def refused_places(self) -> Mapping[str, str]:
        """The same in words: ``DB1.4`` -> why. Asked after every scan, so made only when it is
        another.
        """
        if self._refused_places is None:
            self._refused_places = {
                f"{e.area}{e.db or ''}.{e.start}": why for e, why in self.refused.items()
            }
        return self._refused_places

    # -- values --------------------------------------------------------------------------

    def records(self, image: bytes, missing: dict[Extent, str]) -> list[Decoded]:
        """The records in a scan's bytes, one per machine; ``missing`` is what it did not bring."""
        if not self._mapped:
            self.map_records()
        return [self._decode(machine, image, missing) for machine in self.machines]

    def _decode(self, machine: _Machine, image: bytes, missing: dict[Extent, str]) -> Decoded:
        record = machine.record
        changed = record.changed(image) if record is not None else False
        values: Mapping[str, Any] = record.values if record is not None else {}
        bad = record.bad if record is not None else {}
        if missing or self.refused:
            gone = {**self.refused, **missing}
            lost = {f.name: gone[e] for f in machine.fields if (e := extent(f)) in gone}
            if lost:
                values = {k: v for k, v in values.items() if k not in lost}
                bad = {**bad, **lost}
                if record is not None:
                    record.forget()
        return changed, values, bad

    def raw(self, image: bytes, missing: dict[Extent, str]) -> bytes:
        """The bytes for mirrors, all of ``raw_range``; empty where one is missing."""
        if self.raw_range is None or self.db is None or not self._raw_is_whole(missing):
            return b""
        stretch = self.plan.stretch("DB", self.db, *self.raw_range)
        return image[stretch] if stretch is not None else b""

    def _raw_is_whole(self, missing: dict[Extent, str]) -> bool:
        assert self.raw_range is not None
        start, length = self.raw_range
        gone = [*missing, *self.refused]
        return not any(
            e.area == "DB" and e.db == self.db and e.start < start + length and start < e.end
            for e in gone
        )


def extent(f: Field) -> Extent:
    """The bytes that hold a field."""
    return Extent(f.area, f.db, f.byte, f.size_bytes)


def _separable(extents: list[Extent]) -> list[int]:
    """Where a block of fields may be cut: starts of fields that share no byte with earlier ones."""
    out: list[int] = []
    reached = -1
    for e in sorted(extents):
        if e.start >= reached:
            out.append(e.start)
        reached = max(reached, e.end)
    return out


def _raw_range(raw: Any, extents: set[Extent]) -> tuple[int, int] | None:
    if raw is None:
        return None
    if isinstance(raw, dict):
        return raw["start"], raw["length"]
    blocks = [e for e in extents if e.area == "DB"]
    start = min(e.start for e in blocks)
    return start, max(e.end for e in blocks) - start


def _fill(extents: set[Extent], db: int, start: int, length: int) -> Iterable[Extent]:
    """What fields leave out of a raw range, so that all of it is read in one run."""
    at = start
    for e in sorted(e for e in extents if e.area == "DB" and e.db == db):
        if e.end <= start or e.start >= start + length:
            continue
        if e.start > at:
            yield Extent("DB", db, at, e.start - at)
        at = max(at, e.end)
    if at < start + length:
        yield Extent("DB", db, at, start + length - at)
