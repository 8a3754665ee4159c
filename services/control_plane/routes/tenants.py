"""Tenants: made, put on a plan, suspended, resumed, deleted, purged."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import delete, func, select, update

from services.control_plane import effects as outside
from services.control_plane.broker import accounts
from services.control_plane.fields import (
    Cursor,
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
from services.control_plane.fleet import store
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.problems import Refusal
from services.control_plane.routes import configs, effects, plans
from services.control_plane.tables import (
    AlertPart,
    BoxConfig,
    Credential,
    Device,
    LimitEvent,
    Metered,
    Plan,
    Secret,
    Site,
    Standing,
    Tenant,
    Usage,
    WebSession,
)
from services.control_plane.unit import (
    ACTIVE,
    DELETED,
    SUSPENDED,
    Answer,
    Reading,
    Unit,
    Writing,
    reads,
    writes,
)
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])
# Of the operator's own organisation (services/infra/model.py).
RESERVED = accounts.PLATFORM


class NewTenant(Form):
    """A tenant to be made."""

    id: Id
    plan: Id = "free"
    name: Line = ""


class TenantChange(Form):
    """What is left out stays as it is."""

    plan: Id | None = None
    name: Line | None = None


class TenantView(View):
    """A tenant."""

    id: str
    name: str
    plan: str
    state: str = Field(description="active, suspended or deleted")
    created_at: datetime
    updated_at: datetime


class TenantDetail(TenantView):
    """A tenant, and whether all that follows from it outside is done."""

    outside: str = Field(
        description="ready, pending, or refused: see its `effects`",
    )


def view(row: Tenant) -> TenantView:
    """As the API shows it."""
    return TenantView(
        id=row.id,
        name=row.name,
        plan=row.plan_id,
        state=row.state,
        created_at=moment(row.created_ms),
        updated_at=moment(row.updated_ms),
    )


def _answer(tenant: Tenant, status: int = 200) -> Answer:
    return Answer(view(tenant), status, tenant.version, f"/v1/tenants/{tenant.id}")


@router.post("", status_code=201, response_model=TenantView)
@writes(OPERATOR)
def create_tenant(unit: Writing, form: NewTenant) -> Answer:
    """Makes a tenant on a plan."""
    if form.id == RESERVED:
        raise Refusal("reserved", id=form.id)
    if unit.session.get(Tenant, form.id) is not None:
        raise Refusal("exists", resource="tenant", id=form.id)
    _plan(unit, form.plan)
    now = now_ms()
    tenant = Tenant(
        id=form.id,
        name=form.name,
        plan_id=form.plan,
        state=ACTIVE,
        version=1,
        created_ms=now,
        updated_ms=now,
    )
    unit.session.add(tenant)
    # From here on within the new tenant, so that its own audit shows its beginning.
    unit.session.info["tenant"] = form.id
    unit.record("tenant.create", f"tenants/{form.id}", None, view(tenant))
    return _answer(tenant, 201)


@router.get("", response_model=Page[TenantView])
@reads(OPERATOR, ADMIN, READER)
def list_tenants(unit: Reading, cursor: Cursor = None, limit: Limit = 100) -> Answer:
    """Every tenant that the caller may see: an operator all, others their own."""
    return Answer(page(unit.session, select(Tenant), [Tenant.id], cursor, limit, view))


@router.get("/{tenant_id}", response_model=TenantDetail)
@reads(OPERATOR, ADMIN, READER)
def get_tenant(unit: Reading, tenant_id: TenantId) -> Answer:
    """One tenant."""
    word = outside.state(effects.waiting(unit))
    detail = TenantDetail(**view(unit.tenant).model_dump(), outside=word)
    return Answer(detail, version=unit.tenant.version)


@router.patch("/{tenant_id}", response_model=TenantView)
@writes(OPERATOR, states=(ACTIVE, SUSPENDED))
def change_tenant(unit: Writing, tenant_id: TenantId, form: TenantChange) -> Answer:
    """Another plan or name. A plan that is smaller than what the tenant has is refused."""
    tenant = unit.tenant
    unit.match(tenant)
    before = view(tenant)
    if form.plan is not None and form.plan != tenant.plan_id:
        plan = _plan(unit, form.plan)
        devices = unit.session.scalar(select(func.count()).select_from(Device)) or 0
        points = sum(configs.points_of_sites(unit).values())
        for what, limit, used in (
            ("devices", plan.max_devices, devices),
            ("points a minute", plan.points_per_min, points),
        ):
            if used > limit:
                raise Refusal("plan-too-small", plan=plan.id, what=what, limit=limit, used=used)
        tenant.plan_id = plan.id
    if form.name is not None:
        tenant.name = form.name
    if view(tenant) != before:
        unit.touch(tenant)
        unit.record("tenant.change", f"tenants/{tenant_id}", before, view(tenant))
    return _answer(tenant)


def _plan(unit: Unit, plan_id: str) -> Plan:
    try:
        return plans.of(unit, plan_id)
    except Refusal:
        message = f"there is no plan {plan_id}"
        raise Refusal("invalid-request", problems=[{"key": "plan", "message": message}]) from None


@router.post("/{tenant_id}/suspend", response_model=TenantView)
@writes(OPERATOR, states=(ACTIVE, SUSPENDED))
def suspend_tenant(unit: Writing, tenant_id: TenantId) -> Answer:
    """Withdraws access; nothing is lost. Its keys still read here, and change nothing."""
    return _state(unit, "suspend", SUSPENDED)


@router.post("/{tenant_id}/resume", response_model=TenantView)
@writes(OPERATOR, states=(ACTIVE, SUSPENDED))
def resume_tenant(unit: Writing, tenant_id: TenantId) -> Answer:
    """Gives access back."""
    return _state(unit, "resume", ACTIVE)


@router.delete("/{tenant_id}", response_model=TenantView)
@writes(OPERATOR, states=(ACTIVE, SUSPENDED, DELETED))
def delete_tenant(unit: Writing, tenant_id: TenantId) -> Answer:
    """Withdraws access for good: every credential is revoked. Its data stay until `purge`."""
    now = now_ms()
    unit.session.execute(
        update(Credential)
        .where(Credential.revoked_ms.is_(None))
        .values(revoked_ms=now, updated_ms=now, version=Credential.version + 1)
    )
    return _state(unit, "delete", DELETED)


def _state(unit: Unit, action: str, state: str) -> Answer:
    """The same again changes nothing."""
    tenant = unit.tenant
    unit.match(tenant)
    if tenant.state != state:
        before = view(tenant)
        tenant.state = state
        unit.touch(tenant)
        unit.record(f"tenant.{action}", f"tenants/{tenant.id}", before, view(tenant))
    return _answer(tenant)


@router.post("/{tenant_id}/purge", status_code=204, response_model=None)
@writes(OPERATOR, states=(DELETED,))
def purge_tenant(unit: Writing, tenant_id: TenantId) -> Answer:
    """Removes everything of a deleted tenant here. Its audit stays."""
    tenant, session = unit.tenant, unit.session
    before = view(tenant)
    keys = select(Credential.id).where(Credential.tenant_id == tenant_id)
    session.execute(delete(Secret).where(Secret.credential_id.in_(keys)))
    own = (*store.OF_TENANT, WebSession, AlertPart, Credential, Usage)
    for table in (*own, Standing, LimitEvent, Metered, BoxConfig, Device, Site):
        session.execute(delete(table).where(table.tenant_id == tenant_id))
    session.delete(tenant)
    unit.record("tenant.purge", f"tenants/{tenant_id}", before, None)
    return Answer(None)
