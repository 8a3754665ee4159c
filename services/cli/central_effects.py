"""``plc-edge central effects``: what waits at the broker, in InfluxDB and in Grafana."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.central_show import api_of, show_table
from services.cli.common import JsonOption

EFFECT = ("tenant", "target", "state", "since", "attempts", "error")


def of(context: typer.Context, tenant: str | None) -> list[dict[str, Any]]:
    """Of one tenant, or of all."""
    path = f"tenants/{tenant}/effects" if tenant else "effects"
    items: list[dict[str, Any]] = api_of(context).call("GET", path)["items"]
    return items


def show(
    context: typer.Context,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Default: every tenant.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """What was asked for and is not done yet; nothing where all is as it must be."""
    show_table(of(context, tenant), EFFECT, json_)
