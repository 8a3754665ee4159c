"""What every service process has in common: one loop, signals, sockets, logs, statistics.

A service is a ``setup(process)`` that opens ports and registers handlers, and may return a
``close``; ``main`` does the rest. The loop is one ``zmq.Poller``: handlers run to completion, so
state needs no locks, and a reader stays under 25 MB (asyncio alone costs 5 MB and 60 ms).
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import heapq
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any, NoReturn, Protocol

import zmq

from bus import topology
from bus.frames import Event, State
from bus.sockets import Bus, Port
from services.runtime.clock import now_ms
from services.runtime.errors import EXIT_FAILURE, EXIT_OK, EXIT_PERMANENT, ConfigError, Problem
from services.runtime.log import Log
from services.runtime.stats import Stats

# supervisord ignores exit codes before ``startsecs`` (1 s): nothing but SIGTERM ends a process
# earlier than this, or a permanent failure would be restarted for ever.
MIN_LIFE_S = 1.5
STATS_INTERVAL_S = 1.0
CONFIG_POLL_S = 1.0
# How long a new process waits for the lock of one that is being killed.
LOCK_WAIT_S = 5.0
PR_SET_PDEATHSIG = 1

Setup = Callable[["Process"], Callable[[], None] | None]


class Timer:
    """A registered call; ``cancel`` it once or for ever."""

    __slots__ = ("at_s", "cancelled", "fn", "interval_s")

    def __init__(self, at_s: float, fn: Callable[[], None], interval_s: float | None) -> None:
        self.at_s = at_s
        self.fn = fn
        self.interval_s = interval_s
        self.cancelled = False

    def cancel(self) -> None:
        """The call will not come (again)."""
        self.cancelled = True


class Poll(Protocol):
    """As ``select.poll``."""

    def register(self, fd: int, events: int, /) -> None:
        """Waits for these events of a descriptor, and no longer for others."""

    def unregister(self, fd: int, /) -> None:
        """No longer waits for it."""

    def poll(self, timeout_ms: int, /) -> list[tuple[int, int]]:
        """(descriptor, events) of each that has some."""


class Process:
    """One running service: its identity, its configuration, its loop."""

    def __init__(self, config: dict[str, Any], config_file: Path, poll: Poll | None = None) -> None:
        """``poll``: what the loop waits with, where poll(2) would not do."""
        self.config = config
        self._config_file = config_file
        self.name: str = config["process"]
        self.folder: str = config["folder"]
        self.item: str = config.get("item", "")
        self.runtime = Path(config["runtime"])
        self.state_dir = Path(config["state"])
        self.boot = int.from_bytes(os.urandom(8)) >> 2 | 1
        self.started_ms = now_ms()
        self.started_s = time.monotonic()
        self.log = Log(self.name)
        self.stats = Stats(self.name, os.getpid(), self.started_ms)
        self.bus = Bus(self.runtime)
        self.stopping = False
        self._poll: Poll = poll or select.poll()
        self._handlers: dict[int, tuple[Callable[[], None], Port | None]] = {}
        """Descriptor -> what to call, and the port that it is of."""
        self._waiting: list[int] = []
        """Descriptors of ports that may hold frames without saying so."""
        self._timers: list[tuple[float, int, Timer]] = []
        """Calls at an exact time."""
        self._ticks: list[tuple[float, int, Timer]] = []
        """Calls at a fixed rate, exact to a ms."""
        self._order = count()
        self.live: Port | None = None
        # At the centre nobody gathers live frames; there HTTP and the log say how it is.
        at_centre = [p.folder for p in topology.PROCESSES.values() if p.where == "centre"]
        if self.folder not in ("metrics", *at_centre) and config.get("where") != "centre":
            self.live = self.bus.connect("live")
            self.every(STATS_INTERVAL_S, self._send_stats)

    # -- the loop ------------------------------------------------------------------------

    def at(self, monotonic_s: float, fn: Callable[[], None]) -> Timer:
        """Calls ``fn`` once, at that ``time.monotonic()``."""
        timer = Timer(monotonic_s, fn, None)
        heapq.heappush(self._timers, (timer.at_s, next(self._order), timer))
        return timer

    def every(
        self, interval_s: float, fn: Callable[[], None], first_s: float | None = None
    ) -> Timer:
        """Calls ``fn`` at a fixed rate, first after ``first_s`` at most (default: one interval).

        Slots missed while another handler ran are left out, not made up for. All of a process keep
        one beat, counted from its start: what comes once a second comes in one wake-up. (A process
        of eight such timers woke 18 times a second, twice for each: the second for the last ms.)
        """
        delay_s = interval_s if first_s is None else first_s
        beats = (time.monotonic() + delay_s - self.started_s) // interval_s
        timer = Timer(self.started_s + beats * interval_s, fn, interval_s)
        heapq.heappush(self._ticks, (timer.at_s, next(self._order), timer))
        return timer

    def on_config(self, fn: Callable[[dict[str, Any]], None]) -> None:
        """Calls ``fn(config)`` when ``apply`` has changed what this process may take while it
        runs (``render.RELOADED``: the lists of PLCs, outputs, processes), within a second.
        """
        seen = self._config_file.stat().st_mtime_ns

        def look() -> None:
            nonlocal seen
            try:
                changed = self._config_file.stat().st_mtime_ns
                if changed == seen:
                    return
                self.config = json.loads(self._config_file.read_bytes())
            except (OSError, ValueError) as e:
                self.log.warning("configuration not read again", error=str(e))
                return
            seen = changed
            self.log.info("configuration read again")
            fn(self.config)

        self.every(CONFIG_POLL_S, look)

    def on_readable(self, source: Any, fn: Callable[[], None], flags: int = zmq.POLLIN) -> None:
        """Calls ``fn`` while ``source`` (Port, socket or fd) has something to read.

        ``flags``: zmq.POLLIN and/or zmq.POLLOUT. For a Port, ``fn`` receives until None.
        """
        port = source if isinstance(source, Port) else None
        fd = source if isinstance(source, int) else source.fileno()
        self._handlers[fd] = (fn, port)
        events = (select.POLLIN if flags & zmq.POLLIN else 0) | (
            select.POLLOUT if flags & zmq.POLLOUT else 0
        )
        self._poll.register(fd, events)
        if port is not None:
            self._waiting.append(fd)  # what came before is not told any more

    def forget(self, source: Any) -> None:
        """Undoes ``on_readable``; unknown sources are fine."""
        fd = source if isinstance(source, int) else source.fileno()
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def look_again(self, port: Port) -> None:
        """Calls the port's handler in the next turn: frames were left unread outside of it."""
        self._waiting.append(port.fileno())

    def run(self) -> None:
        """Serves until ``stop``. An exception in a handler is a bug and ends the process."""
        while not self.stopping:
            self.step()

    def step(self) -> None:
        """Waits for the next thing to do and does it."""
        left_ms = self._run_timers()
        # poll(2) counts whole ms. Rounded up, every scan would come up to 1 ms late; so poll
        # the whole ones and sleep the rest.
        # Not zmq's own poller: it asks every socket for its events before and after each wait,
        # 25 system calls a turn with five of them.
        waiting, self._waiting = self._waiting, []
        ready = self._poll.poll(0 if waiting else int(left_ms))
        if not ready and not waiting and 0 < left_ms < 1:
            time.sleep(left_ms / 1_000)
        for fd, _ in ready:
            self._call(fd)
        for fd in waiting:
            self._call(fd)

    def _call(self, fd: int) -> None:
        handler, port = self._handlers.get(fd, (None, None))
        if handler is None:
            return
        if port is None:
            handler()
            return
        # A ZeroMQ descriptor tells of a change, not of what is there: who leaves frames unread is
        # called again.
        port.drained = False
        handler()
        if not port.drained:
            self._waiting.append(fd)

    def _run_timers(self) -> float:
        """Runs what is due; returns how long to wait for the next, ms (1,000 at most); whole ones
        where the next is not for an exact time.
        """
        now_s = time.monotonic()
        for timers in (self._timers, self._ticks):
            while timers and timers[0][0] <= now_s and not self.stopping:
                timer = heapq.heappop(timers)[2]
                if timer.cancelled:
                    continue
                if timer.interval_s is not None:
                    missed = (now_s - timer.at_s) // timer.interval_s
                    timer.at_s += (missed + 1) * timer.interval_s
                    heapq.heappush(timers, (timer.at_s, next(self._order), timer))
                timer.fn()
        if self.stopping:
            return 0.0
        now_s = time.monotonic()
        left_ms = float(ceil((self._ticks[0][0] - now_s) * 1_000)) if self._ticks else 1_000.0
        if self._timers:
            left_ms = min(left_ms, (self._timers[0][0] - now_s) * 1_000)
        return min(1_000.0, max(0.0, left_ms))

    def stop(self) -> None:
        """Ends the loop after the handler that runs now."""
        self.stopping = True

    # -- what it says of itself ----------------------------------------------------------

    def ready(self, **fields: Any) -> None:
        """Says, once, that the process is open for work. Tests and people wait for this line."""
        took_ms = round((time.monotonic() - self.started_s) * 1_000, 1)
        self.log.info("READY", pid=os.getpid(), setup_ms=took_ms, **fields)

    def event(self, level: str, code: str, text: str, **fields: Any) -> None:
        """Something a person wants to know: a log line and a line on the dashboard."""
        self.log.write(level, text, {"code": code, **fields})
        self.send_live("event", Event(self.name, now_ms(), level, code, text, fields))

    def state(self, status: str, **fields: Any) -> None:
        """How this process is: ``status`` is ok, degraded, down or disabled."""
        self.send_live("state", State(self.name, now_ms(), status, fields))

    def send_live(self, kind: str, frame: Any) -> None:
        """Sends a frame of this process to metrics; drops are counted by the port."""
        if self.live is not None:
            self.live.send(frame, topology.topic(kind, self.name))

    def count_bus(self) -> None:
        """Brings the counters of lost and refused frames and log lines up to date."""
        counter = self.stats.counter
        counter("plc_edge_bus_dropped_total", service=self.name).value = self.bus.dropped
        for reason in ("malformed", "version"):
            refused = counter("plc_edge_bus_refused_total", service=self.name, reason=reason)
            refused.value = self.bus.refused(reason)
        counter("plc_edge_log_dropped_total", service=self.name).value = self.log.dropped

    def _send_stats(self) -> None:
        self.count_bus()
        self.send_live("stats", self.stats.frame())

    def fail(self, error: Exception) -> NoReturn:
        """Ends the process for good (exit 78): a person must mend the configuration."""
        self.log.error("permanent failure", error=str(error))
        _exit(EXIT_PERMANENT, self.started_s)


