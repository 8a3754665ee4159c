"""``plc-edge browse PLC [PATH]``: what a PLC has, and a layout of what is wanted of it."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    error_console,
    fail,
    load_site,
)
from services.cli.direct import find_plc
from services.protocols.found import Found, fields
from services.runtime import render
from services.runtime.errors import EXIT_USAGE
from services.runtime.plc_model import PlcBase
from services.runtime.site import Site


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Show what a PLC with symbols or nodes has; make a layout of it.")(browse)


def browse(
    plc: Annotated[str, typer.Argument(help="Its id.")],
    path: Annotated[str, typer.Argument(help="Where to begin; default: everywhere.")] = "",
    search: Annotated[
        str | None, typer.Option("--filter", help="Only what contains this text, in any case.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write a layout file.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Connects by itself; the reader may run or not."""
    site = load_site(config)
    found = find(site, find_plc(site, plc), path)
    if search:
        found = [one for one in found if one.holds(search)]
    if json:
        console.print_json(data=[asdict(one) for one in found])
    elif out is None:
        _print(found)
    if not found:
        fail("nothing found" + (f" that contains {search!r}" if search else ""))
    if out is not None:
        _write(found, out, f"{plc} {path}".strip())


def find(site: Site, plc: PlcBase, path: str) -> list[Found]:
    """What the PLC's protocol finds, at the first of its addresses that answers."""
    if not plc.tag_keys:
        text = f"{plc.id} is read by address (protocol: {plc.protocol}): it has no names to browse;"
        fail(f"{text} import its sources with `plc-edge layout import`", EXIT_USAGE)
    protocol = import_module(f"services.protocols.{plc.protocol}.browse")
    rendered = render.render(site)[f"reader-{plc.id}"]
    found: list[Found] = protocol.find(rendered, plc.all_hosts[0], path)
    return found


def _print(found: list[Found]) -> None:
    table = Table(title=f"{len(found)} values")
    for name in ("path", "type", "unit", "comment"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(one.path, one.type or f"– ({one.why})", one.unit, one.comment)
    console.print(table)


def _write(found: list[Found], out: Path, title: str) -> None:
    chosen = fields(found)
    if not chosen:
        fail("none of these can be in a layout; without --out their reasons are shown")
    lines = [f"# {title}, made by plc-edge browse", "fields:"]
    lines += [f"  - {_flow(field)}" for field in chosen]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as e:
        fail(f"{e.filename}: cannot be written: {e.strerror}")
    left = len(found) - len(chosen)
    note = f", {left} left out (`plc-edge browse` without --out says why)" if left else ""
    text = f"{out}: {len(chosen)} fields{note}; give a group `layout: {out}`"
    error_console.print(text, markup=False, highlight=False, soft_wrap=True)


def _flow(field: dict[str, Any]) -> str:
    """One field on one line: YAML's flow form takes JSON's strings."""
    pairs = (f"{k}: {json_module.dumps(v, ensure_ascii=False)}" for k, v in field.items())
    return "{" + ", ".join(pairs) + "}"
