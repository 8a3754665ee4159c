"""What a tenant sent, and how that stands against its plan."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute

from services.control_plane import quota
from services.control_plane.fields import Cursor, Id, Limit, Page, TenantId, View, moment, page
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.routes import configs, plans
from services.control_plane.tables import Device, Standing, Usage
from services.control_plane.unit import Answer, Reading, reads
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
        whole = Usage.device_id == ""
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
    plan = plans.of(unit, unit.tenant.plan_id)
    minute_s = now_ms() // 60_000 * 60 - 60
    last = unit.session.get(Usage, (tenant_id, "minute", minute_s, ""))
    return Answer(
        Limits(
            plan=plan.id,
            devices=_level(
                unit.session.scalar(select(func.count()).select_from(Device)) or 0,
                plan.max_devices,
            ),
            configured_points_per_min=_level(
                sum(configs.points_of_sites(unit).values()), plan.points_per_min
            ),
            points_last_minute=_level(last.points if last else 0, plan.points_per_min),
            publish=publish_right(unit.session.get(Standing, tenant_id)),
        )
    )


def publish_right(row: Standing | None) -> PublishRight:
    """As the API shows it; without a row nothing was ever sent."""
    until_ms = row.withdrawn_until_s * 1_000 if row else 0
    if until_ms <= now_ms():
        return PublishRight(state="allowed", until=None)
    return PublishRight(state="withdrawn", until=moment(until_ms))


def _level(used: int, limit: int) -> Level:
    return Level(used=used, limit=limit, state=quota.state(used, limit))
