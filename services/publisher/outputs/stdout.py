"""stdout output: one JSON line a message, at the pace of whoever reads, blocking nobody."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence

import zmq

from services.consumer.row import Row
from services.publisher.outputs.base import CLOSE_WAIT_S, Desk
from services.runtime.process import Process, Timer

WINDOW = 1_000
RETRY_S = 1.0


class StdoutOutput:
    """Writes bodies as they are; heartbeats have no place in a stream of messages."""

    window = WINDOW
    target = "stdout"

    def __init__(self, process: Process, desk: Desk, fd: int = 1) -> None:
        self._process = process
        self._desk = desk
        try:
            # An open file of our own: O_NONBLOCK on the shared one would hit the other end too.
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
        except OSError:  # a socket cannot be opened again
            self._fd = os.dup(fd)
            os.set_blocking(self._fd, False)
        self._out = bytearray()
        self._queued_bytes = self._written_bytes = 0
        self._rows: deque[Row] = deque()
        self._waiting = False
        self._retry: Timer | None = None

    def deliver(self, rows: Sequence[Row]) -> None:
        """Takes rows."""
        for row in rows:
            self._out += row.body
            self._out += b"\n"
            self._queued_bytes += len(row.body) + 1
            row.end = self._queued_bytes
            self._rows.append(row)
        self._write()

    def beat(self, locatario: str, plc: str, payload: bytes) -> None:
        """Heartbeats are for topics; changes of a PLC's state are messages of their own."""

    def details(self) -> dict[str, object]:
        """For the State frame."""
        return {"buffered_bytes": len(self._out)}

    def _write(self) -> None:
        blocked = False
        try:
            while self._out:
                size = os.write(self._fd, self._out)
                del self._out[:size]
                self._written_bytes += size
        except BlockingIOError:
            blocked = True
        except OSError as e:
            self._desk.status("down", "lost", f"nobody reads standard output: {e.strerror}")
            # One, however many deliveries find the pipe broken: each would keep its own for ever.
            if self._retry is None:
                self._retry = self._process.at(time.monotonic() + RETRY_S, self._try_again)
        else:
            self._desk.status("ok")
        done = []
        while self._rows and self._rows[0].end <= self._written_bytes:
            done.append(self._rows.popleft())
        if done:
            self._desk.delivered(done)
        if blocked != self._waiting:
            self._waiting = blocked
            if blocked:
                self._process.on_readable(self._fd, self._write, zmq.POLLOUT)
            else:
                self._process.forget(self._fd)

    def _try_again(self) -> None:
        self._retry = None
        self._write()

    def close(self) -> None:
        """Gives the reader a moment to take the rest."""
        deadline_s = time.monotonic() + CLOSE_WAIT_S
        while self._waiting and time.monotonic() < deadline_s:
            self._process.step()
            time.sleep(0.002)


def make(process: Process, desk: Desk) -> StdoutOutput:
    """For the table of kinds."""
    return StdoutOutput(process, desk)
