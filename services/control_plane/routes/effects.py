"""What still has to happen outside because of a change: at the broker, in InfluxDB, in Grafana."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from services.control_plane import effects
from services.control_plane.fields import TenantId, View, moment
from services.control_plane.identity import ADMIN, OPERATOR
from services.control_plane.unit import Answer, Reading, Unit, reads
from services.runtime.clock import now_ms

platform = APIRouter(prefix="/v1/effects", tags=["effects"])
router = APIRouter(prefix="/v1/tenants/{tenant_id}/effects", tags=["effects"])


class EffectView(View):
    """What one tenant waits for at one target."""

    tenant: str
    target: str = Field(description="broker, influxdb or grafana")
    state: str = Field(description="pending, or refused and tried again")
    since: datetime
    next_try_at: datetime
    attempts: int = Field(description="how often it was refused")
    error: str | None = Field(description="why it was refused, or why nobody can be asked now")


class Effects(View):
    """Everything that waits; empty where all is as it must be."""

    items: list[EffectView]


def waiting(unit: Unit) -> list[effects.Waiting]:
    """Within the request's tenant, or of all."""
    return effects.waiting(unit.session, unit.core.targets, now_ms())


def _answer(unit: Unit) -> Answer:
    away = {name: worker.away for name, worker in unit.core.targets.items()}
    return Answer(
        Effects(
            items=[
                EffectView(
                    tenant=one.tenant_id,
                    target=one.target,
                    state=one.state,
                    since=moment(one.since_ms),
                    next_try_at=moment(one.due_ms),
                    attempts=one.attempts,
                    error=one.error or away[one.target],
                )
                for one in waiting(unit)
            ]
        )
    )


@platform.get("", response_model=Effects)
@reads(OPERATOR)
def list_effects(unit: Reading) -> Answer:
    """Of every tenant."""
    return _answer(unit)


@router.get("", response_model=Effects)
@reads(OPERATOR, ADMIN)
def list_tenant_effects(unit: Reading, tenant_id: TenantId) -> Answer:
    """Of one tenant."""
    return _answer(unit)
