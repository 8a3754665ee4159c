"""Asks the process ``alerts`` of the centre, over its control socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bus.asking import NoAnswer, ask
from bus.frames import Request
from services.control_plane.problems import Refusal

# Of a process that is there (bus/asking.py).
ANSWER_S = 2.0


class Engines:
    """What rings, of each tenant; one question at a time, each over a socket of its own."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def ask(self, tenant: str, verb: str, **args: Any) -> Any:
        """The answer's result. Raises Refusal where the process is away, or says no."""
        question = Request(verb, {**args, "tenant": tenant})
        try:
            reply = ask(self._runtime, "alarms", question, ANSWER_S)
        except NoAnswer as e:
            if e.why == "away":
                raise Refusal("alerts-away", reason="it does not answer") from None
            raise Refusal("alerts-unanswered", wait_s=ANSWER_S) from None
        if reply.error:
            raise Refusal("alerts-away", reason=reply.error)
        return reply.result
