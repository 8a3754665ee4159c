"""What the engine says: one change of one alarm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OK, FIRING, COOLING = "ok", "disparando", "resfriando"


@dataclass(frozen=True, slots=True)
class Place:
    """What an alarm is about; empty where that does not apply."""

    locatario: str = ""
    site: str = ""
    plc: str = ""
    group: str = ""
    machine: str = ""
    field: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies it: a PLC stays itself where its box gets another name."""
        site = "" if self.plc else self.site
        return self.locatario, site, self.plc, self.group, self.machine, self.field


@dataclass(frozen=True, slots=True)
class Transition:
    """``ts`` is event time: when it became so, not when it was learnt. ``from_state`` and
    ``to_state`` are equal only where people are told later of what began unnoticed.
    """

    ts: int
    rule: str
    place: Place
    from_state: str
    to_state: str
    value: Any
    notify: bool
    reason: str
    number: int
    """Counts all transitions of an engine, for ever: an identity."""
    severity: str = "aviso"
    route: str = ""
    text: str = ""
    began: int | None = None
    """When the alarm that it begins, tells of or ends has begun; event time."""
    past: bool = False
    """Of what came behind its turn: the live state is another."""

    def as_json(self) -> dict[str, Any]:
        """The line that `plc-edge alerts test --json` prints."""
        p = self.place
        return {
            "ts": self.ts,
            "rule": self.rule,
            "plc_id": p.plc or None,
            "machine": p.machine or None,
            "field": p.field or None,
            "from": self.from_state,
            "to": self.to_state,
            "value": self.value,
            "notify": self.notify,
            "reason": self.reason,
            "locatario_id": p.locatario or None,
            "site": p.site or None,
            "group": p.group or None,
            "severity": self.severity,
            "route": self.route or None,
            "text": self.text,
            "began": self.began,
        }
