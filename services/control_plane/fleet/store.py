"""Between the database and the pure roll-out; and which version a box must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.control_plane.audit import HEAD_ID, Chain
from services.control_plane.fleet import rollout
from services.control_plane.fleet.rollout import Box, Heard, Rollout, Targets
from services.control_plane.tables import (
    AuditHead,
    Certificate,
    Claim,
    Report,
    RolloutBox,
    RolloutRow,
    Target,
)

# Of a box, and of a tenant: what goes with it, in an order that no foreign key forbids.
OF_SITE: tuple[Any, ...] = (Claim, Target, Report)
OF_TENANT: tuple[Any, ...] = (*OF_SITE, Certificate, RolloutBox, RolloutRow)
# Who did what the centre does by itself, in the audit.
WHO = "roll-outs"


def set_target(
    session: Session,
    tenant_id: str,
    site_id: str,
    version: int | None,
    *,
    author: str,
    at_ms: int,
    rollout_id: str | None = None,
    overwrite: bool = False,
) -> Target:
    """Which version the box must have from now on. The change goes into the audit in the same
    transaction: the number of its next row is how a waiting box learns of it.
    """
    seq = session.get_one(AuditHead, HEAD_ID).seq + 1
    target = session.get(Target, (tenant_id, site_id))
    if target is None:
        target = Target(tenant_id=tenant_id, site_id=site_id)
        session.add(target)
    target.version = version
    target.overwrite = overwrite
    target.rollout_id = rollout_id
    target.seq = seq
    target.set_ms = at_ms
    target.author = author
    return target


def active_rollout(session: Session, tenant_id: str, site_id: str) -> str | None:
    """The id of the roll-out that a box is in, where that has not ended."""
    query = (
        select(RolloutRow.id)
        .join(RolloutBox, RolloutBox.rollout_id == RolloutRow.id)
        .where(
            RolloutBox.tenant_id == tenant_id,
            RolloutBox.site_id == site_id,
            RolloutRow.state.in_(rollout.ACTIVE),
        )
    )
    return session.scalars(query.limit(1)).first()


def heard(session: Session, tenant_id: str, rollout_id: str) -> dict[str, Heard]:
    """The last reports of a roll-out's boxes."""
    query = (
        select(
            *(Report.site_id, Report.seen_ms, Report.changed_ms, Report.state),
            *(Report.version, Report.running, Report.rollout_id),
        )
        .join(
            RolloutBox,
            (RolloutBox.tenant_id == Report.tenant_id) & (RolloutBox.site_id == Report.site_id),
        )
        .where(RolloutBox.rollout_id == rollout_id, Report.tenant_id == tenant_id)
    )
    return {row[0]: Heard(*row[1:]) for row in session.execute(query).tuples()}


@dataclass(slots=True)
class Stored:
    """A roll-out, and the rows that hold it."""

    row: RolloutRow
    rows: dict[str, RolloutBox]
    now: Rollout


def load(session: Session, row: RolloutRow) -> Stored:
    """As the pure part has it."""
    query = (
        select(RolloutBox)
        .where(RolloutBox.rollout_id == row.id)
        .order_by(RolloutBox.stage, RolloutBox.site_id)
    )
    rows = {box.site_id: box for box in session.scalars(query)}
    boxes = tuple(
        Box(b.site_id, b.stage, b.version, b.previous, b.state, b.asked_ms, b.why)
        for b in rows.values()
    )
    state = Rollout(row.id, row.timeout_ms, boxes, row.state, row.stage, row.reason)
    return Stored(row, rows, state)


def keep(session: Session, stored: Stored, new: Rollout, targets: Targets, at_ms: int) -> None:
    """Writes what has become of a roll-out, with the targets that follow from it."""
    row, old = stored.row, {box.site: box for box in stored.now.boxes}
    row.state, row.stage, row.reason = new.state, new.stage, new.reason
    row.version += 1
    row.updated_ms = at_ms
    for box in new.boxes:
        if box != old[box.site]:
            own = stored.rows[box.site]
            own.state, own.asked_ms, own.why = box.state, box.asked_ms, box.why
    # Found at once, not one by one; held, or the session would forget them.
    query = select(Target).where(Target.tenant_id == row.tenant_id)
    known = session.scalars(query.where(Target.site_id.in_(targets))).all() if targets else ()
    for site, version in targets.items():
        given = {"author": row.author, "at_ms": at_ms, "rollout_id": row.id}
        set_target(session, row.tenant_id, site, version, **given)  # type: ignore[arg-type]
    del known
    stored.now = new


def summary(new: Rollout) -> dict[str, Any]:
    """What the audit keeps of a roll-out: of a thousand boxes not each."""
    counts: dict[str, int] = {}
    for box in new.boxes:
        counts[box.state] = counts.get(box.state, 0) + 1
    return {"state": new.state, "stage": new.stage, "reason": new.reason, "boxes": counts}


def changed(before: Rollout, after: Rollout) -> bool:
    """Whether the change is one for the audit: boxes that come home one by one are not."""
    return (before.state, before.stage) != (after.state, after.stage)


def record(session: Session, chain: Chain, tenant_id: str, before: Rollout, after: Rollout) -> None:
    """Writes into the audit what the centre has done by itself."""
    words = (tenant_id, f"rollout.{after.state}", f"tenants/{tenant_id}/rollouts/{after.id}")
    chain.append(session, WHO, "system", *words, summary(before), summary(after))
