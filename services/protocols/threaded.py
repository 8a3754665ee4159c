"""A source whose library blocks, or has a loop of its own: it lives in a thread of the reader.

A protocol writes one function, ``serve(host, line)``: one connection from its beginning to its end,
in the thread. What it tells goes over the ``Line`` into the process's loop, in order. Attempts,
addresses, time-outs, the order of changes and what a full line means are common.

A blocking library:

    def serve(host: str, line: Line) -> None:
        client = connect(host)                      # raises PlcUnavailable
        line.connected("V3 with TLS")
        while not line.is_closed:
            group = line.asked(timeout_s=1.0)       # None: nothing was asked
            if group is not None:
                began_s = time.monotonic()
                values, bad = client.read(...)
                line.read(group, values, bad, began_s=began_s)

An asyncio one gives ``asyncio.run(talk(host, line))``, with ``line.on_asked =
lambda: loop.call_soon_threadsafe(wake.set)``, and calls ``line.asked(0)`` until it gives None.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.protocols.attempts import Attempts
from services.protocols.line import Line
from services.protocols.source import Lost, Reading, User
from services.protocols.tags import Change, Tags
from services.runtime.background import Background
from services.runtime.clock import now_ms
from services.runtime.errors import PlcUnavailable
from services.runtime.process import Process

# The loop has other things to do, however much is told.
TURN_S = 0.02
# ``serve`` has time-outs of its own to connect; after so many of the PLC's it is given up.
CONNECT_TIMEOUTS = 10
# A thread that does not end cannot be ended: the process is, and supervisord starts it anew.
STUCK_S = 60.0
CLOSE_S = 1.0


Serve = Callable[[str, Line], None]
"""(host, line). Returns when the line is closed; raises PlcUnavailable(code, text) when the
connection cannot be made or is gone. Another exception is a failure of the library: it is logged,
told as `protocol`, and the next attempt follows as after any loss."""


class ThreadSource:
    """services/protocols/source.py for a library in a thread."""

    def __init__(self, process: Process, user: User, serve: Serve) -> None:
        plc = process.config["plc"]
        self._process = process
        self._user = user
        self._serve = serve
        self._id: str = plc["id"]
        self._timeout_s: float = plc["timeout_s"]
        self._groups = [Tags(group, now_ms) for group in process.config["groups"]]
        self._attempts = Attempts(plc["hosts"])
        self._background = Background(process)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._line: Line | None = None
        self._old: Line | None = None
        """Given up, but its thread has not ended."""
        self._since_s = 0.0
        """When this attempt began, or the thread of ``_old`` was given up."""
        self._heard_s = 0.0
        self._text = ""
        self._is_connected = False
        self._is_proven = False
        self._frozen = ""
        self._asked: dict[int, float] = {}
        """Group -> when it was asked for, monotonic."""
        self._reconnects = process.stats.counter("plc_edge_reconnects_total", plc=self._id)

    # -- what the engine asks ------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address that was read last."""
        return self._attempts.host

    @property
    def is_proven(self) -> bool:
        """The PLC has given a value on this connection."""
        return self._is_proven

    @property
    def is_switching(self) -> bool:
        """One address is lost, and another is tried at once."""
        return self._attempts.is_switching

    @property
    def attempts(self) -> int:
        """Connections that were lost or not made, since the last proven one."""
        return self._attempts.count

    @property
    def frozen(self) -> str:
        """Why the data may be frozen; empty when it is not."""
        return self._frozen

    def refused(self, group: int) -> Mapping[str, str]:
        """Tag -> why the source gives no value."""
        return self._groups[group].refused

    def start(self) -> None:
        """Registers with the process's loop; connects in its first turn."""
        self._process.on_readable(self._wake_fd, self._collect)
        self._process.every(min(0.5, self._timeout_s / 4), self._check_timeout)
        self._process.at(time.monotonic(), self._connect)

    def scan(self, group: int, deadline_s: float) -> bool:
        """Asks the thread for a polled group; a subscribed one is answered with what it holds."""
        if self._line is None or not self._is_connected:
            return False
        tags = self._groups[group]
        if not tags.is_subscribed:
            self._asked[group] = time.monotonic()
            self._line.ask(group)
            return True
        if (reading := tags.held()) is not None:
            self._complete(group, reading)
        return False

    def close(self) -> None:
        """Ends the connection; waits for a second at most."""
        if self._line is not None:
            self._line.close()
            self._line.ended.wait(CLOSE_S)

    # -- connections ---------------------------------------------------------------------

    def _connect(self) -> None:
        now_s = time.monotonic()
        if self._old is not None:
            if now_s - self._since_s > STUCK_S:
                raise RuntimeError(f"the thread of the connection to {self._id} does not end")
            self._process.at(now_s + 0.5, self._connect)
            return
        self._since_s = now_s
        line = self._line = Line(lambda: os.eventfd_write(self._wake_fd, 1))
        host = self._attempts.tried
        self._background.run(
            lambda: self._run(host, line), lambda result: self._ended(line, result)
        )

    def _run(self, host: str, line: Line) -> None:
        try:
            self._serve(host, line)
        except PlcUnavailable:
            raise
        except BaseException as e:  # asyncio.CancelledError too
            # What a server sends may be more than a library is ready for: that is the PLC's fault
            # to be told, not the end of its reader.
            import traceback

            self._process.log.error("the library failed", traceback=traceback.format_exc())
            raise PlcUnavailable("protocol", f"{host}: the library failed: {e!r}") from None
        finally:
            line.ended.set()

    def _ended(self, line: Line, result: PlcUnavailable | None) -> None:
        if line is self._old:
            self._old = None
            return
        while line is self._line and self._take_one(line):
            pass  # what was told before the end
        if line is not self._line:
            return
        self._line = None
        self._lost(result or PlcUnavailable("closed", "the connection has ended"))

    def _give_up(self, error: PlcUnavailable) -> None:
        """The thread does not answer."""
        assert self._line is not None
        self._line.close()
        self._old, self._line = self._line, None
        self._since_s = time.monotonic()
        self._lost(error)

    def _lost(self, error: PlcUnavailable) -> None:
        now_s = time.monotonic()
        self._is_connected = self._is_proven = False
        self._frozen = ""
        self._asked.clear()
        for tags in self._groups:
            tags.forget()
        self._attempts.failed(now_s)
        self._user.lost(error, self._attempts.tried)
        self._process.at(self._attempts.next(now_s), self._connect)

    def _check_timeout(self) -> None:
        if self._line is None:
            return
        now_s, host = time.monotonic(), self._attempts.tried
        if not self._is_connected:
            if now_s - self._since_s > CONNECT_TIMEOUTS * self._timeout_s:
                self._give_up(PlcUnavailable("timeout", f"{host}: no connection"))
            return
        if any(tags.is_subscribed for tags in self._groups):
            # What a subscription holds is repeated as good: only while somebody would tell better.
            self._line.nudge()
            if now_s - self._line.turned_s > CONNECT_TIMEOUTS * self._timeout_s:
                self._give_up(PlcUnavailable("timeout", f"{host}: the connection does not react"))
                return
        if not self._asked:
            return
        oldest_s = min(self._asked.values())
        # Groups wait for one another: what counts is that answers come. But not for ever.
        heard_s = max(self._heard_s, self._line.heard_s, oldest_s)
        silent_s, waited_s = now_s - heard_s, now_s - oldest_s
        if silent_s > self._timeout_s or waited_s > CONNECT_TIMEOUTS * self._timeout_s:
            text = f"{host}: no answer within {self._timeout_s:g} s"
            self._give_up(PlcUnavailable("timeout", text))

    # -- what the thread tells -----------------------------------------------------------

    def _collect(self) -> None:
        os.eventfd_read(self._wake_fd)
        end_s = time.monotonic() + TURN_S
        while (line := self._line) is not None and self._take_one(line):
            if time.monotonic() > end_s:
                os.eventfd_write(self._wake_fd, 1)
                return

    def _take_one(self, line: Line) -> bool:
        what = line.take()
        if what is None:
            return False
        getattr(self, f"_told_{what[0]}")(*what[1:])
        return True

    def _told_connected(self, text: str) -> None:
        self._text = text
        self._is_connected = True
        if self._attempts.is_again:
            self._reconnects.inc()
        self._user.connected()
        if self._attempts.is_switching:  # no `plc_offline` tells of the time between
            for group, tags in enumerate(self._groups):
                if tags.is_subscribed:
                    self._user.changes_lost(group, Lost(0, why="switched"))
        self._user.may_read()

    def _told_read(
        self,
        group: int,
        values: Mapping[str, Any],
        bad: Mapping[str, str],
        ts_ms: int,
        latency_ms: float,
        began_s: float,
        requests: int,
    ) -> None:
        if self._asked.pop(group, None) is None:
            return
        self._heard_s = time.monotonic()
        reading = self._groups[group].scanned(
            values, bad, ts_ms=ts_ms, latency_ms=latency_ms, began_s=began_s, requests=requests
        )
        self._complete(group, reading)

    def _told_refused(
        self, group: int, code: str, text: str, latency_ms: float, began_s: float
    ) -> None:
        if self._asked.pop(group, None) is None:
            return
        self._heard_s = time.monotonic()
        tags = self._groups[group]
        self._complete(group, tags.failed(code, text, latency_ms=latency_ms, began_s=began_s))

    def _told_changed(self, group: int, changes: Sequence[Change]) -> None:
        for reading in self._groups[group].changed(changes):
            self._complete(group, reading)

    def _told_lost_changes(self, group: int, lost: Lost) -> None:
        self._user.changes_lost(group, lost)

    def _told_frozen(self, why: str) -> None:
        if why == self._frozen:
            return
        self._frozen = why
        level, code = ("warning", why) if why else ("info", "cpu_run")
        text = "the PLC's data is frozen" if why else "the PLC runs"
        self._process.event(level, code, text, plc=self._id)
        self._user.state_changed()

    def _told_event(self, level: str, code: str, text: str) -> None:
        self._process.event(level, code, text, plc=self._id)

    def _complete(self, group: int, reading: Reading) -> None:
        if not self._is_proven:
            self._is_proven = True
            if was := self._attempts.proven():
                text = f"read at {self.host} now, at {was} before"
                self._process.event("warning", "plc_switched", text, plc=self._id,
                                    host=self.host, was=was)  # fmt: skip
            self._user.answered(self._text)
        self._user.complete(group, reading)
