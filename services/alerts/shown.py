"""An alarm as people and programs are shown it."""

from __future__ import annotations

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
