"""How a box comes by its certificate: a code that a person gives it, then by itself."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import select, update

from services.control_plane.fields import (
    Form,
    Line,
    SiteId,
    TenantId,
    Text,
    View,
    moment,
)
from services.control_plane.fleet import ca, codes
from services.control_plane.identity import ADMIN, BOX, CERTIFICATE, OPERATOR, Actor, new_id
from services.control_plane.problems import Refusal
from services.control_plane.routes import credentials, sites
from services.control_plane.tables import Certificate, Claim, Credential, Tenant
from services.control_plane.unit import (
    ACTIVE,
    SUSPENDED,
    Answer,
    Reading,
    Unit,
    Writing,
    opens,
    writes,
)
from services.runtime.clock import now_ms

platform = APIRouter(prefix="/v1/claim", tags=["certificates"])
router = APIRouter(prefix="/v1/tenants/{tenant_id}/sites/{site_id}", tags=["certificates"])
HOUR_S = 3_600
MAX_VALID_S = 7 * 24 * HOUR_S
# A reply that was lost is given again to whoever has the same key.
AGAIN_MS = HOUR_S * 1_000

Csr = Annotated[Text, Field(max_length=20_000, description="PEM; EC P-256, or RSA from 2048 bits")]


class NewClaim(Form):
    """How long the code may wait to be used."""

    valid_s: int = Field(24 * HOUR_S, ge=60, le=MAX_VALID_S)


class ClaimCode(View):
    """The code, this once."""

    code: str
    expires_at: datetime


class ClaimView(View):
    """What the audit keeps of a code."""

    id: str
    site: str
    expires_at: datetime


class ClaimForm(Form):
    """What a box says that has a code."""

    code: Text = Field(max_length=100, description="case and dashes do not matter")
    csr: Csr
    version: Line = Field("", description="of plc-edge at the box")


class Renewal(Form):
    """The request for a box's next certificate; its key may be a new one."""

    csr: Csr


class IssuedView(View):
    """A certificate, and who one is with it."""

    tenant: str
    site: str
    serial: str
    certificate: str = Field(description="PEM")
    ca: str = Field(description="PEM of the authority that issued it")
    not_after: datetime
    renew_after: datetime


class CertificateView(View):
    """What the audit keeps of a certificate."""

    serial: str
    credential: str
    not_after: datetime


@router.post("/claims", status_code=201, response_model=ClaimCode)
@writes(OPERATOR, ADMIN)
def create_claim(unit: Writing, tenant_id: TenantId, site_id: SiteId, form: NewClaim) -> Answer:
    """Makes a code with which a box gets its certificate, once. Older ones of the box that were not
    used end.
    """
    sites.of(unit, tenant_id, site_id)
    code, now = codes.new(), now_ms()
    unit.session.execute(
        update(Claim)
        .where(Claim.site_id == site_id, Claim.used_ms.is_(None), Claim.ends_ms > now)
        .values(ends_ms=now)
    )
    claim = Claim(
        id=new_id("clm"),
        tenant_id=tenant_id,
        site_id=site_id,
        hash=codes.digest(code),
        created_ms=now,
        ends_ms=now + form.valid_s * 1_000,
    )
    unit.session.add(claim)
    ends = moment(claim.ends_ms)
    shown = ClaimView(id=claim.id, site=site_id, expires_at=ends)
    unit.record("claim.create", f"tenants/{tenant_id}/sites/{site_id}/claims", None, shown)
    return Answer(ClaimCode(code=code, expires_at=ends), 201)


# -- with a code -----------------------------------------------------------------------------


def _holder(unit: Unit, arguments: dict[str, Any]) -> Actor:
    """The box that the code is for."""
    form: ClaimForm = arguments["form"]
    attempts, now_s = unit.core.fleet.attempts, time.monotonic()
    if (wait_s := attempts.wait_s(unit.address, now_s)) > 0:
        raise Refusal("too-many", retry_after_s=int(wait_s) + 1)
    unit.prepared = ca.public_key(form.csr)
    query = (
        select(Claim, Tenant.state)
        .join(Tenant, Tenant.id == Claim.tenant_id)
        .where(Claim.hash == codes.digest(form.code))
    )
    with unit.core.database.reading(None) as session:
        row = session.execute(query).one_or_none()
    if row is None or row[1] != ACTIVE or (row[0].used_ms is None and row[0].ends_ms <= now_ms()):
        attempts.failed(unit.address, now_s)
        raise Refusal("claim-refused")
    claim = row[0]
    return Actor(claim.id, BOX, claim.tenant_id, claim.site_id, "")


