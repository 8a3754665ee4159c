"""``plc-edge status``: what runs, what is read, what waits; exit 1 when something is down.

Asks the metrics service, whose ``/api/status`` is what ``--json`` prints. When that is down it
asks supervisord itself, which at least knows the processes.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.common import ConfigOption, JsonOption, load_site
from services.runtime import process_table, render
from services.runtime.errors import EXIT_FAILURE
from services.runtime.panel import MetricsUnavailable, ask

_TONE = {
    "online": "green",
    "ok": "green",
    "RUNNING": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "STARTING": "yellow",
    "unknown": "yellow",
    "disabled": "dim",
}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Processes, PLCs, outputs; exit 1 when something is down.")(status)


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Prints the state of the running site."""
    site = load_site(config)
    runtime = site.config.paths.runtime.absolute()
    try:
        document = ask(runtime)
    except MetricsUnavailable as e:
        document = _from_supervisor(str(render.supervisor_socket(site)), site.config.site, str(e))
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        # rich cuts a pipe at 80 columns, and with it the words that somebody greps for.
        console = Console(width=None if sys.stdout.isatty() else 200)
        _print(console, document)
    if document["status"] not in ("ok", "warning"):
        raise typer.Exit(EXIT_FAILURE)


def _from_supervisor(socket: str, site: str, why: str) -> dict[str, Any]:
    """The same document with what supervisord knows: processes only."""
    processes: list[dict[str, Any]] = []
    problems = [
        _problem(
            "metrics_down",
            "metrics",
            f"The metrics service is down: {why}",
            "see its log; only the processes are known",
        )
    ]
    reachable, error = True, ""
    try:
        rows = process_table.read(socket)
    except process_table.SupervisorUnavailable as e:
        rows, reachable, error = [], False, str(e)
        problems = [
            _problem(
                "not_running",
                "plc-edge",
                f"plc-edge does not run: {e}",
                "start it: `systemctl start plc-edge`, or `plc-edge run`",
            )
        ]
    for row in rows:
        processes.append(
            {
                "name": row.name,
                "state": row.state,
                "up": row.state == "RUNNING",
                "pid": row.pid or None,
                "uptime_s": row.uptime_s,
                "restarts": None,
            }
        )
        if row.state not in ("RUNNING", "STARTING"):
            problems.append(
                _problem(
                    "process_down",
                    row.name,
                    f"The process is {row.state}",
                    f"see its log ({row.last_end})",
                )
            )
    return {
        "v": 1,
        "site": site,
        "ts": time.time_ns() // 1_000_000,
        "status": "error",
        "problems": problems,
        "plcs": [],
        "outputs": [],
        "store": None,
        "mirrors": [],
        "processes": processes,
        "fleet": None,
        "supervisor": {"reachable": reachable, "error": error},
    }


def _problem(code: str, subject: str, text: str, fix: str) -> dict[str, Any]:
    return {
        "severity": "error",
        "code": code,
        "subject": subject,
        "params": {},
        "text": text,
        "fix": fix,
        "since": None,
    }


# -- for people ---------------------------------------------------------------------------


