"""``plc-edge alerts``: runs rules over recorded messages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from services.alerts.core.engine import BadMessage, Engine
from services.alerts.core.rule import Rule
from services.alerts.core.transition import Transition
from services.cli.common import JsonOption, error_console, fail
from services.runtime import alert_model, alert_rules, loader
from services.runtime.alert_model import Alerts
from services.runtime.alert_rules import SLACK_S
from services.runtime.errors import EXIT_USAGE
from services.runtime.site import Site

OWN_TOPICS = ("plc/", "edge/")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    alerts = typer.Typer(help="Alert rules.", no_args_is_help=True)
    alerts.callback()(lambda: None)  # one verb alone would stand for the whole group
    alerts.command("test")(run_rules)
    app.add_typer(alerts, name="alerts")


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
        hold_ms=round((alerts.max_silence + SLACK_S) * 1_000),
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
