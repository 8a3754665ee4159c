"""Credentials, API keys and accounts at the broker: made, rotated with an overlap, revoked. The
secret itself is shown once. Certificates of boxes are listed and revoked here, and made elsewhere
(routes/certificates.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import AwareDatetime, Field, model_validator
from sqlalchemy import func, select

from services.control_plane.broker import accounts
from services.control_plane.effects import BROKER as BROKER_TARGET
from services.control_plane.fields import (
    Cursor,
    Form,
    Id,
    Limit,
    Line,
    Page,
    TenantId,
    View,
    moment,
    moment_or_none,
    page,
)
from services.control_plane.identity import (
    ADMIN,
    BOX,
    BROKER,
    CERTIFICATE,
    OPERATOR,
    new_id,
    new_key,
)
from services.control_plane.problems import Refusal
from services.control_plane.tables import Credential, Secret, Site
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime.clock import now_ms

platform = APIRouter(prefix="/v1/credentials", tags=["credentials"])
router = APIRouter(prefix="/v1/tenants/{tenant_id}/credentials", tags=["credentials"])
CredentialId = Annotated[str, Path(pattern=r"^crd_[0-9a-f]{16}$")]
# Of a tenant, those that are not revoked; certificates are bounded by its boxes.
MAX_CREDENTIALS = 1_000
MAX_OVERLAP_S = 30 * 86_400


class NewSecret(Form):
    """What every new credential may say."""

    name: Line = ""
    expires_at: AwareDatetime | None = Field(
        None,
        gt=datetime(2000, 1, 1, tzinfo=UTC),
        lt=datetime(9000, 1, 1, tzinfo=UTC),
        description="default: never",
    )


class NewOperator(NewSecret):
    """A key for an operator of the platform."""

    kind: Literal["api_key"] = "api_key"


class NewCredential(NewSecret):
    """A key of a tenant, or an account at the broker: a box's, or one that reads all its topics."""

    kind: Literal["api_key", "broker"] = "api_key"
    role: Literal["admin", "reader", "box"]
    site: Id | None = Field(None, description="the box, for role `box` only")

    @model_validator(mode="after")
    def _site_of_a_box(self) -> NewCredential:
        if (self.role == BOX) != (self.site is not None):
            raise ValueError("`site` goes with role `box`, and only with it")
        if self.kind == BROKER and self.role == ADMIN:
            raise ValueError("an account at the broker is of role `box` or `reader`")
        return self


class Rotation(Form):
    """How long the old key works beside the new one."""

    overlap_s: int = Field(3_600, ge=0, le=MAX_OVERLAP_S, description="0: not at all")


class CredentialView(View):
    """A credential, without its secret."""

    id: str
    tenant: str | None
    kind: str
    name: str
    role: str
    site: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    serial: str | None = Field(None, description="of a box's newest certificate")


class CredentialSecret(CredentialView):
    """The same with the secret, this once."""

    secret: str = Field(description="the key, or the password at the broker")
    username: str | None = Field(description="at the broker; its client id is the same")


def view(row: Credential) -> CredentialView:
    """As the API shows it."""
    return CredentialView(
        id=row.id,
        tenant=row.tenant_id,
        kind=row.kind,
        name=row.name,
        role=row.role,
        site=row.site_id,
        created_at=moment(row.created_ms),
        updated_at=moment(row.updated_ms),
        expires_at=moment_or_none(row.expires_ms),
        revoked_at=moment_or_none(row.revoked_ms),
        serial=row.serial,
    )


def _path(row: Credential) -> str:
    owner = f"tenants/{row.tenant_id}/" if row.tenant_id else ""
    return f"{owner}credentials/{row.id}"


def _of(unit: Unit, tenant_id: str | None, credential_id: str) -> Credential:
    found = unit.session.get(Credential, credential_id)
    if found is None or found.tenant_id != tenant_id:
        raise Refusal("not-found")
    return found


def _with_key(unit: Unit, row: Credential, status: int) -> Answer:
    """Gives a credential a new secret, and shows it."""
    if row.kind == BROKER and row.tenant_id is not None:
        if unit.core.broker is None:
            raise Refusal("no-broker")
        key = accounts.new_secret(unit.core.broker.key)
        username = accounts.username(row.tenant_id, row.site_id, key.id)
    else:
        key, username = new_key(), None
    unit.session.flush()
    unit.session.add(Secret(id=key.id, credential_id=row.id, hash=key.hash, created_ms=now_ms()))
    body = CredentialSecret(**view(row).model_dump(), secret=key.text, username=username)
    return Answer(body, status, row.version, f"/v1/{_path(row)}")


def _create(
    unit: Unit,
    tenant_id: str | None,
    role: str,
    site: str | None,
    form: NewOperator | NewCredential,
) -> Answer:
    now = now_ms()
    row = Credential(
        id=new_id("crd"),
        tenant_id=tenant_id,
        kind=form.kind,
        name=form.name,
        role=role,
        site_id=site,
        expires_ms=int(form.expires_at.timestamp() * 1_000) if form.expires_at else None,
        version=1,
        created_ms=now,
        updated_ms=now,
    )
    unit.session.add(row)
    answer = _with_key(unit, row, 201)
    unit.record("credential.create", _path(row), None, view(row))
    if row.expires_ms is not None:
        unit.follow(row.expires_ms, BROKER_TARGET)
    return answer