def _exit(code: int, started_s: float) -> NoReturn:
    """Leaves, but not before supervisord looks at exit codes."""
    left_s = started_s + MIN_LIFE_S - time.monotonic()
    if left_s > 0:
        time.sleep(left_s)
    os._exit(code)


def die_with_parent() -> None:
    """Asks the kernel to end this process with supervisord: never two readers of one PLC."""
    if "SUPERVISOR_ENABLED" not in os.environ:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # supervisord may have died before the call; then init is our parent. In a container
    # supervisord itself may be process 1.
    if os.getppid() == 1 and b"supervisord" not in Path("/proc/1/cmdline").read_bytes():
        os._exit(EXIT_FAILURE)


def take_lock(runtime: Path, name: str) -> int:
    """Holds ``<runtime>/<name>.lock`` for the life of the process; returns its descriptor.

    Binding an ipc path silently steals it from a live process, so this comes before any socket.
    Raises BlockingIOError when another process keeps it for LOCK_WAIT_S.
    """
    fd = os.open(runtime / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)
            continue
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        return fd


def load_rendered(folder: str, argv: list[str]) -> tuple[dict[str, Any], Path]:
    """The process's own JSON, made by ``plc-edge apply``, and its file; raises ConfigError."""
    if len(argv) != 2 or argv[0] != "--config":
        usage = f"usage: python -P -m services.{folder} --config FILE.json"
        raise ConfigError([Problem(folder, "", usage)])
    hint = "run `plc-edge apply` (at the centre `plc-edge central run`): it writes this file"
    try:
        config = json.loads(Path(argv[1]).read_bytes())
    except (OSError, ValueError) as e:
        raise ConfigError([Problem(argv[1], "", f"cannot be read: {e}", hint=hint)]) from None
    if not isinstance(config, dict) or config.get("folder") != folder:
        raise ConfigError([Problem(argv[1], "folder", f"is not for {folder}", hint=hint)])
    return config, Path(argv[1])


