"""The API as one ASGI application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.control_plane import problems
from services.control_plane.identity import Actor, identify
from services.control_plane.problems import Refusal
from services.control_plane.routes import (
    alerts,
    audit,
    certificates,
    configs,
    credentials,
    devices,
    effects,
    limits,
    me,
    overview,
    plans,
    rollouts,
    rules,
    sites,
    targets,
    tenants,
    usage,
)
from services.control_plane.unit import Core
from services.runtime.log import Log

MAX_BODY_BYTES = 4 * 2**20
# Whoever has no key sees these and nothing else, not even which other addresses there are.
OPEN = ("/healthz", "/openapi.json", "/v1/claim")
ROUTERS = (
    targets.router,  # asked for a thousand times a minute: looked through first
    me.router,
    plans.router,
    tenants.router,
    sites.router,
    devices.router,
    credentials.platform,
    credentials.router,
    configs.router,
    certificates.platform,
    certificates.router,
    targets.boxes,
    rollouts.router,
    usage.router,
    limits.router,
    effects.platform,
    effects.router,
    overview.router,
    overview.one,
    rules.rules,
    rules.receivers,
    rules.routes,
    alerts.router,
    audit.platform,
    audit.router,
)
# Whoever has a key of a tenant may leave out which one it is: `/v1/rules`.
OF_ONES_OWN = ("rules", "receivers", "routes", "alerts")
DESCRIPTION = """\
The control plane of plc-edge: tenants, boxes, credentials, quotas, usage and configurations.

Every request carries `Authorization: Bearer KEY`; a box shows its certificate instead (mutual
TLS). Refusals are problem documents (RFC 9457), in
English or Portuguese (`Accept-Language`). Lists come in parts: give `next` back as `cursor`.

With a tenant's own key `/v1/rules`, `/v1/receivers`, `/v1/routes` and `/v1/alerts` stand for the
same below `/v1/tenants/{tenant_id}`.
"""


class Gate:
    """Before anything else of a request: is it too large, and who asks? After it: every refusal
    and every failure as a problem document.
    """

    def __init__(self, app: ASGIApp, core: Core, log: Log) -> None:
        self.app = app
        self.core = core
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        headers = Headers(scope=scope)
        try:
            # The pages, in this process, say for whom they ask; no request from outside can.
            if scope["path"] not in OPEN and "actor" not in scope:
                actor = await anyio.to_thread.run_sync(
                    identify,
                    self.core.database,
                    headers.get("authorization", ""),
                    scope.get("state", {}).get("peer_certificate"),
                    limiter=self.core.lanes.identifying,
                )
                if actor is None:
                    raise Refusal("unauthenticated")
                scope["actor"] = actor
                scope["path"] = _whole(scope["path"], actor)
            await self.app(scope, _bounded(headers, receive), send_on)
        except Exception as e:  # Starlette raises again what it has answered already
            refusal = as_refusal(e)
            if refusal.status >= 500:
                said = {"path": scope["path"], "error": repr(e)}
                self.log.error("request failed", code=refusal.code, **said)
            if not started:
                answer = problems.response(refusal, headers, scope["path"])
                await answer(scope, receive, send)


def _whole(path: str, actor: Actor) -> str:
    """The address that says whose."""
    own = path.split("/", 3)[2:3]
    if actor.tenant_id is None or not path.startswith("/v1/") or own[0] not in OF_ONES_OWN:
        return path
    return path.replace("/v1/", f"/v1/tenants/{actor.tenant_id}/", 1)


def _bounded(headers: Headers, receive: Receive) -> Receive:
    """Refuses a body that is too large, whether its length was said before or not."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise Refusal("too-large", limit=MAX_BODY_BYTES)
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise Refusal("too-large", limit=MAX_BODY_BYTES)
        return message

    return bounded


def as_refusal(error: Exception) -> Refusal:
    """What a request is answered whose handling ended so."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return Refusal("invalid-request", problems=list(_invalid(error.errors())))
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, Refusal):  # of ``_bounded``, while the body was read
            return error.__cause__
        if error.status_code in (404, 405):
            return Refusal("not-found" if error.status_code == 404 else "method-not-allowed")
        if error.status_code < 500:
            return Refusal("invalid-request", problems=[])
    away = isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)
    if away or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Refusal("unavailable")
    return Refusal("internal")


def _invalid(errors: Iterable[dict[str, Any]]) -> Iterable[dict[str, str]]:
    """Where, and what: never the value, which may be a secret."""
    for e in errors:
        place, *rest = e["loc"]
        key = ".".join(str(part) for part in rest if not isinstance(part, int)) or str(place)
        yield {"in": str(place), "key": key, "message": str(e["msg"])}


def make(core: Core, log: Log) -> ASGIApp:
    """The API: all routes, behind the gate."""
    app = FastAPI(
        title="plc-edge control plane",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.core = core
    for router in ROUTERS:
        app.include_router(router)

    @app.get("/healthz", tags=["health"])
    def healthz() -> JSONResponse:
        """Whether the process serves and its database answers."""
        with core.database.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        return JSONResponse({"status": "ok"})

    async def refuse(request: Request, error: Exception) -> Response:
        return problems.response(as_refusal(error), request.headers, request.url.path)

    for kind in (Refusal, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return Gate(app, core, log)


_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457; more members carry the numbers behind a refusal.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "description": "urn:plc-edge:problem:CODE"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "problems": {"type": "array", "items": {"type": "object"}},
    },
}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with our refusals and our way of saying who asks."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        components = document["components"]
        for name in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(name, None)
        components["schemas"]["Problem"] = _PROBLEM
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN else [{"key": []}]
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {"description": "Refused", "content": content}
        app.openapi_schema = document
    return app.openapi_schema
