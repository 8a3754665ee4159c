"""Devices: the PLCs of a tenant, as many as its plan allows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter
from sqlalchemy import func, select

from services.control_plane.fields import (
    Cursor,
    DeviceId,
    Form,
    Id,
    Limit,
    Line,
    Page,
    TenantId,
    View,
    moment,
    page,
)
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.problems import Refusal
from services.control_plane.routes import plans
from services.control_plane.tables import Device, Site
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants/{tenant_id}/devices", tags=["devices"])


class NewDevice(Form):
    """A PLC to be registered; ``id`` is the one of config.yaml, and part of its topic."""

    id: Id
    site: Id
    name: Line = ""


class DeviceChange(Form):
    """What is left out stays as it is."""

    site: Id | None = None
    name: Line | None = None


class DeviceView(View):
    """A PLC."""

    id: str
    tenant: str
    site: str
    name: str
    created_at: datetime
    updated_at: datetime


def view(row: Device) -> DeviceView:
    """As the API shows it."""
    return DeviceView(
        id=row.id,
        tenant=row.tenant_id,
        site=row.site_id,
        name=row.name,
        created_at=moment(row.created_ms),
        updated_at=moment(row.updated_ms),
    )


def _path(device: Device) -> str:
    return f"tenants/{device.tenant_id}/devices/{device.id}"


def of(unit: Unit, tenant_id: str, device_id: str) -> Device:
    """A PLC by its id; refuses one that is not there."""
    device = unit.session.get(Device, (tenant_id, device_id))
    if device is None:
        raise Refusal("not-found")
    return device


def register(
    unit: Unit, tenant_id: str, device_ids: Sequence[str], site_id: str, name: str = ""
) -> list[Device]:
    """So many PLCs more, within the plan."""
    plan = plans.of(unit, unit.tenant.plan_id)
    used = unit.session.scalar(select(func.count()).select_from(Device)) or 0
    if used + len(device_ids) > plan.max_devices:
        used = max(used, plan.max_devices)  # so far they fit
        raise Refusal("quota-devices", plan=plan.id, limit=plan.max_devices, used=used)
    now = now_ms()
    made = [
        Device(
            tenant_id=tenant_id,
            id=device_id,
            site_id=site_id,
            name=name,
            version=1,
            created_ms=now,
            updated_ms=now,
        )
        for device_id in device_ids
    ]
    unit.session.add_all(made)
    for device in made:
        unit.record("device.create", _path(device), None, view(device))
    return made


def _site(unit: Unit, tenant_id: str, site_id: str) -> None:
    if unit.session.get(Site, (tenant_id, site_id)) is None:
        message = f"there is no site {site_id}"
        raise Refusal("invalid-request", problems=[{"key": "site", "message": message}])


@router.post("", status_code=201, response_model=DeviceView)
@writes(OPERATOR, ADMIN)
def create_device(unit: Writing, tenant_id: TenantId, form: NewDevice) -> Answer:
    """Registers a PLC; 409 beyond the plan."""
    if unit.session.get(Device, (tenant_id, form.id)) is not None:
        raise Refusal("exists", resource="device", id=form.id)
    _site(unit, tenant_id, form.site)
    (device,) = register(unit, tenant_id, [form.id], form.site, form.name)
    return Answer(view(device), 201, device.version, f"/v1/{_path(device)}")


@router.get("", response_model=Page[DeviceView])
@reads(OPERATOR, ADMIN, READER)
def list_devices(
    unit: Reading,
    tenant_id: TenantId,
    site: Id | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Answer:
    """The tenant's PLCs, or those of one box."""
    query = select(Device)
    if site is not None:
        query = query.where(Device.site_id == site)
    return Answer(page(unit.session, query, [Device.id], cursor, limit, view))


@router.get("/{device_id}", response_model=DeviceView)
@reads(OPERATOR, ADMIN, READER)
def get_device(unit: Reading, tenant_id: TenantId, device_id: DeviceId) -> Answer:
    """One PLC."""
    device = of(unit, tenant_id, device_id)
    return Answer(view(device), version=device.version)


@router.patch("/{device_id}", response_model=DeviceView)
@writes(OPERATOR, ADMIN)
def change_device(
    unit: Writing, tenant_id: TenantId, device_id: DeviceId, form: DeviceChange
) -> Answer:
    """Another name, or moved to another box."""
    device = of(unit, tenant_id, device_id)
    unit.match(device)
    before = view(device)
    if form.site is not None:
        _site(unit, tenant_id, form.site)
        device.site_id = form.site
    if form.name is not None:
        device.name = form.name
    if view(device) != before:
        unit.touch(device)
        unit.record("device.change", _path(device), before, view(device))
    return Answer(view(device), version=device.version)


@router.delete("/{device_id}", status_code=204, response_model=None)
@writes(OPERATOR, ADMIN)
def delete_device(unit: Writing, tenant_id: TenantId, device_id: DeviceId) -> Answer:
    """Removes a PLC; what was counted of it stays."""
    device = of(unit, tenant_id, device_id)
    unit.match(device)
    unit.session.delete(device)
    unit.record("device.delete", _path(device), view(device), None)
    return Answer(None)
