"""The reader's engine: the scan schedule, and what becomes of each scan.

Polling never waits for another process. Groups are scanned at a fixed rate on the monotonic clock;
a slow group's telegrams give way to those of whoever is due first. The connection is ``link``'s,
what is said of the PLC ``health``'s.
"""

from __future__ import annotations

import time
from typing import Any

from bus import topology
from bus.frames import Raw, Scan
from services.reader.doubt import Doubt
from services.reader.group import Group, Outcome
from services.reader.health import Health
from services.reader.keep import KeepClient
from services.reader.link import Link
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process
from services.s7.plan import Extent, Plan
from services.s7.session import Answer, Session

CLOCK_INTERVAL_S = 1.0
# Each round halves what the PLC refused, so 2^20 fields are told apart.
ROUNDS_MAX = 20
# The panel gets full values at least so often, changed or not.
SHOW_EVERY_S = 2.0
# The panel is told of a group at most so often (its page takes news as often): at 10 scans a second
# of 16 KB a frame for each cost the metrics process 0.3 ms a scan.
LIVE_EVERY_S = 0.25


class _Job:
    """One group's scans."""

    def __init__(self, group: Group, process: Process, plc: str) -> None:
        self.group = group
        self.due_s = 0.0
        self.answer: Answer | None = None
        self.plan = Plan([], [], 0)
        self.retry: tuple[Plan, Answer] | None = None
        self.rounds = 0
        """How often this scan was begun again to find what the PLC refuses."""
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
        self.said: dict[Extent, str] = {}


