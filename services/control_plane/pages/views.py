"""What each page shows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from starlette.responses import RedirectResponse, Response

from services.control_plane.identity import ADMIN, OPERATOR
from services.control_plane.pages.web import HOME, Visit

ROWS = 50
AUDIT_FILTERS = ("tenant", "action", "actor", "resource", "from", "to")


async def home(visit: Visit) -> Response:
    """Where somebody begins."""
    tenant = visit.tenant
    return RedirectResponse(f"{HOME}tenants/{tenant}" if tenant else f"{HOME}tenants", 303)


async def tenants(visit: Visit) -> Response:
    """Every tenant against its plan."""
    found = await visit.api.get("overview/tenants", cursor=visit.query("cursor"), limit=ROWS)
    plans = (await visit.api.get("plans", limit=500))["items"] if visit.may(OPERATOR) else []
    return visit.render("tenants.html", _status(visit), tenants=found, plans=plans)


async def tenant(visit: Visit) -> Response:
    """One tenant: limits, boxes, PLCs, credentials."""
    api, name = visit.api, visit.request.path_params["tenant"]
    found = await api.call("GET", f"tenants/{name}")
    limits, boxes, devices = await asyncio.gather(
        api.get(f"tenants/{name}/limits"),
        api.get("overview/boxes", tenant=name, cursor=visit.query("boxes"), limit=ROWS),
        api.get(f"tenants/{name}/devices", cursor=visit.query("devices"), limit=ROWS),
    )
    credentials: Any = None
    if visit.may(OPERATOR, ADMIN):
        cursor = visit.query("credentials")
        credentials = await api.get(f"tenants/{name}/credentials", cursor=cursor, limit=ROWS)
    plans = (await api.get("plans", limit=500))["items"] if visit.may(OPERATOR) else []
    return visit.render(
        "tenant.html",
        _status(visit),
        tenant=found.body,
        etag=found.etag,
        limits=limits,
        boxes=boxes,
        devices=devices,
        credentials=credentials,
        plans=plans,
        has_broker=visit.site.core.broker is not None,
    )


async def boxes(visit: Visit) -> Response:
    """Every box with its state and version."""
    found = await visit.api.get("overview/boxes", cursor=visit.query("cursor"), limit=ROWS)
    return visit.render("boxes.html", boxes=found)


async def box(visit: Visit) -> Response:
    """One box: what it must have, what it says, its configurations."""
    api, parts = visit.api, visit.request.path_params
    path = f"tenants/{parts['tenant']}/sites/{parts['box']}"
    shown = await api.get(f"{path}/overview")
    configs = await api.get(f"{path}/configs", cursor=visit.query("configs"), limit=ROWS)
    report = await api.get(f"{path}/report") if shown["reported"] else None
    diff = None
    if visit.query("new"):
        asked = {"old": visit.query("old") or 0, "new": visit.query("new")}
        diff = await api.get(f"{path}/configs/diff", **asked)
    return visit.render(
        "box.html", _status(visit), box=shown, configs=configs, report=report, diff=diff
    )


async def rollouts(visit: Visit) -> Response:
    """Every roll-out."""
    found = await visit.api.get("overview/rollouts", cursor=visit.query("cursor"), limit=ROWS)
    return visit.render("rollouts.html", rollouts=found)


async def rollout(visit: Visit) -> Response:
    """One roll-out with each of its boxes."""
    parts = visit.request.path_params
    found = await visit.api.call("GET", f"tenants/{parts['tenant']}/rollouts/{parts['rollout']}")
    return visit.render("rollout.html", _status(visit), rollout=found.body, etag=found.etag)


async def operators(visit: Visit) -> Response:
    """The platform's own keys."""
    found = await visit.api.get("credentials", cursor=visit.query("credentials"), limit=ROWS)
    return visit.render("operators.html", _status(visit), credentials=found)


async def audit(visit: Visit) -> Response:
    """Who changed what."""
    chosen = {name: visit.query(name) for name in AUDIT_FILTERS}
    asked = {**chosen, "from": _day(chosen["from"]), "to": _day(chosen["to"], after=True)}
    path = "audit"
    if visit.tenant is not None:
        path, asked["tenant"] = f"tenants/{visit.tenant}/audit", None
    found = await visit.api.get(path, cursor=visit.query("cursor"), limit=ROWS, **asked)
    return visit.render("audit.html", audit=found, chosen=chosen)


def _day(text: str | None, *, after: bool = False) -> str | None:
    """The beginning of a day, UTC, or of the one after it; what is none is the API's to refuse."""
    try:
        day = datetime.fromisoformat(text or "").replace(tzinfo=UTC)
    except ValueError:
        return text
    return datetime.fromtimestamp(day.timestamp() + 86_400 * after, UTC).isoformat()


def _status(visit: Visit) -> int:
    """Of a page that is shown again because what was asked was refused."""
    return visit.problem["status"] if visit.problem else 200
