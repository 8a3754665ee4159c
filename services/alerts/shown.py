"""An alarm as people and programs are shown it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from services.alerts.core.transition import FIRING
from services.alerts.core.watch import Watch

# The most urgent first.
SEVERITIES = ("critica", "aviso", "informacao")


def urgency(watch: Watch) -> tuple[Any, ...]:
    """Sorts: what rings, of the worst severity, that nobody takes care of, the newest first."""
    return (
        watch.state != FIRING,
        SEVERITIES.index(watch.rule.severity),
        watch.acknowledged is not None,
        -watch.since,
        watch.rule.name,
        watch.place.key,
    )


def shown(watch: Watch, now_ms: int) -> dict[str, Any]:
    """Plain data."""
    silenced = watch.silenced if watch.silenced and watch.silenced[0] > now_ms else None
    return {
        "rule": watch.rule.name,
        "severity": watch.rule.severity,
        **{k: v or None for k, v in asdict(watch.place).items()},
        "state": watch.state,
        "since": watch.since,
        "value": watch.value(),
        "text": watch.text(),
        "confirmado": watch.acknowledged,
        "silenciado": silenced,
        "sem_medida": watch.is_unmeasured(now_ms),
    }


def rang(
    transitions: Iterable[dict[str, Any]], ringing: Iterable[Watch], begin_ms: int, end_ms: int
) -> list[dict[str, Any]]:
    """Transitions (as kept, oldest first) and what rings now, as alarms with ``begin`` and ``end``
    (Unix ms; None: rings still) that touch a range, by their beginning.
    """
    found: list[dict[str, Any]] = []
    open_: dict[tuple[str, ...], dict[str, Any]] = {}
    for t in transitions:
        key = tuple(t[k] or "" for k in ("rule", *_TRANSITION_PLACE))
        if t["to"] == FIRING:
            began = t["ts"] if t["began"] is None else t["began"]
            if key not in open_:
                found.append(_span(t, began))
                open_[key] = found[-1]
        elif t["from"] == FIRING:
            alarm = open_.pop(key, None)
            if alarm is None and t["began"] is not None:
                found.append(alarm := _span(t, t["began"]))
            if alarm is not None:
                alarm["end"] = t["ts"]
    for watch in ringing:
        p = watch.place
        place = (p.locatario, p.site, p.plc, p.group, p.machine, p.field)
        if open_.pop((watch.rule.name, *place), None) is None:
            as_said = dict(zip(_TRANSITION_PLACE, place, strict=True))
            said = {"rule": watch.rule.name, **as_said, "severity": watch.rule.severity}
            found.append(_span({**said, "text": watch.text()}, watch.since))
    for alarm in open_.values():
        # Its end is not known: the history was cut, or begun anew.
        alarm["end"] = alarm["begin"]
    touching = [a for a in found if a["begin"] <= end_ms and (a["end"] or end_ms) >= begin_ms]
    return sorted(touching, key=lambda a: (a["begin"], a["rule"]))


_TRANSITION_PLACE = ("locatario_id", "site", "plc_id", "group", "machine", "field")


def _span(t: dict[str, Any], begin: int) -> dict[str, Any]:
    place = {k.removesuffix("_id"): t[k] or None for k in _TRANSITION_PLACE}
    said = {k: t[k] for k in ("rule", "severity", "text")}
    return {**said, **place, "begin": begin, "end": None}
