"""Alarms for the panel: asks the alert engine, and hands it what people do.

The engine answers ``plc-edge alerts`` over the same wire. Nothing else of it can be reached.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.metrics.asking import Peer, Refused, json_answer
from services.runtime.errors import Unavailable

# However many panels look, the engine is asked once in so long.
FRESH_S = 1.0
SHOWN = 200
BODY_MAX_BYTES = 4_096
SILENCE_MAX_S = 30 * 86_400
TEXT_MAX = 200
_PLACE = ("locatario", "site", "plc", "group", "machine", "field")


class Alarms:
    """The panel's section. ``who``: whoever is logged in; None where nobody must log in, and so
    nobody may do anything.
    """

    def __init__(self, runtime: Path, who: str | None) -> None:
        self._ask = Peer(runtime, "alarms", "the alert engine")
        self._who = who
        self._last: tuple[float, bytes] | None = None

    def routes(self) -> list[Route]:
        """Read one, write two."""
        return [
            Route("/api/alarms", self._list),
            Route("/api/alarms/ack", self._ack, methods=["POST"]),
            Route("/api/alarms/silence", self._silence, methods=["POST"]),
        ]

    # -- routes ----------------------------------------------------------------------------------

    async def _list(self, _request: Request) -> Response:
        if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
            try:
                found = await self._ask("list", {"limit": SHOWN})
            except Unavailable as e:
                return json_answer(503, {"error": e.code, "text": e.message})
            document = {
                "v": 1,
                "may_act": self._who is not None,
                "count": found["count"],
                "alarms": found["alarms"],
            }
            self._last = time.monotonic(), orjson.dumps(document)
        return json_answer(200, self._last[1])

    async def _ack(self, request: Request) -> Response:
        return await self._do(request, "ack", lambda said: {"who": self._who})

    async def _silence(self, request: Request) -> Response:
        def meant(said: dict[str, Any]) -> dict[str, Any]:
            for_s, why = said.get("for_s"), said.get("why")
            if type(for_s) is not int or not 0 <= for_s <= SILENCE_MAX_S:
                text = f"`for_s` is a number of seconds, 0 to {SILENCE_MAX_S}"
                raise Refused(400, "bad_request", text)
            if not isinstance(why, str) or (for_s and not why.strip()) or len(why) > TEXT_MAX:
                text = f"`why` is a reason of at most {TEXT_MAX} characters"
                raise Refused(400, "bad_request", text)
            return {"for_ms": for_s * 1_000, "why": f"{why.strip()} ({self._who})"}

        return await self._do(request, "silence", meant)

    async def _do(self, request: Request, verb: str, meant: Any) -> Response:
        try:
            self._may(request)
            said = await _body(request)
            args = {"rule": said["rule"], **_place(said), **meant(said)}
            touched = await self._ask(verb, args)
        except Refused as e:
            return json_answer(e.status, {"error": e.code, "text": str(e)})
        except Unavailable as e:
            return json_answer(503, {"error": e.code, "text": e.message})
        self._last = None
        return json_answer(200, {"v": 1, "alarms": touched})

    def _may(self, request: Request) -> None:
        if self._who is None:
            text = "give the panel `username:` and `password_file:` under `metrics:`"
            raise Refused(403, "no_login", text)
        # The browser adds the login to what any page makes it send. A page of another origin can
        # neither send this type without asking first, which nobody grants, nor hide its origin.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "bad_request", "send `Content-Type: application/json`")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise Refused(403, "foreign", "only the panel itself may ask for that")


async def _body(request: Request) -> dict[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_MAX_BYTES:
            raise Refused(413, "bad_request", f"more than {BODY_MAX_BYTES} bytes")
    try:
        said = orjson.loads(body)
    except ValueError:
        raise Refused(400, "bad_request", "is no JSON") from None
    if not isinstance(said, dict) or not isinstance(said.get("rule"), str):
        raise Refused(400, "bad_request", "`rule` is missing")
    return said


def _place(said: dict[str, Any]) -> dict[str, str]:
    place = {name: said[name] or "" for name in _PLACE if name in said}
    if not all(isinstance(value, str) and len(value) <= TEXT_MAX for value in place.values()):
        raise Refused(400, "bad_request", f"{', '.join(_PLACE)} are texts")
    return place
