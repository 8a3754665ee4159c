"""``plc-edge central rules|receivers|routes|alerts``: a tenant's alert rules, who is told, and what
rings at the centre.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from services.cli.central_show import Tenant, api_of, given, show_one, show_table
from services.cli.common import JsonOption, console, error_console, fail
from services.runtime import secrets, units
from services.runtime.errors import EXIT_USAGE

RULE = ("name", "type", "severity", "route", "updated_at")
RECEIVER = ("name", "type", "to", "secrets", "updated_at")
ROUTE = ("name", "receivers", "updated_at")
ALARM = ("severity", "rule", "where", "state", "since", "text", "notes")
CHANGE = ("at", "rule", "where", "from", "to", "told", "reason", "text")

Name = Annotated[str, typer.Argument(help="Its name.")]
File = Annotated[
    Path, typer.Argument(help="A config.yaml, or a file that holds `alerts:` or `rules:`.")
]
Rule = Annotated[str, typer.Argument(help="The rule's name.")]
Plc = Annotated[str | None, typer.Option(help="Only of this PLC.")]
By = Annotated[str, typer.Option(help="Who takes care of it; default: the user.")]
# In this order each finds what it names.
KINDS = ("receivers", "routes", "rules")


# -- rules, receivers, routes ----------------------------------------------------------------


def rules_list(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """A tenant's rules."""
    _show(context, f"tenants/{tenant}/rules", RULE, json_)


