"""A box's network cable, which can be pulled and put back."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Semaphore
from typing import Any

from services.runtime.background import Background
from services.runtime.errors import Unavailable
from services.runtime.process import Process

# TLS handshakes of a thousand boxes at once would hold up the loop that they share.
DIALS = Semaphore(16)


class Line(Background):
    """Connects the box's outputs, as long as the cable is in."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self._process = process
        self._sockets: list[socket.socket] = []
        self.pulled = False

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """As of every ``Background``; with the cable out, all work is in vain."""
        if self.pulled:
            self._process.at(time.monotonic(), lambda: done(_pulled()))
            return

        def limited() -> Any:
            with DIALS:
                return work()

        super().run(limited, lambda result: done(self._plugged(result)))

    def _plugged(self, result: Any) -> Any:
        """What ``dial`` gave: a socket and a password."""
        if not isinstance(result, tuple):
            return result
        sock: socket.socket = result[0]
        if self.pulled:
            sock.close()
            return _pulled()
        self._sockets = [s for s in self._sockets if s.fileno() >= 0]
        self._sockets.append(sock)
        return result

    def pull(self) -> None:
        """Nobody says goodbye: the broker publishes the will."""
        self.pulled = True
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets = []

    def plug(self) -> None:
        """The box's next attempt gets through, within some seconds."""
        self.pulled = False


def _pulled() -> Unavailable:
    return Unavailable("unreachable", "the simulated cable is out")
