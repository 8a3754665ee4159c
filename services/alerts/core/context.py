"""What the alarms of one engine share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from services.alerts.core.leaf import Alarm, Leaf
from services.alerts.core.transition import Transition


@dataclass(slots=True)
class Context:
    """What all watches of an engine share while one message or tick is worked on."""

    late_after_ms: int
    now_ms: int = 0
    number: int = 0
    """Of the last transition."""
    mode: str = "live"
    """live | late | replay | tick."""
    out: list[Transition] = field(default_factory=list)
    waiting: dict[Alarm, None] = field(default_factory=dict)
    """Those that time alone can change."""

    @property
    def is_history(self) -> bool:
        """What is told belongs to the past."""
        return self.mode in ("late", "replay")

    def said(self) -> list[Transition]:
        """What has been said since, in order; forgets it."""
        out, self.out = self.out, []
        return sorted(out, key=lambda t: (t.ts, t.rule, t.place.key, t.number))


@dataclass(slots=True)
class Box:
    """One edge box, as far as it is known."""

    locatario: str
    name: str
    heard_ms: int = 0
    """Event time of the newest live word of it."""
    is_down: bool = False
    """The broker says that its connection is gone."""
    watches: dict[str, Any] = field(default_factory=dict)
    """Alarms of the box itself (services/alerts/core/watch.py), by rule."""
    signs: list[tuple[str, Leaf]] = field(default_factory=list)
    """(box | link, leaf) of all conditions on it."""

    def has_alarm(self, of: str) -> bool:
        """Whether somebody is told of its silence, or of its dead link."""
        return any(name == of and leaf.watch.plc is None for name, leaf in self.signs)
