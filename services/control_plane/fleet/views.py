"""Boxes with their state, and roll-outs, as the API and the pages of the centre show them.

Every function takes a session and shows what that may see: with one of a tenant that tenant's, with
``reading(None)`` everybody's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from pydantic import Field
from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from services.control_plane.fields import View, moment, moment_or_none
from services.control_plane.identity import CERTIFICATE
from services.control_plane.tables import (
    Credential,
    Report,
    RolloutBox,
    RolloutRow,
    Site,
    Target,
)

# A box reports once a minute.
SILENT_MS = 180_000
# Of a box that has never reported; and of one that has been silent.
UNKNOWN, SILENT = "unknown", "silent"


class BoxView(View):
    """A box with its state."""

    tenant: str
    id: str
    name: str
    state: str = Field(
        description="unknown (never heard), silent (not heard for 3 minutes), or what it reported:"
        " applying, watching, applied, refused, rolled_back, drift"
    )
    reported: str | None = Field(description="the same, also while it is silent")
    target: int | None = Field(description="version that it must have")
    running: int | None = Field(description="version that it runs; null: none of the centre's")
    rollout: str | None = Field(description="that sent the target")
    software: str | None
    seen_at: datetime | None
    changed_at: datetime | None
    error: str | None
    pending: int | None = Field(description="messages that wait at the box to be delivered")
    plcs: dict[str, int] = Field(description="how many are online, degraded, offline")
    outputs: dict[str, int] = Field(description="how many are up, down")
    certificate_until: datetime | None = Field(description="null: it has none")


class RolloutView(View):
    """A roll-out."""

    id: str
    tenant: str
    state: str = Field(description="running, halted, rolling_back, done or rolled_back")
    stage: int = Field(description="the one under way, from 0; -1: none has begun")
    stages: int
    boxes: dict[str, int] = Field(description="how many of its boxes are in each state")
    reason: str = Field(description="why it was sent back")
    comment: str
    author: str
    timeout_s: int
    created_at: datetime
    updated_at: datetime


class RolloutBoxView(View):
    """One box of a roll-out."""

    site: str
    stage: int
    version: int
    previous: int | None
    state: str = Field(
        description="waiting, sent, applied, failed, returning, returned, kept or missing"
    )
    why: str
    asked_at: datetime | None


class RolloutDetail(RolloutView):
    """A roll-out with each of its boxes."""

    sites: list[RolloutBoxView]


class Summary(View):
    """What the audit keeps of a roll-out: of a thousand boxes not each."""

    state: str
    stage: int
    reason: str
    boxes: dict[str, int]


def is_silent(seen_ms: int, now_ms: int) -> bool:
    """Whether a box has not been heard for too long."""
    return now_ms - seen_ms > SILENT_MS


def boxes(
    session: Session, now_ms: int, only: Sequence[tuple[str, str]] | None = None
) -> list[BoxView]:
    """Boxes by tenant and id; of ``only`` these (tenant, box), else all."""
    until = (
        select(
            *(Credential.tenant_id, Credential.site_id),
            func.max(Credential.expires_ms).label("until_ms"),
        )
        .where(Credential.kind == CERTIFICATE, Credential.revoked_ms.is_(None))
        .group_by(Credential.tenant_id, Credential.site_id)
        .subquery()
    )
    query = (
        select(Site, Target, Report, until.c.until_ms)
        .outerjoin(Target, (Target.tenant_id == Site.tenant_id) & (Target.site_id == Site.id))
        .outerjoin(Report, (Report.tenant_id == Site.tenant_id) & (Report.site_id == Site.id))
        .outerjoin(until, (until.c.tenant_id == Site.tenant_id) & (until.c.site_id == Site.id))
        .order_by(Site.tenant_id, Site.id)
    )
    if only is not None:
        query = query.where(tuple_(Site.tenant_id, Site.id).in_(only))
    return [
        _box(site, target, report, until_ms, now_ms)
        for site, target, report, until_ms in session.execute(query)
    ]


def _box(
    site: Site, target: Target | None, report: Report | None, until_ms: int | None, now_ms: int
) -> BoxView:
    state = UNKNOWN
    if report is not None:
        state = SILENT if is_silent(report.seen_ms, now_ms) else report.state
    health = (report.health if report else None) or {}
    return BoxView(
        tenant=site.tenant_id,
        id=site.id,
        name=site.name,
        state=state,
        reported=report.state if report else None,
        target=target.version if target else None,
        running=report.running if report else None,
        rollout=target.rollout_id if target else None,
        software=report.software if report else None,
        seen_at=moment(report.seen_ms) if report else None,
        changed_at=moment(report.changed_ms) if report else None,
        error=report.said["error"] if report else None,
        pending=health.get("pending"),
        plcs=_counts(health.get("plcs")),
        outputs=_counts(health.get("outputs")),
        certificate_until=moment_or_none(until_ms),
    )


def _counts(states: dict[str, str] | None) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for state in (states or {}).values():
        counts[state] += 1
    return dict(counts)


def rollouts(session: Session, rows: Sequence[RolloutRow] | None = None) -> list[RolloutView]:
    """Of these rows, in their order; else every roll-out, the newest first."""
    if rows is None:
        newest = select(RolloutRow).order_by(RolloutRow.created_ms.desc(), RolloutRow.id)
        rows = session.scalars(newest).all()
    query = (
        select(
            *(RolloutBox.rollout_id, RolloutBox.state, func.count()),
            func.max(RolloutBox.stage),
        )
        .where(RolloutBox.rollout_id.in_([row.id for row in rows]))
        .group_by(RolloutBox.rollout_id, RolloutBox.state)
    )
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    stages: dict[str, int] = defaultdict(int)
    for rollout, state, count, last in session.execute(query).tuples():
        counts[rollout][state] = count
        stages[rollout] = max(stages[rollout], last + 1)
    return [
        RolloutView(
            id=row.id,
            tenant=row.tenant_id,
            state=row.state,
            stage=row.stage,
            stages=stages[row.id],
            boxes=counts[row.id],
            reason=row.reason,
            comment=row.comment,
            author=row.author,
            timeout_s=row.timeout_ms // 1_000,
            created_at=moment(row.created_ms),
            updated_at=moment(row.updated_ms),
        )
        for row in rows
    ]


def rollout(session: Session, row: RolloutRow) -> RolloutDetail:
    """One with its boxes."""
    (whole,) = rollouts(session, [row])
    query = (
        select(RolloutBox)
        .where(RolloutBox.rollout_id == row.id)
        .order_by(RolloutBox.stage, RolloutBox.site_id)
    )
    sites = [
        RolloutBoxView(
            site=box.site_id,
            stage=box.stage,
            version=box.version,
            previous=box.previous,
            state=box.state,
            why=box.why,
            asked_at=moment(box.asked_ms) if box.asked_ms else None,
        )
        for box in session.scalars(query)
    ]
    return RolloutDetail(**whole.model_dump(), sites=sites)
