"""The keep path's baseline: bare ZeroMQ, PUSH/PULL to another process and PUB/SUB back."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import zmq


def echo(keep: str, acks: str) -> None:
    """The bare store: acknowledges the last of what waits."""
    context = zmq.Context()
    pull, pub = context.socket(zmq.PULL), context.socket(zmq.PUB)
    pull.setsockopt(zmq.RCVHWM, 100_000)
    pull.bind(keep)
    pub.bind(acks)
    count = 0
    while True:
        pull.poll()
        try:
            while True:
                pull.recv(zmq.NOBLOCK)
                count += 1
        except zmq.Again:
            pub.send(b"%d" % count)


class BareZeromq:
    """The other end of ``echo``; sends ``data`` again and again."""

    def __init__(self, folder: Path, data: bytes) -> None:
        ends = [f"ipc://{folder}/bare-{name}" for name in ("keep", "acks")]
        # Not forked: a ZeroMQ context does not live through that.
        self._process = multiprocessing.get_context("spawn").Process(target=echo, args=ends)
        self._process.start()
        self._context = zmq.Context()
        self._push, self._sub = self._context.socket(zmq.PUSH), self._context.socket(zmq.SUB)
        self._push.setsockopt(zmq.SNDHWM, 100_000)
        self._sub.setsockopt(zmq.SUBSCRIBE, b"")
        self._push.connect(ends[0])
        self._sub.connect(ends[1])
        self._data = data
        self._sent = self._acked = 0
        while not self._acked:  # until both ends know each other
            self._push.send(self._data)
            self._sent += 1
            if self._sub.poll(20):
                self._acked = int(self._sub.recv())

    def send(self, count: int) -> None:
        """Returns when all are acknowledged."""
        self._sent += count
        for _ in range(count):
            self._push.send(self._data)
        while self._acked < self._sent:
            self._acked = int(self._sub.recv())

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._context.destroy(0)
