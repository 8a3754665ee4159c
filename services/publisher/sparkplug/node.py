"""One edge node: rows become DDATA, and births, deaths and aliases are kept true to them. Pure.

What the host has been told is state here; numbering (`seq`) and delivery are the flow's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from tahutils.tahu.sparkplug_b_pb2 import DataType

from bus.frames import GAP_ROW
from services.consumer.row import Row
from services.publisher.sparkplug.metrics import (
    BAD,
    GOOD,
    QUALITY,
    REASON,
    STALE,
    Metric,
    Misfit,
    add_property,
    guess,
    new_payload,
    of_plc,
    prefix,
    put,
    spread,
)

NAMESPACE = "spBv1.0"
BD_SEQ, REBIRTH = "bdSeq", "Node Control/Rebirth"
OFFLINE = "plc_offline"
# What a gap message tells (docs/wire-format.md); no group's name begins so.
_GAP = "_gap/"
_GAP_METRICS = {
    "epoch": "Int64",
    "first_seq": "Int64",
    "last_seq": "Int64",
    "count": "Int64",
    "from_ts": "DateTime",
    "to_ts": "DateTime",
    "reason": "String",
}


@dataclass(slots=True)
class Message:
    """One to be published; its ``seq`` is given when it is."""

    topic: str
    payload: Any
    restarts: bool = False
    """An NBIRTH: its ``seq`` is 0."""


@dataclass(slots=True)
class _Device:
    """A PLC."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    alive: bool = False
    """Born, and not dead since."""
    records: dict[str, list[str]] = field(default_factory=dict)
    """Prefix of a record's names -> the names."""
    unwell: set[int] = field(default_factory=set)
    """Aliases of what the host holds for anything but good."""
    untold: set[str] = field(default_factory=set)
    """Names whose newest value went as history only."""
    declared: int = 0
    """Metrics that the last births named."""


