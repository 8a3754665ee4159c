"""What the centre remembers: every table, as SQLAlchemy maps it.

The schema itself is made by the migrations beside this file; a test compares the two. Times are
Unix ms, UTC. Whatever belongs to a tenant has a ``tenant_id``: services/control_plane/scope.py
keeps every query on it within one tenant.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_Id = String(32)


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {int: BigInteger, str: Text, dict[str, Any]: JSON}  # noqa: RUF012


class Versioned:
    """``version`` counts the changes of a row: its ETag."""

    version: Mapped[int] = mapped_column(default=1)
    created_ms: Mapped[int]
    updated_ms: Mapped[int]


class Plan(Versioned, Base):
    """What a tenant pays for."""

    __tablename__ = "plans"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    max_devices: Mapped[int]
    points_per_min: Mapped[int]
    raw_days: Mapped[int]


class Tenant(Versioned, Base):
    """One customer. ``state``: active, suspended (access withdrawn), deleted (the same, for good;
    its data stay until they are purged).
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    name: Mapped[str]
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    state: Mapped[str] = mapped_column(String(16))


class Site(Versioned, Base):
    """One box."""

    __tablename__ = "sites"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    name: Mapped[str]


class Device(Versioned, Base):
    """One PLC. Its id is unique in the tenant: it is part of the topic ``plc/<tenant>/<plc>``."""

    __tablename__ = "devices"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "site_id"], ["sites.tenant_id", "sites.id"]),
        Index("devices_of_site", "tenant_id", "site_id"),
    )

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    site_id: Mapped[str] = mapped_column(_Id)
    name: Mapped[str]


class Credential(Versioned, Base):
    """One identity. ``kind``: api_key, or broker (an account at the broker). ``tenant_id`` is NULL
    for the platform's own operators.
    """

    __tablename__ = "credentials"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "site_id"], ["sites.tenant_id", "sites.id"]),
        Index("credentials_of_tenant", "tenant_id", "id"),
    )

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id"))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    site_id: Mapped[str | None] = mapped_column(_Id)
    """The box whose identity it is; for role ``box`` only."""
    expires_ms: Mapped[int | None]
    revoked_ms: Mapped[int | None]


class Secret(Base):
    """One secret of a credential; two while a rotation overlaps. Only its hash is kept."""

    __tablename__ = "secrets"
    __table_args__ = (Index("secrets_of_credential", "credential_id"),)

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    credential_id: Mapped[str] = mapped_column(ForeignKey("credentials.id"))
    hash: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[int]
    ends_ms: Mapped[int | None]
    """When the overlap with its successor is over; NULL for the one in use."""


class BoxConfig(Base):
    """One version of a box's configuration; versions are never changed."""

    __tablename__ = "configs"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "site_id"], ["sites.tenant_id", "sites.id"]),
    )

    tenant_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    site_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    yaml: Mapped[str]
    layouts: Mapped[dict[str, Any]]
    """Path relative to the configuration -> text."""
    sha256: Mapped[str] = mapped_column(String(64))
    comment: Mapped[str]
    points_per_min: Mapped[int]
    check: Mapped[dict[str, Any]]
    """What the box's own check said."""
    author: Mapped[str]
    created_ms: Mapped[int]


class AlertPart(Versioned, Base):
    """One rule, receiver or route (``kind``) of a tenant's ``alerts:``, as config.yaml has it."""

    __tablename__ = "alert_parts"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(_Id, primary_key=True)
    spec: Mapped[Any] = mapped_column(JSON)
    """Without its name and without secrets."""
    sealed: Mapped[bytes | None]
    """A receiver's secrets (services/control_plane/alerting/sealing.py)."""


class Usage(Base):
    """What one PLC sent in one minute, hour or day (``span``) that began at ``start_s``."""

    __tablename__ = "usage"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    span: Mapped[str] = mapped_column(String(8), primary_key=True)
    start_s: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    device_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    points: Mapped[int]
    messages: Mapped[int]
    bytes: Mapped[int]


class Audit(Base):
    """One change. Append-only; ``mac`` chains each row to the one before."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_of_tenant", "tenant_id", "seq"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ts_ms: Mapped[int]
    actor: Mapped[str]
    role: Mapped[str]
    tenant_id: Mapped[str | None] = mapped_column(_Id)
    """Whom it concerns; no foreign key, because it outlives a purged tenant."""
    action: Mapped[str]
    resource: Mapped[str]
    before: Mapped[str | None]
    after: Mapped[str | None]
    """Canonical JSON, so that the bytes under ``mac`` are those in the row."""
    mac: Mapped[str] = mapped_column(String(64))


class AuditHead(Base):
    """The last row of the chain. Whoever changes anything locks this one row first: there is one
    writer at a time, so a quota that was read is still true when the row behind it is written.
    """

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    mac: Mapped[str] = mapped_column(String(64))


class Reply(Base):
    """The answer to a request with an Idempotency-Key, for who repeats it.

    ``body`` is sealed with a key that only the caller has (services/control_plane/replies.py): an
    answer may hold a secret that is shown once.
    """

    __tablename__ = "replies"
    __table_args__ = (Index("replies_by_age", "created_ms"),)

    actor: Mapped[str] = mapped_column(_Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the Idempotency-Key."""
    request: Mapped[str] = mapped_column(String(64))
    """SHA-256 of method, path and body."""
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes]
    created_ms: Mapped[int]


class Effect(Base):
    """Something outside the database to be made right (services/control_plane/effects.py)."""

    __tablename__ = "effects"
    __table_args__ = (Index("effects_due", "due_ms"),)

    id: Mapped[int] = mapped_column(
        # The only kind that SQLite counts up by itself.
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
    )
    tenant_id: Mapped[str] = mapped_column(_Id)
    """Whose; no foreign key, because it outlives a purged tenant."""
    due_ms: Mapped[int]
    attempts: Mapped[int]
    error: Mapped[str | None]
