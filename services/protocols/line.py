"""The way between a connection's thread (services/protocols/threaded.py) and the process's loop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from services.protocols.source import Lost
from services.protocols.tags import Change
from services.runtime.clock import now_ms

# Changes that wait for the process's loop, at most: then only the newest of each tag is kept, and
# what is left out is counted and told (`changes_lost`, ``reader_queue``).
WAITING_MAX = 20_000


class Line:
    """One connection's way to and from the process's loop. Its methods are called in ``serve``'s
    thread, or any other; none waits but ``asked``. What is told after ``close`` is dropped.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.is_closed = False
        """The connection is wanted no more: ``serve`` returns within a second."""
        self.on_asked: Callable[[], None] | None = None
        """Called, in another thread, when ``asked`` has something to give, and on closing."""
        self.turned_s = time.monotonic()
        """When ``asked`` was called last, monotonic."""
        self.heard_s = 0.0
        """When ``heard`` was called last, monotonic."""
        self.ended = threading.Event()
        """``serve`` has returned."""
        self._wake = wake
        self._lock = threading.Lock()
        self._told: deque[tuple[Any, ...]] = deque()
        self._waiting = 0
        """Changes in ``_told``."""
        self._newest: dict[tuple[int, str], Change] = {}
        """By group and field: what came while the line was full."""
        self._left_out: dict[int, Lost] = {}
        self._asked: SimpleQueue[int | None] = SimpleQueue()

    # -- in the thread -------------------------------------------------------------------

    def asked(self, timeout_s: float) -> int | None:
        """The next group to read (a place in ``process.config["groups"]``); None where none is
        asked for within the time, or the line is closed. Only polled groups are asked for, but who
        has none calls it too, each time that ``on_asked`` is called or each second: it shows that
        the thread lives.
        """
        self.turned_s = time.monotonic()
        try:
            if timeout_s:
                return self._asked.get(timeout=timeout_s)
            while (group := self._asked.get_nowait()) is None:
                pass  # a nudge
            return group
        except Empty:
            return None

    def heard(self) -> None:
        """A part of a long answer has come: the PLC is not silent."""
        self.heard_s = time.monotonic()

    def connected(self, text: str) -> None:
        """Reads are taken from now on. ``text`` describes the connection, for the event
        `plc_online`. Subscribed groups: every tag gets a first ``Change``, good or bad.
        """
        self._tell("connected", text)

    def read(
        self,
        group: int,
        values: Mapping[str, Any],
        bad: Mapping[str, str],
        *,
        began_s: float,
        ts_ms: int = 0,
        requests: int = 1,
    ) -> None:
        """The answer to what was asked: every field, by name, in ``values`` (as decoded,
        services/protocols/conform.py) or ``bad``; neither is changed afterwards. ``began_s``
        (monotonic): when the request left. ``ts_ms``: the source's own time; 0: the midpoint of
        request and now.
        """
        latency_ms = (time.monotonic() - began_s) * 1_000
        ts_ms = ts_ms or now_ms() - round(latency_ms / 2)
        self._tell("read", group, values, bad, ts_ms, latency_ms, began_s, requests)

    def refused(self, group: int, code: str, text: str, *, began_s: float) -> None:
        """The PLC refuses to answer what was asked as a whole (no right to read), but stays."""
        latency_ms = (time.monotonic() - began_s) * 1_000
        self._tell("refused", group, code, text, latency_ms, began_s)

    def changed(self, group: int, changes: Sequence[Change]) -> None:
        """What a subscription brought, each tag's changes in their order."""
        with self._lock:
            if self.is_closed or not changes:
                return
            if not self._newest and self._waiting + len(changes) <= WAITING_MAX:
                self._waiting += len(changes)
                self._told.append(("changed", group, changes))
            else:
                self._squeeze(group, changes)
        self._wake()

    def _squeeze(self, group: int, changes: Sequence[Change]) -> None:
        for c in changes:
            if self._newest.pop((group, c.name), None) is not None:
                left_out = self._left_out.setdefault(group, Lost(0, why="reader_queue"))
                left_out.count += 1
                left_out.fields[c.name] = left_out.fields.get(c.name, 0) + 1
            self._newest[group, c.name] = c

    def lost_changes(self, group: int, lost: Lost) -> None:
        """The server says that it has lost some (overflow bit): before the ``changed`` that brings
        what follows.
        """
        self._tell("lost_changes", group, lost)

    def frozen(self, why: str) -> None:
        """The PLC's state, when it is another: `cpu_stop`, another word, or empty: it runs."""
        self._tell("frozen", why)

    def event(self, level: str, code: str, text: str) -> None:
        """Something a person wants to know: into the log and the panel, once."""
        self._tell("event", level, code, text)

    def _tell(self, *what: Any) -> None:
        with self._lock:
            if self.is_closed:
                return
            self._told.append(what)
        self._wake()

    # -- in the process's loop -----------------------------------------------------------

    def ask(self, group: int) -> None:
        """Asks for a group."""
        self._put(group)

    def nudge(self) -> None:
        """Has the thread call ``asked``, if it lives."""
        self._put(None)

    def _put(self, group: int | None) -> None:
        self._asked.put(group)
        if self.on_asked is not None:
            # An event loop that has ended refuses; that ``serve`` has, is known in a moment.
            with suppress(RuntimeError):
                self.on_asked()

    def take(self) -> tuple[Any, ...] | None:
        """The oldest thing that was told."""
        with self._lock:
            if self._told:
                what = self._told.popleft()
                if what[0] == "changed":
                    self._waiting -= len(what[2])
                return what
            if self._left_out:
                return ("lost_changes", *self._left_out.popitem())
            if self._newest:
                group = next(iter(self._newest))[0]
                keys = [key for key in self._newest if key[0] == group]
                return ("changed", group, [self._newest.pop(key) for key in keys])
        return None

    def close(self) -> None:
        """What is told from now on is dropped; ``serve`` is to end."""
        with self._lock:
            self.is_closed = True
            self._told.clear()
            self._newest.clear()
            self._left_out.clear()
        self._put(None)
