"""One scan group: its plan, what the PLC refuses of it, and its bytes made into messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.reader.message import Message
from services.reader.plc_clock import PlcClock
from services.s7 import telegram as t
from services.s7.change import ChangeFilter
from services.s7.decode import Record
from services.s7.encode import Encoder, pays_for
from services.s7.field import Field
from services.s7.plan import Extent, Plan, Telegram, make_plan

# A refused field is asked for again after this time, doubling up to so often: it costs a request of
# its own. A block that is downloaded anew is away for a few seconds only.
RETRY_FIRST_S, RETRY_S = 2.0, 30.0


@dataclass(slots=True)
class Outcome:
    """What one scan of a group made."""

    ts_ms: int
    latency_ms: float
    quality: str
    bodies: list[Callable[[int, int], bytes]]
    """Messages to publish."""
    shown: list[Callable[[int, int], bytes]]
    """Messages for the panel: every record, published or not."""
    bad_fields: int


class _Machine:
    """One record of the group."""

    def __init__(
        self, fields: list[Field], message: Message, max_silence_s: float, clock: str | None
    ) -> None:
        self.fields = fields
        self.message = message
        self.filter = ChangeFilter(fields, max_silence_s, clock)
        self.record: Record | Encoder | None = None
        """Decodes what is read of it; None where all of it is refused."""


class Group:
    """Turns scans of one group into messages; keeps apart what the PLC refuses."""

    def __init__(self, config: dict[str, Any], plc: dict[str, Any], site: str) -> None:
        self.name: str = config["name"]
        self._ip: str = plc["hosts"][0]
        self.db: int | None = config["db"]
        self.scan_s: float = config["scan_s"]
        self.consistent: bool = config["consistent"]
        self._always = config["publish"] == "always"
        self._timestamp: str | None = config["timestamp"]
        self._clock = PlcClock(config.get("timezone") or "UTC")
        template = [Field.from_dict(f) for f in config["fields"]]
        self.machines: list[_Machine] = []
        extents: dict[Extent, list[str]] = {}
        for name, base in config["machines"]:
            fields = [f.at(f.byte + base) for f in template]
            message = Message(
                site=site,
                locatario=plc["locatario"],
                plc=plc["id"],
                ip=self._ip,
                group=self.name,
                measurement=config["measurement"],
                db=self.db,
                machine=name,
            )
            silence_s = config["max_silence_s"]
            self.machines.append(_Machine(fields, message, silence_s, self._timestamp))
            for f in fields:
                extents.setdefault(extent(f), []).append(f.name)
        self._extents = set(extents)
        self.raw_range = _raw_range(config["raw"], self._extents)
        if self.raw_range is not None and self.db is not None:
            self._extents |= set(_fill(self._extents, self.db, *self.raw_range))
        self._cuts: set[tuple[str, int, int]] = set()
        """Where items were halved to find what the PLC refuses; forgotten at each retry, as are"""
        self._apart: set[Extent] = set()
        """fields that share bytes with a refused one."""
        self.refused: dict[Extent, str] = {}
        """What the PLC refuses, with the reason; asked for again by itself."""
        self._retry_at_s = 0.0
        self._retry_s = RETRY_FIRST_S
        self.plan = Plan([], [], 0)
        self.replan_needed = True
        self._mapped = False
        self._published_all = False

    @property
    def has_plc_time(self) -> bool:
        """Its messages carry the PLC's time."""
        return self._timestamp is not None

    def move(self, ip: str) -> None:
        """The messages' ``ip`` from now on."""
        if ip != self._ip:
            self._ip = ip
            for machine in self.machines:
                machine.message.move(ip)

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
        """A new connection: nothing is known of what the PLC refuses, everything is news."""
        self._cuts.clear()
        self._apart.clear()
        self.refused.clear()
        self.replan_needed = True
        self._retry_s = RETRY_FIRST_S
        self.publish_all()

    def publish_all(self) -> None:
        """The next scan publishes every record, changed or not."""
        self._published_all = False

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
        for e in list(self.refused):
            if e in still:
                self.refused[e] = still[e]
            else:
                del self.refused[e]
                self.replan_needed = True

    # -- values --------------------------------------------------------------------------

    def decode(
        self,
        image: bytes,
        missing: dict[Extent, str],
        ts_ms: int,
        latency_ms: float,
        uncertain: str,
        now_s: float,
    ) -> Outcome:
        """The messages of one scan. ``uncertain`` says why the data may be frozen, or is empty."""
        if not self._mapped:
            self.map_records()
        outcome = Outcome(ts_ms, latency_ms, "good", [], [], 0)
        everything = not self._published_all
        for machine in self.machines:
            changed, values, bad = self._decode_machine(machine, image, missing)
            quality, stamp_ms = "good", ts_ms
            if self._timestamp is not None:
                stamp_ms, problem = self._clock.unix_ms(values.get(self._timestamp), ts_ms)
                if problem:
                    quality = "uncertain"
                    bad = {self._timestamp: problem, **bad}
            if uncertain:
                quality = "uncertain"
                bad = {"*": uncertain, **bad}
            if not values and bad:
                quality = "bad"
            outcome.bad_fields += len(bad)
            if quality != "good":
                outcome.quality = quality
            body = machine.message.body(stamp_ms, quality, latency_ms, values, bad)
            outcome.shown.append(body)
            if self._always or machine.filter.passes(values, bad, changed, now_s) or everything:
                outcome.bodies.append(body)
        self._published_all = True
        return outcome

    def _decode_machine(
        self, machine: _Machine, image: bytes, missing: dict[Extent, str]
    ) -> tuple[bool, Mapping[str, Any], dict[str, str]]:
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

    def offline_bodies(self, ts_ms: int, reason: str) -> list[Callable[[int, int], bytes]]:
        """One message per record that says that nothing could be read."""
        return [m.message.body(ts_ms, "bad", 0.0, {}, {"*": reason}) for m in self.machines]

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
