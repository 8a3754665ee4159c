"""What supervisord says of its programs: read over its Unix socket, never a command.

supervisord's socket gives every caller every right, so the one who reads keeps to the one call
that only tells (``supervisor.getAllProcessInfo``, supervisord.org/api.html).
"""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 2.0


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
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


def read(socket_path: str) -> list[Row]:
    """All programs, by name. Blocks for at most a few times TIMEOUT_S.

    Raises SupervisorUnavailable with the reason in words.
    """
    proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_Transport(socket_path))
    try:
        infos: Any = proxy.supervisor.getAllProcessInfo()
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
