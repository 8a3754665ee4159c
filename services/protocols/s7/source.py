"""A PLC read by absolute addresses: the plan of each group, who is asked again, what came."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bus import topology
from bus.frames import Raw
from services.protocols.s7.alive import Alive
from services.protocols.s7.group import S7Group
from services.protocols.s7.link import Link
from services.protocols.source import Reading, User
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process
from services.s7.plan import Plan
from services.s7.session import Answer, Session

# Each round halves what the PLC refused, so 2^20 fields are told apart.
ROUNDS_MAX = 20


def open_source(process: Process, user: User) -> S7Source:
    """The source of ``process.config``'s PLC."""
    return S7Source(process, user)


class _Job:
    """One group's scans."""

    def __init__(self, number: int, group: S7Group) -> None:
        self.number = number
        self.group = group
        self.answer: Answer | None = None
        self.deadline_s = 0.0
        self.retry: tuple[Plan, Answer] | None = None
        self.rounds = 0
        """How often this scan was begun again to find what the PLC refuses."""
        self.requests = 0
        """Answered of this scan, in all rounds."""

    def drop(self) -> None:
        """Nothing that was asked comes back."""
        self.answer = self.retry = None
        self.rounds = self.requests = 0


class S7Source:
    """services/protocols/source.py, by S7's read requests."""

    def __init__(self, process: Process, user: User) -> None:
        config = process.config
        plc = config["plc"]
        self.jobs = [_Job(n, S7Group(group)) for n, group in enumerate(config["groups"])]
        self.link = Link(process, plc, self)
        groups = [job.group for job in self.jobs]
        self._user = user
        self._id: str = plc["id"]
        self._alive = Alive(plc["alive"], groups) if plc["alive"] else None
        raw = any(group.raw_range is not None for group in groups)
        self._raw = process.bus.bind("raw", plc["id"]) if raw else None
        self._is_told_offline = False
        """Mirrors know that nothing comes."""

    # -- what the engine asks ------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address that was read last."""
        return self.link.attempts.host

    @property
    def is_proven(self) -> bool:
        """The PLC has answered a read on this connection."""
        return self.link.is_proven

    @property
    def is_switching(self) -> bool:
        """One address is lost, and another is tried at once."""
        return self.link.attempts.is_switching

    @property
    def attempts(self) -> int:
        """Connections that were lost or not made, since the last proven one."""
        return self.link.attempts.count

    @property
    def frozen(self) -> str:
        """Why the data may be frozen; empty when it is not."""
        if self.link.is_stopped:
            return "cpu_stop"
        if self.link.cpu_state == -1 and self._alive is not None and self._alive.is_stale:
            return "alive_stale"
        return ""

    def refused(self, group: int) -> Mapping[str, str]:
        """What the PLC refuses of a group: ``DB1.4`` -> why."""
        return self.jobs[group].group.refused_places()

    def start(self) -> None:
        """Connects in a later turn of the loop."""
        self.link.start()

    def close(self) -> None:
        """Drops the connection."""
        self.link.close()

    def scan(self, group: int, deadline_s: float) -> bool:
        """Asks for a group's bytes. Earliest deadline first: a slow group's telegrams give way."""
        session = self.link.session
        if session is None:
            return False
        job = self.jobs[group]
        job.deadline_s = deadline_s
        self._ask(job, session)
        return job.answer is not None

    # -- what the link tells -------------------------------------------------------------

    def connected(self, session: Session) -> None:
        """Plans every group for what this connection grants."""
        for job in self.jobs:
            job.drop()
            job.group.reset()
            self._plan_first(job.group, session)
        self._user.connected()

    def _plan(self, group: S7Group, session: Session) -> None:
        group.make_plan(session.pdu_bytes, self.link.max_items)

    def _plan_first(self, group: S7Group, session: Session) -> None:
        """Plans a group for a new connection. Raises PlcUnavailable where that is impossible."""
        self._plan(group, session)
        if group.consistent and len(group.plan.telegrams) > 1:
            message = f"group {group.name} is `consistent` but needs {len(group.plan.telegrams)}"
            message += f" telegrams at the granted PDU of {session.pdu_bytes}"
            raise PlcUnavailable("pdu_too_small", message)
        group.map_records()

    def may_read(self) -> None:
        """The connection is watched: reads may go out."""
        self._user.may_read()

    def answered(self, session: Session) -> None:
        """The PLC is back."""
        self._is_told_offline = False
        self._user.answered(f"PDU {session.pdu_bytes}, {session.jobs} jobs")

    def lost(self, error: PlcUnavailable, host: str) -> None:
        """Nothing that was asked comes back."""
        for job in self.jobs:
            job.drop()
        self._user.lost(error, host)
        if not self.is_switching and not self._is_told_offline:
            self._is_told_offline = True
            for job in self.jobs:
                self._send_raw(job.group, b"", now_ms())

    def state_changed(self) -> None:
        """The CPU has stopped, or runs again."""
        self._user.state_changed()

    # -- scans ---------------------------------------------------------------------------

    def _ask(self, job: _Job, session: Session) -> None:
        self._take_retry(job)
        if job.group.replan_needed:
            self._plan(job.group, session)
        plan = job.group.plan
        if not plan.telegrams:
            # Nothing of the group can be asked: say so as often as it would have been read.
            job.rounds = job.requests = 0
            records = job.group.records(b"", {})
            self._user.complete(job.number, Reading(records, now_ms(), requests=0))
        else:
            job.answer = Answer(plan.telegrams, bytearray(plan.image_bytes), job.deadline_s)
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

    def complete(self, answer: Answer) -> None:
        """Makes a reading of a scan, or reads it again to find what is refused."""
        job = next((j for j in self.jobs if j.answer is answer), None)
        if job is None:
            return  # what a group asked for again: `_take_retry`
        job.answer = None
        group = job.group
        now_s = time.monotonic()
        latency_s = answer.done_s - answer.sent_s
        # The midpoint of request and response.
        ts_ms = now_ms() - round((now_s - answer.done_s + latency_s / 2) * 1_000)
        failed = None
        if answer.failed is not None:
            # Refused as a whole (PUT/GET not permitted, wrong password): says nothing of items.
            failed = (answer.failed.code, answer.failed.message)
            missing = group.all_missing(failed[0])
        else:
            missing, halved = group.note_refused(answer.codes)
            job.requests += len(answer.telegrams)
            if halved and job.rounds < ROUNDS_MAX:
                # Which field is it? Read again at once, in halves, before anything is published:
                # a refused field's neighbours are not missing for a moment.
                job.rounds += 1
                if self.link.session is not None:
                    self._ask(job, self.link.session)
                return
        requests, job.requests, job.rounds = job.requests, 0, 0
        image = bytes(answer.image)
        if self._alive is not None:
            self._alive.look(group, image, missing, now_s)
        doubt = ""
        if group.consistent and len(answer.telegrams) > 1:
            doubt = "not_consistent"  # a refused field has split its block
        records = group.records(image, missing)
        latency_ms = latency_s * 1_000
        self._user.complete(
            job.number,
            Reading(records, ts_ms, latency_ms, answer.sent_s, requests, failed, doubt),
        )
        if group.raw_range is not None:
            is_good = not (failed or doubt or self.frozen)
            self._send_raw(group, group.raw(image, missing) if is_good else b"", ts_ms)

    def _send_raw(self, group: S7Group, data: bytes, ts_ms: int) -> None:
        """The bytes as they lie, for mirrors; empty where they are not to be copied."""
        if self._raw is None or group.raw_range is None:
            return
        start, quality = group.raw_range[0], "good" if data else "bad"
        frame = Raw(self._id, group.name, group.db or 0, start, data, ts_ms, quality)
        self._raw.send(frame, topology.topic("raw", group.name))
