"""``plc-edge check``: is the configuration right, and what will a scan cost?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
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
from services.runtime import loader, units
from services.runtime.config import Group, Plc
from services.runtime.errors import EXIT_USAGE, ConfigError, Problem
from services.runtime.judged import Unknown
from services.runtime.site import Site, bases, raw_range
from services.s7.field import Field
from services.s7.plan import Extent, Plan, make_plan

# What a box was measured to deliver through one output, messages per second (docs/sizing.md).
DRAIN_PER_S = 5_000


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
    problems += _torn(site)
    if problems:
        raise ConfigError(loader.in_order(problems))
    print_warnings(site)
    rows = [row for plc in site.config.plcs for row in _rows(site, plc, rtt_s, jobs)]
    if json:
        console.print_json(data=rows)
    else:
        _print(rows, rtt)
    for warning in _warnings(site, rows):
        error_console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)


def group_plan(site: Site, plc: Plc, group: Group, pdu_bytes: int) -> Plan:
    """The plan of one group at a PDU. Raises Unknown where one of its fields is wrong."""
    fields = site.fields_of(plc, group)
    extents = {_extent(f, base) for base in bases(group) for f in fields}
    if group.raw is not False:
        start, length = raw_range(site, plc, group)
        extents.add(Extent("DB", group.db or 0, start, length))
    return make_plan(extents, pdu_bytes)


def _extent(f: Field, base: int) -> Extent:
    return Extent(f.area, f.db, f.byte + base, f.size_bytes)


def _torn(site: Site) -> Iterator[Problem]:
    """Groups that are to come in one telegram and do not fit."""
    for at, plc, group in site.groups():
        with suppress(Unknown):
            if group.consistent and (n := len(group_plan(site, plc, group, plc.pdu).telegrams)) > 1:
                message = f"needs {n} telegrams at PDU {plc.pdu}"
                hint = "read fewer bytes or remove `consistent:`"
                yield site.problem((*at, "consistent"), message, hint)


def _rows(site: Site, plc: Plc, rtt_s: float, jobs: int) -> list[dict[str, Any]]:
    rows = []
    parallel = jobs if plc.parallel_jobs == "auto" else plc.parallel_jobs
    for group in plc.groups:
        plan = group_plan(site, plc, group, plc.pdu)
        small = group_plan(site, plc, group, 240)
        scan_s = plan.scan_s(rtt_s, parallel)
        rows.append(
            {
                "plc": plc.id,
                "group": group.name,
                "scan_ms": round(group.scan * 1_000),
                "fields": len(site.fields[plc.id, group.name]) * len(bases(group)),
                "messages": len(bases(group)),
                "requests": len(plan.telegrams),
                "requests_pdu_240": len(small.telegrams),
                "bytes": plan.data_bytes,
                "estimated_ms": round(scan_s * 1_000, 1),
                "slow": scan_s > group.scan,
            }
        )
    return rows


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
            str(r["bytes"]),
            str(r["requests"]),
            str(r["requests_pdu_240"]),
            f"{r['estimated_ms']}" + (" !" if r["slow"] else ""),
        )
    console.print(table)


def _warnings(site: Site, rows: list[dict[str, Any]]) -> list[str]:
    found = [
        f"{r['plc']}/{r['group']}: a scan is estimated at {r['estimated_ms']} ms, longer than its"
        f" {r['scan_ms']} ms: it will overrun"
        for r in rows
        if r["slow"]
    ]
    per_s = sum(r["messages"] * 1_000 / r["scan_ms"] for r in rows)
    if per_s * 2 > DRAIN_PER_S:
        found.append(
            f"up to {per_s:.0f} messages/s come in, {DRAIN_PER_S} go out: after an outage the"
            " backlog shrinks slowly or not at all; scan slower or publish on_change"
        )
    maximum = site.config.store.replay.max_rate
    if maximum is not None and maximum <= per_s:
        found.append(
            f"store.replay.max_rate is {maximum}/s, {per_s:.0f} messages/s come in: a backlog"
            " never shrinks"
        )
    return found