class Node:
    """The edge node of one tenant."""

    def __init__(self, group: str, name: str, plcs: list[dict[str, Any]]) -> None:
        """``plcs``: those of the tenant, as rendered."""
        self._base = (f"{NAMESPACE}/{group}", name)
        self._devices: dict[str, _Device] = {}
        self._aliases: dict[tuple[str, str], int] = {}
        """Never given to another metric while this process lives."""
        self.offline: set[str] = set()
        """PLCs that are, whatever the host knows of it yet."""
        self.learned: list[str] = []
        """Metrics that rows had and the configuration has not, since it was read."""
        self.bd_seq = 0
        self._gone: list[str] = []
        """PLCs that the host holds for alive and the configuration has no more."""
        self.configure(plcs)

    def topic(self, kind: str, plc: str = "") -> str:
        """Of a message type; with ``plc``, of a device."""
        before, name = self._base
        return f"{before}/{kind}/{name}" + (f"/{plc}" if plc else "")

    def configure(self, plcs: list[dict[str, Any]]) -> bool:
        """Takes the PLCs and their fields; whether the host must be given births anew."""
        was = {p: {n: m.shape for n, m in d.metrics.items()} for p, d in self._devices.items()}
        old, self._devices, self.learned = self._devices, {}, []
        for plc in plcs:
            device = self._device(plc["id"])
            for name, datatype, unit, zone in of_plc(plc):
                self._declare(plc["id"], device, Metric(name, 0, datatype, unit, zone))
            if before := old.get(plc["id"]):
                device.alive = before.alive
                for name, metric in device.metrics.items():
                    known = before.metrics.get(name)
                    if known is not None and known.shape == metric.shape:
                        metric.learn(known.ts_ms, known.value, known.quality, known.reason)
        self.offline &= self._devices.keys()
        self._gone = [p for p, d in old.items() if d.alive and p not in self._devices]
        now = {p: {n: m.shape for n, m in d.metrics.items()} for p, d in self._devices.items()}
        return now != was

    def _device(self, plc: str) -> _Device:
        device = self._devices.get(plc)
        if device is None:
            device = self._devices[plc] = _Device()
            for name, datatype in _GAP_METRICS.items():
                self._declare(plc, device, Metric(_GAP + name, 0, datatype, quality=GOOD))
        return device

    def _declare(self, plc: str, device: _Device, metric: Metric) -> Metric:
        metric.alias = self._aliases.setdefault((plc, metric.name), len(self._aliases) + 1)
        device.metrics[metric.name] = metric
        record = metric.name.rpartition("/")[0] + "/"
        device.records.setdefault(record, []).append(metric.name)
        return metric

    # -- births and deaths ----------------------------------------------------------------

    def will(self, now_ms: int) -> bytes:
        """NDEATH: the ``bdSeq`` of the connection, and no ``seq``."""
        payload = new_payload(now_ms)
        self._add_bd_seq(payload, now_ms)
        data: bytes = payload.SerializeToString()
        return data

    def _add_bd_seq(self, payload: Any, now_ms: int) -> None:
        m = payload.metrics.add()
        m.name, m.timestamp, m.datatype = BD_SEQ, now_ms, DataType.Value("Int64")
        m.long_value = self.bd_seq

    def births(self, now_ms: int) -> Iterator[Message]:
        """NBIRTH, and DBIRTH of each PLC that is not known to be offline."""
        payload = new_payload(now_ms)
        self._add_bd_seq(payload, now_ms)
        m = payload.metrics.add()
        m.name, m.timestamp, m.datatype = REBIRTH, now_ms, DataType.Value("Boolean")
        m.boolean_value = False
        yield Message(self.topic("NBIRTH"), payload, restarts=True)
        self._gone = []
        for plc, device in self._devices.items():
            device.alive, device.declared = False, len(device.metrics)
            if plc not in self.offline:
                yield self._birth(plc, device, now_ms)

    def _birth(self, plc: str, device: _Device, now_ms: int) -> Message:
        payload = new_payload(now_ms)
        # Oldest first (operational-behavior-data-publish-dbirth-order), unknown ones last.
        for metric in sorted(device.metrics.values(), key=lambda m: m.ts_ms or now_ms):
            metric.birth(payload, now_ms)
        device.alive = True
        device.untold.clear()
        device.unwell = {m.alias for m in device.metrics.values() if m.quality != GOOD}
        return Message(self.topic("DBIRTH", plc), payload)

    def farewells(self, now_ms: int) -> Iterator[Message]:
        """DDEATH of each PLC that has left the configuration; births follow."""
        for plc in self._gone:
            yield Message(self.topic("DDEATH", plc), new_payload(now_ms))
        self._gone = []

    def deaths(self, now_ms: int) -> Iterator[Message]:
        """DDEATH of each PLC that is offline while the host holds it for online."""
        for plc in sorted(self.offline & self._devices.keys()):
            device = self._devices[plc]
            if device.alive:
                device.alive = False
                yield Message(self.topic("DDEATH", plc), new_payload(now_ms))

    # -- rows -----------------------------------------------------------------------------

    def take(self, row: Row, historical: bool, now_ms: int) -> list[Message]:
        """What tells the host of a row; the last message is the row's own, what stands before it
        must be told first. Raises ValueError where the row is no message of ours.
        """
        device = self._devices.get(row.plc) or self._device(row.plc)
        payload = new_payload(now_ms)
        readings = []
        try:
            message: dict[str, Any] = orjson.loads(row.body)
            ts_ms, bad = int(message["ts"]), message.get("bad", {})
            if not 0 <= ts_ms < 2**63:
                raise ValueError(f"ts {ts_ms}")
            for name, value, quality, reason in _readings(row, message, device):
                m = payload.metrics.add()
                metric = self._fit(row.plc, device, m, name, value)
                readings.append((m, metric, value, quality, reason))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"no message of plc-edge: {e!r}") from None
        if row.kind != GAP_ROW:
            (self.offline.add if bad.get("*") == OFFLINE else self.offline.discard)(row.plc)
        before: list[Message] = []
        if len(device.metrics) != device.declared:
            before += self.births(now_ms)
        if not device.alive:
            before.append(self._birth(row.plc, device, now_ms))
        for m, metric, value, quality, reason in readings:
            _describe(m, device, metric.alias, ts_ms, quality, reason, historical)
            if not historical:
                metric.learn(ts_ms, value, quality, reason)
                device.untold.discard(metric.name)
            elif ts_ms >= metric.ts_ms:
                metric.learn(ts_ms, value, quality, reason)
                device.untold.add(metric.name)
        if not historical:
            before += self._catch_up(row.plc, device, now_ms)
        payload.body = row.body if row.kind == GAP_ROW else _identity(row)
        return [*before, Message(self.topic("DDATA", row.plc), payload)]

    def catch_up(self, now_ms: int) -> Iterator[Message]:
        """What came as history only and is still the newest, as current values."""
        for plc, device in self._devices.items():
            if device.alive and plc not in self.offline:
                yield from self._catch_up(plc, device, now_ms)

    def _catch_up(self, plc: str, device: _Device, now_ms: int) -> Iterator[Message]:
        if not device.untold:
            return
        payload = new_payload(now_ms)
        metrics = [device.metrics[name] for name in device.untold]
        device.untold.clear()
        for metric in sorted(metrics, key=lambda m: m.ts_ms):
            m = payload.metrics.add()
            m.alias = metric.alias
            put(m, metric.datatype, metric.value, metric.zone)
            _describe(m, device, m.alias, metric.ts_ms, metric.quality, metric.reason, False)
        yield Message(self.topic("DDATA", plc), payload)

    def _fit(self, plc: str, device: _Device, m: Any, name: str, value: Any) -> Metric:
        """Puts a value into ``m`` as the metric that takes it. One that the configuration does not
        have (any more), or that has another type there, is declared from the value: a row of an
        earlier configuration must get out, too.
        """
        metric = device.metrics.get(name)
        if metric is not None:
            try:
                put(m, metric.datatype, value, metric.zone)
                m.alias = metric.alias
                return metric
            except Misfit:
                name = f"{name}:{guess(value)}"
                metric = device.metrics.get(name)
        if metric is None:
            metric = self._declare(plc, device, Metric(name, 0, guess(value)))
            self.learned.append(f"{plc}/{name}")
        put(m, metric.datatype, value, metric.zone)
        m.alias = metric.alias
        return metric


