"""Everything known about the box right now, put together from live frames.

One thread (the bus loop) writes, another (HTTP) reads: each holds ``Site.lock`` for as long as it
takes, a few ms. Ages are by ``time.monotonic``: a stepped clock makes nothing fresh or stale.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from bus import topology
from bus.frames import Event, Frame, Heartbeat, Scan, State, Stats
from bus.topology import process_name
from services.metrics.aggregate import Aggregate
from services.metrics.trends import Trends
from services.runtime.clock import now_ms

MAX_EVENTS = 200
# A process says something every second.
SILENT_S = 5.0
# The latency line of a PLC: one point, the worst, every 5 s for 15 minutes.
SPARK_STEP_S = 5.0
SPARK_POINTS = 180

_MACHINE = re.compile(rb'"machine":"((?:[^"\\]|\\.)*)"')

MessageKey = tuple[str, str, str]
"""(plc, group, machine or "")"""
# A reader shows values that it does not publish (unchanged, within the deadband) as number 0.
_NOT_PUBLISHED = b'"seq":0,'


@dataclass(slots=True)
class Message:
    """The latest message of one group or machine, as the reader made it."""

    body: bytes
    ts_ms: int
    bad: dict[str, str] = field(default_factory=dict)
    empty: bool = False
    """Not one value in it: nothing was read."""


@dataclass(slots=True)
class Group:
    """The latest scan of one group."""

    name: str
    scan_s: float
    units: dict[str, str] = field(default_factory=dict)
    """Field name -> unit, of those that have one."""
    names: set[str] = field(default_factory=set)
    """The machines that the configuration names; {""} where nothing repeats."""
    at_s: float | None = None
    good_at_s: float | None = None
    good_ts_ms: int = 0
    ts_ms: int = 0
    duration_ms: float = 0.0
    latency_ms: float = 0.0
    quality: str = ""
    machines: dict[str, Message] = field(default_factory=dict)
    """What is shown of each machine."""
    published: dict[str, bytes] = field(default_factory=dict)
    """The last message of each that went out, CONTRACT §4."""

    def take_over(self, old: Group) -> None:
        """Keeps what was known of the group before its configuration was read again."""
        self.at_s, self.good_at_s, self.good_ts_ms = old.at_s, old.good_at_s, old.good_ts_ms
        self.ts_ms, self.quality = old.ts_ms, old.quality
        self.duration_ms, self.latency_ms = old.duration_ms, old.latency_ms
        self.machines = {m: b for m, b in old.machines.items() if m in self.names}
        self.published = {m: b for m, b in old.published.items() if m in self.names}

    def bad(self) -> dict[str, str]:
        """Field (with its machine) -> reason, of all that cannot be read now."""
        return {
            f"{machine}/{name}" if machine else name: reason
            for machine, message in self.machines.items()
            for name, reason in message.bad.items()
            if name != "*"
        }


@dataclass(slots=True)
class Plc:
    """One PLC: its last heartbeat and its groups."""

    id: str
    locatario: str
    host: str
    groups: dict[str, Group]
    beat: Heartbeat | None = None
    beat_at_s: float = 0.0
    since_ms: int = 0
    """Since when it has the status it has."""
    spark: deque[float | None] = field(default_factory=lambda: deque(maxlen=SPARK_POINTS))
    worst_ms: float | None = None

    @property
    def min_scan_s(self) -> float:
        """The scan interval of its fastest group."""
        return min((g.scan_s for g in self.groups.values()), default=1.0)

    def read_age_s(self, now_s: float) -> float | None:
        """Seconds since any of its groups was read; None: never."""
        times = [g.good_at_s for g in self.groups.values() if g.good_at_s is not None]
        return now_s - max(times) if times else None

    def answers(self, aggregate: Aggregate, now_s: float) -> bool:
        """Whether its reader lives and says that it is online or degraded."""
        return self.status(aggregate, now_s) in ("online", "degraded")

    def status(self, aggregate: Aggregate, now_s: float) -> str:
        """online | degraded | offline, as its reader says; no_reader where nobody says it."""
        # Beats may be an hour apart; the reader's statistics come every second.
        alive_s = aggregate.age_s(process_name("reader", self.id))
        if alive_s is not None and alive_s > SILENT_S:
            return "no_reader"
        if self.beat is not None:
            silent = alive_s is None and now_s - self.beat_at_s > 3 * self.beat.interval_s
            return "no_reader" if silent else self.beat.status
        # This process has just started and no beat has come yet.
        up = aggregate.value("plc_edge_plc_up", plc=self.id)
        return "no_reader" if up is None else "online" if up else "offline"

    @property
    def scan_ms(self) -> float:
        """What its slowest group takes."""
        return max((g.duration_ms for g in self.groups.values()), default=0.0)

    @property
    def latency_ms(self) -> float:
        """The longest of its groups' last answer times."""
        return max((g.latency_ms for g in self.groups.values()), default=0.0)


