"""``plc-edge central tenants|sites|devices|…``: the resources of the API, as commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from services.cli import central_alerts, central_configs, central_effects, central_fleet
from services.cli.central_effects import EFFECT
from services.cli.central_show import (
    Site,
    Tenant,
    api_of,
    connect,
    given,
    show_one,
    show_table,
)
from services.cli.common import JsonOption, console, fail
from services.runtime import units
from services.runtime.errors import EXIT_USAGE

Id = Annotated[str, typer.Argument(help="2 to 32 of a-z, 0-9, _, -.")]
OfTenant = Annotated[
    str | None, typer.Option("--tenant", help="Default: the platform's own.", show_default=False)
]
Name = Annotated[str | None, typer.Option(help="For people.", show_default=False)]
Most = Annotated[int, typer.Option(min=1, help="At most so many rows, the newest.")]

TENANT = ("id", "name", "plan", "state", "created_at")
DEVICE = ("id", "site", "name", "created_at")
CREDENTIAL = ("id", "kind", "role", "site", "name", "created_at", "expires_at", "revoked_at")
USAGE = ("start", "device", "points", "messages", "bytes")
LIMIT = ("limit", "used", "of", "state")
EVENT = ("at", "kind", "points", "limit")
AUDIT = ("seq", "at", "actor", "role", "tenant", "action", "resource")
PLAN = ("id", "max_devices", "points_per_min", "raw_days")


def register(central: typer.Typer) -> typer.Typer:
    """Adds every group; returns that of the audit, which has one command more."""
    central.callback()(connect)
    made = {}
    for name, (text, commands) in GROUPS.items():
        made[name] = group = typer.Typer(help=text, no_args_is_help=True)
        for verb, command in commands.items():
            group.command(verb)(command)
        central.add_typer(group, name=name)
    return made["audit"]


# -- plans -----------------------------------------------------------------------------------


def plans_list(context: typer.Context, json_: JsonOption = False) -> None:
    """Every plan."""
    show_table(api_of(context).items("plans"), PLAN, json_)


def plans_put(
    context: typer.Context,
    plan: Id,
    devices: Annotated[int, typer.Option(min=0, help="PLCs.")],
    points: Annotated[int, typer.Option(min=0, help="Points a minute.")],
    raw_days: Annotated[int, typer.Option(min=1, help="Days that raw values are kept.")],
    json_: JsonOption = False,
) -> None:
    """Make a plan, or give it other numbers."""
    body = {"max_devices": devices, "points_per_min": points, "raw_days": raw_days}
    show_one(api_of(context).call("PUT", f"plans/{plan}", body), json_)


# -- tenants ---------------------------------------------------------------------------------


def tenants_list(context: typer.Context, json_: JsonOption = False) -> None:
    """Every tenant."""
    show_table(api_of(context).items("tenants"), TENANT, json_)


def tenants_create(
    context: typer.Context,
    tenant: Id,
    plan: Annotated[str, typer.Option(help="Plan.")] = "free",
    name: Name = None,
    json_: JsonOption = False,
) -> None:
    """Make a tenant."""
    body = {"id": tenant, "plan": plan, **given(name=name)}
    show_one(api_of(context).call("POST", "tenants", body), json_)


def tenants_show(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """One tenant, and what still has to happen outside because of it."""
    document = api_of(context).call("GET", f"tenants/{tenant}")
    waiting: list[dict[str, Any]] = []
    if document["outside"] != "ready":
        waiting = central_effects.of(context, tenant)
    show_one({**document, **({"effects": waiting} if json_ else {})}, json_)
    if waiting and not json_:
        show_table(waiting, EFFECT, json_)


def tenants_change(
    context: typer.Context,
    tenant: Tenant,
    plan: Annotated[str | None, typer.Option(help="Another plan.")] = None,
    name: Name = None,
    json_: JsonOption = False,
) -> None:
    """Another plan or name."""
    show_one(api_of(context).call("PATCH", f"tenants/{tenant}", given(plan=plan, name=name)), json_)


def tenants_suspend(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Withdraw access; nothing is lost."""
    show_one(api_of(context).call("POST", f"tenants/{tenant}/suspend"), json_)


