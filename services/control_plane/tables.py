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
    """One identity. ``kind``: api_key, broker (an account at the broker), or certificate (a
    box's, with a row of ``Certificate`` for each that was issued). ``tenant_id`` is NULL for the
    platform's own operators.
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
    serial: Mapped[str | None] = mapped_column(_Id)
    """Of the newest certificate, 32 hex digits; for kind ``certificate`` only."""


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
    __table_args__ = (Index("effects_due", "target", "due_ms"),)

    id: Mapped[int] = mapped_column(
        # The only kind that SQLite counts up by itself.
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
    )
    tenant_id: Mapped[str] = mapped_column(_Id)
    """Whose; no foreign key, because it outlives a purged tenant."""
    target: Mapped[str] = mapped_column(String(16))
    """Where: broker, influxdb or grafana."""
    since_ms: Mapped[int]
    due_ms: Mapped[int]
    attempts: Mapped[int]
    error: Mapped[str | None]


class WebSession(Base):
    """A person who is signed in on the admin page (services/control_plane/pages/sessions.py)."""

    __tablename__ = "sessions"
    __table_args__ = (Index("sessions_by_end", "ends_ms"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the cookie."""
    tenant_id: Mapped[str | None] = mapped_column(_Id)
    """No foreign key: of a tenant that is gone no session lives."""
    actor: Mapped[str] = mapped_column(_Id)
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    """For people: the key's name, or what the provider calls the person."""
    secret_id: Mapped[str | None] = mapped_column(_Id)
    """The key that was pasted; NULL where a provider told who it is."""
    groups: Mapped[list[str]] = mapped_column(JSON)
    """What the provider said of the person, for oidc.roles."""
    created_ms: Mapped[int]
    seen_ms: Mapped[int]
    ends_ms: Mapped[int]


# -- boxes that look after themselves (services/control_plane/fleet) --------------------------


def _of_site() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", "site_id"], ["sites.tenant_id", "sites.id"])


class Claim(Base):
    """A code by which a box gets its first certificate, once. Only its hash is kept."""

    __tablename__ = "claims"
    __table_args__ = (_of_site(), Index("claims_by_hash", "hash", unique=True))

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_Id)
    site_id: Mapped[str] = mapped_column(_Id)
    hash: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[int]
    ends_ms: Mapped[int]
    """When it ends by itself, or was voided by a newer one."""
    used_ms: Mapped[int | None]
    serial: Mapped[str | None] = mapped_column(_Id)
    """What it was used for."""


class Certificate(Base):
    """One certificate of a box; two live ones of a credential while a renewal is on its way."""

    __tablename__ = "certificates"
    __table_args__ = (
        Index("certificates_by_sha256", "sha256", unique=True),
        Index("certificates_of_credential", "credential_id"),
    )

    serial: Mapped[str] = mapped_column(_Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    credential_id: Mapped[str] = mapped_column(ForeignKey("credentials.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    """Of its DER."""
    key_sha256: Mapped[str] = mapped_column(String(64))
    pem: Mapped[str]
    created_ms: Mapped[int]
    not_after_ms: Mapped[int]
    ends_ms: Mapped[int | None]
    """When the overlap with its successor is over; NULL while that has not been used."""


class Target(Base):
    """Which version a box must have."""

    __tablename__ = "targets"
    __table_args__ = (_of_site(), Index("targets_by_seq", "seq"))

    tenant_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    site_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    version: Mapped[int | None]
    """NULL: none any more."""
    overwrite: Mapped[bool]
    """A person's word: over files that were changed at the box."""
    rollout_id: Mapped[str | None] = mapped_column(_Id)
    seq: Mapped[int]
    """Of the audit's row about it: rises with every change of any target."""
    set_ms: Mapped[int]
    author: Mapped[str]


class Report(Base):
    """What a box said last."""

    __tablename__ = "reports"
    __table_args__ = (_of_site(),)

    tenant_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    site_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    seen_ms: Mapped[int]
    changed_ms: Mapped[int]
    """When it first said this, health aside."""
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int | None]
    running: Mapped[int | None]
    rollout_id: Mapped[str | None] = mapped_column(_Id)
    software: Mapped[str]
    said: Mapped[dict[str, Any]]
    """All of it but ``health``."""
    health: Mapped[dict[str, Any] | None]


class RolloutRow(Versioned, Base):
    """A roll-out (services/control_plane/fleet/rollout.py)."""

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("rollouts_by_state", "state"),
        Index("rollouts_of_tenant", "tenant_id", "created_ms"),
    )

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[int]
    timeout_ms: Mapped[int]
    comment: Mapped[str]
    author: Mapped[str]
    reason: Mapped[str]


class RolloutBox(Base):
    """One box of a roll-out; no foreign key to the box, because this outlives it."""

    __tablename__ = "rollout_boxes"
    __table_args__ = (Index("rollout_boxes_of_site", "tenant_id", "site_id"),)

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_Id)
    site_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    stage: Mapped[int]
    version: Mapped[int]
    previous: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(16))
    asked_ms: Mapped[int]
    why: Mapped[str]


class Standing(Base):
    """How a tenant stands against its plan (services/control_plane/quota.py says what each number
    means), and what has come of it in the minute that is not judged yet.
    """

    __tablename__ = "standings"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    minute_s: Mapped[int]
    load: Mapped[int]
    late: Mapped[int]
    over_minutes: Mapped[int]
    credit: Mapped[int]
    warned_s: Mapped[int]
    exceeded_s: Mapped[int]
    withdrawn_until_s: Mapped[int]


class LimitEvent(Base):
    """``kind``: warning, exceeded, withdrawn, returned or released; what came in the minute that
    led to it, and the plan's number.
    """

    __tablename__ = "limit_events"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    ts_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    load: Mapped[int]
    limit: Mapped[int]


class Metered(Base):
    """Which messages of a PLC are counted: services/consumer/seen.py, as JSON."""

    __tablename__ = "metered"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    epochs: Mapped[str]


class External(Base):
    """Something that was made outside for a tenant, by its id there: an organisation (``org``), a
    token (its description), a dashboard (its uid).
    """

    __tablename__ = "externals"

    tenant_id: Mapped[str] = mapped_column(_Id, primary_key=True)
    """No foreign key, because it outlives a purged tenant."""
    target: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    external_id: Mapped[str]
    """Empty while it is being made: whoever dies then finds it by its name."""
    hash: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of a token, or of what a dashboard was made of."""
    since_ms: Mapped[int]
    """When the tenant was made: another one of the same name must get nothing of it."""
