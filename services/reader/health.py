"""What is said of one PLC: its status, why it is not online, its heartbeat."""

from __future__ import annotations

import time
from typing import Any

from bus import topology
from bus.frames import Heartbeat
from services.protocols.source import Source
from services.reader.keep import KeepClient
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process

# What ``Source.frozen`` means.
FROZEN = {
    "cpu_stop": "the CPU is in STOP: its data is frozen",
    "alive_stale": "the `alive` field does not change: does the program run?",
}


class Health:
    """One PLC's status: `online`, `degraded` or `offline`; said on every change, and again each
    `heartbeat`.
    """

    def __init__(self, process: Process, keep: KeepClient, source: Source, groups: int) -> None:
        """``groups``: how many the PLC has."""
        self.status = ""
        self.scan_ms = self.latency_ms = 0.0
        """Of the newest scan."""
        self._process = process
        self._plc: dict[str, Any] = process.config["plc"]
        self._keep = keep
        self._source = source
        self._groups = range(groups)
        self._failure: dict[str, Any] | None = None
        self._said: dict[str, str] = {}
        """The code that was said of each address since."""
        self._trouble = ("", 0)
        """What else keeps the PLC from being online, and since when (Unix ms)."""
        self._reads_ok = self._reads_failed = 0
        plc, stats = self._plc["id"], process.stats
        self._up = stats.gauge("plc_edge_plc_up", plc=plc)
        name = "plc_edge_read_requests_total"
        self._ok = stats.counter(name, plc=plc, result="ok")
        self._failed = stats.counter(name, plc=plc, result="failed")
        self._beats = process.bus.connect("beats")

    def start(self) -> None:
        """Registers with the process's loop."""
        self._process.every(self._plc["heartbeat_s"], self.beat)

    def note_replies(self, telegrams: int) -> None:
        """The PLC has answered so many requests."""
        self._ok.inc(telegrams)

    def note_read(self) -> None:
        """A scan is complete."""
        self._reads_ok += 1

    def note_lost(self, error: PlcUnavailable, host: str) -> None:
        """The connection to ``host`` is gone, or could not be made: said once per reason, not per
        attempt. ``update`` is the caller's.
        """
        self._count_failed()
        if self._said.get(host) != error.code:
            self._said[host] = error.code
            self._process.event("error", error.code, error.message, plc=self._plc["id"])
        if self._failure is None or self._failure["code"] != error.code:
            since = self._failure["since"] if self._failure else now_ms()
            self._failure = {"code": error.code, "message": error.message, "since": since}
        self._failure["attempts"] = self._source.attempts

    def note_refused(self, code: str, message: str) -> None:
        """The PLC refuses a scan as a whole."""
        self._count_failed()
        if self._failure is None or self._failure["code"] != code:
            self._failure = {"code": code, "message": message, "since": now_ms(), "attempts": 0}
            self._process.event("error", code, message, plc=self._plc["id"])
            self.update()
        self._failure["attempts"] += 1

    def _count_failed(self) -> None:
        self._failed.inc()
        self._reads_failed += 1

    @property
    def has_failed(self) -> bool:
        """The connection or a whole scan has failed, and nobody has said that it is well again."""
        return self._failure is not None

    def clear(self) -> None:
        """What had failed is well again. ``update`` is the caller's."""
        self._failure = None
        self._said.clear()

    def update(self) -> None:
        """Looks at the status; says at once when it is another."""
        if not self._source.is_proven:
            status = "offline"
        elif self._failure or self._source.frozen or any(map(self._source.refused, self._groups)):
            status = "degraded"
        else:
            status = "online"
        self._up.set(status != "offline")
        if status != self.status:
            self.status = status
            if status == "online":
                self._trouble = ("", 0)
            self.beat()

    def _failure_now(self) -> dict[str, Any] | None:
        if self.status == "online":
            return None
        if self._failure is not None:
            return self._failure
        code, message = self._trouble_now()
        if code != self._trouble[0]:
            self._trouble = (code, now_ms())
        return {"code": code, "message": message, "since": self._trouble[1], "attempts": 0}

    def _trouble_now(self) -> tuple[str, str]:
        if self.status != "degraded":
            return "connecting", "the PLC has not answered yet"
        if frozen := self._source.frozen:
            return frozen, FROZEN.get(frozen, "its data may be frozen")
        refused = sum(len(self._source.refused(g)) for g in self._groups)
        return "fields_refused", f"{refused} fields are refused by the PLC"

    def beat(self) -> None:
        """Sends a heartbeat."""
        frame = Heartbeat(
            self._plc["id"],
            self._plc["locatario"],
            self._source.host,
            now_ms(),
            self._plc["heartbeat_s"],
            self.status or "offline",
            round(self.scan_ms, 2),
            round(self.latency_ms, 2),
            self._reads_ok,
            self._reads_failed,
            round(time.monotonic() - self._process.started_s, 1),
            self._keep.pending,
            self._failure_now(),
        )
        topic = topology.topic("beat", self._plc["id"])
        self._beats.send(frame, topic)
        if self._process.live is not None:
            self._process.live.send(frame, topic)
