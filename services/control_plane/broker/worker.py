"""Makes the broker as the database wants it: at each change, and everything once in a while.

One thread. It reads what is wanted, asks the broker what is there, sends the difference, and only
then forgets that it was asked: killed anywhere, it does the same again, and finds it done.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.control_plane import effects
from services.control_plane.alerting.publication import Publication
from services.control_plane.broker import accounts
from services.control_plane.broker.accounts import Acl, Wanted
from services.control_plane.broker.dynsec import Away, Command, Dynsec, Refused
from services.control_plane.db import Database
from services.control_plane.effects import Due
from services.control_plane.tables import Tenant
from services.runtime.clock import now_ms
from services.runtime.log import Log

# What somebody changed at the broker by hand, or a restored file of it, is set right within this.
RECONCILE_S = 300.0
# Rows that come due, and a database that was away, are seen within this.
LOOK_S = 5.0
# Looked at together: 0.2 s, so that 1,000 tenants take 4 s, and a change waits for none of them.
TENANTS = 50
DEFAULTS = {
    "publishClientSend": False,
    "publishClientReceive": False,
    "subscribe": False,
    "unsubscribe": True,
}
NO_CLIENT, NO_ROLE = "Client not found", "Role not found"


class Worker:
    """The thread."""

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
        self.key = key
        self._alerts = alerts
        self.error: BaseException | None = None
        self._database = database
        self._log = log
        self._wake = threading.Event()
        self._ending = False
        self._all_due_s = 0.0
        self._unchecked: list[str] = []
        self._away: str | None = ""
        self._dynsec = Dynsec(config, self._changed)
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something was asked for."""
        self._wake.set()

    def close(self) -> None:
        """Ends it; what is left undone stays in the database."""
        self._ending = True
        self._wake.set()
        self._thread.join(10.0)
        self._dynsec.close()

    def _changed(self, why: str | None) -> None:
        """From paho's thread."""
        if why != self._away:
            self._away = why
            if why is None:
                self._log.info("broker connected")
            else:
                self._log.warning("broker away", error=why)
        if why is None:  # it may be another one, or restored from a backup
            self._all_due_s = 0.0
            self._wake.set()

    def _run(self) -> None:
        try:
            while not self._ending:
                wait_s = LOOK_S
                if self._dynsec.is_up:
                    try:
                        wait_s = self._turn()
                    except Away:
                        wait_s = 1.0
                    except (DBAPIError, PoolTimeoutError) as e:
                        self._log.warning("database away", error=str(e).partition("\n")[0])
                self._wake.wait(wait_s)
                self._wake.clear()
        except BaseException as e:  # handed to the main thread, which ends the process
            self.error = e

    def _turn(self) -> float:
        """A part of what is due, changes first; how long until the next."""
        with self._database.reading(None) as session:
            asked = effects.due(session, now_ms())[:TENANTS]
        if asked and not self._carry_out(asked):
            for one in asked:
                self._carry_out([one])
        if time.monotonic() >= self._all_due_s:
            self._unchecked = self._everybody()
            self._all_due_s = time.monotonic() + RECONCILE_S
        if self._unchecked:
            part = self._unchecked[:TENANTS]
            self._attempt(part)
            del self._unchecked[: len(part)]
            return 0.0
        with self._database.reading(None) as session:
            next_ms = effects.next_due_ms(session)
        until_s = LOOK_S if next_ms is None else (next_ms - now_ms()) / 1_000
        return max(0.0, min(LOOK_S, until_s))

    def _carry_out(self, asked: list[Due]) -> bool:
        """Whether it need not be tried one by one: who is refused holds up nobody else."""
        at_ms = now_ms()
        error = self._attempt([one.tenant_id for one in asked])
        if error and len(asked) > 1:
            return False
        with self._database.writing(None) as session:
            for one in asked:
                if error:
                    effects.postpone(session, one, at_ms, error)
                else:
                    effects.finish(session, one, at_ms)
        return True

    def _attempt(self, tenants: list[str]) -> str:
        """Makes these tenants right; what the plugin said against it."""
        try:
            self._make_right(tenants)
        except Refused as e:
            self._log.error("broker refused", tenants=tenants[:10], error=str(e))
            return str(e)
        return ""

    def _everybody(self) -> list[str]:
        """Every tenant, also those that only the broker knows."""
        self._defaults()
        with self._database.reading(None) as session:
            tenants = set(session.scalars(select(Tenant.id)))
        names = [n for what in ("clients", "roles") for n in self._dynsec.names(what)]
        tenants |= {owner for n in names if (owner := accounts.owner(n))}
        return sorted(tenants)

    def _make_right(self, tenants: list[str]) -> None:
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
