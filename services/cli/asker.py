"""Asks a running process over its control socket."""

from __future__ import annotations

import time
from typing import Any

import zmq

from bus.frames import Reply, Request
from bus.sockets import Bus
from services.cli.common import fail

ANSWER_S = 30.0


class Asker:
    """Asks the process that binds ``wire`` (an ``item``'s); ``who`` it is, in words."""

    def __init__(
        self, bus: Bus, wire: str, who: str, wait_s: float = ANSWER_S, item: str = ""
    ) -> None:
        self._port = bus.connect(wire, item)
        self._who = who
        self._wait_s = wait_s

    def __call__(self, verb: str, **args: Any) -> Any:
        """The result; ends the command where there is none."""
        deadline_s = time.monotonic() + self._wait_s
        while not self._port.send(Request(verb, args)):
            if time.monotonic() > deadline_s:
                fail(f"{self._who} runs but does not answer: see its log")
            time.sleep(0.01)
        if not self._port.socket.poll(int(self._wait_s * 1_000), zmq.POLLIN):
            fail(f"{self._who} did not answer within {self._wait_s:.0f} s: see its log")
        return result_of(self._port.receive())


def result_of(reply: Any) -> Any:
    """What an answer holds; ends the command where it is none, or says why not."""
    if not isinstance(reply, Reply):
        fail("the answer is something else: is that process of this version?")
    if reply.error:
        fail(reply.error)
    return reply.result
