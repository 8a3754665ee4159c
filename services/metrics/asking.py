"""What the panel asks of other processes, over their control sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import Response

from bus import topology
from bus.asking import NoAnswer, ask
from bus.frames import Request
from services.runtime.errors import Unavailable

# Shorter than what a stopping process is given.
ANSWER_S = 2.0
# Questions that wait for their turn; who comes then is told so.
MAX_WAITING = 8


class Refused(Exception):
    """What a request gets instead: status, word, and what mends it."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class Peer:
    """The process that binds ``wire``; ``who`` it is, in words. One question at a time."""

    def __init__(self, runtime: Path, wire: str, who: str, answer_s: float = ANSWER_S) -> None:
        self._runtime = runtime
        self._wire = wire
        self._who = who
        self._answer_s = answer_s
        self._asking = asyncio.Lock()
        self._waiting = 0

    async def __call__(self, verb: str, args: dict[str, Any]) -> Any:
        """The result. Raises Unavailable where nobody answers, Refused (409) for a refusal."""
        if self._waiting >= MAX_WAITING:
            raise Unavailable("busy", f"{self._who} is asked too much at once: ask again")
        self._waiting += 1
        try:
            async with self._asking:
                return await asyncio.to_thread(self._ask_now, verb, args)
        finally:
            self._waiting -= 1

    def _ask_now(self, verb: str, args: dict[str, Any]) -> Any:
        if not topology.socket_path(self._runtime, self._wire).exists():
            raise Unavailable("away", f"no {self._who.removeprefix('the ')} runs here")
        try:
            reply = ask(self._runtime, self._wire, Request(verb, args), self._answer_s)
        except NoAnswer as e:
            does = "is of another version" if e.why == "version" else "does not answer"
            raise Unavailable("silent", f"{self._who} {does}") from None
        if reply.error:
            raise Refused(409, "refused", reply.error)
        return reply.result


def json_answer(status: int, document: Any) -> Response:
    """JSON that no cache keeps; ``document`` may be encoded already."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    headers = {"cache-control": "no-store"}
    return Response(body, status, headers, media_type="application/json")
