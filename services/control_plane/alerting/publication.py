"""Hands a tenant's rules to the process that evaluates them: one file per tenant, readable by this
user only, replaced whole; with the account at the broker that its engine takes messages with.

It is a part of what is made right outside the database (services/control_plane/effects.py), so a
change is neither lost nor done before it is committed.
"""

from __future__ import annotations

import hashlib
from glob import escape
from itertools import chain
from pathlib import Path

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.control_plane.alerting import document
from services.control_plane.alerting.document import RECEIVER, ROUTE, RULE, Spec
from services.control_plane.alerting.sealing import Lost, Seal
from services.control_plane.broker import accounts
from services.control_plane.broker.accounts import Wanted
from services.control_plane.tables import AlertPart, Device, Tenant
from services.runtime import alert_model, alert_rules, alert_series
from services.runtime.alert_model import Alerts
from services.runtime.files import write_whole
from services.runtime.log import Log
from services.runtime.render import alert_route


class Publication:
    """Writes ``<state>/alerts/tenants/<tenant>.json`` and ``<state>/alerts/secrets/…``."""

    def __init__(self, state: Path, key: bytes, seal: Seal, log: Log) -> None:
        """``key``: of the broker's passwords (services/control_plane/broker/accounts.py)."""
        self._key, self._seal, self._log = key, seal, log
        self._alerts = state / "alerts"
        self._files, self._secrets = self._alerts / "tenants", self._alerts / "secrets"
        for folder in (self._alerts, self._files, self._secrets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add_account(self, session: Session, tenant_id: str, wanted: Wanted) -> None:
        """The engine's account, of one who has rules to evaluate; it is nobody else's."""
        tenant = session.get(Tenant, tenant_id)
        if tenant is None or not _is_evaluated(session, tenant):
            return
        accounts.add_own(wanted, session, self._key, tenant_id, _username(tenant))

    def publish(self, session: Session, tenant_id: str) -> None:
        """Writes what the engine must know, or removes it. Raises OSError."""
        file = self._files / f"{tenant_id}.json"
        tenant = session.get(Tenant, tenant_id)
        if tenant is None:
            self._forget(tenant_id, file)
            return
        if not _is_evaluated(session, tenant):
            file.unlink(missing_ok=True)
            self._clear_secrets(tenant_id, set())
            return
        kept: set[str] = set()
        try:
            content = orjson.dumps(self._content(session, tenant, kept))
        except (ArithmeticError, TypeError, ValueError) as e:
            # Kept by another version of this program; all the others must not wait for it.
            said = type(e).__name__
            self._log.error("alert rules cannot be used any more", tenant=tenant.id, error=said)
            return
        if not file.exists() or file.read_bytes() != content:
            write_whole(file, content)
        self._clear_secrets(tenant_id, kept)

    def _forget(self, tenant_id: str, file: Path) -> None:
        """Of a tenant that is purged nothing may stay behind."""
        self._clear_secrets(tenant_id, set())
        if file.exists() or any(self._alerts.glob(f"{escape(tenant_id)}.*")):
            write_whole(file, orjson.dumps({"gone": True}))

    def _content(self, session: Session, tenant: Tenant, kept: set[str]) -> Spec:
        boxes = document.series(session)
        series = list(chain(*boxes.values()))
        receivers = document.parts(session, RECEIVER)
        data = {
            "rules": document.named(document.parts(session, RULE)),
            "receivers": document.named(receivers),
            "routes": document.routes(document.parts(session, ROUTE)),
        }
        alerts = Alerts.model_validate(data)
        units = alert_rules.shared_units(alerts, [(s.plc, s.name, s.fields) for s in series])
        secrets = {row.name: self._open(row) for row in receivers}
        devices = session.scalars(select(Device).order_by(Device.id))
        username = _username(tenant)
        broker = accounts.own_password(self._key, username)
        return {
            # A tenant that is made anew under a purged one's name inherits nothing.
            "file": f"{tenant.id}.{tenant.created_ms:x}.db",
            "site": "central",
            "locatario": tenant.id,
            "rules": alert_model.specs(alerts, units),
            "roster": [
                [tenant.id, d.site_id, d.id, alert_series.streams(series, d.id)] for d in devices
            ],
            "hold_ms": alert_rules.hold_ms(alerts),
            "holds_ms": alert_series.holds_ms(series),
            "late_after_ms": round(alerts.late_after * 1_000),
            "receivers": [
                self._receiver(r.model_dump(mode="json", by_alias=True), tenant.id, secrets, kept)
                for r in alerts.receivers
            ],
            "routes": {name: alert_route(route) for name, route in alerts.routes.items()},
            "timezone": alerts.timezone,
            "mqtt": {
                "client_id": username,
                "username": username,
                "password": self._secret(f"broker.{tenant.id}", broker, kept),
            },
        }

    def _receiver(
        self, config: Spec, tenant: str, secrets: dict[str, dict[str, str]], kept: set[str]
    ) -> Spec:
        name = config["name"]
        own = secrets[name]
        config |= {"url": own["url"]} if "url" in own else {}
        for key in ("password", "secret"):
            if key in config:
                del config[f"{key}_file"]
                value = own.get(key)
                file = f"receiver.{tenant}.{name}.{key}"
                config[key] = None if value is None else self._secret(file, value, kept)
        if config["type"] == "webhook":
            config["external_url"] = ""  # Alertmanager's form: there is no panel here
        return config

    def _secret(self, name: str, value: str, kept: set[str]) -> dict[str, str]:
        """A reference to a file that holds it (services/runtime/secrets.py)."""
        file = self._secrets / name
        kept.add(name)
        if not file.exists() or file.read_text() != value:
            write_whole(file, value.encode())
        # Its change is one of the tenant's file too.
        digest = hashlib.sha256(b"plc-edge\0" + value.encode()).hexdigest()
        return {"file": str(file.absolute()), "digest": digest}

    def _open(self, row: AlertPart) -> dict[str, str]:
        if row.sealed is None:
            return {}
        try:
            return self._seal.open(row.tenant_id, row.name, row.sealed)
        except Lost as e:
            self._log.error("secrets lost: give them again", tenant=row.tenant_id, error=str(e))
            return {}

    def _clear_secrets(self, tenant: str, kept: set[str]) -> None:
        mine = (f"broker.{tenant}", f"receiver.{tenant}.")
        for file in self._secrets.iterdir():
            own = file.name == mine[0] or file.name.startswith(mine[1])
            if own and file.name not in kept:
                file.unlink()


def _is_evaluated(session: Session, tenant: Tenant) -> bool:
    rules = select(AlertPart.name).where(AlertPart.kind == RULE, AlertPart.tenant_id == tenant.id)
    return tenant.state == accounts.ACTIVE and session.scalar(rules.limit(1)) is not None


def _username(tenant: Tenant) -> str:
    """Another one for a tenant that is made anew."""
    return accounts.username(tenant.id, None, f"alerts-{tenant.created_ms:x}")
