"""What supervisord says of its programs: read over its Unix socket, never a command.

supervisord's socket gives every caller every right, so the one who reads keeps to the two calls
that only tell (``supervisor.getAllProcessInfo`` and ``readLog``, supervisord.org/api.html).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import time
import xmlrpc.client
from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ExpatError

from services.runtime import supervisor_access

TIMEOUT_S = 2.0
# Of supervisord's log: some 700 lines, far more than come in the second between two questions.
LOG_TAIL_BYTES = 65_536
# The log's line is written at most so long after the end that it tells of.
LOG_LATE_S = 2


class SupervisorUnavailable(Exception):
    """supervisord's socket is missing, refuses or does not answer; the text says which."""


@dataclass(frozen=True, slots=True)
class Row:
    """One program as supervisord sees it."""

    name: str
    state: str
    """RUNNING | STARTING | BACKOFF | STOPPING | STOPPED | EXITED | FATAL | UNKNOWN"""
    pid: int
    """0 when it does not run."""
    start_s: int
    """Unix s of its last start; 0 if it never started."""
    stop_s: int
    now_s: int
    exit_status: int
    """Of its last end; 78 is a permanent failure. -1: killed by a signal."""
    spawn_error: str

    @property
    def uptime_s(self) -> int:
        """Seconds since its start; 0 when it does not run."""
        return max(0, self.now_s - self.start_s) if self.pid else 0

    @property
    def last_end(self) -> str:
        """How it ended last, in words."""
        return "killed by a signal" if self.exit_status < 0 else f"exit status {self.exit_status}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        user, password = supervisor_access.read(path)
        key = base64.b64encode(f"{user}:{password}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {key}")] if user else [])
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


def read(socket_path: str) -> list[Row]:
    """All programs, by name. Blocks for at most a few times TIMEOUT_S.

    Raises SupervisorUnavailable with the reason in words.
    """
    try:
        infos: Any = _supervisor(socket_path).getAllProcessInfo()
    except FileNotFoundError:
        raise SupervisorUnavailable(
            f"no socket {socket_path}: supervisord is not running"
        ) from None
    except ConnectionRefusedError:
        raise SupervisorUnavailable(
            f"{socket_path} refuses: supervisord has ended and left its socket behind"
        ) from None
    except PermissionError:
        raise SupervisorUnavailable(
            f"no permission on {socket_path}: run as the user of plc-edge or as root"
        ) from None
    except TimeoutError:
        raise SupervisorUnavailable(f"{socket_path} does not answer: supervisord hangs") from None
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as e:
        raise SupervisorUnavailable(f"{socket_path}: {e}") from None
    rows = [
        Row(
            name=str(i["name"]),
            state=str(i["statename"]),
            pid=int(i["pid"]),
            start_s=int(i["start"]),
            stop_s=int(i["stop"]),
            now_s=int(i["now"]),
            exit_status=int(i["exitstatus"]),
            spawn_error=str(i["spawnerr"]),
        )
        for i in infos
    ]
    return sorted(rows, key=lambda row: row.name)


def asked_to_end(socket_path: str, rows: list[Row]) -> frozenset[str]:
    """Which of these programs were asked to end (``supervisorctl``, ``plc-edge apply``) before
    their present start. Of those where it cannot be found out, it says that nobody asked.

    Raises nothing; blocks as ``read`` does.
    """
    # A program that never ended and has another start than before is a new one: `apply` has
    # replaced it.
    asked = {row.name for row in rows if not row.stop_s}
    if len(asked) == len(rows):
        return frozenset(asked)
    # supervisord keeps no reason for an end, but logs "stopped: <name>" where it was asked to, and
    # "exited: <name>" of a process that ended by itself.
    try:
        log: Any = _supervisor(socket_path).readLog(-LOG_TAIL_BYTES, 0)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error, ExpatError):
        return frozenset(asked)
    ends = {name: (when, how) for when, how, name in _END.findall(str(log))}
    for row in rows:
        when, how = ends.get(row.name, ("", ""))
        with contextlib.suppress(ValueError):  # a line that is no time
            if how == "stopped" and 0 <= _unix_s(when) - row.stop_s <= LOG_LATE_S:
                asked.add(row.name)
    return frozenset(asked)


_END = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ \w+ (stopped|exited): (\S+) ", re.M)


def _unix_s(local: str) -> float:
    return time.mktime(time.strptime(local, "%Y-%m-%d %H:%M:%S"))


def _supervisor(socket_path: str) -> Any:
    transport = _Transport(socket_path)
    return xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport).supervisor
