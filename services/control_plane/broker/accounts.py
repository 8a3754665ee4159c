"""Which accounts and roles a tenant has at the broker, by what the database holds now.

An account is one secret of a credential of kind ``broker``: two while a rotation overlaps. Its
password is not kept anywhere: it is an HMAC of the secret's id under a key that lies in a file
beside the database, so that an account which the broker has lost can be made again. The database
alone, or the file alone, opens nothing.

Names hold a dot, which no name of a tenant or site can: whatever has none at the broker (its
administrator, Telegraf, accounts made by hand) is not the control plane's, and left alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.control_plane.identity import BROKER, NewKey
from services.control_plane.tables import Credential, Device, Secret, Standing, Tenant
from services.runtime.files import write_whole

KEY_BYTES = 32
ACTIVE = "active"
SEND, RECEIVE, SUBSCRIBE = "publishClientSend", "publishClientReceive", "subscribePattern"

# (kind of permission, topic); nothing else is allowed.
Acl = tuple[str, str]
# The platform's own accounts: no tenant can have this name (routes/tenants.py).
PLATFORM = "plataforma"
METER = f"{PLATFORM}.meter"
# What the meter counts.
DATA = ("plc/+/+", "plc/+/+/gap")


def load_key(state: Path) -> bytes:
    """The key of the passwords, made where there is none."""
    file = state / "broker.key"
    if not file.exists():
        new = state / f"broker.key.{os.getpid()}"
        write_whole(new, secrets.token_bytes(KEY_BYTES).hex().encode())
        with contextlib.suppress(FileExistsError):  # another process was first: its key holds
            os.link(new, file)
        new.unlink()
    return bytes.fromhex(file.read_text().strip())


def meter_password(key: bytes) -> str:
    """Of the account METER."""
    return _password(key, METER)


def new_secret(key: bytes) -> NewKey:
    """A password that nobody has seen yet."""
    secret_id = secrets.token_hex(8)
    text = _password(key, secret_id)
    return NewKey(secret_id, text, _hash(text))


def _password(key: bytes, secret_id: str) -> str:
    digest = hmac.digest(key, f"broker account {secret_id}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def fits(key: bytes, secret: Secret) -> bool:
    """Whether an account's password can be made again with this key."""
    return hmac.compare_digest(_hash(_password(key, secret.id)), secret.hash)


def username(tenant: str, site: str | None, secret_id: str) -> str:
    """One that stands for one connection: its client id is the same."""
    return f"{role(tenant, site)}.{secret_id}"


def role(tenant: str, site: str | None) -> str:
    """Of a box, or of a tenant's readers."""
    return f"{tenant}.{site or '*'}"


def owner(name: str) -> str | None:
    """The tenant of an account or role; None where it is not the control plane's."""
    tenant, dot, _ = name.partition(".")
    return tenant if dot else None


@dataclass(slots=True)
class Account:
    """One account as it must be."""

    role: str
    password: str | None = field(repr=False)
    """None: the key file is another one than when it was made; it cannot be made again."""
    enabled: bool


@dataclass(slots=True)
class Wanted:
    """All of one tenant."""

    roles: dict[str, set[Acl]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)


def wanted(session: Session, key: bytes, tenant_id: str, now_ms: int) -> Wanted:
    """What the broker must hold of a tenant; nothing of one that is deleted or unknown."""
    found = Wanted()
    if tenant_id == PLATFORM:
        found.roles[METER] = {(kind, topic) for kind in (SUBSCRIBE, RECEIVE) for topic in DATA}
        found.accounts[METER] = Account(METER, meter_password(key), True)
        return found
    tenant = session.get(Tenant, tenant_id)
    if tenant is None:
        return found
    standing = session.get(Standing, tenant_id)
    may_send = standing is None or standing.withdrawn_until_s * 1_000 <= now_ms
    query = (
        select(Credential, Secret)
        .join(Secret, Secret.credential_id == Credential.id)
        .where(Credential.kind == BROKER, Credential.tenant_id == tenant_id)
    )
    for credential, secret in session.execute(query):
        ended = (secret.ends_ms, credential.expires_ms, credential.revoked_ms)
        if any(at is not None and at <= now_ms for at in ended):
            continue
        name = role(tenant_id, credential.site_id)
        if name not in found.roles:
            found.roles[name] = _acls(session, tenant_id, credential.site_id, may_send)
        password = _password(key, secret.id) if fits(key, secret) else None
        account = Account(name, password, tenant.state == ACTIVE)
        found.accounts[username(tenant_id, credential.site_id, secret.id)] = account
    return found


def add_own(found: Wanted, session: Session, key: bytes, tenant_id: str, name: str) -> None:
    """An account of the centre's own that reads all of one tenant."""
    own = role(tenant_id, None)
    found.roles.setdefault(own, _acls(session, tenant_id, None, may_send=False))
    found.accounts[name] = Account(own, own_password(key, name), True)


def own_password(key: bytes, name: str) -> str:
    """Of such an account: it has no secret in the database."""
    return _password(key, name)


def _acls(session: Session, tenant: str, site: str | None, may_send: bool) -> set[Acl]:
    """A box writes its own PLCs' topics, its own status, and what its tenant's alarms show; a
    reader reads all of its tenant. Of a tenant far over its plan the boxes still say that they and
    their PLCs live, and send no data: what they have stays in their outboxes.
    """
    alerts = f"alertas/{tenant}/#"
    if site is None:
        filters = (f"plc/{tenant}/#", f"edge/{tenant}/#", alerts)
        return {(kind, topic) for kind in (SUBSCRIBE, RECEIVE) for topic in filters}
    query = select(Device.id).where(Device.tenant_id == tenant, Device.site_id == site)
    topics = {f"edge/{tenant}/{site}/status", alerts}
    for plc in session.scalars(query):
        base = f"plc/{tenant}/{plc}"
        topics |= {f"{base}/heartbeat"}
        if may_send:
            topics |= {base, f"{base}/gap"}
    return {(SEND, topic) for topic in topics}
