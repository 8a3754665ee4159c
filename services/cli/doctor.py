"""``plc-edge doctor``: every dependency checked end to end, one line each, with the fix.

It only looks: nothing is written to a PLC, and no message reaches a subscriber (doctor_outputs
says how it asks a broker for the right to write). Services may run or not while it looks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import typer
from rich.console import Console
from rich.markup import escape

from services.cli import doctor_box, doctor_fleet, doctor_outputs, doctor_plc
from services.cli.common import ConfigOption, JsonOption, load_site
from services.cli.doctor_finding import Finding
from services.runtime import panel
from services.runtime.errors import EXIT_FAILURE
from services.runtime.site import Site

# A dead PLC costs its timeouts: look at so many at once.
WORKERS = 16
_MARK = {"ok": "[green]ok  [/]", "warning": "[yellow]warn[/]", "error": "[red]FAIL[/]"}

Check = Callable[[], Iterable[Finding]]


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Check PLCs, brokers, disk, clock, ports; one line each with the fix.")(doctor)


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Checks everything the configuration names; exit 1 when anything fails."""
    site = load_site(config)
    # rich cuts a pipe at 80 columns, and with it the words that somebody greps for.
    console = Console(width=None if sys.stdout.isatty() else 250, emoji=False)
    found: list[Finding] = []
    for finding in examine(site):
        found.append(finding)
        if not as_json:
            fix = f"\n       fix: {escape(finding.fix)}" if finding.fix else ""
            console.print(
                f"{_MARK[finding.level]} {escape(finding.subject)}: {escape(finding.text)}{fix}",
                highlight=False,
                soft_wrap=True,
            )
    failed = sum(f.level == "error" for f in found)
    if as_json:
        document = {"v": 1, "ok": not failed, "findings": [f.to_dict() for f in found]}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        warned = sum(f.level == "warning" for f in found)
        console.print(f"\n{len(found)} checks, {failed} failed, {warned} warnings")
    if failed:
        raise typer.Exit(EXIT_FAILURE)


def examine(site: Site) -> Iterator[Finding]:
    """All findings, in the order of the configuration, as they come."""
    try:
        running = panel.ask(site.config.paths.runtime.absolute())
    except panel.MetricsUnavailable:
        running = None  # what does not run is said by doctor_box
    checks: list[Check] = [partial(doctor_box.check, site)]
    checks += [partial(doctor_plc.check, site, plc) for plc in site.config.plcs]
    checks += [partial(doctor_plc.check_mirror, site, m) for m in site.config.mirrors if m.enabled]
    checks += [partial(doctor_outputs.check, site, o, running) for o in site.config.outputs]
    if site.config.fleet is not None:
        checks.append(partial(doctor_fleet.check, site, site.config.fleet))
    with ThreadPoolExecutor(WORKERS) as pool:
        for findings in pool.map(lambda check: list(check()), checks):
            yield from findings
