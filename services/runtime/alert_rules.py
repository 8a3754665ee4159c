"""What one key of an alert rule alone cannot tell: what contradicts itself, or the layouts."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from services.runtime.alert_layouts import Layouts, Mistake, near, spelt
from services.runtime.alert_model import (
    OPERATORS,
    AlertAbsence,
    AlertOperators,
    AlertPercentage,
    Alerts,
    AlertSeveralRule,
    AlertStateFor,
    AlertWhere,
    joined,
)
from services.runtime.alert_routes import AlertMqtt
from services.runtime.config import MqttOutput
from services.runtime.document import KeyPath
from services.runtime.errors import Problem
from services.runtime.judged import Unknown
from services.runtime.patterns import matches
from services.runtime.site import Site
from services.s7.field import Field

WORDS = (
    "rule", "value", "unit", "plc", "machine", "field", "group", "site", "locatario", "severity",
)  # fmt: skip
"""What a message template may name."""
# How long a value counts as held behind its `max_silence`: a slow scan, a slow line.
SLACK_S = 5.0


def hold_ms(alerts: Alerts) -> int:
    """How long a value counts as held where its group is not configured here."""
    return round((alerts.max_silence + SLACK_S) * 1_000)


def holds_ms(site: Site) -> dict[tuple[str, str], int]:
    """How long a value counts as held, by (PLC, group)."""
    return {
        (plc.id, g.name): round((g.max_silence + g.scan + SLACK_S) * 1_000)
        for plc in site.config.plcs
        for g in plc.groups
    }


def roster(site: Site) -> Iterator[tuple[str, str, str, list[tuple[str, str, list[str]]]]]:
    """(tenant, box, PLC, its (group, machine, fields)): what ought to speak."""
    for plc in site.config.plcs:
        streams = [
            (g.name, machine or "", [f.name for f in site.fields[plc.id, g.name]])
            for g in plc.groups
            for machine, _ in g.records()
        ]
        yield site.config.tenant(plc), site.config.site, plc.id, streams


def check(site: Site) -> Iterator[Problem]:
    """Every mistake, in itself and against the site's layouts and outputs."""
    alerts = site.config.alerts
    for mistake in chain(check_alone(alerts), _check_boards(site), _check_layouts(site)):
        yield site.problem(("alerts", *mistake.path), mistake.message, mistake.hint)


def _check_boards(site: Site) -> Iterator[Mistake]:
    """MQTT receivers speak to an output's broker, with accounts that nobody else uses."""
    outputs = {o.name: o for o in site.config.outputs if isinstance(o, MqttOutput)}
    used = {name for o in outputs.values() for name, _ in _usernames(site, o)}
    for i, board in _known(site.config.alerts.receivers):
        if not isinstance(board, AlertMqtt):
            continue
        at: KeyPath = ("receivers", i)
        with suppress(Unknown):
            output = outputs.get(board.output)
            if output is None:
                hint = near(board.output, outputs) or "add the output, or name one of type mqtt"
                message = f"no MQTT output is named {board.output!r}"
                yield Mistake((*at, "output"), message, hint)
                continue
            theirs = {tenant: username for username, tenant in _usernames(site, output)}
            for username, tenant in _usernames(site, board):
                if username is None and theirs[tenant] is not None:
                    message = f"has no account for {tenant}, and {board.output!r} needs one"
                    hint = "give `username:` and `password_file:`, or `accounts:` per tenant"
                    yield Mistake((*at, "username"), message, hint)
                elif username is not None and username in used:
                    message = f"account {username!r} is another connection's"
                    hint = "give it its own: one account is one connection"
                    yield Mistake((*at, "username"), message, hint)
                used.add(username)


def _usernames(site: Site, holder: AlertMqtt | MqttOutput) -> Iterator[tuple[str | None, str]]:
    """(account, tenant) of each connection."""
    for tenant in site.config.tenants():
        yield (holder.accounts.get(tenant) or holder).username, tenant


def _check_layouts(site: Site) -> Iterator[Mistake]:
    if site.config.alerts.rules:
        yield from check_layouts(site.config.alerts, Layouts.of(site))


def check_layouts(alerts: Alerts, layout: Layouts) -> Iterator[Mistake]:
    """What the rules name and nothing has, and what does not fit what they name."""
    for at, rule in _known_rules(alerts):
        if isinstance(rule, AlertSeveralRule):
            for k, condition in _known(rule.of):
                with suppress(Unknown):
                    where = joined(condition, rule.where)
                    yield from layout.check(condition, where, (*at, "of", k), rule.unit)
        else:
            with suppress(Unknown):
                yield from layout.check(rule, rule.where, at, rule.unit)


