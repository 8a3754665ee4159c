"""A stretch of the box's history once more, to one output, when somebody asks for it.

Messages are those that were delivered then: their topic, epoch and seq, with ``"replay": true``.
They come beside the live ones and slower (``rate_per_s``). A stretch is asked of the historian in
pieces; where it has come to stands in ``<state>/backfill/<output>.json``, so a restart repeats one
piece at most, some hundreds.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Protocol

import orjson

from bus.frames import GAP_ROW, SAMPLE_ROW, Reply, Request
from bus.sockets import Port
from services.consumer.row import Row
from services.mqtt.desk import Desk
from services.runtime import files
from services.runtime.clock import now_ms
from services.runtime.failpoints import hit
from services.runtime.process import Process

LANE = "history"
TICK_S = 0.1
ANSWER_S = 10.0
# What was delivered so long ago is in the history.
SETTLED_MS = 15_000
# After an answer that did not come, or was a refusal.
AGAIN_S = 2.0
# Given to the output and not settled.
MAX_FLYING = 100
MAX_JOBS = 20
MAX_RATE_PER_S = 500


class Deliver(Protocol):
    """What takes rows: an output."""

    def deliver(self, rows: Sequence[Row]) -> None:
        """Rows, to be settled at the desk."""


@dataclass(slots=True)
class Job:
    """One stretch of one PLC. Times are Unix ms; ``end_ms`` is not in it."""

    id: int
    plc: str
    locatario: str
    begin_ms: int
    end_ms: int
    rate_per_s: float
    at_ms: int
    """All before it has arrived."""
    sent: int = 0
    refused: int = 0
    waits: str = ""
    """Why it does not go on, in words."""


class Backfill:
    """The output's desk, too: what it sent itself is settled here, the rest goes by."""

    def __init__(self, process: Process, desk: Desk) -> None:
        self._process = process
        self._desk = desk
        self._output: Deliver | None = None
        self._file = process.state_dir / "backfill" / f"{process.item}.json"
        self._number, self._jobs = self._load()
        self._ready: deque[Row] = deque()
        """Of the piece that is being sent, not given yet."""
        self._flying: set[int] = set()
        self._next_ms: int | None = None
        """Where the piece ends; None where none has been fetched."""
        self._piece = [0, 0]
        """Arrived and refused of it."""
        self._orders = count()
        self._port: Port | None = None
        self._asked_s: float | None = None
        self._again_s = 0.0
        self._spare = 0.0
        """Messages that may go now."""
        self._ticked_s = time.monotonic()
        self._sent = process.stats.counter("plc_edge_backfill_sent_total", output=process.item)

    def open(self, output: Deliver) -> None:
        """Takes orders, and goes on with those that are not done."""
        self._output = output
        port = self._process.bus.bind("backfill", self._process.item)
        self._process.on_readable(port, lambda: self._serve(port))
        self._process.every(TICK_S, self._tick)

    # -- what is kept ----------------------------------------------------------------------------

    def _load(self) -> tuple[int, list[Job]]:
        try:
            kept = orjson.loads(self._file.read_bytes())
            return int(kept["number"]), [Job(**job) for job in kept["jobs"]]
        except FileNotFoundError:
            return 0, []
        except (OSError, ValueError, KeyError, TypeError) as e:
            text = f"{self._file} cannot be read: what was asked for must be asked for again"
            self._process.event("error", "backfill_damaged", text, error=repr(e))
            return 0, []

    def _save(self) -> None:
        """Raises OSError."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {"number": self._number, "jobs": [asdict(job) for job in self._jobs]}
        files.write_whole(self._file, orjson.dumps(kept))

    # -- orders ----------------------------------------------------------------------------------

    def _serve(self, port: Port) -> None:
        while (frame := port.receive()) is not None:
            port.send(self._answer(frame))

    def _answer(self, frame: object) -> Reply:
        if not isinstance(frame, Request) or frame.verb not in ("send", "list", "cancel"):
            return Reply(None, "that is no request")
        try:
            return Reply(getattr(self, f"_{frame.verb}")(frame.args))
        except (ValueError, TypeError, KeyError) as e:
            return Reply(None, str(e))
        except OSError as e:
            return Reply(None, f"{self._file} cannot be written: {e.strerror}")

    def _list(self, _args: dict[str, Any]) -> dict[str, Any]:
        return {"jobs": [asdict(job) for job in self._jobs]}

    def _send(self, args: dict[str, Any]) -> dict[str, Any]:
        if len(self._jobs) >= MAX_JOBS:
            raise ValueError(f"{MAX_JOBS} stretches wait already: cancel one, or come later")
        begin_ms, end_ms = int(args["begin_ms"]), min(int(args["end_ms"]), now_ms())
        rate = float(args["rate_per_s"])
        if begin_ms >= end_ms:
            raise ValueError("the stretch ends before it begins, or lies in the future")
        if not 0 < rate <= MAX_RATE_PER_S:
            raise ValueError(f"the rate is 1 to {MAX_RATE_PER_S} messages a second")
        self._number += 1
        names = str(args["plc"]), str(args["locatario"])
        self._jobs.append(Job(self._number, *names, begin_ms, end_ms, rate, begin_ms))
        try:
            self._save()
        except OSError:
            self._jobs.pop()
            raise
        return asdict(self._jobs[-1])

    def _cancel(self, args: dict[str, Any]) -> dict[str, Any]:
        wanted = int(args["id"])
        job = next((job for job in self._jobs if job.id == wanted), None)
        if job is None:
            raise ValueError(f"there is no stretch {wanted} here (any more)")
        if job is self._jobs[0]:
            self._forget_piece()
        self._jobs.remove(job)
        self._save()
        return asdict(job)

    # -- sending ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_s = time.monotonic()
        passed_s, self._ticked_s = now_s - self._ticked_s, now_s
        if not self._jobs:
            return
        job = self._jobs[0]
        if self._next_ms is None:
            self._fetch(job, now_s)
            return
        # What could not go, as an output is away, is not made up for.
        self._spare = min(self._spare + passed_s * job.rate_per_s, max(1.0, job.rate_per_s))
        room = min(int(self._spare), MAX_FLYING - len(self._flying), len(self._ready))
        if room > 0:
            self._spare -= room
            rows = [self._ready.popleft() for _ in range(room)]
            self._flying |= {row.order for row in rows}
            assert self._output is not None
            self._output.deliver(rows)
        if not self._ready and not self._flying:
            self._pass_piece(job)

    def _fetch(self, job: Job, now_s: float) -> None:
        if self._asked_s is not None and now_s - self._asked_s > ANSWER_S:
            self._wait(job, "no_history", "the historian does not answer")
            self._drop_port()
        if self._asked_s is not None or now_s < self._again_s:
            return
        if now_ms() < job.end_ms + SETTLED_MS:
            job.waits = "the historian may not have all of it yet"
            return
        if self._port is None:
            self._port = self._process.bus.connect("history")
            self._process.on_readable(self._port, self._answered)
        args = {"plc": job.plc, "locatario": job.locatario,
                "begin_ms": job.at_ms, "end_ms": job.end_ms}  # fmt: skip
        if self._port.send(Request("messages", args)):
            self._asked_s = now_s
        else:
            self._again_s = now_s + AGAIN_S
            job.waits = "the historian is not there"

    def _answered(self) -> None:
        while self._port is not None and (frame := self._port.receive()) is not None:
            self._asked_s = None
            if not self._jobs or self._next_ms is not None:
                continue
            job = self._jobs[0]
            if not isinstance(frame, Reply) or frame.error:
                self._wait(job, "history_refuses", getattr(frame, "error", "no answer of ours"))
                continue
            found = frame.result
            # An answer to what was cancelled meanwhile.
            if [found["plc"], found["locatario"], found["begin_ms"]] != [
                job.plc, job.locatario, job.at_ms,
            ]:  # fmt: skip
                continue
            job.waits = ""
            self._next_ms = int(found["next_ms"])
            self._ready.extend(self._row(job, m) for m in found["messages"])

    def _row(self, job: Job, message: dict[str, Any]) -> Row:
        is_gap = "first_seq" in message
        order = next(self._orders)
        body = orjson.dumps({**message, "replay": True})
        numbers = message["ts"], message["epoch"], message["first_seq" if is_gap else "seq"]
        kind = GAP_ROW if is_gap else SAMPLE_ROW
        return Row(0, LANE, order, order, kind, job.plc, job.locatario, *numbers, body)

    def _wait(self, job: Job, code: str, why: str) -> None:
        if job.waits != why:
            job.waits = why
            text = f"{_named(job)} waits: {why}"
            self._process.event("warning", f"backfill_{code}", text)
        self._again_s = time.monotonic() + AGAIN_S

    def _drop_port(self) -> None:
        """A REQ socket whose question was lost asks no other: a new one."""
        if self._port is not None:
            self._process.forget(self._port)
            self._process.bus.release(self._port)
        self._port, self._asked_s = None, None

    def _pass_piece(self, job: Job) -> None:
        assert self._next_ms is not None
        sent, refused = self._piece
        before = job.at_ms, job.sent, job.refused
        job.at_ms, job.sent, job.refused = self._next_ms, job.sent + sent, job.refused + refused
        is_done = job.at_ms >= job.end_ms
        if is_done:
            self._jobs.remove(job)
        hit("backfill.saving")
        try:
            self._save()
        except OSError as e:
            job.at_ms, job.sent, job.refused = before
            if is_done:
                self._jobs.insert(0, job)
            self._wait(job, "disk_full", f"{self._file} cannot be written: {e.strerror}")
            self._ticked_s = time.monotonic()
            return
        self._forget_piece()
        if is_done:
            text = f"{_named(job)} is sent: {job.sent} messages, {job.refused} refused"
            facts = {"id": job.id, "plc": job.plc, "sent": job.sent, "refused": job.refused}
            self._process.event("info", "backfill_done", text, **facts)

    def _forget_piece(self) -> None:
        self._ready.clear()
        self._flying.clear()
        self._next_ms, self._piece = None, [0, 0]

    # -- as a desk -------------------------------------------------------------------------------

    def delivered(self, rows: Sequence[Row]) -> None:
        """The destination has them."""
        mine = [row for row in rows if row.lane == LANE]
        if len(mine) < len(rows):
            self._desk.delivered([row for row in rows if row.lane != LANE])
        for row in mine:
            self._settle(row, 0)

    def refused(self, row: Row, reason: str) -> None:
        """For ever. The box has it still; who sees why may ask for it again."""
        if row.lane != LANE:
            self._desk.refused(row, reason)
        elif self._settle(row, 1):
            text = f"{row.topic} of the history refused for ever: {reason}"
            numbers = {"epoch": row.epoch, "seq": row.seq}
            self._process.event("error", "message_refused", text, **numbers)

    def _settle(self, row: Row, what: int) -> bool:
        row.done = True
        if row.order not in self._flying:  # of a piece that was given up
            return False
        self._flying.discard(row.order)
        self._piece[what] += 1
        if not what:
            self._sent.inc()
        return True

    def held(self, result: str) -> None:
        """Goes by."""
        self._desk.held(result)

    def status(self, status: str, code: str = "", message: str = "") -> None:
        """Goes by."""
        self._desk.status(status, code, message)

    def close(self) -> None:
        """Keeps where it has come to, as far as a piece is whole."""
        with contextlib.suppress(OSError):
            if self._jobs:
                self._save()


def _named(job: Job) -> str:
    return f"stretch {job.id} of {job.plc}"
