"""A tenant's ``alerts:``, made of its rules, receivers and routes: the same models as a box's
config.yaml, held against the newest configurations of its boxes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any
from urllib.parse import urlsplit

import orjson
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.control_plane.tables import AlertPart, BoxConfig, Device, Site
from services.runtime import alert_model, alert_rules, alert_series
from services.runtime.addresses import is_public
from services.runtime.alert_layouts import Layouts, Mistake
from services.runtime.alert_model import Alerts
from services.runtime.alert_series import Series
from services.runtime.document import Document, KeyPath, dotted, undotted
from services.runtime.judged import Unknown
from services.runtime.validate import validate

RULE, RECEIVER, ROUTE = "rule", "receiver", "route"
# Of a receiver: sealed, and never shown again. The path of an address may be a password.
SECRET_KEYS = ("password", "secret", "url")
# They would name files and accounts of the centre's own machine.
_OF_A_BOX = ("ca", "password_file", "secret_file", "output", "accounts")
# A document of one part; and what is wrong in it is told so far.
MAX_CHARACTERS, MAX_PROBLEMS = 65_536, 50
# PostgreSQL holds no NUL, and half of a surrogate pair is no text.
_UNSTORABLE = re.compile(r"\\u0000|\\ud[89a-f]", re.IGNORECASE)

Spec = dict[str, Any]
Wrong = list[dict[str, str]]


@dataclass(slots=True)
class Judged:
    """What is said of some rules, a receiver or a route."""

    problems: Wrong = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    alerts: Alerts | None = None


def parts(session: Session, kind: str) -> list[AlertPart]:
    """All of a kind, within the session's tenant."""
    query = select(AlertPart).where(AlertPart.kind == kind).order_by(AlertPart.name)
    return list(session.scalars(query))


def named(rows: Iterable[AlertPart]) -> list[Spec]:
    """As the lists of config.yaml have them."""
    return [{**row.spec, "name": row.name} for row in rows]


def routes(rows: Iterable[AlertPart]) -> Spec:
    """As config.yaml has them."""
    return {row.name: row.spec for row in rows}


def told(route: Spec) -> list[str]:
    """The receivers that a route names."""
    later = [name for step in route.get("escalate", []) for name in step["to"]]
    return [*route["receivers"], *later]


def series(session: Session) -> dict[str, list[Series]]:
    """By box: what its newest configuration says of its series."""
    newest = (
        select(BoxConfig.site_id, func.max(BoxConfig.version).label("version"))
        .group_by(BoxConfig.site_id)
        .subquery()
    )
    query = select(BoxConfig.site_id, BoxConfig.check).join(
        newest, (BoxConfig.site_id == newest.c.site_id) & (BoxConfig.version == newest.c.version)
    )
    return {
        site: alert_series.unpack(check.get("series", []))
        for site, check in session.execute(query).tuples()
    }


def unstorable(spec: Any) -> str:
    """Why it cannot be kept at all; "" where it can."""
    try:
        orjson.dumps(spec)  # as it is handed to the engine
        text = json.dumps(spec, allow_nan=False)
    except (TypeError, ValueError):
        return "holds a number of more than 64 bits, what is no text, or is nested too deeply"
    if len(text) > MAX_CHARACTERS:
        return f"is longer than {MAX_CHARACTERS} characters"
    return "holds a NUL or half of a surrogate pair" if _UNSTORABLE.search(text) else ""


