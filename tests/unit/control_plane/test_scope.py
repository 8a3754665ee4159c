"""A session of one tenant sees and changes that tenant's rows only, whatever the statement."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from services.control_plane import audit, effects, first, scope, tables
from services.control_plane.db import Database
from services.control_plane.metering import Count, add
from services.control_plane.outside import wanted
from services.meter import meter

TENANTS = ("acme", "beta")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Two tenants with a row of everything."""
    made = Database(f"sqlite:///{tmp_path}/c.db")
    chain = audit.Chain(b"k" * 32)
    first.prepare(made, chain, another_key=False)
    times = {"created_ms": 1, "updated_ms": 1}
    with made.writing(None) as session:
        for t in TENANTS:
            session.add(tables.Tenant(id=t, name="", plan_id="pro", state="active", **times))
            session.flush()
            session.add(tables.Site(tenant_id=t, id="s1", name="", **times))
            session.flush()
            session.add(tables.Device(tenant_id=t, id="d1", site_id="s1", name="", **times))
            session.add(
                tables.Credential(
                    id=f"crd_{t}", tenant_id=t, kind="api_key", name="", role="admin", **times
                )
            )
            session.add(
                tables.BoxConfig(
                    tenant_id=t, site_id="s1", version=1, yaml="", layouts={}, sha256="",
                    comment="", points_per_min=1, check={}, author="", created_ms=1,
                )
            )  # fmt: skip
            numbers = dict.fromkeys((*meter.NUMBERS, "minute_s", "load", "late"), 1)
            session.add(tables.Standing(tenant_id=t, **numbers))
            session.add(tables.LimitEvent(tenant_id=t, ts_ms=1, kind="warning", load=1, limit=1))
            session.add(tables.Metered(tenant_id=t, device_id="d1", epochs="{}"))
            session.add(
                tables.WebSession(
                    id=t, tenant_id=t, actor="", role="admin", name="", secret_id=None, groups=[],
                    created_ms=1, seen_ms=1, ends_ms=1,
                )
            )  # fmt: skip
            add_fleet(session, t)
            effects.add(session, "broker", t, 1)
            wanted.keep(session, "influxdb", t, "org", "1", 1)
            session.add(tables.AlertPart(tenant_id=t, kind="rule", name="r1", spec={}, **times))
            add(session, [Count(t, "d1", 60, 1, 1, 1)])
            chain.append(session, "x", "admin", t, "a", "r", None, None)
    yield made
    made.close()


def add_fleet(session: Session, t: str) -> None:
    """A row of everything that looks after boxes."""
    of_site = {"tenant_id": t, "site_id": "s1"}
    session.flush()
    session.add_all(
        [
            tables.Claim(id=f"clm_{t}", hash=t, created_ms=1, ends_ms=1, **of_site),
            tables.Certificate(
                serial=t, tenant_id=t, credential_id=f"crd_{t}", sha256=t, key_sha256=t, pem="",
                created_ms=1, not_after_ms=1,
            ),
            tables.Target(version=1, overwrite=False, seq=1, set_ms=1, author="", **of_site),
            tables.Report(
                seen_ms=1, changed_ms=1, state="applied", software="", said={}, **of_site
            ),
            tables.RolloutRow(
                id=f"rol_{t}", tenant_id=t, state="done", stage=0, timeout_ms=1, comment="",
                author="", reason="", created_ms=1, updated_ms=1,
            ),
        ]
    )  # fmt: skip
    session.flush()
    box = {"stage": 0, "version": 1, "state": "applied", "asked_ms": 1, "why": ""}
    session.add(tables.RolloutBox(rollout_id=f"rol_{t}", **box, **of_site))


def owner(row: Any) -> str:
    return str(row.id if isinstance(row, tables.Tenant) else row.tenant_id)


def test_the_table_of_owned_things_is_complete() -> None:
    owned = {cls.__tablename__ for cls, _ in scope.OWNED}
    assert owned == {
        "tenants", "sites", "devices", "credentials", "configs", "usage", "audit",
        "effects", "claims", "certificates", "targets", "reports", "rollouts", "rollout_boxes",
        "standings", "limit_events", "metered", "externals", "sessions", "alert_parts",
    }  # fmt: skip
    # What else there is belongs to nobody, or is reached through what is owned only.
    rest = {"plans", "secrets", "audit_head", "replies"}
    assert owned | rest == set(tables.Base.metadata.tables)


@pytest.mark.parametrize("cls", [cls for cls, _ in scope.OWNED], ids=lambda c: c.__tablename__)
def test_a_bare_statement_stays_within_the_tenant(database: Database, cls: Any) -> None:
    with database.reading("acme") as session:
        rows = session.scalars(select(cls)).all()
        assert rows
        assert {owner(row) for row in rows} == {"acme"}
        assert session.scalar(select(func.count()).select_from(cls)) == len(rows)
    with database.reading(None) as session:
        everybodys = session.scalars(select(cls)).all()
        assert {owner(row) for row in everybodys} >= set(TENANTS)


def test_a_foreign_row_cannot_be_got_by_its_key(database: Database) -> None:
    with database.reading("acme") as session:
        assert session.get(tables.Device, ("acme", "d1")) is not None
        assert session.get(tables.Device, ("beta", "d1")) is None
        assert session.get(tables.Credential, "crd_beta") is None
        assert session.get(tables.Tenant, "beta") is None


def test_a_bare_change_stays_within_the_tenant(database: Database) -> None:
    with database.writing("acme") as session:
        session.execute(update(tables.Device).values(name="changed"))
        session.execute(delete(tables.Usage))
    with database.reading(None) as session:
        names = {d.tenant_id: d.name for d in session.scalars(select(tables.Device))}
        assert names == {"acme": "changed", "beta": ""}
        assert {u.tenant_id for u in session.scalars(select(tables.Usage))} == {"beta"}


def test_a_session_of_nobody_in_particular_is_refused(database: Database) -> None:
    with Session(database.engine) as session, pytest.raises(KeyError):
        session.scalars(select(tables.Site)).all()
