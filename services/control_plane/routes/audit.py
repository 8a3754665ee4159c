"""The audit: who changed what, the newest first. Nothing here changes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime
from sqlalchemy import Select, select

from services.control_plane.fields import (
    Cursor,
    Id,
    Limit,
    Line,
    Page,
    TenantId,
    View,
    moment,
    page,
)
from services.control_plane.identity import ADMIN, OPERATOR
from services.control_plane.tables import Audit
from services.control_plane.unit import Answer, Reading, Unit, reads

platform = APIRouter(prefix="/v1/audit", tags=["audit"])
router = APIRouter(prefix="/v1/tenants/{tenant_id}/audit", tags=["audit"])


class AuditView(View):
    """One change."""

    seq: int
    at: datetime
    actor: str
    """The credential that asked."""
    role: str
    tenant: str | None
    action: str
    resource: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which changes are asked for; None: whichever."""

    action: str | None
    actor: str | None
    resource: str | None
    start: datetime | None
    end: datetime | None


def _chosen(
    action: Annotated[
        Line | None, Query(description="`tenant.suspend`, or `tenant` for all of its kind")
    ] = None,
    actor: Annotated[Line | None, Query(description="its beginning")] = None,
    resource: Annotated[Line | None, Query(description="its beginning")] = None,
    start: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    end: Annotated[AwareDatetime | None, Query(alias="to", description="exclusive")] = None,
) -> Chosen:
    return Chosen(action, actor, resource, start, end)


Wanted = Annotated[Chosen, Depends(_chosen)]


def view(row: Audit) -> AuditView:
    """As the API shows it."""
    return AuditView(
        seq=row.seq,
        at=moment(row.ts_ms),
        actor=row.actor,
        role=row.role,
        tenant=row.tenant_id,
        action=row.action,
        resource=row.resource,
        before=json.loads(row.before) if row.before else None,
        after=json.loads(row.after) if row.after else None,
    )


def _list(unit: Unit, query: Select[Any], chosen: Chosen, cursor: str | None, limit: int) -> Answer:
    if chosen.action is not None:
        starts = Audit.action.startswith(f"{chosen.action}.", autoescape=True)
        query = query.where((Audit.action == chosen.action) | starts)
    for column, wanted in ((Audit.actor, chosen.actor), (Audit.resource, chosen.resource)):
        if wanted is not None:
            query = query.where(column.startswith(wanted, autoescape=True))
    if chosen.start is not None:
        query = query.where(Audit.ts_ms >= int(chosen.start.timestamp() * 1_000))
    if chosen.end is not None:
        query = query.where(Audit.ts_ms < int(chosen.end.timestamp() * 1_000))
    return Answer(page(unit.session, query, [Audit.seq], cursor, limit, view, newest_first=True))


@platform.get("", response_model=Page[AuditView])
@reads(OPERATOR)
def list_audit(
    unit: Reading,
    chosen: Wanted,
    tenant: Id | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Answer:
    """Every change, or those of one tenant; of purged tenants too."""
    query = select(Audit) if tenant is None else select(Audit).where(Audit.tenant_id == tenant)
    return _list(unit, query, chosen, cursor, limit)


@router.get("", response_model=Page[AuditView])
@reads(OPERATOR, ADMIN)
def list_tenant_audit(
    unit: Reading,
    tenant_id: TenantId,
    chosen: Wanted,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Answer:
    """Every change of one tenant."""
    return _list(unit, select(Audit), chosen, cursor, limit)
