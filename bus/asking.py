"""One question to a process that answers on a wire, from a thread that may wait."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import zmq

from bus.frames import Reply, Request
from bus.sockets import Bus

# Who is there takes a question at once; this share of the time is enough to see that nobody is.
_TAKEN_SHARE = 1 / 4


class NoAnswer(Exception):
    """``why``: ``away``, nobody takes the question; ``silent``, nobody answers; ``version``, the
    answer is none of ours.
    """

    def __init__(self, why: Literal["away", "silent", "version"]) -> None:
        super().__init__(why)
        self.why = why


def ask(runtime: Path, wire: str, question: Request, wait_s: float) -> Reply:
    """The answer, within ``wait_s``; it may be a refusal (``error``). Raises NoAnswer.

    Over a socket of its own: one that was not answered would spoil the next question.
    """
    end_s = time.monotonic() + wait_s
    bus = Bus(runtime)
    try:
        port = bus.connect(wire)
        taken = port.socket.poll(round(wait_s * _TAKEN_SHARE * 1_000), zmq.POLLOUT)
        if not taken or not port.send(question):
            raise NoAnswer("away")
        if not port.socket.poll(max(0, round((end_s - time.monotonic()) * 1_000)), zmq.POLLIN):
            raise NoAnswer("silent")
        reply = port.receive()
    finally:
        bus.close()
    if not isinstance(reply, Reply):
        raise NoAnswer("version")
    return reply
