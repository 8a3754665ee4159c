"""``plc-edge central sites …`` and ``rollout …``: boxes with their state, what they must have, and
versions for many of them in stages.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.central_api import Api
from services.cli.central_show import Site, Tenant, api_of, show_one, show_table
from services.cli.common import JsonOption, console, fail
from services.runtime import units
from services.runtime.errors import EXIT_USAGE, PlcEdgeError

BOX = ("id", "name", "state", "target", "running", "software", "seen_at", "error")
ROLLOUT = ("id", "state", "stage", "boxes", "reason", "comment", "created_at")
OF_ROLLOUT = ("site", "stage", "version", "previous", "state", "why")
Id = Annotated[str, typer.Argument(help="Roll-out.")]


# -- boxes -----------------------------------------------------------------------------------


def sites_list(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """A tenant's boxes with their state: version wanted, version running, last heard."""
    show_table(api_of(context).items(f"tenants/{tenant}/boxes"), BOX, json_)


def sites_show(
    context: typer.Context, tenant: Tenant, site: Site, json_: JsonOption = False
) -> None:
    """One box: what it must have, and what it said last, with the mistakes and the drift."""
    api, path = api_of(context), f"tenants/{tenant}/sites/{site}"
    shown = {**api.call("GET", path), "target": _target(api, path), "report": _report(api, path)}
    if json_:
        console.print_json(json.dumps(shown))
        return
    report = shown.pop("report")
    show_one({**shown, "target": (shown["target"] or {}).get("version")}, as_json=False)
    if report is None:
        console.print("never heard of", highlight=False)
        return
    drift, problems, health = (report.pop(name) for name in ("drift", "problems", "health"))
    health = health or {"plcs": {}, "outputs": {}, "pending": None}
    states = {**health["plcs"], **health["outputs"]}
    report["health"] = ", ".join(f"{name} {state}" for name, state in states.items())
    report["pending"] = health["pending"]
    show_one({k: v for k, v in report.items() if k != "site"}, as_json=False)
    for p in problems:
        where = f"{p['file']}:{p['line']}" if p["line"] else p["file"]
        console.print(f"  {where} {p['key']} {p['message']}", markup=False, highlight=False)
    if drift:
        console.print(drift, end="", markup=False, highlight=False, soft_wrap=True)


def _target(api: Api, path: str) -> Any:
    """What it must have, without the text."""
    found = api.call("GET", f"{path}/target")
    return found and {k: v for k, v in found.items() if k not in ("yaml", "layouts")}


def _report(api: Api, path: str) -> Any:
    try:
        return api.call("GET", f"{path}/report")
    except PlcEdgeError as e:
        if str(e).startswith("Not found"):  # the box itself is there
            return None
        raise


def sites_claim(
    context: typer.Context,
    tenant: Tenant,
    site: Site,
    valid: Annotated[str, typer.Option(help="How long the code may wait; at most 7d.")] = "24h",
    json_: JsonOption = False,
) -> None:
    """Make a code with which the box gets its certificate, once; shown this once."""
    body = {"valid_s": _seconds("--valid", valid)}
    show_one(api_of(context).call("POST", f"tenants/{tenant}/sites/{site}/claims", body), json_)


def sites_target(
    context: typer.Context,
    tenant: Tenant,
    site: Site,
    version: Annotated[int, typer.Argument(min=1, help="Of its configuration.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also over files that were changed at the box.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Send one version to one box."""
    body = {"version": version, "overwrite": overwrite}
    show_one(api_of(context).call("POST", f"tenants/{tenant}/sites/{site}/target", body), json_)


# -- roll-outs -------------------------------------------------------------------------------


def create(
    context: typer.Context,
    tenant: Tenant,
    sites: Annotated[
        list[str] | None, typer.Option("--site", help="Box; repeat for more. Default: all.")
    ] = None,
    versions: Annotated[
        list[str] | None,
        typer.Option("--version", help="BOX=VERSION; repeat. Default: the newest of each."),
    ] = None,
    stages: Annotated[
        str, typer.Option(help="Share of the boxes at the end of each stage, %.")
    ] = "10,50,100",
    named: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Boxes of one stage, with commas; repeat. In place of shares"),
    ] = None,
    timeout: Annotated[str, typer.Option(help="In which each box must be done.")] = "15m",
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    json_: JsonOption = False,
) -> None:
    """Bring versions to boxes in stages; back by itself where a box reports trouble."""
    by_name = [part.split(",") for part in named or []]
    try:
        shares = [int(part) for part in stages.split(",")]
        chosen = {site: int(n) for site, _, n in (v.partition("=") for v in versions or [])}
    except ValueError:
        fail("--stages is like 10,50,100 and --version like planta-sp=3", EXIT_USAGE)
    body = {
        "sites": sites or [site for stage in by_name for site in stage] or "all",
        "versions": chosen or "newest",
        "stages": by_name or shares,
        "timeout_s": _seconds("--timeout", timeout),
        "comment": comment,
    }
    _show(api_of(context).call("POST", f"tenants/{tenant}/rollouts", body), json_)


def list_(context: typer.Context, tenant: Tenant, json_: JsonOption = False) -> None:
    """A tenant's roll-outs, the newest first."""
    rows = list(api_of(context).items(f"tenants/{tenant}/rollouts"))
    if not json_:
        rows = [{**row, "stage": _stage(row), "boxes": _counts(row)} for row in rows]
    show_table(rows, ROLLOUT, json_)


def show(context: typer.Context, tenant: Tenant, rollout: Id, json_: JsonOption = False) -> None:
    """One roll-out with each of its boxes."""
    _show(api_of(context).call("GET", f"tenants/{tenant}/rollouts/{rollout}"), json_)


def halt(context: typer.Context, tenant: Tenant, rollout: Id, json_: JsonOption = False) -> None:
    """Begin no other stage; what was sent stays."""
    _show(api_of(context).call("POST", f"tenants/{tenant}/rollouts/{rollout}/halt"), json_)


def resume(context: typer.Context, tenant: Tenant, rollout: Id, json_: JsonOption = False) -> None:
    """Go on where it was halted."""
    _show(api_of(context).call("POST", f"tenants/{tenant}/rollouts/{rollout}/resume"), json_)


def rollback(
    context: typer.Context, tenant: Tenant, rollout: Id, json_: JsonOption = False
) -> None:
    """Send every box back to the version it had."""
    _show(api_of(context).call("POST", f"tenants/{tenant}/rollouts/{rollout}/rollback"), json_)


def _show(rollout: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.print_json(json.dumps(rollout))
        return
    names = ("id", "state", "reason", "comment", "created_at")
    show_one({**{n: rollout[n] for n in names}, "stage": _stage(rollout)}, as_json=False)
    table = Table(*OF_ROLLOUT)
    for row in rollout["sites"]:
        stage = {"stage": row["stage"] + 1}
        shown = ({**row, **stage}[name] for name in OF_ROLLOUT)
        table.add_row(*("–" if value in (None, "") else str(value) for value in shown))
    console.print(table)


def _stage(rollout: dict[str, Any]) -> str:
    return f"{rollout['stage'] + 1} of {rollout['stages']}"


def _counts(rollout: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(rollout["boxes"].items()))


def _seconds(option: str, text: str) -> int:
    try:
        return int(units.duration_s(text))
    except ValueError as e:
        fail(f"{option} {text}: {e}", EXIT_USAGE)
