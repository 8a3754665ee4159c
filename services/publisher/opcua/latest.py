"""The newest message of each record, in memory and in a file of the runtime directory.

Rows are settled when they are in here, and the store gives settled rows to nobody again. So a
process that was killed finds here what its clients were shown; else a value that does not change
would be away until its group is repeated (``max_silence``). The page cache outlives the process, so
nothing is synced; it need not outlive a boot, for then readers say everything anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from services.publisher.opcua.space import Key, key_of

SPARE_BYTES = 4 * 2**20
"""The file is written anew when it holds so much more than twice what counts."""


class Latest:
    """Messages as JSON lines, the last of each record counts."""

    def __init__(self, file: Path) -> None:
        """Takes up what an earlier process left. Raises OSError."""
        self._file = file
        self._bodies: dict[Key, bytes] = {}
        self._orders: dict[Key, tuple[int, int]] = {}
        self._live_bytes = 0
        self._pending = bytearray()
        self._fd, self._size_bytes = -1, 0
        for line in file.read_bytes().split(b"\n") if file.exists() else ():
            try:
                message = orjson.loads(line)
                self._put(key_of(message), message, line)
            except (ValueError, KeyError, TypeError):
                continue  # the last one, torn
        self._rewrite()

    def messages(self) -> list[dict[str, Any]]:
        """All of them."""
        return [orjson.loads(body) for body in self._bodies.values()]

    def add(self, message: dict[str, Any], body: bytes) -> bool:
        """False where a newer one was there. ``flush`` writes it."""
        if not self._put(key_of(message), message, body):
            return False
        self._pending += body + b"\n"
        return True

    def _put(self, key: Key, message: dict[str, Any], body: bytes) -> bool:
        order = (message["epoch"], message["seq"])
        if order <= self._orders.get(key, (0, 0)):
            return False
        self._live_bytes += len(body) - len(self._bodies.get(key, b""))
        self._orders[key], self._bodies[key] = order, body
        return True

    def flush(self) -> None:
        """To the page cache. Raises OSError (no room); what could not be written is tried again."""
        if not self._pending:
            return
        if self._size_bytes + len(self._pending) > 2 * self._live_bytes + SPARE_BYTES:
            self._rewrite()
            return
        while self._pending:
            size = os.write(self._fd, self._pending)
            self._size_bytes += size
            del self._pending[:size]

    def keep(self, keys: set[Key]) -> None:
        """Forgets the records of what left the configuration. Raises OSError."""
        gone = self._bodies.keys() - keys
        for key in gone:
            self._live_bytes -= len(self._bodies.pop(key))
            del self._orders[key]
        if gone:
            self._rewrite()

    def _rewrite(self) -> None:
        draft = self._file.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        data = b"".join(body + b"\n" for body in self._bodies.values())
        with open(os.dup(fd), "wb") as out:
            out.write(data)
        draft.replace(self._file)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size_bytes = fd, len(data)
        self._pending.clear()
