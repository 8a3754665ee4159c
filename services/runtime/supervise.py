"""``plc-edge run``, after rendering: keeps one supervisord and stops it in good order.

supervisord stops its programs one after another: 52 took 21 s. This small parent stops them
class by class (readers first, outputs last: what was read is still delivered), then ends
supervisord. Both die together: the kernel kills supervisord when this process is killed, and its
children with it (services/runtime/process.py), so there are never two readers of one PLC. The
same for ``plc-edge central run``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from supervisor.xmlrpc import SupervisorTransport

from bus.topology import PROCESSES
from services.runtime import assets, supervisor_access
from services.runtime.errors import EXIT_FAILURE, EXIT_OK
from services.runtime.process import PR_SET_PDEATHSIG, take_lock

# A class gets this long to end before the next one is asked; supervisord kills after 6 s.
CLASS_WAIT_S = 2.0
SHUTDOWN_WAIT_S = 8.0
# The variable that names supervisord's own configuration (services/runtime/assets.py).
PROGRAMS = "PLC_EDGE_SUPERVISORD_CONF"


def rpc(socket: Path) -> Any:
    """supervisord's XML-RPC interface over its Unix socket; raises PermissionError where it is
    another user's.
    """
    transport = SupervisorTransport(*supervisor_access.read(socket), f"unix://{socket}")
    return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor


def stop_class_by_class(supervisor: Any) -> None:
    """Asks whole classes of processes to end, in the order of bus/topology.py."""
    prefixes: dict[int, list[str]] = {p.stop_order: [] for p in PROCESSES.values()}
    for process in PROCESSES.values():
        prefixes[process.stop_order].append(process.prefix)

    def running(order: int) -> list[str]:
        return [
            info["name"]
            for info in supervisor.getAllProcessInfo()
            if info["statename"] in ("STARTING", "RUNNING", "BACKOFF", "STOPPING")
            and any(info["name"].startswith(prefix) for prefix in prefixes[order])
        ]

    for order in sorted(prefixes):
        for name in running(order):
            with contextlib.suppress(xmlrpc.client.Fault):  # it may have ended meanwhile
                supervisor.stopProcess(name, False)
        deadline_s = time.monotonic() + CLASS_WAIT_S
        while running(order) and time.monotonic() < deadline_s:
            time.sleep(0.05)


def become(runtime: str, logs: str, programs: str = "supervisord.conf") -> NoReturn:
    """Replaces this process (40 MB of imports) by the small supervising one."""
    os.environ["PLC_EDGE_RUNTIME"] = runtime
    os.environ["PLC_EDGE_LOGS"] = logs
    os.environ["PLC_EDGE_PYTHON"] = sys.executable
    os.environ[PROGRAMS] = programs
    os.execv(sys.executable, [sys.executable, "-P", "-m", "services.runtime.supervise"])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(runtime: Path) -> int:
    """Runs until a signal or until supervisord ends; returns the exit code."""
    try:
        lock = take_lock(runtime, "run")
    except BlockingIOError:
        sys.stderr.write(f"plc-edge already runs with {runtime}; `plc-edge status` shows it\n")
        return EXIT_FAILURE
    stopping = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    supervisor_access.write(runtime)
    command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon"]
    # A session of its own: Ctrl-C must reach us only, or supervisord stops in its own order.
    child = subprocess.Popen(
        [*command, "--configuration", str(assets.path(os.environ[PROGRAMS]))],
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )
    while not stopping and child.poll() is None:
        # Signals end the sleep's wait at once only through their handler; 0.2 s is soon enough.
        time.sleep(0.2)
    if child.poll() is not None:
        sys.stderr.write(f"supervisord ended by itself with {child.returncode}\n")
        return EXIT_FAILURE
    try:
        supervisor = rpc(runtime / supervisor_access.SOCKET)
        stop_class_by_class(supervisor)
        supervisor.shutdown()
    except (OSError, xmlrpc.client.Error):
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(SHUTDOWN_WAIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    os.close(lock)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["PLC_EDGE_RUNTIME"])))
