"""Who is signed in: sessions in the database, found by a cookie.

The cookie is 256 random bits; only their SHA-256 is kept, for the same reason as of a key
(services/control_plane/identity.py). A session lives no longer than what it was made from: the key
that was pasted, or the roles of central.yaml that fit what the provider said; both are looked at
with every request.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from services.control_plane.db import Database
from services.control_plane.identity import BOX, Actor, living, recognise
from services.control_plane.tables import Tenant, WebSession
from services.control_plane.unit import DELETED, Core
from services.runtime.clock import now_ms

IDLE_MS = 30 * 60_000
LONGEST_MS = 8 * 3_600_000
# A look at a page is written down at most so often: each is a write.
SEEN_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True)
class Granted:
    """What somebody may do here. ``tenant_id`` None: the platform's operator."""

    role: str
    tenant_id: str | None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in."""

    actor: Actor
    name: str
    by_provider: bool
    csrf: str = field(repr=False)
    """What every form of this session carries."""


def grant(groups: Sequence[str], roles: Mapping[str, Any]) -> Granted | None:
    """What `oidc.roles` gives to somebody of these groups: the first entry that fits."""
    for group, given in roles.items():
        if group in groups:
            return Granted(given["role"], given["tenant"])
    return None


def person_id(issuer: str, subject: str) -> str:
    """How the audit calls somebody of a provider: the same for ever."""
    digest = hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()
    return f"per_{digest[:16]}"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def begin_by_key(core: Core, key: str) -> str | None:
    """The cookie of a new session; None where the key is none, or a box's."""
    found = recognise(core.database, key)
    if found is None or found[0].role == BOX:
        return None
    credential, secret_id = found
    row = WebSession(
        actor=credential.id,
        role=credential.role,
        tenant_id=credential.tenant_id,
        name=credential.name,
        secret_id=secret_id,
        groups=[],
    )
    return _begin(core, row, {"name": credential.name, "by": "key"})


def begin_by_provider(
    core: Core,
    issuer: str,
    subject: str,
    name: str,
    groups: Sequence[str],
    roles: Mapping[str, Any],
) -> str | None:
    """The cookie of a new session; None where central.yaml gives this person nothing."""
    granted = grant(groups, roles)
    if granted is None:
        return None
    with core.database.reading(None) as session:
        if not _there(session, granted.tenant_id):
            return None
    row = WebSession(
        actor=person_id(issuer, subject),
        role=granted.role,
        tenant_id=granted.tenant_id,
        name=name,
        secret_id=None,
        groups=[group for group in groups if group in roles],
    )
    return _begin(core, row, {"name": name, "by": issuer, "subject": subject})


def _there(session: Session, tenant_id: str | None) -> bool:
    if tenant_id is None:
        return True
    tenant = session.get(Tenant, tenant_id)
    return tenant is not None and tenant.state != DELETED


def _begin(core: Core, row: WebSession, who: dict[str, str]) -> str:
    token, now = secrets.token_urlsafe(32), now_ms()
    row.id, row.created_ms, row.seen_ms = _hash(token), now, now
    row.ends_ms = now + LONGEST_MS
    # Not within the tenant: the ends of others' sessions are cleared away here too.
    with core.database.writing(None) as session:
        ended = (WebSession.ends_ms <= now) | (WebSession.seen_ms <= now - IDLE_MS)
        session.execute(delete(WebSession).where(ended))
        session.add(row)
        session.flush()
        _record(core, session, row, "session.begin", None, who)
    return token


def _record(
    core: Core,
    session: Session,
    row: WebSession,
    action: str,
    before: dict[str, str] | None,
    after: dict[str, str] | None,
) -> None:
    """Who signed in and out; the audit never names the session itself."""
    resource = f"people/{row.actor}"
    core.chain.append(session, row.actor, row.role, row.tenant_id, action, resource, before, after)


def find(
    database: Database, token: str, roles: Mapping[str, Any], *, active: bool
) -> Person | None:
    """Whose cookie this is; None where the session has ended. ``active``: somebody did something,
    and it is not a page that looks again by itself.
    """
    now = now_ms()
    with database.reading(None) as session:
        row = session.get(WebSession, _hash(token))
        if row is None or row.ends_ms <= now or row.seen_ms <= now - IDLE_MS:
            return None
        if row.secret_id is not None:
            if living(session, row.secret_id) is None:
                return None
        elif grant(row.groups, roles) != Granted(row.role, row.tenant_id) or not _there(
            session, row.tenant_id
        ):
            return None
    if active and row.seen_ms <= now - SEEN_EVERY_MS:
        with database.writing(None) as session:
            seen = update(WebSession).where(WebSession.id == row.id, WebSession.seen_ms < now)
            session.execute(seen.values(seen_ms=now))
    actor = Actor(row.actor, row.role, row.tenant_id, None, token)
    csrf = hmac.digest(token.encode(), b"csrf", "sha256").hex()
    return Person(actor, row.name, row.secret_id is None, csrf)


def end(core: Core, person: Person) -> None:
    """Signs somebody out: the cookie opens nothing any more."""
    with core.database.writing(None) as session:
        row = session.get(WebSession, _hash(person.actor.key))
        if row is not None:
            session.delete(row)
            session.flush()
            _record(core, session, row, "session.end", {"name": row.name}, None)