class Engine:
    """Reads one PLC for ever."""

    def __init__(self, process: Process, keep: KeepClient) -> None:
        config = process.config
        self.process = process
        self.keep = keep
        self.plc: dict[str, Any] = config["plc"]
        self.id: str = self.plc["id"]
        groups = [Group(g, self.plc, config["site"]) for g in config["groups"]]
        self.jobs = [_Job(group, process, self.id) for group in groups]
        self.link = Link(process, self.plc, self)
        self.doubt = Doubt(config, self.link, groups)
        self.health = Health(process, keep, self.link, self.doubt, groups)
        self._bad = process.stats.gauge("plc_edge_fields_bad", plc=self.id)
        raw = any(group.raw_range is not None for group in groups)
        self._raw = process.bus.bind("raw", self.id) if raw else None

    def start(self) -> None:
        """Registers everything with the process's loop."""
        self.health.start()
        self.process.every(CLOCK_INTERVAL_S, self._look_at_clock)
        self._look_at_clock()
        start_s = time.monotonic()
        for job in self.jobs:
            job.due_s = start_s
            self._schedule(job)
        self.link.start()

    # -- what the link tells -------------------------------------------------------------

    def connected(self, session: Session) -> None:
        """Plans every group for what this connection grants."""
        for job in self.jobs:
            job.answer = job.retry = None
            job.rounds = 0
            job.refused_whole = False
            job.group.reset()
            self._plan_first(job, session)

    def _plan(self, job: _Job, session: Session) -> None:
        job.plan = job.group.make_plan(session.pdu_bytes, self.link.max_items)

    def _plan_first(self, job: _Job, session: Session) -> None:
        """Plans a group for a new connection. Raises PlcUnavailable where that is impossible."""
        self._plan(job, session)
        if job.group.consistent and len(job.plan.telegrams) > 1:
            message = f"group {job.group.name} is `consistent` but needs {len(job.plan.telegrams)}"
            message += f" telegrams at the granted PDU of {session.pdu_bytes}"
            raise PlcUnavailable("pdu_too_small", message)
        job.group.map_records()

    def may_read(self) -> None:
        """A slot that is just over is read at once, not an interval later."""
        now_s = time.monotonic()
        for job in self.jobs:
            if job.due_s - job.group.scan_s <= now_s:
                self._scan(job)

    def answered(self, session: Session) -> None:
        """The PLC is back."""
        self.health.clear()
        for job in self.jobs:
            job.group.move(session.host)
        text = f"connected: PDU {session.pdu_bytes}, {session.jobs} jobs"
        self.process.event("info", "plc_online", text, plc=self.id)
        self.health.update()

    def lost(self, error: PlcUnavailable, host: str) -> None:
        """Nothing that was asked comes back."""
        for job in self.jobs:
            job.answer = job.retry = None
        self.health.note_lost(error, host)
        if self.link.is_switching:
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
            if job.group.raw_range is not None:
                self._send_raw(job, b"", stamp_ms, "bad")

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
        if job.answer is not None:
            job.overruns.inc()  # the previous scan is not back yet
        elif self.link.session is not None:
            self._scan(job)
        job.due_s += job.group.scan_s
        if job.due_s <= now_s:
            missed = (now_s - job.due_s) // job.group.scan_s + 1
            job.overruns.inc(missed)
            job.due_s += missed * job.group.scan_s
        self._schedule(job)

    def _scan(self, job: _Job) -> None:
        session = self.link.session
        if session is None or job.answer is not None:
            return
        self._take_retry(job)
        if job.group.replan_needed:
            self._plan(job, session)
        if not job.plan.telegrams:
            self._all_refused(job)
        else:
            image = bytearray(job.plan.image_bytes)
            # Earliest deadline first: what is due before its next slot.
            deadline_s = job.due_s + job.group.scan_s
            job.answer = Answer(job.plan.telegrams, image, deadline_s)
        retry = job.group.retry_plan(session.pdu_bytes, self.link.max_items, time.monotonic())
        try:
            if job.answer is not None:
                session.submit(job.answer)
            if retry is not None and self.link.session is session:
                answer = Answer(retry.telegrams, bytearray(retry.image_bytes), float("inf"))
                job.retry = (retry, answer)
                session.submit(answer)
            self.link.receive()
        except PlcUnavailable as e:
            self.link.lost(e)

    def _take_retry(self, job: _Job) -> None:
        """Learns what the PLC gives again: between scans, for one under way does not bring it, and
        its message must name it in ``bad``.
        """
        if job.retry is None or job.retry[1].left:
            return
        plan, answer = job.retry
        job.retry = None
        if answer.failed is None:
            job.group.note_retry(plan, answer.codes)

    def _all_refused(self, job: _Job) -> None:
        """Nothing of the group can be asked: say so as often as it would have been read."""
        why = self.doubt.of_values or self.doubt.of_time(job.group)
        outcome = job.group.decode(b"", {}, now_ms(), 0.0, why, time.monotonic())
        self._publish(job, outcome)

    def complete(self, answer: Answer) -> None:
        """Makes messages of a scan, or reads it again to find what is refused."""
        job = next((j for j in self.jobs if j.answer is answer), None)
        if job is None:
            return  # what a group asked for again: `_take_retry`
        job.answer = None
        now_s = time.monotonic()
        latency_s = answer.done_s - answer.sent_s
        # The midpoint of request and response.
        ts_ms = now_ms() - round((now_s - answer.done_s + latency_s / 2) * 1_000)
        job.refused_whole = answer.failed is not None
        if answer.failed is not None:
            # Refused as a whole (PUT/GET not permitted, wrong password): says nothing of items.
            reason = answer.failed.code
            missing = job.group.all_missing(reason)
            self.health.note_refused(reason, answer.failed.message)
        else:
            missing, halved = job.group.note_refused(answer.codes)
            self.health.note_replies(len(answer.telegrams))
            if halved and job.rounds < ROUNDS_MAX:
                # Which field is it? Read again at once, in halves, before anything is published:
                # a refused field's neighbours are not missing for a moment.
                job.rounds += 1
                self._scan(job)
                return
            self.health.note_read()
            if self.health.has_failed and not any(j.refused_whole for j in self.jobs):
                self.health.clear()
                self.health.update()
        job.rounds = 0
        image = bytes(answer.image)
        self.doubt.look_at(job.plan, image, missing, now_s)
        uncertain = self.doubt.of_values
        if job.group.consistent and len(answer.telegrams) > 1:
            uncertain = "not_consistent"  # a refused field has split its block
        doubt = uncertain or self.doubt.of_time(job.group)
        outcome = job.group.decode(image, missing, ts_ms, latency_s * 1_000, doubt, now_s)
        self._publish(job, outcome)
        if job.group.raw_range is not None:
            data = b"" if uncertain or answer.failed else job.group.raw(image, missing)
            self._send_raw(job, data, ts_ms, "good" if data else "bad")
        done_s = time.monotonic() - answer.sent_s
        job.duration.observe(done_s)
        self.health.scan_ms = done_s * 1_000
        self.health.latency_ms = latency_s * 1_000

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
        if outcome.bad_fields != job.bad_fields:
            job.bad_fields = outcome.bad_fields
            self._bad.set(sum(j.bad_fields for j in self.jobs))
            self._say_bad(job)
            self.health.update()

    def _say_bad(self, job: _Job) -> None:
        if job.group.refused == job.said:
            return
        job.said = dict(job.group.refused)
        if job.said:
            places = {f"{e.area}{e.db or ''}.{e.start}": r for e, r in job.said.items()}
            text = f"{len(places)} fields of group {job.group.name} are refused by the PLC"
            few = dict(list(places.items())[:10])
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

    def _send_raw(self, job: _Job, data: bytes, ts_ms: int, quality: str) -> None:
        if self._raw is None or job.group.raw_range is None:
            return
        start = job.group.raw_range[0]
        frame = Raw(self.id, job.group.name, job.group.db or 0, start, data, ts_ms, quality)
        self._raw.send(frame, topology.topic("raw", job.group.name))

    def close(self) -> None:
        """Ends politely: the connection, then what is not acknowledged yet."""
        self.link.close()
        self.keep.close()
