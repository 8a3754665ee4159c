"""API keys: how they are made, kept and recognised.

A key is ``plce_<id>_<43 characters>``: the id finds the row, the rest are 256 random bits. Only
their SHA-256 is kept. A slow hash (argon2) protects passwords that people choose, because those can
be guessed; 256 random bits cannot, at any speed, and a slow hash would cost each request 50 ms. A
keyed hash would add a secret to keep, and gain nothing for the same reason.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.control_plane.db import Database
from services.control_plane.tables import Certificate, Credential, Secret, Tenant
from services.runtime.clock import now_ms

# Kinds of credentials: what their secrets open.
API_KEY, BROKER, CERTIFICATE = "api_key", "broker", "certificate"
OPERATOR, ADMIN, READER, BOX = "operator", "admin", "reader", "box"
# Roles within a tenant; an operator is the platform's.
TENANT_ROLES = (ADMIN, READER, BOX)

_KEY = re.compile(r"plce_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks."""

    id: str
    """Of its credential."""
    role: str
    tenant_id: str | None
    """None: the platform's own."""
    site_id: str | None
    key: str = field(repr=False)
    """What it showed: the API key, or the SHA-256 of its certificate."""
    serial: str | None = None
    """Of its certificate, where it showed one."""


# Of a request to an address that asks for no key.
NOBODY = Actor("", "nobody", None, None, "")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that nobody has seen yet: ``text`` is shown once, ``hash`` is kept."""

    id: str
    text: str = field(repr=False)
    hash: str


def new_id(kind: str) -> str:
    """An id that nobody can guess or meet twice, e.g. ``crd_9f86d081884c7d65``."""
    return f"{kind}_{secrets.token_hex(8)}"


def new_key() -> NewKey:
    """256 random bits."""
    secret_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    return NewKey(secret_id, f"plce_{secret_id}_{secret}", _hash(secret))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def authenticate(database: Database, authorization: str) -> Actor | None:
    """Who the header of a request speaks for; None where nobody or nobody any more."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return None
    found = recognise(database, key.strip())
    if found is None:
        return None
    credential, _ = found
    return Actor(
        credential.id, credential.role, credential.tenant_id, credential.site_id, key.strip()
    )


def recognise(database: Database, key: str) -> tuple[Credential, str] | None:
    """The credential of a key that is valid now, and the id of its secret."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    # Nobody is known yet, so this one query is not within a tenant.
    with database.reading(None) as session:
        found = living(session, match[1])
    if found is None or not hmac.compare_digest(found[0].hash, _hash(match[2])):
        return None
    return found[1], match[1]


def living(session: Session, secret_id: str) -> tuple[Secret, Credential] | None:
    """A key's secret and credential, unless it has ended, whatever ended it."""
    query = (
        select(Secret, Credential, Tenant.state)
        .join(Credential, Credential.id == Secret.credential_id)
        .outerjoin(Tenant, Tenant.id == Credential.tenant_id)
        .where(Secret.id == secret_id, Credential.kind == API_KEY)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    secret, credential, state = row
    now = now_ms()
    ended = (secret.ends_ms, credential.expires_ms, credential.revoked_ms)
    if any(at is not None and at <= now for at in ended) or state == "deleted":
        return None
    return secret, credential


def by_certificate(database: Database, sha256: str) -> Actor | None:
    """The box whose certificate this is; None where it is revoked, replaced or over. TLS has proved
    that the caller holds its key, and that our authority signed it, when the connection began; all
    that may have changed since is looked up.
    """
    query = (
        select(
            Certificate.serial,
            Certificate.ends_ms,
            Certificate.not_after_ms,
            Credential.revoked_ms,
            Credential.id,
            Credential.role,
            Credential.tenant_id,
            Credential.site_id,
            Tenant.state,
        )
        .join(Credential, Credential.id == Certificate.credential_id)
        .join(Tenant, Tenant.id == Certificate.tenant_id)
        .where(Certificate.sha256 == sha256)
    )
    with database.reading(None) as session:
        row = session.execute(query).one_or_none()
    if row is None:
        return None
    now, ended = now_ms(), (row.ends_ms, row.not_after_ms, row.revoked_ms)
    if any(at is not None and at <= now for at in ended) or row.state == "deleted":
        return None
    return Actor(row.id, row.role, row.tenant_id, row.site_id, sha256, row.serial)


def identify(database: Database, authorization: str, certificate: bytes | None) -> Actor | None:
    """Who asks: by the key of the header, or without one by the certificate (DER) of the
    connection.
    """
    if authorization or certificate is None:
        return authenticate(database, authorization)
    return by_certificate(database, hashlib.sha256(certificate).hexdigest())


def again(database: Database, actor: Actor) -> Actor | None:
    """The same caller some time later; None where it would not be let in any more."""
    if actor.serial is not None:
        return by_certificate(database, actor.key)
    return authenticate(database, f"Bearer {actor.key}")
