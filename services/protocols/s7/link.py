"""The connection to one PLC: made, watched, lost and made again, for ever.

A PLC with several addresses (the two CPUs of an S7-400H) is read at one of them. Where that one is
lost the next is tried at once; where its CPU stops, one that runs is looked for beside the loop, so
that nothing is given up for a CPU that is no better.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from services.protocols.attempts import Attempts
from services.runtime.background import Background
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process
from services.s7.handshake import connections_full
from services.s7.session import JOBS_ASKED, Answer, Session
from services.s7.telegram import RUNNING

# The CPU's operating state is asked so often; a CPU in STOP answers reads with frozen data.
STATE_INTERVAL_S = 1.0
# A station that leaves the question unanswered so often in a row is not asked again.
STATE_TRIES = 2
# While the CPU is in STOP, the PLC's other addresses are looked at so often.
SEEK_S = 15.0


class User(Protocol):
    """Who reads over the link."""

    def connected(self, session: Session) -> None:
        """A new connection. Raises PlcUnavailable where nothing can be read over it."""

    def may_read(self) -> None:
        """The connection is watched: reads may go out."""

    def answered(self, session: Session) -> None:
        """The PLC has answered the first read on this connection."""

    def complete(self, answer: Answer) -> None:
        """A scan's replies are all here."""

    def lost(self, error: PlcUnavailable, host: str) -> None:
        """The connection to ``host`` is gone, or could not be made: nothing in flight comes
        back.
        """

    def state_changed(self) -> None:
        """The CPU has told another state than before."""


