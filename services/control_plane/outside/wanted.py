"""What a tenant must have outside, by what the database holds now; and what was made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.control_plane.tables import BoxConfig, External, Plan, Tenant
from services.infra.tenant import Bucket, buckets

ORG = "org"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One tenant."""

    tenant_id: str
    state: str
    """active, suspended or deleted."""
    since_ms: int
    """When it was made: who comes later under the same name is somebody else."""
    raw_days: int

    @property
    def buckets(self) -> list[Bucket]:
        """With the plan's days."""
        return buckets(self.raw_days)


def wanted(session: Session, tenant_id: str) -> Wanted | None:
    """None where there is no such tenant, or no more."""
    query = select(Tenant, Plan.raw_days).join(Plan).where(Tenant.id == tenant_id)
    row = session.execute(query).first()
    if row is None:
        return None
    tenant, raw_days = row
    return Wanted(tenant.id, tenant.state, tenant.created_ms, raw_days)


def newest_configs(session: Session, tenant_id: str) -> Sequence[BoxConfig]:
    """Of each of its boxes."""
    newest = (
        select(BoxConfig.site_id, func.max(BoxConfig.version).label("version"))
        .where(BoxConfig.tenant_id == tenant_id)
        .group_by(BoxConfig.site_id)
        .subquery()
    )
    query = (
        select(BoxConfig)
        .join(
            newest,
            (BoxConfig.site_id == newest.c.site_id) & (BoxConfig.version == newest.c.version),
        )
        .where(BoxConfig.tenant_id == tenant_id)
        .order_by(BoxConfig.site_id)
    )
    return session.scalars(query).all()


# -- what was made ---------------------------------------------------------------------------


def made(session: Session, target: str, tenant_id: str) -> dict[str, External]:
    """Everything that was made for a tenant at a target, by name."""
    query = select(External).where(External.tenant_id == tenant_id, External.target == target)
    return {row.name: row for row in session.scalars(query)}


def keep(
    session: Session,
    target: str,
    tenant_id: str,
    name: str,
    external_id: str,
    since_ms: int,
    hash_: str | None = None,
) -> None:
    """Remembers what was made, or is about to be (``external_id`` empty)."""
    row = session.get(External, (tenant_id, target, name))
    if row is None:
        row = External(tenant_id=tenant_id, target=target, name=name)
        session.add(row)
    row.external_id = external_id
    row.since_ms = since_ms
    row.hash = hash_


def everybody(session: Session, target: str) -> list[str]:
    """Every tenant, and those of which something is left at the target."""
    left = select(External.tenant_id).where(External.target == target)
    return sorted({*session.scalars(select(Tenant.id)), *session.scalars(left)})
