"""What the control plane must answer and hold, as a few dictionaries: no database, no clock.

An operation is data, so the same list drives this model and the real process.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Draw = Callable[[], str]
DEVICES = {"free": 2, "pro": 20}
POINTS = {"free": 500, "pro": 5_000}
# `scan:` of the pushed configuration -> its points a minute (two fields).
SCANS = {"1s": 120, "300ms": 400, "100ms": 1_200}
# What a tenant's readers may see.
TREES = ("plc", "edge", "alertas")


@dataclass(frozen=True, slots=True)
class Operation:
    """One request."""

    kind: str
    tenant: str
    words: tuple[str, ...] = ()


@dataclass
class Tenant:
    """What the API must show of it."""

    plan: str
    state: str = "active"
    sites: set[str] = field(default_factory=set)
    devices: dict[str, str] = field(default_factory=dict)
    configs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Site -> (PLC, scan) of each version."""
    revoked: list[bool] = field(default_factory=list)
    """Of each credential, in the order they were made."""
    accounts: dict[int, str | None] = field(default_factory=dict)
    """Index of a credential that is an account at the broker -> its box; None: a reader's."""

    def points(self, without: str = "") -> int:
        """Of the newest configurations."""
        return sum(SCANS[v[-1][1]] for site, v in self.configs.items() if v and site != without)


