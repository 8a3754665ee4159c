"""Asks the process ``alerts`` of the centre, over its control socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from bus.frames import Reply, Request
from bus.sockets import Bus
from services.control_plane.problems import Refusal

# Of a process that is there; one that is not is given a quarter of it.
ANSWER_S = 2.0


class Engines:
    """What rings, of each tenant; one question at a time, each over a socket of its own."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def ask(self, tenant: str, verb: str, **args: Any) -> Any:
        """The answer's result. Raises Refusal where the process is away, or says no."""
        bus = Bus(self._runtime)
        try:
            port = bus.connect("alarms")
            wait_ms = int(ANSWER_S * 1_000)
            # No socket, no answer: the process is not there at all.
            sent = port.socket.poll(wait_ms // 4, zmq.POLLOUT) and port.send(
                Request(verb, {**args, "tenant": tenant})
            )
            answered = sent and port.socket.poll(wait_ms, zmq.POLLIN)
            reply = port.receive() if answered else None
        finally:
            bus.close()
        if not sent:
            raise Refusal("alerts-away", reason="it does not answer")
        if not isinstance(reply, Reply):
            raise Refusal("alerts-unanswered", wait_s=ANSWER_S)
        if reply.error:
            raise Refusal("alerts-away", reason=reply.error)
        return reply.result
