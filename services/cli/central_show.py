"""What the commands of ``plc-edge central`` have in common: the API to call, and how to print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.central_api import Api
from services.cli.common import console

Tenant = Annotated[str, typer.Argument(help="Tenant.")]
Site = Annotated[str, typer.Argument(help="Box.")]


def connect(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="Of the API; default PLC_EDGE_CENTRAL_URL.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the key; default PLC_EDGE_CENTRAL_KEY.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="The API's CA; default PLC_EDGE_CENTRAL_CA, or the system's")
    ] = None,
) -> None:
    """The centre: tenants, boxes, credentials, quotas and usage."""
    # Made where it is needed: `init` and `run` have no key.
    context.obj = lambda: Api(url, key_file, ca)


def api_of(context: typer.Context) -> Api:
    """What ``connect`` was told."""
    api: Api = context.obj()
    return api


def show_table(rows: Iterable[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    """A list, or all of it as JSON."""
    found = list(rows)
    if as_json:
        console.print_json(json.dumps(found))
        return
    table = Table()
    for column in columns:
        numbers = bool(found) and all(isinstance(row[column], int) for row in found)
        table.add_column(column, justify="right" if numbers else "left")
    for row in found:
        table.add_row(*("–" if row[c] in (None, "") else str(row[c]) for c in columns))
    console.print(table)


def show_one(document: dict[str, Any] | None, as_json: bool) -> None:
    """One thing, a line for each of its members."""
    if as_json:
        console.print_json(json.dumps(document))
        return
    for key, value in (document or {"done": "yes"}).items():
        text = "–" if value in (None, "") else value
        console.print(f"{key}: {text}", highlight=False, markup=False, soft_wrap=True)


def given(**values: Any) -> dict[str, Any]:
    """Those that somebody gave."""
    return {k: v for k, v in values.items() if v is not None}