class Model:
    """All tenants of a sequence."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.changes: dict[str, int] = {}
        """Rows that the audit must have of each tenant, purged ones too."""

    def apply(self, op: Operation) -> int:
        """The HTTP status that the process must answer."""
        tenant = self.tenants.get(op.tenant)
        if op.kind == "tenant_create":
            if tenant is not None:
                return 409
            self.tenants[op.tenant] = Tenant(op.words[0])
            return self._changed(op, 201)
        if tenant is None:
            return 404
        states = {
            "tenant_purge": ("deleted",),
            "tenant_delete": ("active", "suspended", "deleted"),
            "tenant_suspend": ("active", "suspended"),
            "tenant_resume": ("active", "suspended"),
            "tenant_change": ("active", "suspended"),
        }
        if tenant.state not in states.get(op.kind, ("active",)):
            return 409
        status: int = getattr(self, f"_{op.kind}")(op, tenant, *op.words)
        return status

    def _changed(self, op: Operation, status: int, rows: int = 1) -> int:
        self.changes[op.tenant] = self.changes.get(op.tenant, 0) + rows
        return status

    def _state(self, op: Operation, tenant: Tenant, state: str) -> int:
        if tenant.state == state:
            return 200
        tenant.state = state
        return self._changed(op, 200)

    def _tenant_suspend(self, op: Operation, tenant: Tenant) -> int:
        return self._state(op, tenant, "suspended")

    def _tenant_resume(self, op: Operation, tenant: Tenant) -> int:
        return self._state(op, tenant, "active")

    def _tenant_delete(self, op: Operation, tenant: Tenant) -> int:
        tenant.revoked = [True] * len(tenant.revoked)
        return self._state(op, tenant, "deleted")

    def _tenant_purge(self, op: Operation, tenant: Tenant) -> int:
        del self.tenants[op.tenant]
        return self._changed(op, 204)

    def _tenant_change(self, op: Operation, tenant: Tenant, plan: str) -> int:
        if plan == tenant.plan:
            return 200
        if len(tenant.devices) > DEVICES[plan] or tenant.points() > POINTS[plan]:
            return 409
        tenant.plan = plan
        return self._changed(op, 200)

    def _site_create(self, op: Operation, tenant: Tenant, site: str) -> int:
        if site in tenant.sites:
            return 409
        tenant.sites.add(site)
        return self._changed(op, 201)

    def _site_delete(self, op: Operation, tenant: Tenant, site: str) -> int:
        if site not in tenant.sites:
            return 404
        if site in tenant.devices.values():
            return 409
        tenant.sites.remove(site)
        tenant.configs.pop(site, None)
        for index, of in tenant.accounts.items():
            if of == site:
                tenant.revoked[index] = True
        return self._changed(op, 204)

    def _device_create(self, op: Operation, tenant: Tenant, device: str, site: str) -> int:
        if device in tenant.devices:
            return 409
        if site not in tenant.sites:
            return 422
        if len(tenant.devices) >= DEVICES[tenant.plan]:
            return 409
        tenant.devices[device] = site
        return self._changed(op, 201)

    def _device_move(self, op: Operation, tenant: Tenant, device: str, site: str) -> int:
        if device not in tenant.devices:
            return 404
        if site not in tenant.sites:
            return 422
        if tenant.devices[device] == site:
            return 200
        tenant.devices[device] = site
        return self._changed(op, 200)

    def _device_delete(self, op: Operation, tenant: Tenant, device: str) -> int:
        if device not in tenant.devices:
            return 404
        del tenant.devices[device]
        return self._changed(op, 204)

    def _credential_create(self, op: Operation, tenant: Tenant) -> int:
        tenant.revoked.append(False)
        return self._changed(op, 201)

    def _account_create(self, op: Operation, tenant: Tenant, site: str) -> int:
        if site and site not in tenant.sites:
            return 422
        tenant.accounts[len(tenant.revoked)] = site or None
        return self._credential_create(op, tenant)

    def _credential_rotate(self, op: Operation, tenant: Tenant, index: str) -> int:
        if int(index) >= len(tenant.revoked):
            return 404
        return 409 if tenant.revoked[int(index)] else self._changed(op, 200)

    def _credential_revoke(self, op: Operation, tenant: Tenant, index: str) -> int:
        if int(index) >= len(tenant.revoked):
            return 404
        if tenant.revoked[int(index)]:
            return 200
        tenant.revoked[int(index)] = True
        return self._changed(op, 200)

    def _config_push(self, op: Operation, tenant: Tenant, site: str, plc: str, scan: str) -> int:
        if site not in tenant.sites:
            return 404
        if SCANS[scan] + tenant.points(without=site) > POINTS[tenant.plan]:
            return 422
        new = plc not in tenant.devices
        if new and len(tenant.devices) >= DEVICES[tenant.plan]:
            return 409
        if not new and tenant.devices[plc] != site:
            return 409
        tenant.devices[plc] = site
        versions = tenant.configs.setdefault(site, [])
        if versions and versions[-1] == (plc, scan):
            return self._changed(op, 200, int(new))
        versions.append((plc, scan))
        return self._changed(op, 201, 1 + int(new))

    # -- what the API must show ----------------------------------------------------------

    def expected(self, tenant_id: str) -> dict[str, Any] | None:
        """None where the tenant must not be there."""
        tenant = self.tenants.get(tenant_id)
        if tenant is None:
            return None
        return {
            "plan": tenant.plan,
            "state": tenant.state,
            "sites": sorted(tenant.sites),
            "devices": tenant.devices,
            "configs": {site: len(tenant.configs.get(site, [])) for site in tenant.sites},
            "revoked": tenant.revoked,
        }

    def at_broker(self, tenant_id: str) -> dict[str, set[str]]:
        """Role -> topics that it allows, of all that must be usable there now."""
        tenant = self.tenants.get(tenant_id)
        if tenant is None or tenant.state != "active":
            return {}
        found: dict[str, set[str]] = {}
        for index, site in tenant.accounts.items():
            if tenant.revoked[index]:
                continue
            if site is None:
                found[f"{tenant_id}.*"] = {f"{tree}/{tenant_id}/#" for tree in TREES}
                continue
            plcs = [f"plc/{tenant_id}/{plc}" for plc, at in tenant.devices.items() if at == site]
            topics = {f"{plc}{end}" for plc in plcs for end in ("", "/heartbeat", "/gap")}
            found[f"{tenant_id}.{site}"] = topics | {
                f"edge/{tenant_id}/{site}/status",
                f"alertas/{tenant_id}/#",
            }
        return found


_WEIGHTS = {
    "tenant_change": 2,
    "tenant_suspend": 1,
    "tenant_resume": 2,
    "tenant_delete": 1,
    "tenant_purge": 1,
    "site_create": 4,
    "site_delete": 2,
    "device_create": 5,
    "device_move": 2,
    "device_delete": 2,
    "credential_create": 2,
    "account_create": 3,
    "credential_rotate": 3,
    "credential_revoke": 1,
    "config_push": 4,
}


def sequence(
    random_: random.Random, tenants: list[str], length: int, *, accounts: bool
) -> list[Operation]:
    """Random operations in small sets of names, so that they meet each other. ``accounts``: at a
    broker too.
    """
    weights = {k: w for k, w in _WEIGHTS.items() if accounts or k != "account_create"}
    site: Draw = lambda: random_.choice(["caixa-1", "caixa-2"])  # noqa: E731
    device: Draw = lambda: f"clp-{random_.randrange(4)}"  # noqa: E731
    index: Draw = lambda: str(random_.randrange(3))  # noqa: E731
    reader_or_site: Draw = lambda: random_.choice(["", "caixa-1", "caixa-2"])  # noqa: E731
    plan: Draw = lambda: random_.choice(list(DEVICES))  # noqa: E731
    scan: Draw = lambda: random_.choice(list(SCANS))  # noqa: E731
    words: dict[str, tuple[Draw, ...]] = {
        "tenant_create": (plan,),
        "tenant_change": (plan,),
        "site_create": (site,),
        "site_delete": (site,),
        "device_create": (device, site),
        "device_move": (device, site),
        "device_delete": (device,),
        "account_create": (reader_or_site,),
        "credential_rotate": (index,),
        "credential_revoke": (index,),
        "config_push": (site, device, scan),
    }

    def operation(kind: str, tenant: str) -> Operation:
        return Operation(kind, tenant, tuple(draw() for draw in words.get(kind, ())))

    found = [operation("tenant_create", t) for t in tenants]
    found += [operation("site_create", t) for t in tenants]
    while len(found) < length:
        (kind,) = random_.choices(list(weights), list(weights.values()))
        found.append(operation(kind, random_.choice(tenants)))
        if kind == "tenant_purge":  # and begin again
            found.append(operation("tenant_create", found[-1].tenant))
    return found
