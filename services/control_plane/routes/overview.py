"""Everything at a glance: every tenant against its plan, every box, every roll-out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Select, func, select, tuple_

from services.control_plane.fields import (
    Cursor,
    Id,
    Limit,
    Page,
    SiteId,
    TenantId,
    moment_or_none,
    page,
)
from services.control_plane.fleet import views
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.routes import rollouts, sites, tenants, usage
from services.control_plane.tables import BoxConfig, Device, Site, Tenant
from services.control_plane.unit import Answer, Reading, Unit, reads
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/overview", tags=["overview"])
one = APIRouter(prefix="/v1/tenants/{tenant_id}/sites/{site_id}/overview", tags=["overview"])


class TenantOverview(tenants.TenantView):
    """A tenant with how near it is to its limits."""

    sites: int
    limits: usage.Limits


class BoxOverview(views.BoxView):
    """A box with its state, and the newest configuration that was made for it."""

    devices: int
    newest_version: int | None
    newest_at: datetime | None


def _count(unit: Unit, query: Select[*tuple[Any, ...]]) -> dict[Any, Any]:
    return {tuple(row[:-1]): row[-1] for row in unit.session.execute(query)}


@router.get("/tenants", response_model=Page[TenantOverview])
@reads(OPERATOR, ADMIN, READER)
def overview_tenants(unit: Reading, cursor: Cursor = None, limit: Limit = 100) -> Answer:
    """Every tenant that the caller may see: an operator all, others their own."""
    part = page(unit.session, select(Tenant), [Tenant.id], cursor, limit, tenants.view)
    chosen = select(Tenant).where(Tenant.id.in_([t.id for t in part.items]))
    rows = unit.session.scalars(chosen).all()
    limits = usage.limits_of(unit, rows)
    boxes = _count(unit, select(Site.tenant_id, func.count()).group_by(Site.tenant_id))
    items = [
        TenantOverview(**t.model_dump(), sites=boxes.get((t.id,), 0), limits=limits[t.id])
        for t in part.items
    ]
    return Answer(Page[TenantOverview](items=items, next=part.next))


@router.get("/boxes", response_model=Page[BoxOverview])
@reads(OPERATOR, ADMIN, READER)
def overview_boxes(
    unit: Reading, tenant: Id | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """Every box that the caller may see, or those of one tenant."""
    query = select(Site)
    if tenant is not None:
        query = query.where(Site.tenant_id == tenant)
    part = page(unit.session, query, [Site.tenant_id, Site.id], cursor, limit, sites.view)
    shown = _boxes(unit, [(site.tenant, site.id) for site in part.items])
    return Answer(Page[BoxOverview](items=shown, next=part.next))


@one.get("", response_model=BoxOverview)
@reads(OPERATOR, ADMIN, READER)
def overview_box(unit: Reading, tenant_id: TenantId, site_id: SiteId) -> Answer:
    """One box at a glance."""
    sites.of(unit, tenant_id, site_id)
    return Answer(_boxes(unit, [(tenant_id, site_id)])[0])


def _boxes(unit: Unit, keys: list[tuple[str, str]]) -> list[BoxOverview]:
    device = (Device.tenant_id, Device.site_id)
    devices = _count(
        unit, select(*device, func.count()).where(tuple_(*device).in_(keys)).group_by(*device)
    )
    config = (BoxConfig.tenant_id, BoxConfig.site_id)
    newest = {
        tuple(row[:2]): row[2:]
        for row in unit.session.execute(
            select(*config, func.max(BoxConfig.version), func.max(BoxConfig.created_ms))
            .where(tuple_(*config).in_(keys))
            .group_by(*config)
        )
    }
    items = []
    for box in views.boxes(unit.session, now_ms(), keys):
        key = (box.tenant, box.id)
        version, made_ms = newest.get(key, (None, None))
        items.append(
            BoxOverview(
                **box.model_dump(),
                devices=devices.get(key, 0),
                newest_version=version,
                newest_at=moment_or_none(made_ms),
            )
        )
    return items


@router.get("/rollouts", response_model=Page[views.RolloutView])
@reads(OPERATOR, ADMIN, READER)
def overview_rollouts(unit: Reading, cursor: Cursor = None, limit: Limit = 100) -> Answer:
    """Every roll-out that the caller may see, the newest first."""
    return Answer(rollouts.listed(unit, cursor, limit))