def _list(unit: Unit, tenant_id: str | None, cursor: str | None, limit: int) -> Answer:
    query = select(Credential).where(Credential.tenant_id == tenant_id)
    return Answer(page(unit.session, query, [Credential.id], cursor, limit, view))


def _get(unit: Unit, tenant_id: str | None, credential_id: str) -> Answer:
    row = _of(unit, tenant_id, credential_id)
    return Answer(view(row), version=row.version)


def _rotate(unit: Unit, tenant_id: str | None, credential_id: str, form: Rotation) -> Answer:
    row = _of(unit, tenant_id, credential_id)
    unit.match(row)
    if row.revoked_ms is not None:
        raise Refusal("credential-revoked", id=row.id)
    if row.kind == CERTIFICATE:
        raise Refusal("certificate-renewal", id=row.id)
    before, end = view(row), now_ms() + form.overlap_s * 1_000
    for secret in unit.session.scalars(select(Secret).where(Secret.credential_id == row.id)):
        secret.ends_ms = end if secret.ends_ms is None else min(secret.ends_ms, end)
    unit.touch(row)
    answer = _with_key(unit, row, 200)
    unit.record("credential.rotate", _path(row), before, view(row))
    unit.follow(end, BROKER_TARGET)
    return answer


def _revoke(unit: Unit, tenant_id: str | None, credential_id: str) -> Answer:
    """The same again changes nothing."""
    row = _of(unit, tenant_id, credential_id)
    unit.match(row)
    if row.revoked_ms is None:
        before, row.revoked_ms = view(row), now_ms()
        unit.touch(row)
        unit.record("credential.revoke", _path(row), before, view(row))
    return Answer(view(row), version=row.version)


# -- the platform's own ----------------------------------------------------------------------


@platform.post("", status_code=201, response_model=CredentialSecret)
@writes(OPERATOR)
def create_operator(unit: Writing, form: NewOperator) -> Answer:
    """Makes another operator's key."""
    return _create(unit, None, OPERATOR, None, form)


@platform.get("", response_model=Page[CredentialView])
@reads(OPERATOR)
def list_operators(unit: Reading, cursor: Cursor = None, limit: Limit = 100) -> Answer:
    """The operators' keys."""
    return _list(unit, None, cursor, limit)


@platform.get("/{credential_id}", response_model=CredentialView)
@reads(OPERATOR)
def get_operator(unit: Reading, credential_id: CredentialId) -> Answer:
    """One of them."""
    return _get(unit, None, credential_id)


@platform.post("/{credential_id}/rotate", response_model=CredentialSecret)
@writes(OPERATOR)
def rotate_operator(unit: Writing, credential_id: CredentialId, form: Rotation) -> Answer:
    """A new key for the same operator."""
    return _rotate(unit, None, credential_id, form)


@platform.post("/{credential_id}/revoke", response_model=CredentialView)
@writes(OPERATOR)
def revoke_operator(unit: Writing, credential_id: CredentialId) -> Answer:
    """Ends an operator's key at once; the last one stays."""
    now = now_ms()
    others = select(func.count()).where(
        Credential.tenant_id.is_(None),
        Credential.id != credential_id,
        Credential.revoked_ms.is_(None),
        func.coalesce(Credential.expires_ms, now + 1) > now,
    )
    if not unit.session.scalar(others):
        raise Refusal("last-operator")
    return _revoke(unit, None, credential_id)


# -- a tenant's ------------------------------------------------------------------------------


@router.post("", status_code=201, response_model=CredentialSecret)
@writes(OPERATOR, ADMIN)
def create_credential(unit: Writing, tenant_id: TenantId, form: NewCredential) -> Answer:
    """Makes a credential of the tenant; `secret` is shown in this answer only."""
    if form.site is not None and unit.session.get(Site, (tenant_id, form.site)) is None:
        message = f"there is no site {form.site}"
        raise Refusal("invalid-request", problems=[{"key": "site", "message": message}])
    live = select(func.count()).where(
        Credential.tenant_id == tenant_id,
        Credential.kind != CERTIFICATE,
        Credential.revoked_ms.is_(None),
    )
    if (unit.session.scalar(live) or 0) >= MAX_CREDENTIALS:
        raise Refusal("too-many-parts", resource="credentials", limit=MAX_CREDENTIALS)
    return _create(unit, tenant_id, form.role, form.site, form)


@router.get("", response_model=Page[CredentialView])
@reads(OPERATOR, ADMIN)
def list_credentials(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """The tenant's keys, without their secrets."""
    return _list(unit, tenant_id, cursor, limit)


@router.get("/{credential_id}", response_model=CredentialView)
@reads(OPERATOR, ADMIN)
def get_credential(unit: Reading, tenant_id: TenantId, credential_id: CredentialId) -> Answer:
    """One of them."""
    return _get(unit, tenant_id, credential_id)


@router.post("/{credential_id}/rotate", response_model=CredentialSecret)
@writes(OPERATOR, ADMIN)
def rotate_credential(
    unit: Writing, tenant_id: TenantId, credential_id: CredentialId, form: Rotation
) -> Answer:
    """A new key; the old one works beside it for `overlap_s`."""
    return _rotate(unit, tenant_id, credential_id, form)


@router.post("/{credential_id}/revoke", response_model=CredentialView)
@writes(OPERATOR, ADMIN)
def revoke_credential(unit: Writing, tenant_id: TenantId, credential_id: CredentialId) -> Answer:
    """Ends a key at once, for good."""
    return _revoke(unit, tenant_id, credential_id)
