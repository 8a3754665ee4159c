"""Adds what was counted to the usage of a tenant: per minute, hour and day; per PLC and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.control_plane.tables import Usage

SPANS_S = {"minute": 60, "hour": 3_600, "day": 86_400}
# How long rows are kept; those of days for good.
KEPT_S = {"minute": 7 * 86_400, "hour": 400 * 86_400}
# A row that stands for all PLCs of a tenant has no device.
WHOLE = ""
_COUNTS = ("points", "messages", "bytes")


@dataclass(frozen=True, slots=True)
class Count:
    """What one PLC sent in one go."""

    tenant_id: str
    device_id: str
    ts_s: int
    """Unix s: when it arrived."""
    points: int
    messages: int
    bytes: int


def add(session: Session, counts: Iterable[Count]) -> None:
    """In the session's transaction. Whoever counts keeps its own position in the same one, so that
    nothing is counted twice.
    """
    sums: dict[tuple[str, str, int, str], Counter[str]] = {}
    for c in counts:
        for span, size_s in SPANS_S.items():
            for device in (c.device_id, WHOLE):
                key = (c.tenant_id, span, c.ts_s // size_s * size_s, device)
                found = sums.setdefault(key, Counter())
                for name in _COUNTS:
                    found[name] += getattr(c, name)
    insert = (
        sqlite.insert(Usage)
        if session.get_bind().dialect.name == "sqlite"
        else postgresql.insert(Usage)
    )
    names = ("tenant_id", "span", "start_s", "device_id")
    upsert = insert.on_conflict_do_update(
        index_elements=list(names),
        set_={name: getattr(Usage, name) + insert.excluded[name] for name in _COUNTS},
    )
    rows = [
        {**dict(zip(names, key, strict=True)), **{n: found[n] for n in _COUNTS}}
        for key, found in sorted(sums.items())
    ]
    if rows:
        session.execute(upsert, rows)


def forget(session: Session, tenants: Iterable[str], now_s: int) -> None:
    """Removes what is older than ``KEPT_S``, tenant by tenant: so the key finds it."""
    for tenant in tenants:
        for span, kept_s in KEPT_S.items():
            old = (Usage.tenant_id == tenant, Usage.span == span, Usage.start_s < now_s - kept_s)
            session.execute(delete(Usage).where(*old))
