"""A TCP proxy that adds a fixed time each way and changes nothing else.

As a process of its own, so that it costs the measured program nothing:
``python -m tests.kit.delay_proxy TARGET_PORT DELAY_MS`` prints ``READY <port>`` and ends with its
standard input.

Every piece of bytes is passed on exactly the delay after it came, however many are on the way: a
longer line, not a slower one.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time

_SPIN_S = 0.0003


def _forward(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                due_s, data = pieces.get()
                left_s = due_s - time.monotonic()
                # sleep() wakes some 100 µs late: the last of it is waited out.
                if left_s > _SPIN_S:
                    time.sleep(left_s - _SPIN_S)
                while time.monotonic() < due_s:
                    pass
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)

    threading.Thread(target=send, daemon=True).start()
    data = b"-"
    while data:
        try:
            data = source.recv(65_536)
        except OSError:
            data = b""
        pieces.put((time.monotonic() + delay_s, data))


def serve(target_port: int, delay_s: float) -> int:
    """Listens on a free port of 127.0.0.1, which it returns; serves in the background."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", target_port), 5)
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                s.settimeout(None)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_forward, args=(*pair, delay_s), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


if __name__ == "__main__":
    print(f"READY {serve(int(sys.argv[1]), float(sys.argv[2]) / 1_000)}", flush=True)
    sys.stdin.read()
