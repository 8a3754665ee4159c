"""The reader's engine: the scan schedule, and what becomes of each reading.

Polling never waits for another process. Groups are scanned at a fixed rate on the monotonic clock.
What is of the protocol (the connection, what is asked, the decoding) is the ``source``'s
(services/protocols), what is said of the PLC ``health``'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bus import topology
from bus.frames import Scan
from services.protocols.source import Lost, Reading, Source, User
from services.reader.doubt import Doubt
from services.reader.group import Group, Outcome
from services.reader.health import Health
from services.reader.keep import KeepClient
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process

CLOCK_INTERVAL_S = 1.0
# The panel gets full values at least so often, changed or not.
SHOW_EVERY_S = 2.0
# The panel is told of a group at most so often (its page takes news as often): at 10 scans a second
# of 16 KB a frame for each cost the metrics process 0.3 ms a scan.
LIVE_EVERY_S = 0.25
# An event names lost changes at most so often; the counter and the messages tell of each.
LOST_EVERY_S = 10.0

_NONE: Mapping[str, str] = {}

OpenSource = Callable[[Process, User], Source]


class _Job:
    """One group's scans."""

    def __init__(self, number: int, group: Group, process: Process, plc: str) -> None:
        self.number = number
        self.group = group
        self.due_s = 0.0
        self.is_asked = False
        """The answer is not there yet."""
        self.refused_whole = False
        """The PLC refuses the requests themselves, not fields of them."""
        self.shown_s = self.live_s = 0.0
        """When bodies went to the panel last; when anything did."""
        self.unshown: dict[int, bytes] = {}
        """Number of a record -> its last message that the panel has not been given."""
        self.worst_ms = 0.0
        """The longest answer since the panel was told."""
        self.quality = ""
        stats, name = process.stats, group.name
        self.duration = stats.histogram("plc_edge_scan_duration_seconds", plc=plc, group=name)
        self.overruns = stats.counter("plc_edge_scan_overruns_total", plc=plc, group=name)
        self.bad_fields = 0
        self.said = _NONE
        """What of it is refused by the PLC, as an event has told it."""
        self.hole = False
        """Changes were lost before the next reading."""
        self.lost: dict[str, int] = {}
        """Field -> changes lost that no event has told of;"""
        self.lost_count = 0
        """of all, for a source may not know of which."""
        self.lost_timer = False
        """An event was a moment ago: what is lost now is told with the next."""


