"""``plc-edge read PLC [TAG…]``: one direct read, decoded as the reader does."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from services.cli.common import ConfigOption, JsonOption, console, error_console, fail
from services.cli.direct import Batch, Direct, Row, Seen, seen
from services.runtime.errors import EXIT_FAILURE, ConfigError, PlcUnavailable


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Read a PLC once, directly, and show the decoded values.")(read)


def read(
    plc: Annotated[str, typer.Argument(help="Its id in the configuration.")],
    tags: Annotated[
        list[str] | None,
        typer.Argument(
            help="Fields: `temperatura`, `m03.temperatura`, `AI_*`; or addresses: `DB1.DBD0:REAL`."
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Exit 1 when the PLC cannot be read, or nothing good came of it."""
    site, direct = seen(config, plc, tags or ())
    found = direct.plc
    try:
        if isinstance(direct, Seen):
            direct.read(site)
        else:
            _read(direct)
    except PlcUnavailable as e:
        verb = f"probe {direct.host}" if found.protocol == "s7" else "doctor"
        fail(f"{found.id}: {e.message}\n    see `plc-edge {verb}`", EXIT_FAILURE)
    except ConfigError as e:
        fail(f"{found.id}: {e}", EXIT_FAILURE)
    if as_json:
        tenant, name = site.config.tenant(found), site.config.site
        messages = [m for b in direct.batches for m in b.messages(direct, tenant, name)]
        json.dump(messages, sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
    else:
        console.print(table(direct.batches))
        if direct.stopped:
            error_console.print("the CPU is in STOP: these values are frozen", style="yellow")
    rows = [row for batch in direct.batches for row in batch.rows]
    if all(row.bad for row in rows):
        raise typer.Exit(EXIT_FAILURE)


def _read(direct: Direct) -> None:
    try:
        session = direct.connect()
        for batch in direct.batches:
            batch.read(session)
        with contextlib.suppress(PlcUnavailable):  # some stations never answer this one
            direct.ask_state()
    finally:
        direct.close()


def table(read_batches: list[Batch]) -> Table:
    """All rows, with unit, address and quality."""
    out = Table(box=None, pad_edge=False)
    with_machine = any(r.machine for b in read_batches for r in b.rows)
    for title in ("GROUP", *(("MACHINE",) if with_machine else ())):
        out.add_column(title, no_wrap=True)
    out.add_column("FIELD", overflow="fold")
    out.add_column("VALUE", justify="right", overflow="fold", min_width=12)
    for title in ("UNIT", "ADDRESS", "QUALITY"):
        out.add_column(title, overflow="fold")
    for batch in read_batches:
        for row in batch.rows:
            machine = (escape(row.machine or ""),) if with_machine else ()
            out.add_row(
                escape(row.group), *machine, escape(row.field.name), escape(show(row)),
                escape(row.field.unit), escape(row.address),
                f"[red]{escape(row.bad)}[/]" if row.bad else "good",
            )  # fmt: skip
    return out


def show(row: Row) -> str:
    """A value as JSON writes it, so that nothing is rounded."""
    return "" if row.bad else json.dumps(row.value, ensure_ascii=False)
