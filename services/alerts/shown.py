"""An alarm as people and programs are shown it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from services.alerts.core.watch import Watch


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
