"""A TCP proxy between an output and its destination that breaks the line in the ways lines break.

``fault`` may be set at any time, also for connections that are up:
  None        all passes
  "refuse"    new connections are closed at once, those that are up are reset
  "reset"     every connection is reset (RST), also new ones after the first byte
  "cut"       the connections that are up are reset, once: it becomes None
  "blackhole" nothing passes in either direction, connections stay up
  "half_open" what the client sends passes, nothing comes back
  "delay"     0.3 s in each direction
  "drip"      1 byte a second in each direction
  "slow"      20 kB a second in each direction (with ``narrow``, else the buffers take it all)
  "cut_ack"   the first bytes from the server after a PUBLISH cut the connection
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque

DELAY_S = 0.3
DRIP_S = 1.0
SLOW_BYTES, SLOW_S = 1_000, 0.05
NARROW_BYTES = 4_096


class _Pipe:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, upstream: bool) -> None:
        self.source, self.sink, self.upstream = source, sink, upstream
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.next_s = 0.0
        self.ended = False


class Proxy:
    """Listens on ``port`` and passes to (host, target_port)."""

    def __init__(self, target_port: int, host: str = "127.0.0.1", narrow: bool = False) -> None:
        self._target = (host, target_port)
        self._most = 1 if narrow else 64
        self._listener = socket.create_server(("127.0.0.1", 0))
        if narrow:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BYTES)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self.fault: str | None = None
        self.connections = 0
        self._pipes: list[_Pipe] = []
        self._published: set[socket.socket] = set()
        """Servers that have been sent a PUBLISH."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                if self.fault != "blackhole":
                    for pipe in self._pipes:
                        if not pipe.ended and len(pipe.waiting) < self._most:
                            selector.register(pipe.source, selectors.EVENT_READ, pipe)
                ready = selector.select(0.005)
            for key, _ in ready:
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)
            if self.fault in ("refuse", "reset", "cut"):
                self._reset_all()
                if self.fault == "cut":
                    self.fault = None
            if self.fault != "blackhole":
                for pipe in list(self._pipes):
                    self._pass(pipe)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            self.connections += 1
            if self.fault == "refuse":
                client.close()
                return
            try:
                server = socket.create_connection(self._target, 2)
            except OSError:
                client.close()
                return
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.setblocking(False)
            self._pipes += [_Pipe(client, server, True), _Pipe(server, client, False)]

    def _read(self, pipe: _Pipe) -> None:
        if pipe not in self._pipes:
            return
        try:
            data = pipe.source.recv(NARROW_BYTES * self._most)
        except BlockingIOError:
            return
        except OSError:
            self._end(pipe)
            return
        if not data:
            self._end(pipe)
            return
        if self.fault == "half_open" and not pipe.upstream:
            return
        if self.fault == "cut_ack":
            if pipe.upstream and any(0x30 <= b < 0x40 for b in data[:1]):
                self._published.add(pipe.sink)
            elif not pipe.upstream and pipe.source in self._published:
                self._end(pipe, reset=True)
                return
        due_s = time.monotonic() + (DELAY_S if self.fault == "delay" else 0.0)
        pipe.waiting.append((due_s, data))

    def _pass(self, pipe: _Pipe) -> None:
        now_s = time.monotonic()
        while pipe.waiting and pipe in self._pipes:
            due_s, data = pipe.waiting[0]
            if due_s > now_s:
                return
            size = len(data)
            if self.fault == "drip":
                if now_s < pipe.next_s:
                    return
                size, pipe.next_s = 1, now_s + DRIP_S
            if self.fault == "slow":
                if now_s < pipe.next_s:
                    return
                size, pipe.next_s = SLOW_BYTES, now_s + SLOW_S
            try:
                sent = pipe.sink.send(data[:size])
            except BlockingIOError:
                return
            except OSError:
                self._end(pipe)
                return
            pipe.waiting.popleft()
            if sent < len(data):
                pipe.waiting.appendleft((due_s, data[sent:]))

    def _end(self, pipe: _Pipe, reset: bool = False) -> None:
        """Closes both directions; orderly, or with RST."""
        both = [p for p in self._pipes if p.source in (pipe.source, pipe.sink)]
        self._pipes = [p for p in self._pipes if p not in both]
        for p in both:
            self._published.discard(p.source)
            if reset:
                p.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            p.source.close()

    def _reset_all(self) -> None:
        for pipe in list(self._pipes):
            if pipe in self._pipes and (self.fault == "reset" or pipe.upstream):
                self._end(pipe, reset=True)

    def close(self) -> None:
        """Ends everything."""
        self._stop.set()
        self._thread.join(5)
        self._listener.close()
        for pipe in list(self._pipes):
            pipe.source.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
