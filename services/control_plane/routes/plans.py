"""What tenants pay for: numbers that the platform's operators may change."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from sqlalchemy import func, select

from services.control_plane.effects import INFLUXDB
from services.control_plane.fields import (
    ID_PATTERN,
    Cursor,
    Form,
    Id,
    Limit,
    Page,
    moment,
    page,
)
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.problems import Refusal
from services.control_plane.tables import Plan, Tenant
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/plans", tags=["plans"])
PlanId = Annotated[str, Path(pattern=ID_PATTERN)]
MAX = 10**9


class PlanForm(Form):
    """A plan's numbers."""

    max_devices: int = Field(ge=0, le=MAX, description="PLCs")
    points_per_min: int = Field(ge=0, le=MAX, description="values of fields, a minute")
    raw_days: int = Field(ge=1, le=36_500, description="days that raw values are kept")


class PlanView(PlanForm):
    """A plan."""

    id: Id
    created_at: datetime
    updated_at: datetime


def view(row: Plan) -> PlanView:
    """As the API shows it."""
    return PlanView(
        id=row.id,
        max_devices=row.max_devices,
        points_per_min=row.points_per_min,
        raw_days=row.raw_days,
        created_at=moment(row.created_ms),
        updated_at=moment(row.updated_ms),
    )


def of(unit: Unit, plan_id: str) -> Plan:
    """A plan by its id; refuses one that is not there."""
    plan = unit.session.get(Plan, plan_id)
    if plan is None:
        raise Refusal("not-found")
    return plan


@router.get("", response_model=Page[PlanView])
@reads(OPERATOR, ADMIN, READER)
def list_plans(unit: Reading, cursor: Cursor = None, limit: Limit = 100) -> Answer:
    """Every plan."""
    return Answer(page(unit.session, select(Plan), [Plan.id], cursor, limit, view))


@router.get("/{plan_id}", response_model=PlanView)
@reads(OPERATOR, ADMIN, READER)
def get_plan(unit: Reading, plan_id: PlanId) -> Answer:
    """One plan."""
    plan = of(unit, plan_id)
    return Answer(view(plan), version=plan.version)


@router.put("/{plan_id}", response_model=PlanView)
@writes(OPERATOR)
def put_plan(unit: Writing, plan_id: PlanId, form: PlanForm) -> Answer:
    """Makes a plan, or gives it other numbers. Tenants that are above them keep what they have,
    and get nothing more.
    """
    plan, before, now = unit.session.get(Plan, plan_id), None, now_ms()
    if plan is None:
        plan = Plan(id=plan_id, created_ms=now, updated_ms=now, version=1, **form.model_dump())
        unit.session.add(plan)
    else:
        unit.match(plan)
        before = view(plan)
        for name, value in form:
            setattr(plan, name, value)
        unit.touch(plan)
    unit.record("plan.put", f"plans/{plan_id}", before, view(plan))
    on_it = unit.session.scalars(select(Tenant.id).where(Tenant.plan_id == plan_id)).all()
    if before is not None and on_it:
        unit.follow(now, INFLUXDB, of=on_it)
    return Answer(view(plan), 200 if before else 201, plan.version, f"/v1/plans/{plan_id}")


@router.delete("/{plan_id}", status_code=204, response_model=None)
@writes(OPERATOR)
def delete_plan(unit: Writing, plan_id: PlanId) -> Answer:
    """Removes a plan that no tenant has."""
    plan = of(unit, plan_id)
    unit.match(plan)
    tenants = select(func.count()).select_from(Tenant).where(Tenant.plan_id == plan_id)
    if used := unit.session.scalar(tenants):
        raise Refusal("in-use", resource="plan", id=plan_id, by=f"{used} tenants")
    unit.session.delete(plan)
    unit.record("plan.delete", f"plans/{plan_id}", view(plan), None)
    return Answer(None)
