"""What a tenant sent, and how that stands against its plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from services.control_plane import quota
from services.control_plane.fields import Cursor, Id, Limit, Page, TenantId, View, moment, page
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.metering import WHOLE
from services.control_plane.routes import configs
from services.control_plane.tables import Device, Plan, Standing, Tenant, Usage
from services.control_plane.unit import Answer, Reading, Unit, reads
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants/{tenant_id}", tags=["usage"])


class UsageView(View):
    """What was sent in one minute, hour or day that began at `start`."""

    start: datetime
    device: str | None
    """None: the whole tenant."""
    points: int
    messages: int
    bytes: int


class Level(View):
    """One limit and how near it is."""

    used: int
    limit: int
    state: Literal["ok", "warning", "exceeded"]


class PublishRight(View):
    """Whether the tenant's boxes may send data; where not, until when."""

    state: Literal["allowed", "withdrawn"]
    until: datetime | None


class Limits(View):
    """A tenant against its plan."""

    plan: str
    devices: Level
    configured_points_per_min: Level
    points_last_minute: Level
    publish: PublishRight


def view(row: Usage) -> UsageView:
    """As the API shows it."""
    return UsageView(
        start=moment(row.start_s * 1_000),
        device=row.device_id or None,
        points=row.points,
        messages=row.messages,
        bytes=row.bytes,
    )


@router.get("/usage", response_model=Page[UsageView])
@reads(OPERATOR, ADMIN, READER)
def list_usage(
    unit: Reading,
    tenant_id: TenantId,
    span: Literal["minute", "hour", "day"] = "hour",
    by: Literal["tenant", "device"] = "tenant",
    device: Id | None = None,
    start: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    end: Annotated[AwareDatetime | None, Query(alias="to", description="exclusive")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Answer:
    """Points, messages and bytes, the newest first: of the tenant, of each PLC, or of one."""
    query = select(Usage).where(Usage.span == span)
    if device is not None:
        query = query.where(Usage.device_id == device)
    else:
        whole = Usage.device_id == WHOLE
        query = query.where(whole if by == "tenant" else ~whole)
    if start is not None:
        query = query.where(Usage.start_s >= int(start.timestamp()))
    if end is not None:
        query = query.where(Usage.start_s < int(end.timestamp()))
    keys: list[InstrumentedAttribute[Any]] = [Usage.start_s, Usage.device_id]
    return Answer(page(unit.session, query, keys, cursor, limit, view, newest_first=True))


@router.get("/limits", response_model=Limits)
@reads(OPERATOR, ADMIN, READER)
def get_limits(unit: Reading, tenant_id: TenantId) -> Answer:
    """The plan's limits, and how near the tenant is to each."""
    return Answer(limits_of(unit, [unit.tenant])[tenant_id])


def limits_of(unit: Unit, tenants: Sequence[Tenant]) -> dict[str, Limits]:
    """The same of several, by tenant, with as many queries as for one."""
    ids = [tenant.id for tenant in tenants]
    by_id = {plan.id: plan for plan in unit.session.scalars(select(Plan))}
    devices = _per_tenant(unit, select(Device.tenant_id, func.count()), Device.tenant_id, ids)
    minute_s = now_ms() // 60_000 * 60 - 60
    last_minute = (Usage.span == "minute", Usage.start_s == minute_s, Usage.device_id == WHOLE)
    sent = select(Usage.tenant_id, func.sum(Usage.points)).where(*last_minute)
    points = _per_tenant(unit, sent, Usage.tenant_id, ids)
    configured = configs.points_of_tenants(unit, ids)
    rows = unit.session.scalars(select(Standing).where(Standing.tenant_id.in_(ids)))
    standings = {row.tenant_id: row for row in rows}
    found = {}
    for tenant in tenants:
        plan = by_id[tenant.plan_id]
        found[tenant.id] = Limits(
            plan=plan.id,
            devices=_level(devices.get(tenant.id, 0), plan.max_devices),
            configured_points_per_min=_level(configured.get(tenant.id, 0), plan.points_per_min),
            points_last_minute=_level(points.get(tenant.id, 0), plan.points_per_min),
            publish=publish_right(standings.get(tenant.id)),
        )
    return found


def _per_tenant(
    unit: Unit, query: Select[*tuple[Any, ...]], owner: InstrumentedAttribute[str], ids: list[str]
) -> dict[str, int]:
    rows = unit.session.execute(query.where(owner.in_(ids)).group_by(owner)).tuples()
    return {tenant: int(number) for tenant, number in rows}


def publish_right(row: Standing | None) -> PublishRight:
    """As the API shows it; without a row nothing was ever sent."""
    until_ms = row.withdrawn_until_s * 1_000 if row else 0
    if until_ms <= now_ms():
        return PublishRight(state="allowed", until=None)
    return PublishRight(state="withdrawn", until=moment(until_ms))


def _level(used: int, limit: int) -> Level:
    return Level(used=used, limit=limit, state=quota.state(used, limit))
