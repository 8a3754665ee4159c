"""The process table: supervisord's view, each process's use of the machine, and what happens.

Asked in a thread of its own: a frozen supervisord must not hold up the bus.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from bus.frames import Event
from services.runtime import process_table
from services.runtime.clock import now_ms
from services.runtime.errors import EXIT_PERMANENT

POLL_S = 1.0
# So many starts in so long is a process that cannot stay up.
FLAP_STARTS = 3
FLAP_WINDOW_S = 120.0


@dataclass(slots=True)
class Entry:
    """One process of the configuration."""

    name: str
    state: str = "UNKNOWN"
    pid: int = 0
    start_s: int = 0
    uptime_s: int = 0
    exit_status: int = 0
    restarts: int = 0
    """Without those that somebody asked for."""
    flapping: bool = False
    cpu_s: float = 0.0
    """User and system, of all its lives seen."""
    cpu_percent: float = 0.0
    rss_bytes: int = 0
    fds: int = 0
    why: str = ""
    """In words, when it is not running."""
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=FLAP_STARTS))
    cpu_base_s: float = 0.0
    cpu_at: tuple[int, float, float] = (0, 0.0, 0.0)
    """(pid, monotonic s, CPU s of this life)"""


class ProcessTable:
    """Keeps the entries up to date. ``update`` is pure but for psutil: tests feed it rows."""

    def __init__(self, names: list[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.entries = {name: Entry(name) for name in names}
        self.reachable: bool | None = None
        """None: not asked yet."""
        self.error = ""
        self._clock = clock

    def restarted(self, rows: list[process_table.Row]) -> list[process_table.Row]:
        """Those of ``rows`` that have been started again since the last ``update``."""
        known = self.entries
        return [r for r in rows if r.name in known and _started_again(known[r.name], r)]

    def update(
        self, rows: list[process_table.Row], asked: frozenset[str] = frozenset()
    ) -> list[Event]:
        """Takes supervisord's table in; returns what a person wants to know of the change.

        ``asked``: of those started again, the ones that somebody wanted to be.
        """
        events: list[Event] = []
        by_name = {row.name: row for row in rows}
        if self.reachable is False:
            events.append(_event("info", "supervisor_back", "supervisord answers again"))
        self.reachable, self.error = True, ""
        for name, entry in self.entries.items():
            row = by_name.get(name)
            if row is None:
                if entry.state != "MISSING":
                    entry.state, entry.pid = "MISSING", 0
                    entry.why = "supervisord does not know it: run `plc-edge apply`"
                continue
            events += self._change(entry, row, name in asked)
        return events

    def configure(self, names: list[str]) -> None:
        """Takes a new list of processes; the entries of those that stay are kept."""
        self.entries = {name: self.entries.get(name) or Entry(name) for name in names}

    def measure(self) -> None:
        """CPU, memory and descriptors of each; 0.3 ms a process, so not on every poll."""
        for entry in list(self.entries.values()):
            self._measure(entry)

    def unreachable(self, error: str) -> list[Event]:
        """supervisord could not be asked: what was known of the processes is not any more."""
        first = self.reachable is not False
        self.reachable, self.error = False, error
        for entry in self.entries.values():
            entry.state = "UNKNOWN"
        return [_event("error", "supervisor_unreachable", error)] if first else []

    def _change(self, entry: Entry, row: process_table.Row, asked: bool) -> list[Event]:
        events: list[Event] = []
        first_sight = entry.state == "UNKNOWN" and not entry.start_s
        started_again = _started_again(entry, row)
        was_running, before = entry.state in ("RUNNING", "STARTING"), entry.state
        entry.state, entry.pid, entry.uptime_s = row.state, row.pid, row.uptime_s
        entry.start_s, entry.exit_status = row.start_s, row.exit_status
        entry.why = _why(row)
        name = entry.name
        if started_again and asked:
            text = f"{name} was restarted on request"
            events.append(_event("info", "process_restart_asked", text, process=name))
        elif started_again:
            now_s = self._clock()
            entry.restarts += 1
            entry.starts.append(now_s)
            text = f"{name} ended and was started again (restart {entry.restarts})"
            events.append(_event("warning", "process_restarted", text, process=name))
        now_s = self._clock()
        flapping = len(entry.starts) == FLAP_STARTS and now_s - entry.starts[0] < FLAP_WINDOW_S
        if flapping and not entry.flapping:
            text = f"{name} keeps ending: {FLAP_STARTS} restarts within {FLAP_WINDOW_S:.0f} s"
            events.append(_event("error", "process_flapping", text, process=name))
        entry.flapping = flapping
        if row.state == before or (first_sight and row.state in ("RUNNING", "STARTING")):
            return events
        if row.state == "FATAL":
            text = f"{name} could not be started: {entry.why}"
            events.append(_event("error", "process_fatal", text, process=name))
        elif row.state == "EXITED" and row.exit_status == EXIT_PERMANENT:
            # Of any other end supervisord makes a restart at once: told as such.
            events.append(
                _event(
                    "error",
                    "process_exited",
                    f"{name} ended: {entry.why}",
                    process=name,
                    exit_status=row.exit_status,
                )
            )
        elif row.state == "BACKOFF" and was_running:
            text = f"{name} ended right after its start; supervisord tries again"
            events.append(_event("warning", "process_backoff", text, process=name))
        elif row.state == "STOPPED":
            events.append(
                _event("warning", "process_stopped", f"{name} was stopped by hand", process=name)
            )
        return events

    def _measure(self, entry: Entry) -> None:
        if not entry.pid:
            entry.rss_bytes = entry.fds = 0
            entry.cpu_percent = 0.0
            return
        try:
            process = psutil.Process(entry.pid)
            with process.oneshot():
                times = process.cpu_times()
                entry.rss_bytes = process.memory_info().rss
                entry.fds = process.num_fds()
        except psutil.Error:  # it has just ended, or is another user's
            return
        used_s, now_s = times.user + times.system, self._clock()
        pid, then_s, before_s = entry.cpu_at
        if pid != entry.pid:
            entry.cpu_base_s += before_s
            entry.cpu_percent = 0.0
        elif now_s > then_s:
            entry.cpu_percent = 100 * (used_s - before_s) / (now_s - then_s)
        entry.cpu_at = (entry.pid, now_s, used_s)
        entry.cpu_s = entry.cpu_base_s + used_s


def _started_again(entry: Entry, row: process_table.Row) -> bool:
    return bool(entry.start_s and row.start_s and row.start_s != entry.start_s)


def _why(row: process_table.Row) -> str:
    if row.state in ("RUNNING", "STARTING"):
        return ""
    if row.exit_status == EXIT_PERMANENT:
        return "its configuration is wrong (exit 78): see its log, then `plc-edge apply`"
    if row.state == "FATAL" and row.spawn_error:
        return row.spawn_error
    if row.state == "STOPPED":
        return "stopped by hand"
    if row.state == "BACKOFF":
        return f"ends right after its start ({row.last_end}): see its log"
    return f"ended ({row.last_end}): see its log"


def _event(level: str, code: str, text: str, **fields: object) -> Event:
    return Event("supervisord", now_ms(), level, code, text, dict(fields))


class Poller(threading.Thread):
    """Asks supervisord once a second and hands each answer to ``take`` (in this thread)."""

    def __init__(
        self,
        socket_path: str,
        take: Callable[[list[process_table.Row] | process_table.SupervisorUnavailable], None],
    ) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._socket_path = socket_path
        self._take = take
        self._ended = threading.Event()

    def run(self) -> None:
        """Until ``stop``."""
        while not self._ended.is_set():
            try:
                self._take(process_table.read(self._socket_path))
            except process_table.SupervisorUnavailable as e:
                self._take(e)
            self._ended.wait(POLL_S)

    def stop(self) -> None:
        """Ends the thread after the question it is asking now."""
        self._ended.set()
