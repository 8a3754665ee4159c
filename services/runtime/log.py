"""Log lines: one JSON object per line on stderr, captured and rotated by supervisord.

Writing never blocks: a frozen supervisord or a full pipe costs log lines (counted in
``Log.dropped``), never a scan. Hence not the ``logging`` module, whose handlers wait.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any


class Log:
    """Writes the lines of one process."""

    def __init__(self, process: str, fd: int = 2) -> None:
        self.process = process
        self.dropped = 0
        try:
            # A file description of our own: O_NONBLOCK on the shared one would also hit the
            # shell or supervisord at the other end.
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
        except OSError:  # a socket cannot be opened again
            self._fd = os.dup(fd)
            os.set_blocking(self._fd, False)

    def info(self, text: str, **fields: Any) -> None:
        """Something normal that a reader of the log wants to know."""
        self.write("info", text, fields)

    def warning(self, text: str, **fields: Any) -> None:
        """Something is off and looked after."""
        self.write("warning", text, fields)

    def error(self, text: str, **fields: Any) -> None:
        """Something failed that a person should see to."""
        self.write("error", text, fields)

    def write(self, level: str, text: str, fields: dict[str, Any]) -> None:
        """One line; what the pipe does not take at once is dropped and counted."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"ts": now, "level": level, "process": self.process, "msg": text, **fields}
        line = json.dumps(record, default=str, ensure_ascii=False, separators=(",", ":")) + "\n"
        data = line.encode("utf-8", "backslashreplace")
        try:
            if os.write(self._fd, data) < len(data):
                self.dropped += 1
        except OSError:
            self.dropped += 1
