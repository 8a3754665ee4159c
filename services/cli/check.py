"""``plc-edge check``: is the configuration right, and what will a scan cost?"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from services.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    error_console,
    fail,
    print_warnings,
)
from services.runtime import estimate, loader, units
from services.runtime.errors import EXIT_USAGE, ConfigError


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Validate the configuration; show each PLC's read plan.")(check)


def check(
    config: ConfigOption = None,
    rtt: Annotated[str, typer.Option(help="Round trip of one request, e.g. 5ms.")] = "5ms",
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Jobs the PLC grants.")] = 3,
    json: JsonOption = False,
) -> None:
    """Prints requests and bytes per scan, and the time a scan takes at that round trip."""
    try:
        rtt_s = units.duration_s(rtt)
    except ValueError as e:
        fail(f"--rtt {rtt}: {e}", EXIT_USAGE)
    site, problems = loader.judge(loader.find(config))
    problems += estimate.torn(site)
    if problems:
        raise ConfigError(loader.in_order(problems))
    print_warnings(site)
    rows = estimate.rows(site, rtt_s, jobs)
    if json:
        console.print_json(data=rows)
    else:
        _print(rows, rtt)
    for warning in estimate.warnings(site, rows):
        error_console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


# What only a read plan tells: not there where the PLC decides on the requests.
_OF_THE_PLAN = ("bytes", "requests", "requests_pdu_240")


def _print(rows: list[dict[str, Any]], rtt: str) -> None:
    table = Table(title=f"Read plan, per scan, at a round trip of {rtt}")
    for name, justify in (
        ("PLC", "left"),
        ("group", "left"),
        ("every ms", "right"),
        ("fields", "right"),
        ("bytes", "right"),
        ("requests", "right"),
        ("at PDU 240", "right"),
        ("takes ms", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for r in rows:
        table.add_row(
            r["plc"],
            r["group"],
            str(r["scan_ms"]),
            str(r["fields"]),
            *("–" if r[key] is None else str(r[key]) for key in _OF_THE_PLAN),
            ("–" if r["estimated_ms"] is None else f"{r['estimated_ms']}") + " !" * r["slow"],
        )
    console.print(table)
