"""The HTTP side: CONTRACT §6, in a thread and event loop of its own; read-only but for what
people do about alarms (services/metrics/alarms.py).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.metrics.alarms import Alarms
from services.metrics.event_log import EventLog
from services.metrics.exposition import Exposition, negotiate
from services.metrics.families import families
from services.metrics.history import History
from services.metrics.processes import ProcessTable
from services.metrics.site import Site
from services.metrics.status import Status
from services.metrics.stream import MAX_CLIENTS, Hub
from services.metrics.words import STATIC
from services.runtime.serving import Server
from services.runtime.static_files import StaticFiles, security_headers

_SECURITY_HEADERS = [(k.encode(), v.encode()) for k, v in security_headers().items()]


class Guard:
    """Basic authentication (RFC 7617) on everything but /healthz, and security headers."""

    def __init__(self, app: ASGIApp, username: str | None, password: str | None) -> None:
        self.app = app
        # Compared as digests under a key of this run: neither length nor time tells anything.
        self._key = secrets.token_bytes(32)
        self._expected = (
            None if username is None else self._digest(f"{username}:{password or ''}".encode())
        )

    def _digest(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256")

    def _allowed(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] == "/healthz":
            return True
        header = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, value = header.partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            given = base64.b64decode(value.strip(), validate=True)
        except ValueError:
            return False
        return hmac.compare_digest(self._digest(given), self._expected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SECURITY_HEADERS]
            await send(message)

        if self._allowed(scope):
            await self.app(scope, receive, send_guarded)
            return
        challenge = {"www-authenticate": 'Basic realm="plc-edge", charset="UTF-8"'}
        refusal = PlainTextResponse("user and password needed\n", 401, challenge)
        await refusal(scope, receive, send_guarded)


class Web:
    """All routes, and the server that runs them."""

    def __init__(self, site: Site, table: ProcessTable, runtime: Path, events: EventLog) -> None:
        self.site = site
        self._runtime = runtime
        self._events = events
        self.table = table
        self.status = Status(site, table)
        self.hub = Hub(site, self.status)
        self._exposition = Exposition()
        self._assets = StaticFiles(STATIC)
        self._server: Server | None = None
        self.error: BaseException | None = None

    # -- routes --------------------------------------------------------------------------

    def app(self, username: str | None, password: str | None) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route("/", self._asset),
            Route("/history", self._history),
            Route("/static/{name:path}", self._asset),
            Route("/metrics", self._metrics),
            Route("/api/last", self._last),
            Route("/api/status", self._status),
            Route("/api/trend", self._trend),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/api/stream", self._stream),
            *Alarms(self._runtime, username).routes(),
            *History(self._runtime, self._events).routes(),
        ]
        return Guard(Starlette(routes=routes, lifespan=self._lifespan), username, password)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        pump = asyncio.ensure_future(self.hub.pump())
        pump.add_done_callback(self._pump_ended)
        yield
        self.hub.close()

    def _pump_ended(self, pump: asyncio.Future[None]) -> None:
        if not pump.cancelled() and pump.exception() is not None:
            self.error = pump.exception()

    async def _asset(self, request: Request) -> Response:
        return self._assets.answer(request, request.path_params.get("name", "index.html"))

    async def _history(self, request: Request) -> Response:
        return self._assets.answer(request, "history.html")

    async def _metrics(self, request: Request) -> Response:
        content_type = negotiate(request.headers.get("accept", ""))
        with self.site.lock:
            items = families(self.site, self.table, self.hub)
        return Response(
            self._exposition.text(items, content_type), headers={"content-type": content_type}
        )

    async def _last(self, request: Request) -> Response:
        query = request.query_params
        with self.site.lock:
            bodies = self.site.bodies(query.get("plc", ""), query.get("group", ""))
        return _json(b'{"v":1,"messages":[' + b",".join(bodies) + b"]}")

    async def _status(self, _request: Request) -> Response:
        with self.site.lock:
            document = self.status.document()
        return _json(orjson.dumps(document))

    async def _trend(self, request: Request) -> Response:
        q = request.query_params
        plc, group = q.get("plc", ""), q.get("group", "")
        machine, field = q.get("machine", ""), q.get("field", "")
        with self.site.lock:
            known = self.site.plcs.get(plc)
            if known is None or group not in known.groups or not field or len(field) > 200:
                return _json(b'{"error":"no such plc, group or field"}', 404)
            if machine and machine not in known.groups[group].machines:
                return _json(b'{"error":"no such machine"}', 404)
            ts_ms, values = self.site.trends.get((plc, group, machine, field))
        return _json(orjson.dumps({"v": 1, "ts": ts_ms, "values": values}))

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        with self.site.lock:
            reasons = self.status.not_ready()
        body = orjson.dumps({"ready": not reasons, "reasons": reasons})
        return _json(body, 503 if reasons else 200)

    async def _stream(self, request: Request) -> Response:
        if len(self.hub.clients) >= MAX_CLIENTS:
            return PlainTextResponse("too many listeners\n", 503, {"retry-after": "5"})
        return cast(Response, _Streamed(self.hub.serve))

    # -- the server ----------------------------------------------------------------------

    def start(
        self,
        listener: socket.socket,
        username: str | None = None,
        password: str | None = None,
        tls: tuple[str, str] | None = None,
    ) -> None:
        """Serves ``listener`` in a new thread; ``tls`` is (certificate, key), PEM files."""
        self._server = Server(self.app(username, password), listener, tls)

    @property
    def failed(self) -> BaseException | None:
        """Why the server has ended by itself; None while it serves."""
        return self.error or (self._server.failed if self._server else None)

    def stop(self) -> None:
        """Ends streams and server, within a second or so."""
        if self._server is not None:
            self._server.stop(self.hub.close)


class _Streamed:
    """Lets a route answer with a bare ASGI function."""

    def __init__(self, serve: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._serve = serve
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, {"cache-control": "no-store"}, media_type="application/json")
