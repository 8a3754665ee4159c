"""All stations in one thread: sockets, telegram framing, what a person can do to a PLC.

One process serves 50 stations: an epoll loop and no thread, so an idle station costs nothing.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.simulator.station import Session, Station, connection_confirm, frame

# TPKT header + a CPU's largest PDU; a longer telegram is no S7 client's.
MAX_FRAME_BYTES = 4 + 3 + 960 + 64
# A client that does not read its replies is dropped, as a CPU runs out of buffers.
MAX_UNSENT_BYTES = 256 * 1024


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    place: Place
    session: Session = field(default_factory=Session)
    open: bool = False
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Place:
    """Where a station listens, and who is connected to it."""

    station: Station
    host: str
    port: int
    listener: socket.socket | None = None
    connections: set[int] = field(default_factory=set)


class Server:
    """The loop. ``tick`` is called every ``tick_s`` to move the values."""

    def __init__(self, tick: Callable[[], None], tick_s: float) -> None:
        self.places: dict[str, Place] = {}
        self._selector = selectors.DefaultSelector()
        self._by_fd: dict[int, _Connection] = {}
        self._tick, self._tick_s = tick, tick_s
        self._next_tick_s = time.monotonic() + tick_s

    def add(self, station: Station, host: str, port: int) -> Place:
        """Opens a station's port. Raises OSError where it is taken or not ours."""
        place = Place(station, host, port)
        self._listen(place)
        self.places[station.name] = place
        return place

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """Also serves another socket (the control socket)."""
        self._selector.register(sock, selectors.EVENT_READ, on_readable)

    def forget(self, sock: socket.socket) -> None:
        """No longer serves a socket given to ``watch``."""
        self._selector.unregister(sock)

    # --- what can happen to a PLC ------------------------------------------------------------

    def down(self, name: str) -> None:
        """Pulls the plug: connections are reset, new ones refused."""
        place = self.places[name]
        if place.listener is not None:
            self._selector.unregister(place.listener)
            place.listener.close()
            place.listener = None
        for fd in list(place.connections):
            # RST, not FIN: a PLC without power says no goodbye.
            with contextlib.suppress(OSError):
                self._by_fd[fd].socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
                )
            self._drop(self._by_fd[fd])

    def up(self, name: str) -> None:
        """Puts the plug back."""
        place = self.places[name]
        if place.listener is None:
            self._listen(place)

    # --- the loop ----------------------------------------------------------------------------

    def step(self) -> None:
        """Waits for the next thing to do, at most until the next tick, and does it."""
        timeout_s = self._next_tick_s - time.monotonic()
        if timeout_s <= 0:
            self._tick()
            # Ticks that could not be made are left out, not made up for.
            now_s = time.monotonic()
            self._next_tick_s = max(self._next_tick_s + self._tick_s, now_s)
            timeout_s = self._next_tick_s - now_s
        for key, events in self._selector.select(max(timeout_s, 0)):
            if key.data is not None:
                key.data()
                continue
            connection = self._by_fd.get(key.fd)
            if connection is None:
                continue
            if events & selectors.EVENT_WRITE:
                self._flush(connection)
            if events & selectors.EVENT_READ and key.fd in self._by_fd:
                self._receive(connection)

    def close(self) -> None:
        """Ends everything."""
        for place in self.places.values():
            if place.listener is not None:
                place.listener.close()
        for connection in self._by_fd.values():
            connection.socket.close()
        self._selector.close()

    def _listen(self, place: Place) -> None:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((place.host, place.port))
            listener.listen(16)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        place.port = listener.getsockname()[1]
        place.listener = listener
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(place))

    def _accept(self, place: Place) -> None:
        if place.listener is None:
            return
        try:
            sock, _ = place.listener.accept()
        except OSError:
            return  # gone again before we looked
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._by_fd[sock.fileno()] = _Connection(sock, place)
        place.connections.add(sock.fileno())
        self._selector.register(sock, selectors.EVENT_READ)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        connection.received += data
        try:
            self._serve(connection)
        except ValueError:
            self._drop(connection)
            return
        self._flush(connection)

    def _serve(self, connection: _Connection) -> None:
        """Answers every whole telegram that has come in."""
        received = connection.received
        while len(received) >= 4:
            size_bytes = received[2] << 8 | received[3]
            if received[0] != 3 or not 7 <= size_bytes <= MAX_FRAME_BYTES:
                raise ValueError("not a TPKT")
            if len(received) < size_bytes:
                return
            cotp = bytes(received[4:size_bytes])
            del received[:size_bytes]
            if not connection.open:
                connection.unsent += connection_confirm(cotp)
                connection.open = True
            elif cotp[1] == 0xF0:
                pdu = connection.place.station.answer(connection.session, cotp[3:])
                connection.unsent += frame(b"\x02\xf0\x80" + pdu)
            else:  # disconnect request, or nothing we know
                raise ValueError("not COTP data")

    def _flush(self, connection: _Connection) -> None:
        if connection.unsent:
            try:
                sent = connection.socket.send(connection.unsent)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._drop(connection)
                return
            del connection.unsent[:sent]
        if len(connection.unsent) > MAX_UNSENT_BYTES:
            self._drop(connection)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if self._selector.get_key(connection.socket).events != events:
            self._selector.modify(connection.socket, events)

    def _drop(self, connection: _Connection) -> None:
        fd = connection.socket.fileno()
        self._selector.unregister(connection.socket)
        connection.socket.close()
        connection.place.connections.discard(fd)
        del self._by_fd[fd]
