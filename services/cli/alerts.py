"""``plc-edge alerts``: what rings, taking care of it, and running rules over recorded messages."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bus import topology
from bus.sockets import Bus
from services.alerts.core.engine import BadMessage, Engine
from services.alerts.core.rule import Rule
from services.alerts.core.transition import Transition
from services.cli.asker import Asker
from services.cli.common import (
    ConfigOption,
    JsonOption,
    console,
    error_console,
    fail,
    load_site,
)
from services.runtime import alert_model, alert_rules, loader, units
from services.runtime.alert_model import Alerts
from services.runtime.errors import EXIT_USAGE
from services.runtime.site import Site

PlcOption = Annotated[str, typer.Option("--plc", help="Only of this PLC.")]
ANSWER_S = 5.0
OWN_TOPICS = ("plc/", "edge/")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    alerts = typer.Typer(help="Alert rules.", no_args_is_help=True)
    alerts.command("test")(run_rules)
    alerts.command("list")(list_alarms)
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


def make_engine(alerts: Alerts, site: Site | None) -> Engine:
    """The engine of some rules; with a site, it knows what ought to speak."""
    units = alert_rules.units(site) if site is not None else {}
    engine = Engine(
        map(Rule.from_spec, alert_model.specs(alerts, units)),
        hold_ms=alert_rules.hold_ms(alerts),
        holds_ms=alert_rules.holds_ms(site) if site is not None else {},
        late_after_ms=round(alerts.late_after * 1_000),
    )
    if site is not None:
        engine.expect(alert_rules.roster(site))
    return engine


def play(engine: Engine, file: Path) -> Iterator[Transition]:
    """What happens, line by line. Ends the command at a line that says nothing."""
    newest_ms = 0
    ignored: set[str] = set()
    for number, content in _lines(file):
        if "now" in content:
            now_ms = content["now"]
            if isinstance(now_ms, bool) or not isinstance(now_ms, int | float):
                fail(f"{file}:{number}: `now` is no number of milliseconds", EXIT_USAGE)
            newest_ms = int(now_ms)
            yield from engine.tick(newest_ms)
            continue
        topic, message = content.get("topic"), content.get("message")
        if not isinstance(topic, str) or not (message is None or isinstance(message, dict)):
            hint = 'a line is {"topic": "plc/…", "message": {…}} or {"now": ms}'
            fail(f"{file}:{number}: {hint}", EXIT_USAGE)
        if not topic.startswith(OWN_TOPICS) and topic not in ignored:
            ignored.add(topic)
            error_console.print(f"warning: {file}:{number}: topic {topic} is not ours: ignored")
        ts = (message or {}).get("ts")
        if isinstance(ts, int | float) and message and message.get("replay") is not True:
            newest_ms = max(newest_ms, int(ts))
        try:
            yield from engine.message(topic, message, newest_ms)
        except BadMessage as e:
            fail(f"{file}:{number}: {e}", EXIT_USAGE)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        source = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as e:
        fail(f"{file}: cannot be read: {e.strerror}", EXIT_USAGE)
    with source:
        for number, raw in enumerate(source, 1):
            if not raw.strip():
                continue
            try:
                content = orjson.loads(raw)
            except ValueError as e:
                fail(f"{file}:{number}: not JSON: {e}", EXIT_USAGE)
            if not isinstance(content, dict):
                fail(f"{file}:{number}: is no JSON object", EXIT_USAGE)
            yield number, content


def line(t: Transition) -> str:
    """A transition for a person."""
    p = t.place
    where = "/".join(filter(None, (p.plc or p.site, p.machine, p.field)))
    told = "notify" if t.notify else "-"
    return f"{t.ts} {t.rule} {where} {t.from_state} -> {t.to_state} {told} ({t.reason}) {t.text}"