def _describe(
    m: Any, device: _Device, alias: int, ts_ms: int, quality: int, reason: str, historical: bool
) -> None:
    """Time and quality of a metric in a DDATA."""
    m.timestamp = ts_ms
    if historical:
        m.is_historical = True
    # Needed only where it is not good; and once where it is good again.
    if quality != GOOD or (alias in device.unwell and not historical):
        add_property(m, QUALITY, quality)
        if reason:
            add_property(m, REASON, reason)
    if not historical:
        (device.unwell.discard if quality == GOOD else device.unwell.add)(alias)


def _identity(row: Row) -> bytes:
    """What identifies a message for ever (docs/wire-format.md), for the payload's ``body``."""
    return b'{"epoch":%d,"seq":%d}' % (row.epoch, row.seq)


def _readings(
    row: Row, message: dict[str, Any], device: _Device
) -> Iterator[tuple[str, Any, int, str]]:
    """(name, value or None, quality, reason) of all that a row says."""
    if row.kind == GAP_ROW:
        for name in _GAP_METRICS:
            yield _GAP + name, message.get(name), GOOD, ""
        return
    record = prefix(message["group"], message.get("machine"))
    bad = {str(name): str(reason) for name, reason in message.get("bad", {}).items()}
    why = bad.get("*", "")
    quality = (BAD if message["quality"] == "bad" else STALE) if why else GOOD
    values: dict[str, Any] = message["values"]
    for name, value in values.items():
        # A clock that is doubted has a value and a reason.
        doubt = bad.get(name, "")
        for element, one in spread(record + name, value):
            yield element, one, STALE if doubt and not why else quality, why or doubt
    for name, reason in bad.items():
        if name != "*" and name not in values:
            for element in _members(device, record, record + name):
                yield element, None, BAD, reason
    if why and not values:
        named = {m for n in bad if n != "*" for m in _members(device, record, record + n)}
        for name in device.records.get(record, []):
            if name not in named:
                yield name, None, BAD, why


def _members(device: _Device, record: str, name: str) -> list[str]:
    """The metrics of one field: itself, or an array's elements."""
    if name in device.metrics:
        return [name]
    inside = [n for n in device.records.get(record, []) if n.startswith(f"{name}.")]
    return inside or [name]