class Link:
    """One PLC's connection and its CPU's state."""

    def __init__(self, process: Process, plc: dict[str, Any], user: User) -> None:
        self.session: Session | None = None
        self.is_proven = False
        """The PLC has answered a read on this connection."""
        self.attempts = Attempts(plc["hosts"])
        self.cpu_state: int | None = None
        """8 RUN, 4 STOP; None: not asked yet, -1: it does not tell."""
        self.max_items = 0
        """A limit of items in one telegram that this PLC has shown; 0: only the PDU's."""
        self._process = process
        self._background = Background(process)
        self._plc = plc
        self._user = user
        self._hosts: list[str] = plc["hosts"]
        self._seek_due_s = 0.0
        self._seeking = False
        self._watched_fd = -1
        self._granted: tuple[int, int] = (0, 0)
        self._state_unanswered = 0
        """Connections in a row on which that question, once asked, was not answered."""
        self._cut_at = 0
        self._reconnects = process.stats.counter("plc_edge_reconnects_total", plc=plc["id"])

    def start(self) -> None:
        """Registers with the process's loop; connects in its first turn."""
        self._process.every(min(0.5, self._plc["timeout_s"] / 4), self._check_timeout)
        self._process.every(STATE_INTERVAL_S, self._ask_state)
        self._process.at(time.monotonic(), self._connect)

    @property
    def is_stopped(self) -> bool:
        """The CPU tells its state, and its program does not run."""
        state = self.cpu_state
        return state is not None and state >= 0 and state not in RUNNING

    def _open(self, host: str) -> Session:
        plc = self._plc
        jobs = plc["parallel_jobs"]
        return Session(
            host,
            plc["port"],
            (plc["local_tsap"], plc["remote_tsap"]),
            pdu_bytes=plc["pdu"],
            jobs=JOBS_ASKED if jobs == "auto" else jobs,
            timeout_s=plc["timeout_s"],
        )

    def _connect(self) -> None:
        """Beside the loop: a name server or a PLC that does not answer holds up nothing else."""
        host = self.attempts.tried
        self._background.run(lambda: self._open(host), self._connected)

    def _connected(self, session: Session | Exception) -> None:
        if isinstance(session, PlcUnavailable):
            tried = self.attempts.tried
            if session.code == "refused_by_cpu" and tried in self.attempts.served:
                # Rack, slot and TSAP were right before: what is missing is room.
                why = "refuses a connection that it has given before (or is starting)"
                session = connections_full(tried, self._plc["port"], why)
            self.lost(session)
            return
        if isinstance(session, Exception):
            raise session
        self._adopt(session)

    def _adopt(self, session: Session) -> None:
        self.session = session
        self.cpu_state = None if self._state_unanswered < STATE_TRIES else -1
        granted = (session.pdu_bytes, session.jobs)
        if self._granted not in ((0, 0), granted):
            text = "the PLC grants another PDU or another number of jobs than before"
            self._process.event("warning", "plc_changed", text, plc=self._plc["id"],
                                was=self._granted, now=granted)  # fmt: skip
        self._granted = granted
        if self.attempts.is_again:
            self._reconnects.inc()
        try:
            self._user.connected(session)
        except PlcUnavailable as e:
            self.lost(e)
            return
        self._watched_fd = session.fileno()
        self._process.on_readable(self._watched_fd, self.receive)
        self._ask_state()
        self._user.may_read()

    def lost(self, error: PlcUnavailable) -> None:
        """The connection is gone or could not be made: try again later."""
        if error.fields.get("to_state") and self.cpu_state is None:
            self._state_unanswered += 1
        if error.code == "items_cut":
            # Seen with library servers (20 items): plan for what it answers. Once may be a fault,
            # and a low limit costs time for ever; twice at the same count is a limit.
            if self._cut_at == error.fields["items"]:
                self.max_items = self._cut_at
            self._cut_at = error.fields["items"]
        self._drop()
        now_s = time.monotonic()
        self.attempts.failed(now_s)
        self._user.lost(error, self.attempts.tried)
        self._process.at(self.attempts.next(now_s), self._connect)

    def _drop(self) -> None:
        self.is_proven = False
        if self.session is not None:
            # By number: a broken session has closed its socket, and a poll of a closed one would
            # return at once for ever.
            self._process.forget(self._watched_fd)
            self.session.close()
            self.session = None

    def receive(self) -> None:
        """Hands over what has come in."""
        if self.session is None:
            return
        try:
            for answer in self.session.receive():
                if not self.is_proven and not self._prove():
                    return
                self._user.complete(answer)
        except PlcUnavailable as e:
            self.lost(e)

    def _prove(self) -> bool:
        """The first reply to a read: only now it is known that the PLC is back (some accept a
        connection and then reset it, or are silent). False where it is lost again meanwhile.
        """
        assert self.session is not None
        self.is_proven = True
        if was := self.attempts.proven():
            host = self.attempts.host
            text = f"read at {host} now, at {was} before"
            self._process.event("warning", "plc_switched", text, plc=self._plc["id"],
                                host=host, was=was)  # fmt: skip
        self._user.answered(self.session)
        self._ask_state()
        return self.session is not None

    def _check_timeout(self) -> None:
        if self.session is None:
            return
        try:
            self.session.check_timeout()
        except PlcUnavailable as e:
            self.lost(e)

    def _ask_state(self) -> None:
        if self.session is None or self.cpu_state == -1:
            return
        if self.is_stopped:
            self._seek()
        if self._state_unanswered and not self.is_proven:
            return  # perhaps it was not the question: this time a read must be answered first
        try:
            self.session.ask_state(self._take_state)
        except PlcUnavailable as e:
            self.lost(e)

    def _take_state(self, state: int | None) -> None:
        before = self.cpu_state
        # -1: the CPU refuses to tell; asking on would fill its diagnostics.
        self.cpu_state = -1 if state is None else state
        self._state_unanswered = 0
        if self.cpu_state == before:
            return
        runs = state in RUNNING
        if before is None and (runs or state is None):
            return  # no news
        if state is not None:
            text = "the CPU runs" if runs else "the CPU is in STOP: its data is frozen"
            level, code = ("info", "cpu_run") if runs else ("warning", "cpu_stop")
            self._process.event(level, code, text, plc=self._plc["id"])
        self._user.state_changed()

    def _seek(self) -> None:
        """This CPU has stopped: does one at another address run?"""
        now_s = time.monotonic()
        others = [host for host in self._hosts if host != self.attempts.tried]
        if not others or self._seeking or now_s < self._seek_due_s:
            return
        self._seeking = True
        self._seek_due_s = now_s + SEEK_S
        self._background.run(lambda: self._running(others), self._hand_over)

    def _running(self, hosts: list[str]) -> Session | None:
        """A connection to the first of them whose CPU runs. Takes a few timeouts at most."""
        for host in hosts:
            try:
                session = self._open(host)
                if session.read_state() in RUNNING:
                    return session
                session.close()
            except PlcUnavailable:
                continue
        return None

    def _hand_over(self, session: Session | Exception | None) -> None:
        self._seeking = False
        if isinstance(session, Exception):
            raise session
        if session is None:
            return
        if self.session is None or not self.is_stopped:
            session.close()  # meanwhile lost, or running again
            return
        self._drop()
        self.attempts.tried = session.host
        self._adopt(session)

    def close(self) -> None:
        """Drops the connection."""
        if self.session is not None:
            self.session.close()
