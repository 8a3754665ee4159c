"""Rules over messages that are there already: recorded ones, and what the store still holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from services.alerts.core.engine import BadMessage, Engine
from services.alerts.core.rule import HEARTBEAT, Rule
from services.alerts.core.transition import Transition
from services.cli.common import error_console, fail
from services.cli.store import asker
from services.runtime import alert_model, alert_rules
from services.runtime.alert_model import Alerts
from services.runtime.consumers import ALERTS
from services.runtime.errors import EXIT_USAGE
from services.runtime.site import Site

OWN_TOPICS = ("plc/", "edge/")
TICK_MS = 1_000
# A pause in the recording is gone through in so many steps, however long it was.
TICKS_MAX = 600


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
    for number, content in lines(file):
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


def lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, JSON object) of each line; ends the command at one that is none."""
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


# --- what is held ----------------------------------------------------------------------------


def stored(site: Site) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, message) of everything that the store still holds, in its order."""
    with asker(site) as ask:
        if ALERTS not in ask("status")["outputs"]:
            fail("the running store knows no alerts: `plc-edge apply` the rules first")
        after = 0
        while page := ask("rows", output=ALERTS, after=after, all=True):
            after = page[-1][0]
            yield from ((f"row {position}", orjson.loads(body)) for position, body in page)


def recorded(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of a file: of `store export`, or of `alerts test`."""
    yield from ((f"{file}:{number}", content) for number, content in lines(file))


def replayed(site: Site, messages: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Transition]:
    """What the rules would have said of them as they came in. Ends the command at one that says
    nothing.
    """
    alerts = site.config.alerts
    blind = {rule.name for rule in map(Rule.from_spec, alert_model.specs(alerts)) if _hears(rule)}
    if blind:
        names = ", ".join(sorted(blind))
        error_console.print(f"left out, heartbeats are not stored: {names}", markup=False)
    kept = alerts.model_copy(update={"rules": [r for r in alerts.rules if r.name not in blind]})
    engine = make_engine(kept, site)
    now_ms, count = 0, 0
    for where, content in messages:
        topic, message = content.get("topic"), content.get("message", content)
        if "now" in content:
            message = {"ts": content["now"]}
        elif topic is None:
            kind = "/gap" if "first_seq" in content else ""
            topic = f"plc/{content.get('locatario_id')}/{content.get('plc_id')}{kind}"
        ts = message.get("ts") if isinstance(message, dict) else None
        if isinstance(ts, int | float) and message.get("replay") is not True and ts > now_ms:
            yield from _pass(engine, site, now_ms or int(ts), int(ts))
            now_ms = int(ts)
        if topic is not None:
            try:
                yield from engine.message(topic, message, now_ms)
            except BadMessage as e:
                fail(f"{where}: {e}", EXIT_USAGE)
            count += 1
    error_console.print(f"{count} messages; nobody was told")


def _hears(rule: Rule) -> bool:
    """Whether it depends on heartbeats."""
    return any(c.of == HEARTBEAT or c.where.group == HEARTBEAT for c in rule.conditions)


def _pass(engine: Engine, site: Site, begin_ms: int, end_ms: int) -> Iterator[Transition]:
    """Time, second by second, as it passes at the box: which lives meanwhile."""
    step_ms = max(TICK_MS, (end_ms - begin_ms) // TICKS_MAX)
    for now_ms in (*range(begin_ms + step_ms, end_ms, step_ms), end_ms):
        for tenant in site.config.tenants():
            topic = f"edge/{tenant}/{site.config.site}/status"
            yield from engine.message(topic, {"status": "online", "ts": now_ms}, now_ms)
        yield from engine.tick(now_ms)
