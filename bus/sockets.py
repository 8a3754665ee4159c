"""The only place that opens a ZeroMQ socket; options come from the topology table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from bus import topology
from bus.frames import Frame, FrameError, Reply, UnknownVersion, pack, unpack

_READABLE = int(zmq.POLLIN)  # an enumeration's & is a call in Python
_BINDER_PEER = {"pull": "push", "push": "pull", "sub": "pub", "pub": "sub", "rep": "req"}
_TYPE = {
    "pull": zmq.PULL,
    "push": zmq.PUSH,
    "sub": zmq.SUB,
    "pub": zmq.PUB,
    "rep": zmq.REP,
    "req": zmq.REQ,
}


class Port:
    """One end of a wire. Never blocks: ``send`` says whether the frame was taken.

    Bad frames are counted in ``refused`` (by reason: "malformed", "version") and skipped.
    """

    def __init__(self, socket: zmq.Socket[bytes], role: str, wire: str) -> None:
        self.socket = socket
        self.role = role
        self.wire = wire
        self.dropped = 0
        self.drained = False
        """The last ``receive`` found nothing."""
        self.refused: dict[str, int] = {"malformed": 0, "version": 0}

    def send(self, frame: Frame, topic: bytes = b"") -> bool:
        """Sends one frame; False when the peer is away or full. On live wires that is a drop
        (counted in ``dropped``), on keep wires the sender tries again.
        """
        return self.send_packed(pack(frame), topic)

    def send_packed(self, data: bytes, topic: bytes = b"") -> bool:
        """Like ``send`` for a frame that is already packed."""
        try:
            if self.role == "pub":
                self.socket.send_multipart((topic, data), zmq.NOBLOCK, copy=True)
            else:
                self.socket.send(data, zmq.NOBLOCK, copy=True)
        except zmq.Again:
            self.dropped += self.role == "pub"
            return False
        return True

    def receive(self) -> Frame | None:
        """The next good frame that waits, or None."""
        while True:
            # Asked first: pyzmq's exception for "nothing there" costs 35 µs when caches are cold.
            if not int(self.socket.get(zmq.EVENTS)) & _READABLE:
                self.drained = True
                return None
            if self.role == "sub":
                data = self.socket.recv_multipart(zmq.NOBLOCK)[-1]
            else:
                data = self.socket.recv(zmq.NOBLOCK)
            try:
                return unpack(data)
            except FrameError as e:
                self.refused["version" if isinstance(e, UnknownVersion) else "malformed"] += 1
                if self.role == "rep":  # who asked waits for an answer
                    self.send(Reply(None, str(e)))

    def subscribe(self, topic: bytes) -> None:
        """For SUB ends: take what begins with ``topic``."""
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)

    def fileno(self) -> int:
        """What becomes readable when frames have come since the last ``receive`` (edge, not level:
        zmq_getsockopt(3), ZMQ_FD).
        """
        return int(self.socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Closes at once; what the peer has not taken is sent again by whoever keeps it."""
        self.socket.close(linger=0)


class Bus:
    """A process's sockets, by wire name."""

    def __init__(self, runtime: Path) -> None:
        self.runtime = runtime
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        self._ports: list[Port] = []

    def bind(self, wire: str, item: str = "") -> Port:
        """Opens the binding end of a wire."""
        w = topology.WIRES[wire]
        port = self._open(w, w.binds, wire)
        port.socket.bind(topology.endpoint(self.runtime, wire, item))
        return port

    def connect(self, wire: str, item: str = "") -> Port:
        """Opens a connecting end of a wire; its peer may come later."""
        w = topology.WIRES[wire]
        port = self._open(w, _BINDER_PEER[w.binds], wire)
        port.socket.connect(topology.endpoint(self.runtime, wire, item))
        return port

    def _open(self, w: topology.Wire, role: str, wire: str) -> Port:
        socket = self._context.socket(_TYPE[role])
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, w.hwm)
        socket.setsockopt(zmq.RCVHWM, w.receive_hwm or w.hwm)
        # Nothing may be queued for a peer that is not there: it would come out old.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        if role == "pub" and w.binds == "sub":
            # One peer: a full pipe fails the send, so that the drop is counted. (Without a peer
            # there is no pipe and nothing to count; with several the slow one must not matter.)
            socket.setsockopt(zmq.XPUB_NODROP, 1)
        # A killed peer is back within 3 s: look for it often (the default backs off).
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        port = Port(socket, role, wire)
        self._ports.append(port)
        return port

    def release(self, port: Port) -> None:
        """Closes one port for good."""
        self._ports.remove(port)
        port.close()

    @property
    def dropped(self) -> int:
        """Frames that no peer took, over all ports."""
        return sum(p.dropped for p in self._ports)

    def refused(self, reason: str) -> int:
        """Frames refused for ``reason`` ("malformed" or "version"), over all ports."""
        return sum(p.refused[reason] for p in self._ports)

    def close(self) -> None:
        """Closes every socket without waiting."""
        for port in self._ports:
            port.close()
        self._context.term()
