"""What has to happen outside the database because of a change in it.

A row is written in the transaction of the change, so that neither can be there without the other:
one for each target (the broker, InfluxDB, Grafana), so that one that is away holds up no other. It
says of whom something changed, not what: who carries it out compares what is wanted now with what
is there, so that the order of two changes is kept, and doing it twice does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from services.control_plane.tables import Effect
from services.runtime.clock import now_ms as clock_ms

# Of a tenant that is refused again and again: 1, 2, 4 … 60 s.
BACKOFF_MS, BACKOFF_MAX_MS = 1_000, 60_000
BROKER, INFLUXDB, GRAFANA = "broker", "influxdb", "grafana"
# First word of an action in the audit -> where it shows.
SHOWS_AT = {
    "tenant": (BROKER, INFLUXDB, GRAFANA),
    "site": (BROKER, INFLUXDB),
    "device": (BROKER,),
    "credential": (BROKER,),
    "limits": (BROKER,),
    # Names of fields stand in the tasks, and in what the alert engine must know, which goes with
    # the accounts.
    "config": (BROKER, INFLUXDB),
    "rule": (BROKER,),
    "receiver": (BROKER,),
    "route": (BROKER,),
}
READY, PENDING, REFUSED = "ready", "pending", "refused"


def add(session: Session, target: str, tenant_id: str, due_ms: int) -> None:
    """Asks for a tenant's outside to be made right, not before ``due_ms``."""
    session.add(
        Effect(
            tenant_id=tenant_id,
            target=target,
            since_ms=clock_ms(),
            due_ms=due_ms,
            attempts=0,
            error=None,
        )
    )


@dataclass(frozen=True, slots=True)
class Due:
    """A tenant whose outside is to be made right."""

    tenant_id: str
    target: str
    last_id: int
    """The newest of its rows: a later one asks for it once more."""


def due(session: Session, target: str, now_ms: int) -> list[Due]:
    """Whose turn it is, the oldest first."""
    query = (
        select(Effect.tenant_id, func.max(Effect.id))
        .where(Effect.target == target, Effect.due_ms <= now_ms)
        .group_by(Effect.tenant_id)
        .order_by(func.min(Effect.due_ms), func.min(Effect.id))
    )
    return [Due(tenant, target, last) for tenant, last in session.execute(query)]


def next_due_ms(session: Session, target: str) -> int | None:
    """When something comes next."""
    return session.scalar(select(func.min(Effect.due_ms)).where(Effect.target == target))


def is_asked(session: Session, target: str, tenant_id: str) -> bool:
    """Whether something waits already."""
    query = select(Effect.id).where(Effect.target == target, Effect.tenant_id == tenant_id)
    return session.scalar(query.limit(1)) is not None


def _rows(done: Due, now_ms: int) -> tuple[object, ...]:
    return (
        Effect.target == done.target,
        Effect.tenant_id == done.tenant_id,
        Effect.id <= done.last_id,
        Effect.due_ms <= now_ms,
    )


def finish(session: Session, done: Due, now_ms: int) -> None:
    """It was made right."""
    session.execute(delete(Effect).where(*_rows(done, now_ms)))  # type: ignore[arg-type]


def postpone(session: Session, failed: Due, now_ms: int, error: str) -> None:
    """It was refused: later."""
    for row in session.scalars(select(Effect).where(*_rows(failed, now_ms))):  # type: ignore[arg-type]
        row.due_ms = now_ms + min(BACKOFF_MS << min(row.attempts, 6), BACKOFF_MAX_MS)
        row.attempts += 1
        row.error = error


# -- what waits ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one tenant waits for at one target."""

    tenant_id: str
    target: str
    since_ms: int
    due_ms: int
    """When it is tried next, or again."""
    attempts: int
    error: str | None
    """Why it was refused; None before the first refusal."""

    @property
    def state(self) -> str:
        """In a word."""
        return PENDING if self.error is None else REFUSED


def waiting(session: Session, targets: Iterable[str], now_ms: int) -> list[Waiting]:
    """Everything that is asked for by now and not done, within the session's tenant, in the order
    of tenants and targets. Rows of later (a rotation's end) are no debt yet.
    """
    query = (
        select(Effect)
        .where(Effect.target.in_(targets), Effect.due_ms <= now_ms + BACKOFF_MAX_MS)
        .order_by(Effect.id)
    )
    found: dict[tuple[str, str], Waiting] = {}
    for row in session.scalars(query):
        if row.due_ms > now_ms and not row.attempts:
            continue
        key = (row.tenant_id, row.target)
        before = found.get(key)
        if before is None or row.attempts > before.attempts:
            found[key] = Waiting(
                row.tenant_id,
                row.target,
                min(row.since_ms, before.since_ms) if before else row.since_ms,
                row.due_ms,
                row.attempts,
                row.error,
            )
    return [found[key] for key in sorted(found)]


def state(found: Iterable[Waiting]) -> str:
    """Of a tenant, in a word: refused anywhere, else pending anywhere, else ready."""
    words = {one.state for one in found}
    return REFUSED if REFUSED in words else PENDING if words else READY
