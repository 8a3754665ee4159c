"""``plc-edge alerts``: what rings, taking care of it, and running rules over recorded messages."""

from __future__ import annotations

import getpass
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bus import topology
from bus.sockets import Bus
from services.cli.alerts_play import line, make_engine, play, recorded, replayed, stored
from services.cli.asker import Asker
from services.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    fail,
    load_site,
)
from services.runtime import loader, units
from services.runtime.errors import EXIT_USAGE

PlcOption = Annotated[str, typer.Option("--plc", help="Only of this PLC.")]
ANSWER_S = 5.0


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    alerts = typer.Typer(help="Alert rules.", no_args_is_help=True)
    alerts.command("test")(run_rules)
    alerts.command()(replay)
    alerts.command("list")(list_alarms)
    alerts.command()(history)
    alerts.command()(ack)
    alerts.command()(silence)
    app.add_typer(alerts, name="alerts")


def list_alarms(
    config: ConfigOption = None,
    history: Annotated[
        int, typer.Option(min=0, max=500, help="Also so many of the last changes.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """What rings or cools down; with --history also what has changed lately."""
    answer = _ask(config, "list", history=history)
    if as_json:
        console.print_json(orjson.dumps(answer).decode())
        return
    _print(answer["alarms"])
    for t in answer["history"]:
        where = "/".join(filter(None, (t["plc_id"] or t["site"], t["machine"], t["field"])))
        told = "notify" if t["notify"] else "-"
        text = f"{t['ts']} {t['rule']} {where} {t['from']} -> {t['to']} {told} ({t['reason']})"
        console.print(text, markup=False, soft_wrap=True)


def history(
    rule: Annotated[str, typer.Option("--rule", help="Only of this rule.")] = "",
    plc: PlcOption = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=500, help="How many.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """The last changes of alarms, newest first: what, when, whether somebody was told, and why."""
    answer = _ask(config, "history", count=count, rule=rule, plc=plc)
    if as_json:
        console.print_json(orjson.dumps(answer).decode())
        return
    if not answer:
        console.print("nothing has changed")
    for t in answer:
        where = "/".join(filter(None, (t["plc_id"] or t["site"], t["machine"], t["field"])))
        at = datetime.fromtimestamp(t["ts"] / 1_000).astimezone().isoformat(" ", "milliseconds")
        told = "told" if t["notify"] else "not told"
        text = f"{at} {t['rule']} {where} {t['from']} -> {t['to']} {told} ({t['reason']})"
        console.print(f"{text} {t['text']}", markup=False, soft_wrap=True)


def ack(
    rule: Annotated[str, typer.Argument(help="The rule's name; see `list`.")],
    plc: PlcOption = "",
    by: Annotated[str, typer.Option(help="Who takes care of it; default: the user.")] = "",
    config: ConfigOption = None,
) -> None:
    """Says that somebody takes care of what rings."""
    _print(_ask(config, "ack", rule=rule, plc=plc, who=by or getpass.getuser()))


def silence(
    rule: Annotated[str, typer.Argument(help="The rule's name.")],
    time: Annotated[str, typer.Option("--for", help="How long: 30m, 8h; 0s ends it.")],
    why: Annotated[str, typer.Option(help="The reason, for those who come later.")],
    plc: PlcOption = "",
    config: ConfigOption = None,
) -> None:
    """Tells nobody of a rule's alarms for a while; they still stand in `list`."""
    try:
        for_ms = round(units.duration_s(time) * 1_000)
    except ValueError as e:
        fail(f"--for: {e}", EXIT_USAGE)
    _print(_ask(config, "silence", rule=rule, plc=plc, for_ms=for_ms, why=why))


def _print(alarms: list[dict[str, Any]]) -> None:
    if not alarms:
        console.print("nothing rings")
    for a in alarms:
        where = "/".join(filter(None, (a["plc"] or a["site"], a["machine"], a["field"])))
        notes = [f"confirmado: {a['confirmado'][0]}"] if a["confirmado"] else []
        notes += [f"silenciado: {a['silenciado'][1]}"] if a["silenciado"] else []
        notes += ["sem_medida"] if a["sem_medida"] else []
        words = [a["severity"], a["rule"], where, a["state"], a["text"]]
        text = " ".join([*words, *(f"[{n}]" for n in notes)])
        console.print(text, markup=False, soft_wrap=True)


def _ask(config: Path | None, verb: str, **args: Any) -> Any:
    site = load_site(config)
    if not site.config.alerts.rules:
        fail("the configuration has no `alerts:` rules: no process evaluates any", EXIT_USAGE)
    runtime = Path(site.config.paths.runtime)
    if not topology.socket_path(runtime, "alarms").exists():
        fail(f"no alert engine runs in {runtime}: `plc-edge status` shows what does")
    bus = Bus(runtime)
    try:
        return Asker(bus, "alarms", "the alert engine", ANSWER_S)(verb, **args)
    finally:
        bus.close()


def run_rules(
    rules: Annotated[
        Path, typer.Argument(help="A configuration, or a file that holds `alerts:` or `rules:`.")
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Messages, one JSON a line; `-`: standard input.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Run rules over recorded messages and print what their alarms do.

    Each line is {"topic": …, "message": {…}} or {"now": Unix ms}, which lets time pass. Otherwise
    a message's time only passes for its own PLC.
    """
    alerts, site = loader.load_rules(rules)
    engine = make_engine(alerts, site)
    for transition in play(engine, data):
        if as_json:
            sys.stdout.buffer.write(orjson.dumps(transition.as_json()) + b"\n")
        else:
            sys.stdout.write(line(transition) + "\n")
    sys.stdout.flush()


def replay(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A file of `store export`, or of `alerts test`, instead."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs the configuration's rules over what the store still holds, and tells nobody.

    With `-c` another configuration than the running one can be tried. Heartbeats are not stored:
    rules that need them are left out.
    """
    site = load_site(config)
    if not site.config.alerts.rules:
        fail("the configuration has no `alerts:` rules", EXIT_USAGE)
    found = replayed(site, recorded(data) if data else stored(site))
    for t in found:
        sys.stdout.write(orjson.dumps(t.as_json()).decode() + "\n" if as_json else line(t) + "\n")
    sys.stdout.flush()