def _print(console: Console, document: dict[str, Any]) -> None:
    words = {
        "ok": "[green]everything works[/]",
        "warning": "[yellow]needs attention[/]",
        "starting": "[yellow]starting[/]",
        "error": "[red]there are faults[/]",
    }
    console.print(f"[bold]{escape(document['site'])}[/]: {words[document['status']]}")
    for problem in document["problems"]:
        colour = "red" if problem["severity"] == "error" else "yellow"
        subject, text = escape(problem["subject"]), escape(problem["text"])
        fix = f"\n      fix: {escape(problem['fix'])}" if problem["fix"] else ""
        console.print(f"  [{colour}]{subject}: {text}[/]{fix}", highlight=False)
    console.print()
    if document["plcs"]:
        table = _table(
            "PLC", "address", "state", "scan ms", "answer ms", "reads/s", "bad", "last error"
        )
        for plc in document["plcs"]:
            failure = plc["failure"] or {}
            table.add_row(
                escape(plc["id"]),
                escape(plc["ip"]),
                _tone(plc["status"]),
                _number(plc["scan_ms"], 1),
                _number(plc["latency_ms"], 1),
                _number(plc["reads_per_s"], 1),
                str(plc["bad_fields"] or ""),
                escape(str(failure.get("message", ""))),
            )
        console.print(table, "")
    if document["outputs"]:
        table = _table("output", "to", "state", "pending", "oldest", "per s", "last error")
        for output in document["outputs"]:
            oldest_s = output["oldest_age_s"] if output["pending"] else None
            table.add_row(
                escape(output["name"]),
                escape(output["target"] or output["type"]),
                _tone(output["status"]),
                _number(output["pending"], 0),
                "" if oldest_s is None else age(oldest_s),
                _number(output["rate_per_s"], 1),
                escape((output["error"] or {}).get("message", "")),
            )
        console.print(table, "")
    store = document["store"]
    if store and store["bytes"] is not None:
        used = f"{store['bytes'] / 2**20:,.1f} MiB"
        limit = f" of {store['max_bytes'] / 2**20:,.0f} MiB" if store["max_bytes"] else ""
        console.print(f"outbox: {used}{limit}, {store['dropped']} messages dropped\n")
    if fleet := document.get("fleet"):
        running = f"version {fleet['running']}" if fleet["running"] else "no version of the centre"
        state = escape(f"{running}, {fleet['state'] or 'unknown'}")
        console.print(f"centre: {_tone(fleet['status'])}, {state}\n", highlight=False)
    for tenant, own in (store or {}).get("quotas", {}).items():
        now = "thinned out" if own["thinned"] else "within it"
        limit = f"{own['points_per_min']:,} points a minute"
        console.print(f"quota of {tenant}: {limit}, {now}, {own['waiting']} messages wait\n")
    if document["mirrors"]:
        columns = ("lag ms", "last write", "B/s", "writes", "mismatches", "refusals", "last error")
        table = _table("mirror", "from", "to", "state", *columns)
        for mirror in document["mirrors"]:
            table.add_row(
                escape(mirror["name"]),
                escape(str(mirror["source"] or "")),
                escape(str(mirror["target"] or "")),
                _tone(mirror["status"]),
                _number(mirror["lag_ms"], 1),
                _ago(document["ts"], mirror["last_write_ms"]),
                _number(mirror["bytes_per_s"], 0),
                *(_number(mirror[k], 0) for k in ("writes", "mismatches", "refusals")),
                escape((mirror["error"] or {}).get("message", "")),
            )
        console.print(table, "")
    if document["processes"]:
        table = _table("process", "state", "pid", "up for", "restarts", "CPU %", "MiB")
        for process in document["processes"]:
            rss_bytes = process.get("rss_bytes")
            table.add_row(
                escape(process["name"]),
                _tone(process["state"]),
                str(process["pid"] or ""),
                age(process["uptime_s"]) if process["up"] else "",
                _number(process["restarts"], 0),
                _number(process.get("cpu_percent"), 1),
                _number(rss_bytes / 2**20 if rss_bytes else None, 0),
            )
        console.print(table, "")


_RIGHT = {
    "scan ms",
    "answer ms",
    "reads/s",
    "lag ms",
    "B/s",
    "writes",
    "mismatches",
    "refusals",
    "bad",
    "pending",
    "oldest",
    "per s",
    "pid",
    "up for",
    "restarts",
    "CPU %",
    "MiB",
}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in _RIGHT else "left", overflow="fold")
    return table


def _tone(state: str) -> str:
    return f"[{_TONE.get(state, 'red')}]{escape(state)}[/]"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _ago(now: int, then: int | None) -> str:
    return "" if then is None else f"{age(max(0, now - then) / 1_000)} ago"


def age(seconds: float) -> str:
    """12 s, 5 min, 3 h, 2 d."""
    for limit, divisor, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
