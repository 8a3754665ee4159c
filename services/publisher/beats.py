"""Heartbeats of the PLCs, live and last value only: frame -> JSON of CONTRACT §4, ``offline`` for a
PLC whose reader is silent, and the empty message that clears a removed PLC's retained one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson

from bus.frames import Heartbeat
from services.runtime.clock import now_ms

SILENT_INTERVALS = 3

Send = Callable[[str, str, bytes], None]


class _Plc:
    """What is known of one PLC."""

    def __init__(self, known: dict[str, Any], now_s: float) -> None:
        self.locatario: str = known["locatario"]
        self.last = Heartbeat(
            plc=known["id"],
            locatario=self.locatario,
            ip=known.get("host", ""),
            ts_ms=now_ms(),
            interval_s=float(known["heartbeat_s"]),
        )
        self.silent_s = now_s + SILENT_INTERVALS * self.last.interval_s
        """When the reader counts as silent; then, when that is said again."""


class Beats:
    """All PLCs of one output. ``send(locatario, plc, payload)`` takes the JSON; b"" clears."""

    def __init__(self, site: str, locatarios: list[str] | None, send: Send) -> None:
        self._site = site
        self._only = locatarios
        self._send = send
        self._plcs: dict[str, _Plc] = {}

    def configure(self, plcs: list[dict[str, Any]]) -> None:
        """Takes the list of PLCs; clears the retained message of those that are gone."""
        wanted = {p["id"]: p for p in plcs if self._only is None or p["locatario"] in self._only}
        for plc, known in list(self._plcs.items()):
            if plc not in wanted or wanted[plc]["locatario"] != known.locatario:
                del self._plcs[plc]
                self._send(known.locatario, plc, b"")
        now_s = time.monotonic()
        for plc, entry in wanted.items():
            if plc not in self._plcs:
                self._plcs[plc] = _Plc(entry, now_s)

    def receive(self, beat: Heartbeat) -> None:
        """One heartbeat from the store; an old one (the reader has died) counts as its age."""
        if self._only is not None and beat.locatario not in self._only:
            return
        if beat.removed:
            self._plcs.pop(beat.plc, None)
            self._send(beat.locatario, beat.plc, b"")
            return
        plc = self._plcs.get(beat.plc)
        if plc is None:
            return  # not (yet) in our list; `apply` brings it within a second
        plc.last = beat
        allowed_s = SILENT_INTERVALS * beat.interval_s
        age_s = max(0.0, (now_ms() - beat.ts_ms) / 1_000)
        plc.silent_s = time.monotonic() + max(0.0, allowed_s - age_s)
        if age_s < allowed_s:
            self._send(beat.locatario, beat.plc, self.encode(beat))

    def tick(self) -> None:
        """Says ``offline`` for silent readers, again every interval."""
        now_s = time.monotonic()
        for plc in self._plcs.values():
            if now_s >= plc.silent_s:
                plc.silent_s = now_s + plc.last.interval_s
                self._send(plc.locatario, plc.last.plc, self.encode(_silent(plc.last)))

    def encode(self, beat: Heartbeat) -> bytes:
        """The message."""
        fields = asdict(beat)
        del fields["removed"]
        failure = fields.pop("failure")
        message = {
            "v": 1,
            "site": self._site,
            "locatario_id": fields.pop("locatario"),
            "plc_id": fields.pop("plc"),
            "ip": fields.pop("ip"),
            "ts": fields.pop("ts_ms"),
            **fields,
        }
        if beat.status != "online":
            message["failure"] = failure or {"code": "unknown", "message": "", "attempts": 0}
        return orjson.dumps(message)


def _silent(last: Heartbeat) -> Heartbeat:
    """What is said in place of a reader that says nothing."""
    failure = {
        "code": "reader_silent",
        "message": f"the reader has not been heard for {SILENT_INTERVALS} intervals",
        "since": last.ts_ms,
        "attempts": 0,
    }
    said = {**asdict(last), "ts_ms": now_ms(), "status": "offline", "failure": failure}
    return Heartbeat(**said)