def _known_rules(alerts: Alerts) -> Iterator[tuple[KeyPath, Any]]:
    yield from ((("rules", i), rule) for i, rule in _known(alerts.rules))


def _known(items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """Rules or conditions, without those whose type nobody knows."""
    for i, item in enumerate(items):
        if "type" in type(item).model_fields:
            yield i, item


# --- a rule alone ----------------------------------------------------------------------------


def check_alone(alerts: Alerts) -> Iterator[Mistake]:
    """What is wrong whatever the layouts are."""
    names = [getattr(rule, "name", None) for rule in alerts.rules]
    for name, times in Counter(n for n in names if n is not None).items():
        if times > 1:
            last = len(names) - 1 - names[::-1].index(name)
            yield Mistake(("rules", last, "name"), f"{name!r} stands {times} times", "rename one")
    with suppress(Unknown):
        yield from _routes(alerts)
    for at, rule in _known_rules(alerts):
        with suppress(Unknown):
            yield from _message(rule.message, at)
        with suppress(Unknown):
            yield from _hours(rule, at)
        with suppress(Unknown):
            if not isinstance(rule, AlertSeveralRule):
                yield from _condition(rule, rule.where, at)
                continue
            for k, condition in _known(rule.of):
                with suppress(Unknown):
                    yield from _member(condition, rule.where, (*at, "of", k))


def _routes(alerts: Alerts) -> Iterator[Mistake]:
    receivers = [r.name for r in alerts.receivers]
    for name, times in Counter(receivers).items():
        if times > 1:
            last = len(receivers) - 1 - receivers[::-1].index(name)
            path: KeyPath = ("receivers", last, "name")
            yield Mistake(path, f"{name!r} stands {times} times", "rename one")
    boards = [r.name for r in alerts.receivers if isinstance(r, AlertMqtt)]
    for name, route in alerts.routes.items():
        with suppress(Unknown):
            at: KeyPath = ("routes", name)
            yield from _receivers((*at, "receivers"), route.receivers, receivers)
            before_s = 0.0
            for i, step in enumerate(route.escalate):
                yield from _receivers((*at, "escalate", i, "to"), step.to, receivers, boards)
                if step.after <= before_s:
                    hint = "write the steps in order of time"
                    path = (*at, "escalate", i, "after")
                    yield Mistake(path, "is not later than the step before", hint)
                before_s = step.after
    known = [*alerts.routes, *receivers]
    for at, rule in _known_rules(alerts):
        with suppress(Unknown):
            if rule.route is not None and receivers and rule.route not in known:
                hint = near(rule.route, known) or f"one of: {', '.join(known[:10])}"
                yield Mistake((*at, "route"), f"no route is named {rule.route!r}", hint)


def _receivers(
    at: KeyPath, names: Iterable[str], known: list[str], boards: Iterable[str] = ()
) -> Iterator[Mistake]:
    for i, name in enumerate(names):
        if name not in known:
            hint = near(name, known) or "add it to `receivers:`"
            yield Mistake((*at, i), f"no receiver is named {name!r}", hint)
        elif name in boards:
            message = f"{name!r} shows the state, it is nobody who can be told"
            yield Mistake((*at, i), message, "name a webhook or an e-mail receiver")


def _hours(rule: Any, at: KeyPath) -> Iterator[Mistake]:
    if rule.during is not None:
        length_s = ((rule.during.end - rule.during.begin) % 1440 or 1440) * 60
        if rule.for_s >= length_s:
            message = "is not shorter than the hours in `during`: it would never fire"
            yield Mistake((*at, "for"), message, "shorten it, or widen `during`")


def _message(text: str | None, at: KeyPath) -> Iterator[Mistake]:
    try:
        parts = list(string.Formatter().parse(text or ""))
    except ValueError as e:
        yield Mistake((*at, "message"), f"is no template: {e}", "write {{ and }} for braces")
        return
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in WORDS:
            hint = f"known words: {', '.join(WORDS)}"
            yield Mistake((*at, "message"), f"knows no {{{name}}}", near(name, WORDS) or hint)
        elif form or conversion:
            yield Mistake((*at, "message"), f"{{{name}}} takes no format", f"write {{{name}}}")


def _member(condition: Any, outer: AlertWhere, at: KeyPath) -> Iterator[Mistake]:
    for key in ("tenant", "site", "plc"):
        if getattr(condition.where, key) is not None:
            message = "all conditions of a rule look at the same PLC"
            path = (*at, "where", spelt(key))
            yield Mistake(path, message, "say it in the rule's own `where:`")
    where = joined(condition, outer)
    if where.field is not None and "*" in where.field:
        message = "must be one field here, without `*`"
        yield Mistake((*at, "where", "field"), message, "write one condition for each field")
    yield from _condition(condition, where, at)


def _condition(c: Any, where: AlertWhere, at: KeyPath) -> Iterator[Mistake]:
    if isinstance(c, AlertAbsence):
        allowed = {
            "box": ("locatario", "site"),
            "link": ("locatario", "site"),
            "plc": ("locatario", "site", "plc"),
            "heartbeat": ("locatario", "site", "plc"),
        }.get(c.what(where))
        for key in map(spelt, c.where.model_fields_set if allowed else ()):
            if allowed and key not in allowed:
                message = f"means nothing where `of` is {c.of}"
                yield Mistake(
                    (*at, "where", key), message, f"remove it; allowed: {', '.join(allowed)}"
                )
        return
    if where.field is None:
        message = "names no field"
        yield Mistake((*at, "where"), message, 'add `field:`; `"*"` means every field')
    if isinstance(c, AlertStateFor):
        return
    yield from _limits(c, at)
    if isinstance(c, AlertPercentage):
        yield from _reference(c, (*at, "of"))


def _one_operator(c: AlertOperators, at: KeyPath) -> Iterator[Mistake]:
    given = [name for name in OPERATORS if getattr(c, name) is not None]
    if not given:
        hint = "add `above:`, `below:`, `outside: [low, high]` or `equal:`"
        yield Mistake(at, "says no limit", hint)
    elif len(given) > 1:
        yield Mistake((*at, given[1]), f"stands beside `{given[0]}`", "write one rule for each")
    if c.outside is not None and c.outside[0] >= c.outside[1]:
        yield Mistake((*at, "outside"), "is not [low, high]", "write the lower one first")


def _limits(c: Any, at: KeyPath) -> Iterator[Mistake]:
    yield from _one_operator(c, at)
    op, limit = c.operator()
    back = c.returns_at
    if back is None or not op:
        return
    key = (*at, "returns_at")
    if op == "equal":
        yield Mistake(key, "means nothing beside `equal`", "remove it")
    elif isinstance(back, tuple) != (op == "outside"):
        form = "[low, high]" if op == "outside" else "one number"
        yield Mistake(key, f"is {form} beside `{op}`", f"write {form}")
    elif op == "above" and back > limit:
        yield Mistake(key, f"lies on the wrong side of `above`: {limit:g}", "give a lower value")
    elif op == "below" and back < limit:
        yield Mistake(key, f"lies on the wrong side of `below`: {limit:g}", "give a higher value")
    elif op == "outside" and not limit[0] <= back[0] <= back[1] <= limit[1]:
        yield Mistake(key, "does not lie within `outside`", "give a narrower [low, high]")


def _reference(c: AlertPercentage, at: KeyPath) -> Iterator[Mistake]:
    kinds = ("value", "mean", "field", "samples", "increase")
    given = [k for k in kinds if getattr(c.of, k) is not None]
    if len(given) != 1:
        message = "says not of what" if not given else f"says both `{given[0]}` and `{given[1]}`"
        yield Mistake(at, message, f"give one of: {', '.join(kinds)}")
        return
    if given[0] == "value" and c.of.value == 0:
        yield Mistake((*at, "value"), "is 0: nothing is a percentage of it", "use `threshold`")
    if given[0] == "samples":
        yield from _one_operator(c.of, at)
    elif op := c.of.operator()[0]:
        yield Mistake((*at, op), "only goes with `samples`", "move it beside `of:`")
    if (given[0] == "increase") != (c.of.with_field is not None):
        yield Mistake(at, "`increase` and `with` go together", "give the other counter as `with:`")


def units(site: Site) -> dict[str, str]:
    """By rule: the unit that all its fields share."""
    groups = [(plc, group, fields) for (plc, group), fields in site.fields.items()]
    return shared_units(site.config.alerts, groups)


def shared_units(
    alerts: Alerts, groups: Sequence[tuple[str, str, Sequence[Field]]]
) -> dict[str, str]:
    """The same of (PLC, group, its fields)."""
    found: dict[str, str] = {}
    for rule in alerts.rules:
        pattern = rule.where.field
        if isinstance(rule, AlertSeveralRule) or pattern is None:
            continue
        mine = {
            f.unit
            for plc, group, fields in groups
            if matches(rule.where.plc or "*", plc) and matches(rule.where.group or "*", group)
            for f in fields
            if matches(pattern, f.name)
        }
        if len(mine) == 1:
            found[rule.name] = mine.pop()
    return found
