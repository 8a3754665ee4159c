"""``plc-edge central configs``: the versions of a box's configuration."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
import yaml

from services.cli.central_show import Site, Tenant, api_of, given, show_one, show_table
from services.cli.common import JsonOption, console, fail
from services.runtime.errors import EXIT_USAGE

CONFIG = ("version", "points_per_min", "author", "created_at", "comment")


def show(context: typer.Context, tenant: Tenant, site: Site, json_: JsonOption = False) -> None:
    """Every version of a box's configuration, the newest first."""
    show_table(api_of(context).items(f"tenants/{tenant}/sites/{site}/configs"), CONFIG, json_)


def push(
    context: typer.Context,
    tenant: Tenant,
    site: Site,
    file: Annotated[Path, typer.Argument(help="config.yaml; its layouts are taken along.")],
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    dry_run: Annotated[bool, typer.Option("--check", help="Only say what would be said.")] = False,
    json_: JsonOption = False,
) -> None:
    """Send a configuration as the box's next version."""
    body: dict[str, Any] = {"yaml": _text(file), "layouts": _layouts(file)}
    path = f"tenants/{tenant}/sites/{site}/configs"
    if dry_run:
        answer = api_of(context).call("POST", f"{path}/check", body)
    else:
        answer = api_of(context).call("POST", path, {**body, "comment": comment})
    if not json_:
        check = answer.get("check", answer)
        answer = {
            **given(version=answer.get("version")),
            "points_per_min": check["points_per_min"],
            "warnings": "; ".join(check["warnings"]),
        }
    show_one(answer, json_)


def diff(
    context: typer.Context,
    tenant: Tenant,
    site: Site,
    old: Annotated[int, typer.Argument(help="Version; 0 is nothing.")],
    new: Annotated[int, typer.Argument(help="Version.")],
) -> None:
    """What changes from one version to another."""
    path = f"tenants/{tenant}/sites/{site}/configs/diff"
    answer = api_of(context).call("GET", path, old=old, new=new)
    console.print(answer["diff"], end="", highlight=False, markup=False, soft_wrap=True)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        fail(f"{file} cannot be read: {e}", EXIT_USAGE)


def _layouts(file: Path) -> dict[str, str]:
    """The layout files that a configuration names; what is wrong with it the API says better."""
    try:
        data = yaml.safe_load(_text(file))
        names = {g["layout"] for p in data["plcs"] for g in p["groups"] if g.get("layout")}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return {}
    found = {name: file.parent / str(name) for name in names}
    return {str(PurePosixPath(n)): _text(f) for n, f in found.items() if f.is_file()}
