"""The audit: who changed what, the newest first. Nothing here changes it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from sqlalchemy import select

from services.control_plane.fields import Cursor, Limit, Page, TenantId, View, moment, page
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


def _list(unit: Unit, cursor: str | None, limit: int) -> Answer:
    query = select(Audit)
    return Answer(page(unit.session, query, [Audit.seq], cursor, limit, view, newest_first=True))


@platform.get("", response_model=Page[AuditView])
@reads(OPERATOR)
def list_audit(unit: Reading, cursor: Cursor = None, limit: Limit = 100) -> Answer:
    """Every change; of purged tenants too."""
    return _list(unit, cursor, limit)


@router.get("", response_model=Page[AuditView])
@reads(OPERATOR, ADMIN)
def list_tenant_audit(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """Every change of one tenant."""
    return _list(unit, cursor, limit)
