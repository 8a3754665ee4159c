"""What the meter told of a tenant, and an operator's word against a withdrawn right."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from sqlalchemy import select

from services.control_plane.fields import Cursor, Limit, Page, TenantId, View, moment, page
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.routes import plans
from services.control_plane.routes.usage import PublishRight, publish_right
from services.control_plane.tables import LimitEvent, Standing
from services.control_plane.unit import (
    ACTIVE,
    SUSPENDED,
    Answer,
    Reading,
    Writing,
    reads,
    writes,
)
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants/{tenant_id}/limits", tags=["usage"])


class Event(View):
    """Something that happened to a tenant's limits."""

    at: datetime
    kind: Literal["warning", "exceeded", "withdrawn", "returned", "released"]
    points: int
    """In the minute that led to it; a message without a value counts as one."""
    limit: int
    """The plan's points a minute then."""


def view(row: LimitEvent) -> Event:
    """As the API shows it."""
    return Event.model_validate(
        {"at": moment(row.ts_ms), "kind": row.kind, "points": row.load, "limit": row.limit}
    )


@router.get("/events", response_model=Page[Event])
@reads(OPERATOR, ADMIN, READER)
def list_limit_events(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """Warnings (from 80 % of the plan, once an hour), the plan passed (once an hour), the right to
    publish withdrawn (more than twice the plan, five minutes in a row) and given back; the newest
    first.
    """
    keys = [LimitEvent.ts_ms, LimitEvent.kind]
    query = select(LimitEvent)
    return Answer(page(unit.session, query, keys, cursor, limit, view, newest_first=True))


@router.post("/release", response_model=PublishRight)
@writes(OPERATOR, states=(ACTIVE, SUSPENDED))
def release_limits(unit: Writing, tenant_id: TenantId) -> Answer:
    """Gives the right to publish back before its time; changes nothing where it is not withdrawn.
    Five more minutes beyond twice the plan, and it is withdrawn again.
    """
    standing = unit.session.get(Standing, tenant_id)
    before = publish_right(standing)
    if standing is None or before.state == "allowed":
        return Answer(before)
    standing.withdrawn_until_s = 0
    standing.over_minutes = 0
    limit = plans.of(unit, unit.tenant.plan_id).points_per_min
    event = LimitEvent(tenant_id=tenant_id, ts_ms=now_ms(), kind="released", load=0, limit=limit)
    unit.session.add(event)
    after = publish_right(standing)
    unit.record("limits.release", f"tenants/{tenant_id}/limits", before, after)
    return Answer(after)