def receivers_list(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Who can be told; secrets are never shown."""
    _show(context, f"tenants/{tenant}/receivers", RECEIVER, json_)


def routes_list(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """Which receivers are told under which name."""
    _show(context, f"tenants/{tenant}/routes", ROUTE, json_)


def _show(context: typer.Context, path: str, columns: tuple[str, ...], as_json: bool) -> None:
    parts = list(api_of(context).items(path))
    if not as_json:
        parts = [_row(part, columns) for part in parts]
    show_table(parts, columns, as_json)


def _row(part: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    found = {**part["spec"], **part}
    found["to"] = found.get("url") or found.get("to")
    row = {c: found.get(c) for c in columns}
    return {c: ", ".join(map(str, v)) if isinstance(v, list) else v for c, v in row.items()}


def rules_put(
    context: typer.Context, tenant: Tenant, file: File, json_: JsonOption = False
) -> None:
    """Send every receiver, route and rule of a file; what is not in it stays."""
    alerts = _alerts(file)
    done = []
    for what, name, spec in _parts(file, alerts):
        answer = api_of(context).call("PUT", f"tenants/{tenant}/{what}/{name}", spec)
        for warning in answer["warnings"]:
            error_console.print(f"warning: {name}: {warning}", markup=False, soft_wrap=True)
        done.append({"what": what.removesuffix("s"), "name": name})
    show_table(done, ("what", "name"), json_)


def rules_check(
    context: typer.Context, tenant: Tenant, file: File, json_: JsonOption = False
) -> None:
    """Say what would be said of a file's rules, beside the receivers and routes that are kept."""
    rules = [spec for what, _, spec in _parts(file, _alerts(file)) if what == "rules"]
    answer = api_of(context).call("POST", f"tenants/{tenant}/rules/check", {"rules": rules})
    if json_:
        show_one(answer, json_)
        return
    for warning in answer["warnings"]:
        error_console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    console.print(f"{file}: good; rules: {len(rules)}", highlight=False, soft_wrap=True)


def rules_delete(
    context: typer.Context, tenant: Tenant, name: Name, json_: JsonOption = False
) -> None:
    """Remove a rule; what rings under it is closed."""
    show_one(api_of(context).call("DELETE", f"tenants/{tenant}/rules/{name}"), json_)


def receivers_delete(
    context: typer.Context, tenant: Tenant, name: Name, json_: JsonOption = False
) -> None:
    """Remove a receiver that nothing names any more."""
    show_one(api_of(context).call("DELETE", f"tenants/{tenant}/receivers/{name}"), json_)


def routes_delete(
    context: typer.Context, tenant: Tenant, name: Name, json_: JsonOption = False
) -> None:
    """Remove a route that no rule names any more."""
    show_one(api_of(context).call("DELETE", f"tenants/{tenant}/routes/{name}"), json_)


def _alerts(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        fail(f"{file} cannot be read: {e}", EXIT_USAGE)
    alerts = data.get("alerts", data) if isinstance(data, dict) else None
    if not isinstance(alerts, dict) or not any(k in alerts for k in KINDS):
        fail(f"{file} holds no alert rules: begin with `rules:`", EXIT_USAGE)
    return alerts


def _parts(file: Path, alerts: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(resource, name, what is sent)."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for what in KINDS:
        items = alerts.get(what) or []
        if what == "routes" and isinstance(items, dict):
            items = [
                {"name": name, **(route if isinstance(route, dict) else {"receivers": route})}
                for name, route in items.items()
            ]
        for item in items if isinstance(items, list) else [items]:
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                fail(f"{file}: each of `{what}` has a `name:` and other keys", EXIT_USAGE)
            spec = _with_secrets(file, item) if what == "receivers" else item
            found.append((what, item["name"], spec))
    return found


def _with_secrets(file: Path, receiver: dict[str, Any]) -> dict[str, Any]:
    """Of this machine's files and variables the centre knows nothing: they are read here."""
    sent = dict(receiver)
    for key in ("password", "secret"):
        holder = type("", (), {key: sent.get(key), f"{key}_file": sent.pop(f"{key}_file", None)})
        reference = secrets.reference_of(holder, key, file.parent)
        if reference is not None:
            sent[key] = secrets.resolve(reference)
    return sent


# -- what rings ------------------------------------------------------------------------------


def alerts_list(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """What rings or cools down at the centre."""
    alarms = api_of(context).call("GET", f"tenants/{tenant}/alerts")["items"]
    show_table(alarms if json_ else map(_alarm, alarms), ALARM, json_)


def alerts_history(
    context: typer.Context,
    tenant: Tenant,
    most: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    json_: JsonOption = False,
) -> None:
    """What has rung, the newest first, with the reasons."""
    changes = list(api_of(context).items(f"tenants/{tenant}/alerts/history", most))
    show_table(changes if json_ else map(_change, changes), CHANGE, json_)


def alerts_ack(
    context: typer.Context,
    tenant: Tenant,
    rule: Rule,
    plc: Plc = None,
    by: By = "",
    json_: JsonOption = False,
) -> None:
    """Say that somebody takes care of what rings."""
    body = {"rule": rule, **given(plc=plc), "by": by or getpass.getuser()}
    show_one(api_of(context).call("POST", f"tenants/{tenant}/alerts/ack", body), json_)


def alerts_silence(
    context: typer.Context,
    tenant: Tenant,
    rule: Rule,
    time: Annotated[str, typer.Option("--for", help="How long: 30m, 8h; 0s ends it.")],
    why: Annotated[str, typer.Option(help="The reason, for those who come later.")],
    plc: Plc = None,
    by: By = "",
    json_: JsonOption = False,
) -> None:
    """Tell nobody of a rule's alarms for a while; they still stand in `list`."""
    try:
        for_s = round(units.duration_s(time))
    except ValueError as e:
        fail(f"--for: {e}", EXIT_USAGE)
    body = {"rule": rule, **given(plc=plc), "by": by or getpass.getuser()}
    body |= {"for_s": for_s, "why": why}
    show_one(api_of(context).call("POST", f"tenants/{tenant}/alerts/silence", body), json_)


def _alarm(a: dict[str, Any]) -> dict[str, Any]:
    notes = [f"confirmado: {a['confirmado'][0]}"] if a["confirmado"] else []
    notes += [f"silenciado: {a['silenciado'][1]}"] if a["silenciado"] else []
    notes += ["sem_medida"] if a["sem_medida"] else []
    return {
        **a,
        "where": _place(a["plc"] or a["site"], a["machine"], a["field"]),
        "since": _at(a["since"]),
        "notes": "; ".join(notes),
    }


def _change(t: dict[str, Any]) -> dict[str, Any]:
    where = _place(t["plc_id"] or t["site"], t["machine"], t["field"])
    return {**t, "at": _at(t["ts"]), "where": where, "told": "yes" if t["notify"] else "no"}


def _place(*parts: str | None) -> str:
    return "/".join(filter(None, parts))


def _at(ms: int | None) -> str:
    if ms is None:
        return ""
    return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds")


GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "rules": (
        "Alert rules of a tenant.",
        {
            "list": rules_list,
            "put": rules_put,
            "delete": rules_delete,
            "check": rules_check,
        },
    ),
    "receivers": (
        "Who can be told of a tenant's alarms.",
        {"list": receivers_list, "delete": receivers_delete},
    ),
    "routes": ("Who is told.", {"list": routes_list, "delete": routes_delete}),
    "alerts": (
        "What rings at the centre.",
        {
            "list": alerts_list,
            "ack": alerts_ack,
            "silence": alerts_silence,
            "history": alerts_history,
        },
    ),
}
