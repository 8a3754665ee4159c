"""Sites: the boxes of a tenant."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy import delete, func, select, update

from services.control_plane.fields import (
    Cursor,
    Form,
    Id,
    Limit,
    Line,
    Page,
    SiteId,
    TenantId,
    View,
    moment,
    page,
)
from services.control_plane.fleet import store
from services.control_plane.identity import ADMIN, BOX, OPERATOR, READER
from services.control_plane.problems import Refusal
from services.control_plane.tables import BoxConfig, Credential, Device, Site
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime.clock import now_ms

MAX_SITES = 10_000
router = APIRouter(prefix="/v1/tenants/{tenant_id}/sites", tags=["sites"])


class NewSite(Form):
    """A box to be registered; ``id`` is the `site:` of its config.yaml."""

    id: Id
    name: Line = ""


class SiteChange(Form):
    """What is left out stays as it is."""

    name: Line | None = None


class SiteView(View):
    """A box."""

    id: str
    tenant: str
    name: str
    created_at: datetime
    updated_at: datetime


def view(row: Site) -> SiteView:
    """As the API shows it."""
    return SiteView(
        id=row.id,
        tenant=row.tenant_id,
        name=row.name,
        created_at=moment(row.created_ms),
        updated_at=moment(row.updated_ms),
    )


def _path(site: Site) -> str:
    return f"tenants/{site.tenant_id}/sites/{site.id}"


def of(unit: Unit, tenant_id: str, site_id: str) -> Site:
    """A box by its id; refuses one that is not there."""
    site = unit.session.get(Site, (tenant_id, site_id))
    if site is None:
        raise Refusal("not-found")
    return site


@router.post("", status_code=201, response_model=SiteView)
@writes(OPERATOR, ADMIN)
def create_site(unit: Writing, tenant_id: TenantId, form: NewSite) -> Answer:
    """Registers a box."""
    if unit.session.get(Site, (tenant_id, form.id)) is not None:
        raise Refusal("exists", resource="site", id=form.id)
    there = select(func.count()).where(Site.tenant_id == tenant_id)
    if (unit.session.scalar(there) or 0) >= MAX_SITES:
        raise Refusal("too-many-parts", resource="sites", limit=MAX_SITES)
    now = now_ms()
    site = Site(
        tenant_id=tenant_id,
        id=form.id,
        name=form.name,
        version=1,
        created_ms=now,
        updated_ms=now,
    )
    unit.session.add(site)
    unit.record("site.create", _path(site), None, view(site))
    return Answer(view(site), 201, site.version, f"/v1/{_path(site)}")


@router.get("", response_model=Page[SiteView])
@reads(OPERATOR, ADMIN, READER)
def list_sites(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """The tenant's boxes."""
    return Answer(page(unit.session, select(Site), [Site.id], cursor, limit, view))


@router.get("/{site_id}", response_model=SiteView)
@reads(OPERATOR, ADMIN, READER, BOX)
def get_site(unit: Reading, tenant_id: TenantId, site_id: SiteId) -> Answer:
    """One box."""
    site = of(unit, tenant_id, site_id)
    return Answer(view(site), version=site.version)


@router.patch("/{site_id}", response_model=SiteView)
@writes(OPERATOR, ADMIN)
def change_site(unit: Writing, tenant_id: TenantId, site_id: SiteId, form: SiteChange) -> Answer:
    """Another name."""
    site = of(unit, tenant_id, site_id)
    unit.match(site)
    if form.name is not None and form.name != site.name:
        before = view(site)
        site.name = form.name
        unit.touch(site)
        unit.record("site.change", _path(site), before, view(site))
    return Answer(view(site), version=site.version)


@router.delete("/{site_id}", status_code=204, response_model=None)
@writes(OPERATOR, ADMIN)
def delete_site(unit: Writing, tenant_id: TenantId, site_id: SiteId) -> Answer:
    """Removes a box without devices, with its configurations; its credentials are revoked."""
    site = of(unit, tenant_id, site_id)
    unit.match(site)
    session = unit.session
    devices = select(func.count()).select_from(Device).where(Device.site_id == site_id)
    if used := session.scalar(devices):
        raise Refusal("in-use", resource="site", id=site_id, by=f"{used} devices")
    if rollout := store.active_rollout(session, tenant_id, site_id):
        raise Refusal("rollout-active", site=site_id, rollout=rollout)
    for table in (*store.OF_SITE, BoxConfig):
        session.execute(delete(table).where(table.site_id == site_id))
    now = now_ms()
    session.execute(
        update(Credential)
        .where(Credential.site_id == site_id)
        .values(
            site_id=None,
            revoked_ms=func.coalesce(Credential.revoked_ms, now),
            updated_ms=now,
            version=Credential.version + 1,
        )
    )
    session.delete(site)
    unit.record("site.delete", _path(site), view(site), None)
    return Answer(None)
