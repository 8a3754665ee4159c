"""Events of the last weeks, for the history page: a file of JSON lines beside its predecessor.

The panel's list of recent events (services/metrics/site.py) lives in memory; this outlives a
restart. It is no record of values: those and their gaps are the historian's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from services.runtime.log import Log

# Two files of so much: some 10,000 events. A flapping PLC makes two a minute.
FILE_MAX_BYTES = 1_000_000
SHOWN = 500


class EventLog:
    """``folder`` is the state folder. One thread writes, any may read."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._file = folder / "events.jsonl"
        self._before = folder / "events.before.jsonl"
        self._log = log
        self._broken = False

    def add(self, events: Iterable[dict[str, Any]]) -> None:
        """Keeps them; what cannot be written (a full disk) is logged once and given up."""
        lines = b"".join(orjson.dumps(e, option=orjson.OPT_APPEND_NEWLINE) for e in events)
        if not lines:
            return
        try:
            if self._file.exists() and self._file.stat().st_size > FILE_MAX_BYTES:
                os.replace(self._file, self._before)
            with self._file.open("ab") as file:
                # A death in the middle of a line must not spoil the next.
                if file.tell() and not self._ends_whole():
                    file.write(b"\n")
                file.write(lines)
        except OSError as e:
            if not self._broken:
                self._log.warning("events not kept", file=str(self._file), error=str(e))
            self._broken = True
            return
        self._broken = False

    def _ends_whole(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def between(self, begin_ms: int, end_ms: int) -> tuple[list[dict[str, Any]], bool]:
        """The last ``SHOWN`` of a range, oldest first, and whether those are all."""
        found = [e for e in self._read() if begin_ms <= e["ts"] <= end_ms]
        found.sort(key=lambda e: int(e["ts"]))
        return found[-SHOWN:], len(found) <= SHOWN

    def _read(self) -> Iterator[dict[str, Any]]:
        for path in (self._before, self._file):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in lines:
                try:
                    event = orjson.loads(line)
                except ValueError:
                    continue  # the end of a file that was cut
                if isinstance(event, dict) and isinstance(event.get("ts"), int):
                    yield event
