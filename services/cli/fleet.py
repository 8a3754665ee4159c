"""``plc-edge fleet``: the control plane that this box belongs to."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer

from services.cli.common import ConfigOption, JsonOption, console, fail, load_site
from services.fleet import link
from services.fleet.files import Folder, read_json
from services.fleet.status_file import FILE
from services.runtime.errors import EXIT_FAILURE, EXIT_USAGE
from services.runtime.fleet_model import Fleet
from services.runtime.site import Site

# The process writes every 5 s.
SILENT_S = 20.0


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    fleet = typer.Typer(help="The control plane that this box belongs to.", no_args_is_help=True)
    fleet.command()(claim)
    fleet.command()(status)
    app.add_typer(fleet, name="fleet")


def claim(
    code: Annotated[
        str,
        typer.Argument(help="The one-time code; without it, or as `-`, it is read from the input."),
    ] = "-",
    config: ConfigOption = None,
) -> None:
    """Claim this box with a one-time code: make its key and fetch its certificate."""
    site, fleet = _site(config)
    if code == "-":
        # Other users of this PC see the arguments of every process.
        code = typer.prompt("Code", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    folder = Folder(site.config.paths.state.absolute(), site.config.file.absolute())
    ca = str((site.config.file.parent / fleet.ca).absolute()) if fleet.ca else None
    try:
        folder.make()
        who = link.claim(folder.own, fleet.url, ca, code.strip(), installed("plc-edge"))
    except OSError as e:
        fail(f"{folder.own} cannot be written ({e.strerror}): run as the user of the service")
    until = _day(who.not_after_s)
    text = f"this box is {who.site} of {who.tenant}; its certificate is good until {until}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """State, version, certificate, when the centre last answered; exit 1 where it is not well."""
    site, _ = _site(config)
    document = read_json(site.config.paths.runtime.absolute() / FILE)
    if document is None:
        fail("the fleet process has said nothing yet: `plc-edge apply`, `plc-edge status`")
    age_s = time.time() - document["ts_ms"] / 1_000
    document["running_process"] = age_s < SILENT_S
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        for line in _lines(document, age_s):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    calm = document["state"] in ("applied", "applying", "watching")
    if not (calm and document["running_process"] and not document["centre"]["code"]):
        raise typer.Exit(EXIT_FAILURE)


def _lines(document: dict[str, Any], age_s: float) -> list[str]:
    centre, who = document["centre"], document["identity"]
    reached = centre["reached_ms"]
    lines = [
        f"centre       {centre['url']}: {centre['message'] or 'answers'}",
        f"last answer  {_moment(reached / 1_000) if reached else 'never'}",
        f"box          {who['tenant']}/{who['site']}" if who else "box          not claimed",
        *([f"certificate  until {_day(who['not_after_s'])}"] if who else []),
        f"running      version {document['running'] or 'none of the centre'}",
        f"state        {document['state']}"
        + (f", version {document['version']}" if document["version"] else ""),
        *([f"error        {document['error']}"] if document["error"] else []),
        *(
            f"  {p.get('file')}:{p.get('line') or ''} {p.get('key')} {p.get('message')}"
            for p in document["problems"]
        ),
        *([f"trouble      {document['trouble']}"] if document["trouble"] else []),
    ]
    if not document["running_process"]:
        lines.append(f"the fleet process has been silent for {age_s:.0f} s: `plc-edge status`")
    return [*lines, *([document["drift"]] if document["drift"] else [])]


def _site(config: Any) -> tuple[Site, Fleet]:
    site = load_site(config)
    if site.config.fleet is None:
        fail("the configuration has no `fleet:`: this box belongs to no centre", EXIT_USAGE)
    return site, site.config.fleet


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
