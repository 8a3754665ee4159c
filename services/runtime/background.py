"""Blocking calls (name look-up, connecting, HTTP request) beside the loop, never in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from services.runtime.process import Process

# Of the threads: who guards what they do (services/alerts/outward.py) knows them by it.
THREAD = "background"


class Background:
    """Runs a call in a thread; its outcome comes back as a call in the process's loop."""

    def __init__(self, process: Process) -> None:
        self._done: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        process.on_readable(self._wake, self._collect)

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """``done(result)`` follows in the loop; an exception of ``work`` is its result."""

        def call() -> None:
            try:
                result = work()
            except Exception as e:  # judged by ``done``
                result = e
            self._done.put(lambda: done(result))
            os.eventfd_write(self._wake, 1)

        # A daemon: a name look-up that hangs must not hold up the end of the process.
        threading.Thread(target=call, name=THREAD, daemon=True).start()

    def __del__(self) -> None:
        """When no call is under way any more: one may outlive the part of a process it is of."""
        os.close(self._wake)

    def _collect(self) -> None:
        os.eventfd_read(self._wake)
        while not self._done.empty():
            self._done.get()()
