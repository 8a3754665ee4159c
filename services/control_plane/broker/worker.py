"""Makes the broker's accounts as the database wants them."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import select

from services.control_plane.alerting.publication import Publication
from services.control_plane.broker import accounts
from services.control_plane.broker.accounts import Acl, Wanted
from services.control_plane.broker.dynsec import Command, Dynsec
from services.control_plane.db import Database
from services.control_plane.effects import BROKER
from services.control_plane.tables import Tenant
from services.control_plane.worker import Refused, Worker
from services.runtime.clock import now_ms
from services.runtime.log import Log

# Looked at together: 0.2 s, so that 1,000 tenants take 4 s, and a change waits for none of them.
TENANTS = 50
DEFAULTS = {
    "publishClientSend": False,
    "publishClientReceive": False,
    "subscribe": False,
    "unsubscribe": True,
}
NO_CLIENT, NO_ROLE = "Client not found", "Role not found"


class BrokerWorker(Worker):
    """The thread."""

    target = BROKER
    batch: ClassVar[int] = TENANTS
    join_s: ClassVar[float] = 10.0

    def __init__(
        self,
        database: Database,
        config: dict[str, Any],
        key: bytes,
        log: Log,
        alerts: Publication | None = None,
    ) -> None:
        """``config`` as rendered from central.yaml's ``broker``; ``alerts`` follows the accounts,
        where tenants' rules are evaluated here.
        """
        super().__init__(database, log)
        self.key = key
        self._alerts = alerts
        self._said: str | None = ""
        self._dynsec = Dynsec(config, self._changed)

    def close(self) -> None:
        """Ends it, and the connection."""
        super().close()
        self._dynsec.close()

    @property
    def is_up(self) -> bool:
        """Whether the plugin can be asked."""
        return self._dynsec.is_up

    def _changed(self, why: str | None) -> None:
        """From paho's thread."""
        self.away = why
        if why != self._said:
            self._said = why
            if why is None:
                self._log.info("broker connected")
            else:
                self._log.warning("broker away", error=why)
        if why is None:  # it may be another one, or restored from a backup
            self._all_due_s = 0.0
            self._wake.set()

    def everybody(self) -> list[str]:
        """Every tenant, also those that only the broker knows."""
        self._defaults()
        with self._database.reading(None) as session:
            tenants = set(session.scalars(select(Tenant.id)))
        names = [n for what in ("clients", "roles") for n in self._dynsec.names(what)]
        tenants |= {owner for n in names if (owner := accounts.owner(n))}
        return [accounts.PLATFORM, *sorted(tenants - {accounts.PLATFORM})]

    def make_right(self, tenants: list[str]) -> None:
        """Roles and accounts of these tenants."""
        there = {
            what: {n for n in self._dynsec.names(what) if accounts.owner(n) in tenants}
            for what in ("clients", "roles")
        }
        want = Wanted()
        for tenant in tenants:
            with self._database.reading(tenant) as session:
                own = accounts.wanted(session, self.key, tenant, now_ms())
                if self._alerts is not None:
                    self._alerts.add_account(session, tenant, own)
            want.roles |= own.roles
            want.accounts |= own.accounts
        commands = self._difference(want, there["clients"], there["roles"])
        if commands:
            self._dynsec.ask(commands)
            done = [c["command"] for c in commands]
            said = {name: done.count(name) for name in sorted(set(done))}
            self._log.info("broker set right", tenants=tenants[:10], **said)
        if self._alerts is not None:
            self._publish(self._alerts, tenants)

    def _publish(self, alerts: Publication, tenants: list[str]) -> None:
        try:
            for tenant in tenants:
                with self._database.reading(tenant) as session:
                    alerts.publish(session, tenant)
        except OSError as e:
            raise Refused(f"alert rules cannot be written: {e}") from None

    def _defaults(self) -> None:
        """What no role allows is denied."""
        (found,) = self._dynsec.ask([{"command": "getDefaultACLAccess"}])
        if {a["acltype"]: a["allow"] for a in found["acls"]} != DEFAULTS:
            acls = [{"acltype": kind, "allow": allow} for kind, allow in DEFAULTS.items()]
            self._dynsec.ask([{"command": "setDefaultACLAccess", "acls": acls}])
            self._log.info("broker set right", defaults=True)

    def _difference(self, want: Wanted, clients: set[str], roles: set[str]) -> list[Command]:
        """What to send, roles before the accounts that have them, and these before roles go."""
        commands: list[Command] = []
        kept = sorted(roles & want.roles.keys())
        asked = [{"command": "getRole", "rolename": name} for name in kept]
        found = dict(zip(kept, self._dynsec.ask(asked, NO_ROLE), strict=True))
        for name, acls in sorted(want.roles.items()):
            if found.get(name) is None:
                rows = [_acl(a) for a in sorted(acls)]
                commands.append({"command": "createRole", "rolename": name, "acls": rows})
            else:
                commands += _role_difference(name, acls, found[name]["role"]["acls"])
        kept = sorted(clients & want.accounts.keys())
        asked = [{"command": "getClient", "username": name} for name in kept]
        found = dict(zip(kept, self._dynsec.ask(asked, NO_CLIENT), strict=True))
        for name, account in sorted(want.accounts.items()):
            own = {"username": name, "roles": [{"rolename": account.role, "priority": 0}]}
            if found.get(name) is None:
                if account.password is None:
                    self._log.error("broker account lost: rotate its credential", account=name)
                elif account.enabled:
                    commands.append(
                        {"command": "createClient", "password": account.password, **own}
                    )
                continue
            client = found[name]["client"]
            if [r["rolename"] for r in client["roles"]] != [account.role] or client["groups"]:
                commands.append({"command": "modifyClient", "groups": [], **own})
            if client.get("disabled", False) == account.enabled:
                verb = "enableClient" if account.enabled else "disableClient"
                commands.append({"command": verb, "username": name})
        for name in sorted(clients - want.accounts.keys()):
            commands.append({"command": "deleteClient", "username": name})
        for name in sorted(roles - want.roles.keys()):
            commands.append({"command": "deleteRole", "rolename": name})
        return commands


def _acl(acl: Acl) -> Command:
    return {"acltype": acl[0], "topic": acl[1], "priority": 0, "allow": True}


def _role_difference(name: str, acls: set[Acl], found: list[dict[str, Any]]) -> list[Command]:
    """One permission at a time: whoever is connected stays so, which modifyRole would end."""
    right = {(a["acltype"], a["topic"]) for a in found if a["allow"]} & acls
    gone = {(a["acltype"], a["topic"]) for a in found} - right
    commands: list[Command] = []
    for kind, topic in sorted(gone):
        acl = {"acltype": kind, "topic": topic}
        commands.append({"command": "removeRoleACL", "rolename": name, **acl})
    commands += [
        {"command": "addRoleACL", "rolename": name, **_acl(acl)} for acl in sorted(acls - right)
    ]
    return commands
