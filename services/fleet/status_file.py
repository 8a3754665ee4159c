"""How the fleet process is, for ``plc-edge fleet status`` and for the panel."""

from __future__ import annotations

import json
import time
from typing import Any

from services.fleet.files import write
from services.runtime.clock import now_ms
from services.runtime.process import Process

FILE = "fleet-status.json"
WRITE_S = 5.0


class StatusFile:
    """``<runtime>/fleet-status.json``: written on change, and every 5 s."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._written: dict[str, Any] = {}
        self._at_s = 0.0

    def write(self, document: dict[str, Any]) -> None:
        """``watch_left_s`` alone is no change."""
        shown = {k: v for k, v in document.items() if k != "watch_left_s"}
        now_s = time.monotonic()
        if shown == self._written and now_s - self._at_s < WRITE_S:
            return
        self._written, self._at_s = shown, now_s
        self._say(document)
        try:
            content = json.dumps({"ts_ms": now_ms(), **document}, ensure_ascii=False)
            write(self._process.runtime / FILE, content)
        except OSError as e:
            self._process.log.warning("no status file", error=str(e))

    def _say(self, document: dict[str, Any]) -> None:
        centre = document["centre"]
        bad = centre["code"] or document["state"] in ("refused", "rolled_back", "drift")
        fields = {
            "code": centre["code"] or document["state"],
            "message": centre["message"] or document["error"] or "",
            "state": document["state"],
            "version": document["version"],
            "running": document["running"],
        }
        self._process.state("degraded" if bad else "ok", **fields)