def tenants_resume(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Give access back."""
    show_one(api_of(context).call("POST", f"tenants/{tenant}/resume"), json_)


def tenants_delete(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Withdraw access for good; its data stay until `purge`."""
    show_one(api_of(context).call("DELETE", f"tenants/{tenant}"), json_)


def tenants_purge(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Remove everything of a deleted tenant but its audit."""
    show_one(api_of(context).call("POST", f"tenants/{tenant}/purge"), json_)


# -- sites and devices -----------------------------------------------------------------------


def sites_create(
    context: typer.Context, tenant: Tenant, site: Id, name: Name = None, json_: JsonOption = False
) -> None:
    """Register a box."""
    body = {"id": site, **given(name=name)}
    show_one(api_of(context).call("POST", f"tenants/{tenant}/sites", body), json_)


def sites_delete(
    context: typer.Context, tenant: Tenant, site: Site, json_: JsonOption = False
) -> None:
    """Remove a box that has no devices."""
    show_one(api_of(context).call("DELETE", f"tenants/{tenant}/sites/{site}"), json_)


def devices_list(
    context: typer.Context,
    tenant: Tenant,
    site: Annotated[str | None, typer.Option(help="Of one box.")] = None,
    json_: JsonOption = False,
) -> None:
    """A tenant's PLCs."""
    show_table(api_of(context).items(f"tenants/{tenant}/devices", site=site), DEVICE, json_)


def devices_create(
    context: typer.Context,
    tenant: Tenant,
    device: Id,
    site: Annotated[str, typer.Option(help="Box.")],
    name: Name = None,
    json_: JsonOption = False,
) -> None:
    """Register a PLC."""
    body = {"id": device, "site": site, **given(name=name)}
    show_one(api_of(context).call("POST", f"tenants/{tenant}/devices", body), json_)


def devices_move(
    context: typer.Context,
    tenant: Tenant,
    device: Id,
    site: Annotated[str, typer.Option(help="Box.")],
    json_: JsonOption = False,
) -> None:
    """Move a PLC to another box."""
    path = f"tenants/{tenant}/devices/{device}"
    show_one(api_of(context).call("PATCH", path, {"site": site}), json_)


def devices_delete(
    context: typer.Context, tenant: Tenant, device: Id, json_: JsonOption = False
) -> None:
    """Remove a PLC."""
    show_one(api_of(context).call("DELETE", f"tenants/{tenant}/devices/{device}"), json_)


# -- credentials -----------------------------------------------------------------------------


def _credentials(tenant: str | None) -> str:
    return f"tenants/{tenant}/credentials" if tenant else "credentials"


def credentials_list(
    context: typer.Context, tenant: OfTenant = None, json_: JsonOption = False
) -> None:
    """API keys, accounts at the broker and certificates, without their secrets."""
    show_table(api_of(context).items(_credentials(tenant)), CREDENTIAL, json_)


def credentials_create(
    context: typer.Context,
    tenant: OfTenant = None,
    role: Annotated[
        Literal["admin", "reader", "box"] | None, typer.Option(help="Of a tenant's key.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="The box, for role box.")] = None,
    broker: Annotated[
        bool, typer.Option("--broker", help="An account at the broker, no API key.")
    ] = False,
    name: Name = None,
    json_: JsonOption = False,
) -> None:
    """Make an API key, or an account at the broker; its secret is shown this once."""
    if (tenant is None) != (role is None):
        fail("--tenant and --role go together; without both it is an operator's key", EXIT_USAGE)
    kind = "broker" if broker else None
    body = given(kind=kind, role=role, site=site, name=name)
    show_one(api_of(context).call("POST", _credentials(tenant), body), json_)


def credentials_rotate(
    context: typer.Context,
    credential: Annotated[str, typer.Argument(help="Its id.")],
    tenant: OfTenant = None,
    overlap: Annotated[str, typer.Option(help="How long the old key still works.")] = "1h",
    json_: JsonOption = False,
) -> None:
    """Give a credential a new secret; it is shown this once."""
    try:
        overlap_s = int(units.duration_s(overlap)) if overlap != "0" else 0
    except ValueError as e:
        fail(f"--overlap {overlap}: {e}", EXIT_USAGE)
    path = f"{_credentials(tenant)}/{credential}/rotate"
    show_one(api_of(context).call("POST", path, {"overlap_s": overlap_s}), json_)


def credentials_revoke(
    context: typer.Context,
    credential: Annotated[str, typer.Argument(help="Its id.")],
    tenant: OfTenant = None,
    json_: JsonOption = False,
) -> None:
    """End a credential at once, for good."""
    show_one(api_of(context).call("POST", f"{_credentials(tenant)}/{credential}/revoke"), json_)


# -- usage and audit -------------------------------------------------------------------------


def usage_list(
    context: typer.Context,
    tenant: Tenant,
    span: Annotated[Literal["minute", "hour", "day"], typer.Option(help="Of each row.")] = "hour",
    by: Annotated[Literal["tenant", "device"], typer.Option(help="What a row counts.")] = "tenant",
    most: Most = 24,
    json_: JsonOption = False,
) -> None:
    """What a tenant sent, the newest first."""
    rows = api_of(context).items(f"tenants/{tenant}/usage", most, span=span, by=by)
    show_table(rows, USAGE, json_)


def usage_limits(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """How near a tenant is to what its plan allows."""
    limits = api_of(context).call("GET", f"tenants/{tenant}/limits")
    if json_:
        show_one(limits, json_)
        return
    levels = {name: level for name, level in limits.items() if "limit" in level}
    rows = [
        {"limit": name, "used": v["used"], "of": v["limit"], "state": v["state"]}
        for name, v in levels.items()
    ]
    show_table(rows, LIMIT, json_)
    publish = limits["publish"]
    until = f" until {publish['until']}" if publish["until"] else ""
    console.print(f"publish: {publish['state']}{until}", highlight=False)


def usage_events(
    context: typer.Context, tenant: Tenant, most: Most = 24, json_: JsonOption = False
) -> None:
    """Warnings, and rights withdrawn and given back; the newest first."""
    show_table(api_of(context).items(f"tenants/{tenant}/limits/events", most), EVENT, json_)


def usage_release(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Let a tenant publish again before the next window."""
    show_one(api_of(context).call("POST", f"tenants/{tenant}/limits/release"), json_)


def audit_list(
    context: typer.Context, tenant: OfTenant = None, most: Most = 50, json_: JsonOption = False
) -> None:
    """Who changed what, the newest first."""
    path = f"tenants/{tenant}/audit" if tenant else "audit"
    show_table(api_of(context).items(path, most), AUDIT, json_)


GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "plans": ("What tenants pay for.", {"list": plans_list, "put": plans_put}),
    "tenants": (
        "Customers.",
        {
            "list": tenants_list,
            "show": tenants_show,
            "create": tenants_create,
            "change": tenants_change,
            "suspend": tenants_suspend,
            "resume": tenants_resume,
            "delete": tenants_delete,
            "purge": tenants_purge,
        },
    ),
    "sites": (
        "Boxes.",
        {
            "list": central_fleet.sites_list,
            "show": central_fleet.sites_show,
            "create": sites_create,
            "delete": sites_delete,
            "claim": central_fleet.sites_claim,
            "target": central_fleet.sites_target,
        },
    ),
    "devices": (
        "PLCs.",
        {
            "list": devices_list,
            "create": devices_create,
            "move": devices_move,
            "delete": devices_delete,
        },
    ),
    "credentials": (
        "API keys, and accounts at the broker.",
        {
            "list": credentials_list,
            "create": credentials_create,
            "rotate": credentials_rotate,
            "revoke": credentials_revoke,
        },
    ),
    "configs": (
        "Configurations of boxes.",
        {"list": central_configs.show, "push": central_configs.push, "diff": central_configs.diff},
    ),
    "rollout": (
        "Versions for many boxes, in stages.",
        {
            "create": central_fleet.create,
            "list": central_fleet.list_,
            "show": central_fleet.show,
            "halt": central_fleet.halt,
            "resume": central_fleet.resume,
            "rollback": central_fleet.rollback,
        },
    ),
    "usage": (
        "What tenants sent.",
        {
            "list": usage_list,
            "limits": usage_limits,
            "events": usage_events,
            "release": usage_release,
        },
    ),
    **central_alerts.GROUPS,
    "audit": ("Who changed what.", {"list": audit_list}),
    "effects": ("What still has to happen outside.", {"list": central_effects.show}),
}
