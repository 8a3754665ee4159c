"""What has to happen outside the database because of a change in it.

A row is written in the transaction of the change, so that neither can be there without the other.
It says of whom something changed, not what: who carries it out compares what is wanted now with
what is there, so that the order of two changes is kept, and doing it twice does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from services.control_plane.tables import Effect

# Of a tenant that is refused again and again: 1, 2, 4 … 60 s.
BACKOFF_MS, BACKOFF_MAX_MS = 1_000, 60_000


def add(session: Session, tenant_id: str, due_ms: int) -> None:
    """Asks for a tenant's outside to be made right, not before ``due_ms``."""
    session.add(Effect(tenant_id=tenant_id, due_ms=due_ms, attempts=0, error=None))


@dataclass(frozen=True, slots=True)
class Due:
    """A tenant whose outside is to be made right."""

    tenant_id: str
    last_id: int
    """The newest of its rows: a later one asks for it once more."""


def due(session: Session, now_ms: int) -> list[Due]:
    """Whose turn it is, the oldest first."""
    query = (
        select(Effect.tenant_id, func.max(Effect.id))
        .where(Effect.due_ms <= now_ms)
        .group_by(Effect.tenant_id)
        .order_by(func.min(Effect.id))
    )
    return [Due(tenant, last) for tenant, last in session.execute(query)]


def next_due_ms(session: Session) -> int | None:
    """When something comes next."""
    return session.scalar(select(func.min(Effect.due_ms)))


def _rows(done: Due, now_ms: int) -> tuple[object, ...]:
    return Effect.tenant_id == done.tenant_id, Effect.id <= done.last_id, Effect.due_ms <= now_ms


def finish(session: Session, done: Due, now_ms: int) -> None:
    """It was made right."""
    session.execute(delete(Effect).where(*_rows(done, now_ms)))  # type: ignore[arg-type]


def postpone(session: Session, failed: Due, now_ms: int, error: str) -> None:
    """It was refused: later."""
    for row in session.scalars(select(Effect).where(*_rows(failed, now_ms))):  # type: ignore[arg-type]
        row.due_ms = now_ms + min(BACKOFF_MS << min(row.attempts, 6), BACKOFF_MAX_MS)
        row.attempts += 1
        row.error = error