def main(folder: str, setup: Setup) -> NoReturn:
    """Runs a service to its end; the exit code is 0 after SIGTERM, 78 for a permanent failure."""
    started_s = time.monotonic()
    terminated = False

    def on_terminate(_signal: int, _frame: object) -> None:
        nonlocal terminated
        terminated = True
        if process is not None:
            process.stop()
        else:
            os._exit(EXIT_OK)

    # Where the interpreter itself dies (SIGSEGV, SIGBUS), the log tells at which line.
    faulthandler.enable()
    process: Process | None = None
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, on_terminate)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    die_with_parent()
    try:
        config, file = load_rendered(folder, sys.argv[1:])
        lock = take_lock(Path(config["runtime"]), config["process"])
        process = Process(config, file)
        _wake_on_signal(process)
        close = setup(process)
        process.run()
        if close is not None:
            close()
        process.bus.close()
        os.close(lock)
    except ConfigError as e:
        (process.log if process else Log(folder)).error("permanent failure", error=str(e))
        _exit(EXIT_PERMANENT, started_s)
    except BlockingIOError as e:
        Log(folder).error("another process of this name still runs", error=str(e))
        _exit(EXIT_FAILURE, started_s)
    except Exception as e:
        import traceback

        log = process.log if process else Log(folder)
        log.error("crash", error=repr(e), traceback=traceback.format_exc())
        _exit(EXIT_FAILURE, started_s)
    if not terminated:
        _exit(EXIT_OK, started_s)
    os._exit(EXIT_OK)


def _wake_on_signal(process: Process) -> None:
    """Lets a signal end the poll at once: zmq goes on waiting after EINTR."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    process.on_readable(read_fd, lambda: void(os.read(read_fd, 64)))


def void(_: object) -> None:
    """Takes a value nobody needs."""
