"""The reader's engine: connection life, scan schedule, and what is said of them.

Polling never waits for another process. Groups are scanned at a fixed rate on the monotonic clock;
a slow group's telegrams give way to those of whoever is due first.
"""

from __future__ import annotations

import random
import time
from typing import Any

from bus import topology
from bus.frames import Heartbeat, Raw, Scan
from services.reader.group import Group, Outcome, extent
from services.reader.keep import KeepClient
from services.runtime.background import Background
from services.runtime.clock import is_trusted, now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process
from services.s7.field import Field
from services.s7.plan import Extent, Plan
from services.s7.session import JOBS_ASKED, Answer, Session

BACKOFF_S, BACKOFF_MAX_S = 0.5, 15.0
# The CPU's operating state is asked so often; a CPU in STOP answers reads with frozen data.
STATE_INTERVAL_S = 1.0
# RUN, and the states in which a redundant CPU's program runs too: RUN-R, LINK-UP, UPDATE.
RUN, RUNNING = 0x08, frozenset((0x08, 0x09, 0x0B, 0x0C))
# A station that leaves the question unanswered so often in a row is not asked again.
STATE_TRIES = 2
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
        self._background = Background(process)
        self.keep = keep
        self.plc: dict[str, Any] = config["plc"]
        self.id: str = self.plc["id"]
        self.jobs = [
            _Job(Group(g, self.plc, config["site"]), process, self.id) for g in config["groups"]
        ]
        self.session: Session | None = None
        self._watched_fd = -1
        self._proven = False
        """The PLC has answered a read on this connection."""
        self._granted: tuple[int, int] = (0, 0)
        self._attempts = 0
        self._failure: dict[str, Any] | None = None
        self._was_online = False
        self._status = ""
        self._trouble = ("", 0)
        """What else keeps the PLC from being online, and since when (Unix ms)."""
        self._cpu_state: int | None = None
        """8 RUN, 4 STOP; None: not asked yet, -1: it does not tell."""
        self._state_unanswered = 0
        """Connections in a row on which that question, once asked, was not answered."""
        self._max_items = 0
        """A limit of items in one telegram that this PLC has shown; 0: only the PDU's."""
        self._cut_at = 0
        self._clock_sync: str = config["clock_sync"]
        self._clock_is_right = True
        self._alive = _Alive(self.plc["alive"]) if self.plc["alive"] else None
        if self._alive is not None:
            # A consistent group must fit one telegram: it had better be another.
            host = next((j for j in self.jobs if not j.group.consistent), self.jobs[0])
            host.group.also_read(self._alive.extent)
        self._scan_ms = self._latency_ms = 0.0
        self._reads_ok = self._reads_failed = 0
        stats = process.stats
        self._up = stats.gauge("plc_edge_plc_up", plc=self.id)
        self._bad = stats.gauge("plc_edge_fields_bad", plc=self.id)
        self._reconnects = stats.counter("plc_edge_reconnects_total", plc=self.id)
        name = "plc_edge_read_requests_total"
        self._ok = stats.counter(name, plc=self.id, result="ok")
        self._failed = stats.counter(name, plc=self.id, result="failed")
        self._beats = process.bus.connect("beats")
        raw = any(job.group.raw_range is not None for job in self.jobs)
        self._raw = process.bus.bind("raw", self.id) if raw else None

    def start(self) -> None:
        """Registers everything with the process's loop."""
        self.process.every(self.plc["heartbeat_s"], self._heartbeat)
        self.process.every(min(0.5, self.plc["timeout_s"] / 4), self._check_timeout)
        self.process.every(STATE_INTERVAL_S, self._ask_state)
        self.process.every(CLOCK_INTERVAL_S, self._look_at_clock)
        self._look_at_clock()
        start_s = time.monotonic()
        for job in self.jobs:
            job.due_s = start_s
            self._schedule(job)
        self.process.at(start_s, self._connect)

    # -- connection life -----------------------------------------------------------------

    def _connect(self) -> None:
        """Beside the loop: a name server or a PLC that does not answer holds up nothing else."""
        plc = self.plc
        jobs = plc["parallel_jobs"]
        self._background.run(
            lambda: Session(
                plc["host"],
                plc["port"],
                (plc["local_tsap"], plc["remote_tsap"]),
                pdu_bytes=plc["pdu"],
                jobs=JOBS_ASKED if jobs == "auto" else jobs,
                timeout_s=plc["timeout_s"],
            ),
            self._connected,
        )

    def _connected(self, session: Session | Exception) -> None:
        if isinstance(session, PlcUnavailable):
            self._lost(session)
            return
        if isinstance(session, Exception):
            raise session
        self.session = session
        self._proven = False
        self._cpu_state = None if self._state_unanswered < STATE_TRIES else -1
        granted = (session.pdu_bytes, session.jobs)
        if self._granted not in ((0, 0), granted):
            text = "the PLC grants another PDU or another number of jobs than before"
            self.process.event("warning", "plc_changed", text, plc=self.id, was=self._granted,
                               now=granted)  # fmt: skip
        self._granted = granted
        if self._attempts or self._was_online:
            self._reconnects.inc()
        for job in self.jobs:
            job.rounds = 0
            job.refused_whole = False
            job.group.reset()
            if not self._plan_first(job):
                return
        self._watched_fd = session.fileno()
        self.process.on_readable(self._watched_fd, self._receive)
        self._ask_state()
        now_s = time.monotonic()
        for job in self.jobs:
            # A slot that is just over is read at once, not an interval later.
            if job.due_s - job.group.scan_s <= now_s:
                self._scan(job)

    def _plan(self, job: _Job) -> None:
        """Plans a group for the granted PDU."""
        assert self.session is not None
        job.plan = job.group.make_plan(self.session.pdu_bytes, self._max_items)

    def _plan_first(self, job: _Job) -> bool:
        """Plans a group for a new connection; drops it where that is impossible."""
        assert self.session is not None
        self._plan(job)
        if job.group.consistent and len(job.plan.telegrams) > 1:
            message = f"group {job.group.name} is `consistent` but needs {len(job.plan.telegrams)}"
            message += f" telegrams at the granted PDU of {self.session.pdu_bytes}"
            self._lost(PlcUnavailable("pdu_too_small", message))
            return False
        job.group.map_records()
        return True

    def _answered(self) -> None:
        """The first reply to a read: only now it is known that the PLC is back (some accept a
        connection and then reset it, or are silent).
        """
        assert self.session is not None
        self._proven = True
        self._attempts = 0
        self._failure = None
        self._was_online = True
        text = f"connected: PDU {self.session.pdu_bytes}, {self.session.jobs} jobs"
        self.process.event("info", "plc_online", text, plc=self.id)
        self._set_status()
        self._ask_state()

    def _lost(self, error: PlcUnavailable) -> None:
        """The connection is gone or could not be made: say so once, try again later."""
        if error.fields.get("to_state") and self._cpu_state is None:
            self._state_unanswered += 1
        if error.code == "items_cut":
            # Seen with library servers (20 items): plan for what it answers. Once may be a fault,
            # and a low limit costs time for ever; twice at the same count is a limit.
            if self._cut_at == error.fields["items"]:
                self._max_items = self._cut_at
            self._cut_at = error.fields["items"]
        if self.session is not None:
            # By number: a broken session has closed its socket, and a poll of a closed one would
            # return at once for ever.
            self.process.forget(self._watched_fd)
            self.session.close()
            self.session = None
        self._attempts += 1
        self._reads_failed += 1
        self._failed.inc()
        for job in self.jobs:
            job.answer = job.retry = None
        if self._failure is None or self._failure["code"] != error.code:
            self.process.event("error", error.code, error.message, plc=self.id)
            since = self._failure["since"] if self._failure else now_ms()
            self._failure = {"code": error.code, "message": error.message, "since": since}
        self._failure["attempts"] = self._attempts
        if self._status != "offline":
            self._say_offline()
        self._set_status()
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(10, self._attempts - 1))
        # Jitter: fifty readers of one switch must not come back in step.
        delay_s = backoff_s * random.uniform(0.5, 1.0)
        self.process.at(time.monotonic() + delay_s, self._connect)

    def _say_offline(self) -> None:
        """A numbered message per record: downtime leaves a trace even through a broker outage."""
        stamp_ms = now_ms()
        for job in self.jobs:
            bodies = job.group.offline_bodies(stamp_ms, "plc_offline")
            job.live_s = 0.0  # no scan follows that would show it
            self._publish(job, Outcome(stamp_ms, 0.0, "bad", bodies, bodies, job.bad_fields))
            if job.group.raw_range is not None:
                self._send_raw(job, b"", stamp_ms, "bad")

    def _receive(self) -> None:
        if self.session is None:
            return
        try:
            for answer in self.session.receive():
                self._complete(answer)
        except PlcUnavailable as e:
            self._lost(e)

    def _check_timeout(self) -> None:
        if self.session is None:
            return
        try:
            self.session.check_timeout()
        except PlcUnavailable as e:
            self._lost(e)

    def _ask_state(self) -> None:
        if self.session is None or self._cpu_state == -1:
            return
        if self._state_unanswered and not self._proven:
            return  # perhaps it was not the question: this time a read must be answered first
        try:
            self.session.ask_state(self._take_state)
        except PlcUnavailable as e:
            self._lost(e)

    def _take_state(self, state: int | None) -> None:
        before = self._cpu_state
        # -1: the CPU refuses to tell; asking on would fill its diagnostics.
        self._cpu_state = -1 if state is None else state
        self._state_unanswered = 0
        if self._cpu_state == before:
            return
        runs = state in RUNNING
        if self._cpu_state >= 0 and (before is not None or not runs):
            text = "the CPU runs" if runs else "the CPU is in STOP: its data is frozen"
            level, code = ("info", "cpu_run") if runs else ("warning", "cpu_stop")
            self.process.event(level, code, text, plc=self.id)
            for job in self.jobs:
                job.group.publish_all()
        self._set_status()

    def _look_at_clock(self) -> None:
        """Values with a wrong time are no good values, though the PLC is well."""
        is_right = is_trusted(self._clock_sync)
        if is_right == self._clock_is_right:
            return
        self._clock_is_right = is_right
        text = "is synchronised" if is_right else "is not synchronised: values are `uncertain`"
        self.process.log.write("info" if is_right else "warning", f"this PC's clock {text}", {})
        for job in self.jobs:
            job.group.publish_all()

    @property
    def _uncertain(self) -> str:
        """Why the data may be frozen; empty when it is not."""
        state = self._cpu_state
        if state is not None and state >= 0 and state not in RUNNING:
            return "cpu_stop"
        if self._cpu_state == -1 and self._alive is not None and self._alive.is_stale:
            return "alive_stale"
        return ""

    def _clock_doubt(self, job: _Job) -> str:
        """Why the time of a group's values may be wrong; empty when it is the PLC's time, or
        nobody minds.
        """
        is_ours = not job.group.has_plc_time
        return "clock_unsynchronised" if is_ours and not self._clock_is_right else ""

    # -- scans ---------------------------------------------------------------------------

    def _schedule(self, job: _Job) -> None:
        self.process.at(job.due_s, lambda: self._due(job))

    def _due(self, job: _Job) -> None:
        now_s = time.monotonic()
        if job.answer is not None:
            job.overruns.inc()  # the previous scan is not back yet
        elif self.session is not None:
            self._scan(job)
        job.due_s += job.group.scan_s
        if job.due_s <= now_s:
            missed = (now_s - job.due_s) // job.group.scan_s + 1
            job.overruns.inc(missed)
            job.due_s += missed * job.group.scan_s
        self._schedule(job)

    def _scan(self, job: _Job) -> None:
        session = self.session
        if session is None or job.answer is not None:
            return
        self._take_retry(job)
        if job.group.replan_needed:
            self._plan(job)
        if not job.plan.telegrams:
            self._all_refused(job)
        else:
            image = bytearray(job.plan.image_bytes)
            # Earliest deadline first: what is due before its next slot.
            deadline_s = job.due_s + job.group.scan_s
            job.answer = Answer(job.plan.telegrams, image, deadline_s)
        retry = job.group.retry_plan(session.pdu_bytes, self._max_items, time.monotonic())
        try:
            if job.answer is not None:
                session.submit(job.answer)
            if retry is not None and self.session is session:
                answer = Answer(retry.telegrams, bytearray(retry.image_bytes), float("inf"))
                job.retry = (retry, answer)
                session.submit(answer)
            self._receive()
        except PlcUnavailable as e:
            self._lost(e)

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
        why = self._uncertain or self._clock_doubt(job)
        outcome = job.group.decode(b"", {}, now_ms(), 0.0, why, time.monotonic())
        self._publish(job, outcome)

    def _complete(self, answer: Answer) -> None:
        job = next((j for j in self.jobs if j.answer is answer), None)
        if job is None:
            return  # what a group asked for again: `_take_retry`
        job.answer = None
        if not self._proven:
            self._answered()
            if self.session is None:
                return  # and lost again
        now_s = time.monotonic()
        latency_s = answer.done_s - answer.sent_s
        # The midpoint of request and response.
        ts_ms = now_ms() - round((now_s - answer.done_s + latency_s / 2) * 1_000)
        job.refused_whole = answer.failed is not None
        if answer.failed is not None:
            # Refused as a whole (PUT/GET not permitted, wrong password): says nothing of items.
            reason = answer.failed.code
            missing = job.group.all_missing(reason)
            self._failed.inc()
            self._reads_failed += 1
            self._set_failure(reason, answer.failed.message)
        else:
            missing, halved = job.group.note_refused(answer.codes)
            self._ok.inc(len(answer.telegrams))
            if halved and job.rounds < ROUNDS_MAX:
                # Which field is it? Read again at once, in halves, before anything is published:
                # a refused field's neighbours are not missing for a moment.
                job.rounds += 1
                self._scan(job)
                return
            self._reads_ok += 1
            if self._failure is not None and not any(j.refused_whole for j in self.jobs):
                self._failure = None
                self._set_status()
        job.rounds = 0
        image = bytes(answer.image)
        if self._alive is not None:
            self._alive.look(job, image, missing, now_s)
        uncertain = self._uncertain
        if job.group.consistent and len(answer.telegrams) > 1:
            uncertain = "not_consistent"  # a refused field has split its block
        doubt = uncertain or self._clock_doubt(job)
        outcome = job.group.decode(image, missing, ts_ms, latency_s * 1_000, doubt, now_s)
        self._publish(job, outcome)
        if job.group.raw_range is not None:
            data = b"" if uncertain or answer.failed else job.group.raw(image, missing)
            self._send_raw(job, data, ts_ms, "good" if data else "bad")
        done_s = time.monotonic() - answer.sent_s
        job.duration.observe(done_s)
        self._scan_ms = done_s * 1_000
        self._latency_ms = latency_s * 1_000

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
            self._set_status()

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
            self._scan_ms,
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

    # -- what is said of it --------------------------------------------------------------

    def _set_failure(self, code: str, message: str) -> None:
        if self._failure is None or self._failure["code"] != code:
            self._failure = {"code": code, "message": message, "since": now_ms(), "attempts": 0}
            self.process.event("error", code, message, plc=self.id)
            self._set_status()
        self._failure["attempts"] += 1

    def _set_status(self) -> None:
        if self.session is None or not self._proven:
            status = "offline"
        elif self._failure or self._uncertain or any(j.group.refused for j in self.jobs):
            status = "degraded"
        else:
            status = "online"
        self._up.set(status != "offline")
        if status != self._status:
            self._status = status
            if status == "online":
                self._trouble = ("", 0)
            self._heartbeat()

    def _failure_now(self) -> dict[str, Any] | None:
        if self._status == "online":
            return None
        if self._failure is not None:
            return self._failure
        code, message = self._trouble_now()
        if code != self._trouble[0]:
            self._trouble = (code, now_ms())
        return {"code": code, "message": message, "since": self._trouble[1], "attempts": 0}

    def _trouble_now(self) -> tuple[str, str]:
        if self._status != "degraded":
            return "connecting", "the PLC has not answered yet"
        if self._uncertain == "cpu_stop":
            return "cpu_stop", "the CPU is in STOP: its data is frozen"
        if self._uncertain:
            return self._uncertain, "the `alive` field does not change: does the program run?"
        refused = sum(len(j.group.refused) for j in self.jobs)
        return "fields_refused", f"{refused} fields are refused by the PLC"

    def _heartbeat(self) -> None:
        frame = Heartbeat(
            self.id,
            self.plc["locatario"],
            self.plc["host"],
            now_ms(),
            self.plc["heartbeat_s"],
            self._status or "offline",
            round(self._scan_ms, 2),
            round(self._latency_ms, 2),
            self._reads_ok,
            self._reads_failed,
            round(time.monotonic() - self.process.started_s, 1),
            self.keep.pending,
            self._failure_now(),
        )
        topic = topology.topic("beat", self.id)
        self._beats.send(frame, topic)
        if self.process.live is not None:
            self.process.live.send(frame, topic)

    def close(self) -> None:
        """Ends politely: the connection, then what is not acknowledged yet."""
        if self.session is not None:
            self.session.close()
        self.keep.close()


class _Alive:
    """A field that the PLC's program changes, for CPUs that do not tell their state."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._field = Field.from_dict(config["address"])
        self._timeout_s: float = config["timeout_s"]
        self._value = b""
        self._changed_s = time.monotonic()

    @property
    def extent(self) -> Extent:
        """Its bytes."""
        return extent(self._field)

    def look(self, job: _Job, image: bytes, missing: dict[Extent, str], now_s: float) -> None:
        """Takes the field's value where this group reads it."""
        f = self._field
        try:
            place = job.plan.place(self.extent)
        except KeyError:
            return
        if self.extent in missing:
            return
        # Bytes, not values: a NaN never equals itself.
        part = image[place : place + f.size_bytes]
        value = bytes((part[0] >> f.bit & 1,)) if f.s7_type.base == "BOOL" else part
        if value != self._value:
            self._value = value
            self._changed_s = now_s

    @property
    def is_stale(self) -> bool:
        """It has not changed for its timeout."""
        return time.monotonic() - self._changed_s > self._timeout_s