@platform.post("", status_code=201, response_model=IssuedView)
@opens(_holder)
def claim_box(unit: Reading, form: ClaimForm) -> Answer:
    """A box's first certificate, for the code that its plant was given. Who repeats it with the
    same key within an hour gets the same one: the answer may have been lost.
    """
    claim, now = unit.session.get(Claim, unit.actor.id), now_ms()
    if claim is None or (claim.used_ms is None and claim.ends_ms <= now):
        raise Refusal("claim-refused")
    if claim.used_ms is not None:
        return _used(unit, claim, now)
    credential = Credential(
        id=new_id("crd"),
        tenant_id=claim.tenant_id,
        kind=CERTIFICATE,
        name=f"plc-edge {form.version}".strip(),
        role=BOX,
        site_id=claim.site_id,
        version=1,
        created_ms=now,
        updated_ms=now,
    )
    _end_others(unit, claim.site_id, now)
    unit.session.add(credential)
    answer = _issue(unit, credential, unit.prepared, now, "certificate.issue")
    claim.used_ms, claim.serial = now, credential.serial
    return answer


def _used(unit: Unit, claim: Claim, now: int) -> Answer:
    found = unit.session.get(Certificate, claim.serial)
    if (
        claim.used_ms is None
        or claim.used_ms < now - AGAIN_MS
        or found is None
        or found.key_sha256 != ca.key_sha256(unit.prepared)
    ):
        raise Refusal("claim-used")
    return _shown(unit, found, claim.site_id, 200)


def _end_others(unit: Unit, site_id: str, now: int) -> None:
    """One box, one identity: what was claimed before is no longer it."""
    query = select(Credential).where(
        Credential.site_id == site_id,
        Credential.kind == CERTIFICATE,
        Credential.revoked_ms.is_(None),
    )
    for row in unit.session.scalars(query).all():
        before, row.revoked_ms = credentials.view(row), now
        unit.touch(row)
        path = f"tenants/{row.tenant_id}/credentials/{row.id}"
        unit.record("credential.revoke", path, before, credentials.view(row))


# -- with a certificate ----------------------------------------------------------------------


@router.post("/certificate", status_code=201, response_model=IssuedView)
@writes(BOX, states=(ACTIVE, SUSPENDED))
def renew_certificate(unit: Writing, tenant_id: TenantId, site_id: SiteId, form: Renewal) -> Answer:
    """A box's next certificate. The one before is valid until the next has been used, and an hour
    longer.
    """
    key, now = ca.public_key(form.csr), now_ms()
    credential = unit.session.get(Credential, unit.actor.id)
    if credential is None or credential.kind != CERTIFICATE:
        raise Refusal("forbidden", role="box (API key)", needs="box (certificate)")
    newest = unit.session.get(Certificate, credential.serial)
    if (
        newest is not None
        and newest.serial != unit.actor.serial
        and newest.key_sha256 == ca.key_sha256(key)
        and newest.created_ms > now - AGAIN_MS
    ):
        return _shown(unit, newest, site_id, 200)
    unit.touch(credential)
    return _issue(unit, credential, key, now, "certificate.renew")


def _issue(unit: Unit, credential: Credential, key: ca.PublicKey, now: int, action: str) -> Answer:
    tenant_id, site_id = unit.actor.tenant_id, unit.actor.site_id
    assert tenant_id is not None
    assert site_id is not None
    issued = unit.core.fleet.ca.issue(tenant_id, site_id, key, now)
    row = Certificate(
        serial=issued.serial,
        tenant_id=tenant_id,
        credential_id=credential.id,
        sha256=issued.sha256,
        key_sha256=ca.key_sha256(key),
        pem=issued.pem,
        created_ms=now,
        not_after_ms=int(issued.not_after.timestamp()) * 1_000,
    )
    credential.serial, credential.expires_ms = row.serial, row.not_after_ms
    unit.session.flush()
    unit.session.add(row)
    shown = CertificateView(serial=row.serial, credential=credential.id, not_after=issued.not_after)
    unit.record(action, f"tenants/{tenant_id}/credentials/{credential.id}", None, shown)
    return _shown(unit, row, site_id, 201)


def _shown(unit: Unit, row: Certificate, site_id: str, status: int) -> Answer:
    not_after = moment(row.not_after_ms)
    body = IssuedView(
        tenant=row.tenant_id,
        site=site_id,
        serial=row.serial,
        certificate=row.pem,
        ca=unit.core.fleet.ca.pem,
        not_after=not_after,
        renew_after=not_after - ca.VALID + ca.RENEW_AFTER,
    )
    return Answer(body, status)
