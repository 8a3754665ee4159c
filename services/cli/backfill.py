"""``plc-edge backfill``: sends a stretch of the box's history to an output once more."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bus import topology
from bus.sockets import Bus
from services.cli.asker import Asker
from services.cli.common import ConfigOption, JsonOption, console, fail, load_site, time_range
from services.runtime.errors import EXIT_USAGE
from services.runtime.site import Site

ANSWER_S = 5.0


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(backfill)


def backfill(
    output: Annotated[str, typer.Argument(help="The output that is to get them.")],
    plc: Annotated[str, typer.Argument(help="The PLC's id; none: lists what is asked for.")] = "",
    begin: Annotated[
        str, typer.Option("--from", help="`2026-11-30 14:30`, `-2h`, `yesterday`, `06:00` …")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="The same.")] = "now",
    rate: Annotated[float, typer.Option(help="Messages a second, beside the live ones.")] = 50.0,
    cancel: Annotated[int, typer.Option(help="Gives up the stretch of this number.")] = 0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Send every message of a PLC in a time once more, from this box's history.

    They go out as they were (epoch, seq, time) with `"replay": true`, also where the output has
    `reduce:`. The output's process does it; this command only asks for it.
    """
    site = load_site(config)
    ask = _asker(site, output)
    if cancel:
        job = ask("cancel", id=cancel)
        console.print(f"stretch {cancel} is given up: {job['sent']} messages were sent")
        return
    if not plc:
        jobs = ask("list")["jobs"]
        if as_json:
            print(json.dumps({"jobs": jobs}))
        else:
            _print(jobs, output)
        return
    found = next((p for p in site.config.plcs if p.id == plc), None)
    if found is None:
        names = ", ".join(p.id for p in site.config.plcs[:10])
        fail(f"no PLC is named {plc!r}: {names}", EXIT_USAGE)
    tenant = site.config.tenant(found)
    only = next(o.locatarios for o in site.config.outputs if o.name == output)
    if only is not None and tenant not in only:
        fail(f"{plc} is of {tenant}, of whom {output!r} gets nothing (`locatarios:`)", EXIT_USAGE)
    if not begin:
        fail("say since when: --from", EXIT_USAGE)
    begin_ms, end_ms = time_range(begin, end)
    ends = {"begin_ms": begin_ms, "end_ms": end_ms}
    job = ask("send", plc=plc, locatario=tenant, rate_per_s=rate, **ends)
    if as_json:
        print(json.dumps(job))
        return
    console.print(f"stretch {job['id']}: {_time(job['begin_ms'])} to {_time(job['end_ms'])}")
    console.print(f"`plc-edge backfill {output}` shows how far it is", highlight=False)


def _asker(site: Site, output: str) -> Asker:
    names = [o.name for o in site.config.outputs]
    found = next((o for o in site.config.outputs if o.name == output), None)
    if found is None:
        fail(f"no output is named {output!r}: {', '.join(names) or 'there is none'}", EXIT_USAGE)
    if found.shows_values:
        fail(f"type {found.type} takes no past messages: name an mqtt, http or stdout", EXIT_USAGE)
    if site.config.history is None:
        fail("this box keeps no history: give `history: {}` in the configuration", EXIT_USAGE)
    runtime = Path(site.config.paths.runtime)
    if not topology.socket_path(runtime, "backfill", output).exists():
        fail(f"{output!r} does not run in {runtime}: `plc-edge status` shows what does")
    # Until the command ends.
    return Asker(Bus(runtime), "backfill", f"output {output!r}", ANSWER_S, output)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000).astimezone().isoformat(" ", "seconds")


def _print(jobs: list[dict[str, Any]], output: str) -> None:
    if not jobs:
        console.print(f"nothing is left to be sent to {output}")
    for job in jobs:
        done = (job["at_ms"] - job["begin_ms"]) / (job["end_ms"] - job["begin_ms"])
        when = f"{_time(job['begin_ms'])} to {_time(job['end_ms'])}"
        numbers = f"{job['sent']} sent, {job['refused']} refused, {done:.0%}"
        waits = f", waits: {job['waits']}" if job["waits"] else ""
        text = f"stretch {job['id']}: {job['plc']} {when}: {numbers}{waits}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
