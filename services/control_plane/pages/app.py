"""Every address of the admin page; all others are the API's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.control_plane.pages import signing, views
from services.control_plane.pages.actions import ACTIONS
from services.control_plane.pages.web import HOME, Handler, Site, Visit, page
from services.control_plane.unit import Core
from services.runtime.log import Log
from services.runtime.static_files import security_headers

PAGES: dict[str, Handler] = {
    "/admin/": views.home,
    "/admin/tenants": views.tenants,
    "/admin/tenants/{tenant}": views.tenant,
    "/admin/boxes": views.boxes,
    "/admin/tenants/{tenant}/boxes/{box}": views.box,
    "/admin/tenants/{tenant}/rollouts/{rollout}": views.rollout,
    "/admin/rollouts": views.rollouts,
    "/admin/audit": views.audit,
    "/admin/operators": views.operators,
}
PUBLIC: dict[tuple[str, str], Handler] = {
    ("GET", "/admin/sign-in"): signing.form,
    ("POST", "/admin/sign-in"): signing.by_key,
    ("GET", "/admin/oidc/start"): signing.to_provider,
    ("GET", "/admin/oidc/callback"): signing.from_provider,
    ("POST", "/admin/preferences"): signing.prefer,
    ("POST", "/admin/sign-out"): signing.out,
}


def make(core: Core, api: ASGIApp, log: Log, oidc: Mapping[str, Any] | None) -> ASGIApp:
    """The pages in front of ``api``; ``oidc`` as central.yaml's process has it."""
    provider = None
    if oidc is not None:
        from services.control_plane.pages.oidc import Provider  # 7 MB, and only here

        provider = Provider(oidc)
    site = Site(core, api, log, provider)

    async def nowhere(visit: Visit) -> Response:
        return visit.say("missing", 404)

    async def missing(request: Request, _error: Exception) -> Response:
        return await page(site, nowhere, public=True)(request)

    async def file(request: Request) -> Response:
        answer = site.files.answer(request, request.path_params["name"])
        answer.headers.update(security_headers())
        return answer

    async def root(_request: Request) -> Response:
        return RedirectResponse(HOME, 307)

    routes = [Route("/", root), Route("/admin", root), Route("/admin/static/{name:path}", file)]
    routes += [Route(path, page(site, handler), methods=["GET"]) for path, handler in PAGES.items()]
    routes += [Route(a.page, page(site, a.run), methods=["POST"]) for a in ACTIONS]
    for (method, path), handler in PUBLIC.items():
        routes.append(Route(path, page(site, handler, public=True), methods=[method]))
    app = Starlette(routes=routes, exception_handlers={404: missing, 405: missing})
    app.router.redirect_slashes = False

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_page = scope["type"] == "http" and (path == "/" or f"{path}/".startswith(HOME))
        await (app if is_page else api)(scope, receive, send)

    return either