class Engine:
    """Reads one PLC for ever."""

    def __init__(self, process: Process, keep: KeepClient, open_source: OpenSource) -> None:
        config = process.config
        self.process = process
        self.keep = keep
        self.plc: dict[str, Any] = config["plc"]
        self.id: str = self.plc["id"]
        groups = [Group(g, self.plc, config["site"]) for g in config["groups"]]
        self.jobs = [_Job(n, group, process, self.id) for n, group in enumerate(groups)]
        self.source = open_source(process, self)
        self.doubt = Doubt(config["clock_sync"])
        self.health = Health(process, keep, self.source, len(groups))
        self._bad = process.stats.gauge("plc_edge_fields_bad", plc=self.id)

    def start(self) -> None:
        """Registers everything with the process's loop."""
        self.health.start()
        self.process.every(CLOCK_INTERVAL_S, self._look_at_clock)
        self._look_at_clock()
        start_s = time.monotonic()
        for job in self.jobs:
            job.due_s = start_s
            self._schedule(job)
        self.source.start()

    # -- what the source tells -----------------------------------------------------------

    def connected(self) -> None:
        """Nothing that was asked before comes any more; everything is news."""
        for job in self.jobs:
            job.is_asked = job.refused_whole = False
            job.group.publish_all()

    def may_read(self) -> None:
        """A slot that is just over is read at once, not an interval later."""
        now_s = time.monotonic()
        for job in self.jobs:
            if job.due_s - job.group.scan_s <= now_s and not job.is_asked:
                self._scan(job)

    def answered(self, text: str) -> None:
        """The PLC is back."""
        self.health.clear()
        for job in self.jobs:
            job.group.move(self.source.host)
        self.process.event("info", "plc_online", f"connected: {text}", plc=self.id)
        self.health.update()

    def lost(self, error: PlcUnavailable, host: str) -> None:
        """Nothing that was asked comes back."""
        for job in self.jobs:
            job.is_asked = False
        self.health.note_lost(error, host)
        if self.source.is_switching:
            return  # the PLC is offline when none of its addresses answers
        if self.health.status != "offline":
            self._say_offline()
        self.health.update()

    def _say_offline(self) -> None:
        """A numbered message per record: downtime leaves a trace even through a broker outage."""
        stamp_ms = now_ms()
        for job in self.jobs:
            bodies = job.group.offline_bodies(stamp_ms, "plc_offline")
            job.live_s = 0.0  # no scan follows that would show it
            self._publish(job, Outcome(stamp_ms, 0.0, "bad", bodies, bodies, job.bad_fields))

    def state_changed(self) -> None:
        """Frozen values, or no longer: every record says so, changed or not."""
        self._publish_all()
        self.health.update()

    def _look_at_clock(self) -> None:
        """Values with a wrong time are no good values, though the PLC is well."""
        is_right = self.doubt.look_at_clock()
        if is_right is None:
            return
        text = "is synchronised" if is_right else "is not synchronised: values are `uncertain`"
        self.process.log.write("info" if is_right else "warning", f"this PC's clock {text}", {})
        self._publish_all()

    def _publish_all(self) -> None:
        for job in self.jobs:
            job.group.publish_all()

    # -- scans ---------------------------------------------------------------------------

    def _schedule(self, job: _Job) -> None:
        self.process.at(job.due_s, lambda: self._due(job))

    def _due(self, job: _Job) -> None:
        now_s = time.monotonic()
        if job.is_asked:
            job.overruns.inc()  # the previous scan is not back yet
        else:
            self._scan(job)
        job.due_s += job.group.scan_s
        if job.due_s <= now_s:
            missed = (now_s - job.due_s) // job.group.scan_s + 1
            job.overruns.inc(missed)
            job.due_s += missed * job.group.scan_s
        self._schedule(job)

    def _scan(self, job: _Job) -> None:
        # Before its next slot.
        job.is_asked = self.source.scan(job.number, job.due_s + job.group.scan_s)

    def complete(self, group: int, reading: Reading) -> None:
        """Makes messages of a reading."""
        job = self.jobs[group]
        now_s = time.monotonic()
        if reading.is_scan:
            job.is_asked = False
            if reading.began_s:
                self._judge(job, reading)
        doubt = reading.doubt or self.source.frozen
        if job.hole:
            # No other message tells of it; what else is doubtful, the next one says.
            job.hole, doubt = False, "changes_lost"
        doubt = doubt or self.doubt.of_time(job.group)
        self._publish(job, job.group.take(reading, doubt, now_s))
        if reading.is_scan and reading.began_s:
            done_s = time.monotonic() - reading.began_s
            job.duration.observe(done_s)
            self.health.scan_ms = done_s * 1_000
            self.health.latency_ms = reading.latency_ms

    def _judge(self, job: _Job, reading: Reading) -> None:
        """What an answer says of the PLC's health."""
        job.refused_whole = reading.failed is not None
        if reading.failed is not None:
            self.health.note_refused(*reading.failed)
            return
        self.health.note_replies(reading.requests)
        self.health.note_read()
        if self.health.has_failed and not any(j.refused_whole for j in self.jobs):
            self.health.clear()
            self.health.update()

    def changes_lost(self, group: int, lost: Lost) -> None:
        """A hole in what a subscription told."""
        job = self.jobs[group]
        job.hole = True
        name = "plc_edge_changes_lost_total"
        labels = {"plc": self.id, "group": job.group.name, "why": lost.why}
        self.process.stats.counter(name, **labels).inc(lost.count)
        job.lost_count += lost.count
        for field, count in lost.fields.items():
            job.lost[field] = job.lost.get(field, 0) + count
        if not job.lost_timer:
            self._say_lost(job)

    def _say_lost(self, job: _Job) -> None:
        job.lost_timer = job.lost_count > 0
        if not job.lost_timer:
            return
        few = dict(sorted(job.lost.items(), key=lambda pair: -pair[1])[:10])
        text = f"{job.lost_count} changes or more of group {job.group.name} were lost"
        self.process.event("warning", "changes_lost", text, plc=self.id, fields=few)
        job.lost_count, job.lost = 0, {}
        self.process.at(time.monotonic() + LOST_EVERY_S, lambda: self._say_lost(job))

    def _publish(self, job: _Job, outcome: Outcome) -> None:
        published = {id(b): self.keep.publish(outcome.ts_ms, b) for b in outcome.bodies}
        if published:
            for n, body in enumerate(outcome.shown):
                if id(body) in published:
                    job.unshown[n] = published[id(body)]
        job.worst_ms = max(job.worst_ms, outcome.latency_ms)
        now_s = time.monotonic()
        if outcome.quality != job.quality or now_s - job.live_s >= LIVE_EVERY_S:
            self._show(job, outcome, now_s)
        refused = self.source.refused(job.number) if outcome.bad_fields else _NONE
        if outcome.bad_fields != job.bad_fields or refused is not job.said:
            job.bad_fields = outcome.bad_fields
            self._bad.set(sum(j.bad_fields for j in self.jobs))
            self._say_refused(job, refused)
            self.health.update()

    def _say_refused(self, job: _Job, refused: Mapping[str, str]) -> None:
        before, job.said = job.said, refused
        if refused == before:
            return
        if refused:
            text = f"{len(refused)} fields of group {job.group.name} are refused by the PLC"
            few = dict(list(refused.items())[:10])
            self.process.event("warning", "fields_refused", text, plc=self.id, fields=few)

    def _show(self, job: _Job, outcome: Outcome, now_s: float) -> None:
        live = self.process.live
        if live is None:
            return
        bodies: list[bytes] = []
        if job.unshown or now_s - job.shown_s >= SHOW_EVERY_S:
            # What is only shown has no number: seq 0 (services/metrics/site.py).
            bodies = [
                job.unshown.get(n) or body(self.keep.epoch, 0)
                for n, body in enumerate(outcome.shown)
            ]
            job.shown_s, job.unshown = now_s, {}
        frame = Scan(
            self.id,
            self.plc["locatario"],
            job.group.name,
            outcome.ts_ms,
            self.health.scan_ms,
            job.worst_ms,
            bodies,
            outcome.quality,
        )
        job.live_s, job.worst_ms, job.quality = now_s, 0.0, outcome.quality
        live.send(frame, topology.topic("scan", self.id))

    def close(self) -> None:
        """Ends politely: the connection, then what is not acknowledged yet."""
        self.source.close()
        self.keep.close()