class Site:
    """The model behind every page, built from the rendered configuration of ``metrics``."""

    def __init__(self, config: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.Lock()
        self.clock = clock
        self.started_s = clock()
        self.plcs: dict[str, Plc] = {}
        self.aggregate = Aggregate({}, clock)
        self.trends = Trends(clock)
        self.configure(config)
        self.states: dict[str, tuple[State, float]] = {}
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.event_counts: dict[tuple[str, str], int] = {}
        self.stale = 0
        self.clock_is_right = True
        """False while this PC's clock must be synchronised and is not: values are uncertain."""
        self.certificates: dict[tuple[str, str], float] = {}
        """(process, file name) -> when it ends, Unix s; services/metrics/certificates.py."""
        self._watched: set[tuple[str, str]] = set()
        self._watch_all = False
        self._changed: dict[tuple[MessageKey, bool], bytes] = {}
        self._new_events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._unkept_events: deque[Event] = deque(maxlen=MAX_EVENTS)

    def configure(self, config: dict[str, Any]) -> None:
        """Takes (new) configuration; what stays in it keeps its state. Caller holds ``lock``."""
        self.config = config
        self.name: str = config["site"]
        self.process_names: list[str] = list(config["processes"])
        self.outputs: list[dict[str, Any]] = config["outputs"]
        self.mirrors: list[dict[str, Any]] = config["mirrors"]
        old, self.plcs = self.plcs, {}
        for row in config["plcs"]:
            before = old.get(row["id"])
            groups = {
                g["name"]: Group(
                    g["name"], float(g["scan_s"]), g.get("units") or {}, _machines_of(g)
                )
                for g in row["groups"]
            }
            if before is not None:
                for name, group in before.groups.items():
                    new = groups.get(name)
                    if new is not None and new.scan_s == group.scan_s:
                        new.take_over(group)
                before.host, before.locatario, before.groups = row["host"], row["locatario"], groups
            self.plcs[row["id"]] = before or Plc(row["id"], row["locatario"], row["host"], groups)
        processes = set(self.process_names)
        self.aggregate.known = {
            "plc": set(self.plcs),
            "group": {g for p in self.plcs.values() for g in p.groups},
            "output": {o["name"] for o in self.outputs},
            "mirror": {m["name"] for m in self.mirrors},
            "process": processes,
            "service": processes,
        }
        self.trends.pin(
            (row["id"], g["name"], machine, field_name)
            for row in config["plcs"]
            for g in row["groups"]
            for machine in _machines_of(g)
            for field_name in g.get("trend") or ()
        )

    # -- frames in (bus thread) ----------------------------------------------------------

    def apply(self, frame: Frame) -> None:
        """Takes in one frame of the live wire; the caller holds ``lock``."""
        if isinstance(frame, Scan):
            self._scan(frame)
        elif isinstance(frame, Stats):
            self.aggregate.apply(frame)
        elif isinstance(frame, Heartbeat):
            self._beat(frame)
        elif isinstance(frame, State):
            if frame.process in self.process_names:
                self.states[frame.process] = (frame, self.clock())
        elif isinstance(frame, Event):
            self.add_event(frame)

    def add_event(self, event: Event) -> None:
        """Remembers an event; the caller holds ``lock``."""
        self.events.append(event)
        self._new_events.append(event)
        self._unkept_events.append(event)
        process = event.process if event.process in self.process_names else "other"
        level = event.level if event.level in ("info", "warning", "error") else "info"
        key = (process, level)
        self.event_counts[key] = self.event_counts.get(key, 0) + 1

    def take_unkept(self) -> list[Event]:
        """The events since the last call, for the event log; the caller holds ``lock``."""
        events = list(self._unkept_events)
        self._unkept_events.clear()
        return events

    def _beat(self, frame: Heartbeat) -> None:
        plc = self.plcs.get(frame.plc)
        if plc is None:
            return
        if plc.beat is None or plc.beat.status != frame.status:
            plc.since_ms = frame.ts_ms
        plc.beat = frame
        plc.beat_at_s = self.clock()
        if frame.ip:
            plc.host = frame.ip

    def _scan(self, frame: Scan) -> None:
        plc = self.plcs.get(frame.plc)
        group = plc.groups.get(frame.group) if plc else None
        if plc is None or group is None:
            return
        if now_ms() - frame.ts_ms > topology.LIVE_MAX_AGE_MS:
            self.stale += 1
            return
        now_s = self.clock()
        group.at_s = now_s
        group.ts_ms = frame.ts_ms
        group.quality = frame.quality
        group.duration_ms = frame.duration_ms
        watched = self._watch_all or (frame.plc, frame.group) in self._watched
        for body in frame.bodies:
            machine = _machine(body)
            if machine not in group.names:
                self.aggregate.refused["label"] += 1
                continue
            key = (frame.plc, frame.group, machine)
            message = Message(body, frame.ts_ms, empty=b'"values":{}' in body)
            wanted = self.trends.wants(key)
            if wanted or b'"bad":{' in body:
                try:
                    record = orjson.loads(body)
                except orjson.JSONDecodeError:
                    self.aggregate.refused["value"] += 1
                    continue
                message.bad = {str(k): str(v) for k, v in (record.get("bad") or {}).items()}
                if wanted:
                    self.trends.add_point(key, frame.ts_ms, record.get("values") or {})
            group.machines[machine] = message
            is_published = _NOT_PUBLISHED not in body[: _values_at(body)]
            if is_published:
                group.published[machine] = body
            if watched:
                self._changed[key, is_published] = body
        if frame.quality != "bad" or not all(m.empty for m in group.machines.values()):
            group.good_at_s = now_s
            group.good_ts_ms = frame.ts_ms
            group.latency_ms = frame.latency_ms
            plc.worst_ms = max(plc.worst_ms or 0.0, frame.latency_ms)

    def tick_sparks(self) -> None:
        """Closes a step of every PLC's latency line; every SPARK_STEP_S, holding ``lock``."""
        for plc in self.plcs.values():
            plc.spark.append(None if plc.worst_ms is None else round(plc.worst_ms, 2))
            plc.worst_ms = None

    # -- what the stream takes (either thread, holding ``lock``) --------------------------

    def watch(self, groups: set[tuple[str, str]], everything: bool) -> None:
        """Which (plc, group) the stream's clients look at: only those are collected."""
        self._watched = groups
        self._watch_all = everything

    def take_changes(self) -> tuple[dict[tuple[MessageKey, bool], bytes], list[Event]]:
        """Bodies (by key, and whether published) and events since the last call; of each only
        the latest.
        """
        changed, self._changed = self._changed, {}
        events = list(self._new_events)
        self._new_events.clear()
        return changed, events

    def bodies(self, plc: str = "", group: str = "") -> list[bytes]:
        """The latest body of every (PLC, group, machine), or of one PLC or group."""
        return [
            # Nothing published since this process began: what is shown stands in.
            g.published.get(name, message.body)
            for p in self.plcs.values()
            if plc in ("", p.id)
            for g in p.groups.values()
            if group in ("", g.name)
            for name, message in g.machines.items()
        ]


def _machines_of(group: dict[str, Any]) -> set[str]:
    return {name or "" for name in group.get("machines") or [None]}


def _values_at(body: bytes) -> int:
    """Where the values begin: before them stands what the reader says, after it the PLC."""
    end = body.find(b'"values":')
    return end if end >= 0 else len(body)


def _machine(body: bytes) -> str:
    """The machine's name in a body, without decoding the values that follow it."""
    match = _MACHINE.search(body, 0, _values_at(body))
    if match is None:
        return ""
    return str(orjson.loads(b'"' + match[1] + b'"'))