def judge_rules(session: Session, tenant: str, specs: list[Spec]) -> Judged:
    """Rules, beside the receivers and routes that there are; keys are those of ``specs``."""
    data = {
        "rules": specs,
        "receivers": named(parts(session, RECEIVER)),
        "routes": routes(parts(session, ROUTE)),
    }
    judged = _judge(data, ("rules",))
    if judged.alerts is None or judged.problems:
        return judged
    try:
        orjson.dumps(alert_model.specs(judged.alerts))
    except (ArithmeticError, TypeError, ValueError):
        judged.problems = [{"key": "", "message": "holds a time that is too long", "hint": ""}]
        return judged
    boxes = series(session)
    known = list(chain(*boxes.values()))
    sites = list(session.scalars(select(Site.id).order_by(Site.id)))
    layouts = alert_series.layouts(tenant, sites, known)
    mistakes = _first(judged.alerts, layouts)
    found = [_problem(m, ("rules",)) for m in mistakes]
    # Whatever is known of the plant: no rule reaches into another tenant's.
    foreign = [_problem(m, ("rules",)) for m in mistakes if m.path[-1] == "locatario"]
    devices = set(session.scalars(select(Device.id)))
    unknown = sorted(devices - {s.plc for s in known})
    if (devices and not unknown) or foreign:
        judged.problems = foreign or found
    elif found:
        # Nobody here knows their fields: they may be the very ones that are meant.
        shown = ", ".join(unknown[:10]) or "any PLC"
        judged.warnings = [f"there is no configuration here of {shown}"]
        judged.warnings += [" ".join(filter(None, (p["key"], p["message"]))) for p in found]
    return judged


def _first(alerts: Alerts, layouts: Layouts) -> list[Mistake]:
    return list(islice(alert_rules.check_layouts(alerts, layouts), MAX_PROBLEMS))


def judge_receiver(name: str, spec: Spec, *, any_address: bool) -> Judged:
    """One receiver. Without ``any_address`` no address of a private network; what a name stands for
    is looked at when it is told.
    """
    judged = _judge({"receivers": [{**spec, "name": name}]}, ("receivers", 0))
    for key in _OF_A_BOX:
        if key in spec:
            hint = "leave it out; secrets are given themselves"
            message = "would name something of the centre's own machine"
            judged.problems.append({"key": key, "message": message, "hint": hint})
    for key, host in (("url", _host(spec.get("url"))), ("host", spec.get("host"))):
        if not any_address and isinstance(host, str) and not _may_be_public(host):
            message = f"{host} is no public address"
            hint = "only where central.yaml says `alert_receivers: any`"
            judged.problems.append({"key": key, "message": message, "hint": hint})
    if isinstance(spec.get("url"), str) and "…" in spec["url"]:
        message = "is what is shown of one that is kept"
        judged.problems.append({"key": "url", "message": message, "hint": "give the whole address"})
    return judged


def _host(url: Any) -> str | None:
    try:
        return urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None


def _may_be_public(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:
        return host != "localhost"


def judge_route(session: Session, name: str, spec: Spec) -> Judged:
    """One route, beside the receivers that there are."""
    receivers = named(parts(session, RECEIVER))
    data = {"receivers": receivers, "routes": {name: spec}}
    return _judge(data, ("routes", name))


def _judge(data: Spec, below: KeyPath) -> Judged:
    """As `plc-edge check`, of a file that only holds ``alerts:``; what lies ``below`` a key."""
    alerts, wrong = validate(Document("", data), Alerts)
    problems = [
        {"key": _below(undotted(p.key), below), "message": p.message, "hint": p.hint} for p in wrong
    ]
    try:
        for mistake in alert_rules.check_alone(alerts):
            if mistake.path[: len(below)] == below:
                problems.append(_problem(mistake, below))
    except Unknown:
        pass
    return Judged(problems[:MAX_PROBLEMS], [], alerts)


def _problem(mistake: Mistake, below: KeyPath) -> dict[str, str]:
    return {
        "key": _below(mistake.path, below),
        "message": mistake.message,
        "hint": mistake.hint,
    }


def _below(path: KeyPath, below: KeyPath) -> str:
    return dotted(path[len(below) :] if path[: len(below)] == below else path)


def without_secrets(spec: Spec) -> tuple[Spec, dict[str, str]]:
    """What of a receiver may be shown, and the rest."""
    hidden = {k: spec[k] for k in SECRET_KEYS if spec.get(k) is not None}
    shown = {k: v for k, v in spec.items() if k not in SECRET_KEYS}
    if "url" in hidden:
        url = urlsplit(hidden["url"])
        shown["url"] = f"{url.scheme}://{url.hostname}/…"
    return shown, hidden
