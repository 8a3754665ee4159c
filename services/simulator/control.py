"""What can be done to a running simulator: a Unix socket, a line in, a line out.

``down PLC`` pulls the plug, ``up PLC`` puts it back, ``stop PLC`` and ``run PLC`` switch the CPU,
``refuse PLC`` and ``permit PLC`` switch PUT/GET, ``status`` counts. Answers begin with ok or error.
A fleet has verbs of its own (``fleet/fleet.py``).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from services.simulator.server import Server

MAX_LINE_BYTES = 1_024


class ControlSocket:
    """The socket. ``do(line)`` does what a line says and gives the answer."""

    def __init__(self, path: Path, do: Callable[[str], str]) -> None:
        """Raises OSError where there can be no socket."""
        self._path, self._do = path, do
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)
        self.socket.bind(str(path))
        os.chmod(path, 0o600)
        self.socket.listen(4)
        self.socket.setblocking(False)

    def close(self) -> None:
        """Removes the socket."""
        self.socket.close()
        self._path.unlink(missing_ok=True)

    def answer(self) -> None:
        """Call it when the socket is readable."""
        try:
            peer, _ = self.socket.accept()
        except OSError:
            return  # gone again before we looked
        with peer:
            # One short line from a local tool: it is there, or it is not worth waiting for.
            peer.settimeout(0.5)
            try:
                line = peer.recv(MAX_LINE_BYTES).decode(errors="replace").strip()
                peer.sendall((self._do(line) + "\n").encode())
            except OSError:
                return


class Control:
    """The verbs of an S7 server."""

    def __init__(self, server: Server, path: Path) -> None:
        self._server = server
        self._socket = ControlSocket(path, self.do)
        server.watch(self._socket.socket, self._socket.answer)

    def close(self) -> None:
        """Removes the socket."""
        self._socket.close()

    def do(self, line: str) -> str:
        """Does what a line says."""
        verb, _, name = line.partition(" ")
        if verb == "status":
            return "ok " + json.dumps(self._status())
        verbs: dict[str, Callable[[str], None]] = {
            "down": self._server.down,
            "up": self._server.up,
            "stop": lambda plc: setattr(self._station(plc), "running", False),
            "run": lambda plc: setattr(self._station(plc), "running", True),
            "refuse": lambda plc: setattr(self._station(plc), "refuses", True),
            "permit": lambda plc: setattr(self._station(plc), "refuses", False),
        }
        if verb not in verbs:
            return f"error: {verb!r} is none of {', '.join(verbs)}, status"
        if name not in self._server.places:
            return f"error: no PLC {name!r}; there is {', '.join(self._server.places)}"
        try:
            verbs[verb](name)
        except OSError as e:
            return f"error: {e.strerror}"
        return "ok"

    def _station(self, name: str) -> object:
        return self._server.places[name].station

    def _status(self) -> dict[str, dict[str, object]]:
        return {
            name: {
                "port": place.port,
                "up": place.listener is not None,
                "run": place.station.running,
                "connections": len(place.connections),
                "reads": place.station.reads,
                "writes": place.station.writes,
            }
            for name, place in self._server.places.items()
        }


def ask(path: Path, line: str, timeout_s: float = 5.0) -> str:
    """Sends a line to a running simulator. Raises OSError where there is none, or one too busy."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(timeout_s)
        s.connect(str(path))
        s.sendall(line.encode() + b"\n")
        return s.recv(65_536).decode().strip()
