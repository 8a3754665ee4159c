"""Who wrote what to a machine, and when: starts, stops, full writes, refusals. Kept on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from services.runtime.clock import now_ms

MAX_BYTES = 5_000_000


class Audit:
    """Appends JSON lines; one older file is kept beside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failed = 0

    def write(self, what: str, **fields: Any) -> None:
        """One line. A full disk must not stop the mirror: it is counted."""
        line = json.dumps({"ts": now_ms(), "what": what, **fields}, default=str) + "\n"
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                self._path.rename(self._path.with_suffix(".jsonl.1"))
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "a") as f:
                f.write(line)
        except OSError:
            self.failed += 1
