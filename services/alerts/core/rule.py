"""Rules as the engine takes them: plain, checked, times in ms.

``Rule.from_spec`` reads what services/runtime/alert_model.py writes (and a rendered JSON holds).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from services.runtime.patterns import matches

DAY_MS = 86_400_000
# 1970-01-01 was a Thursday; days count from Monday.
_EPOCH_WEEKDAY = 3

HEARTBEAT = "heartbeat"
"""The group under which a PLC's heartbeat can be watched; only a rule that names it sees it."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which series a rule watches. ``None``: not said (as ``*``, but see Condition.scope)."""

    locatario: str | None = None
    site: str | None = None
    plc: str | None = None
    group: str | None = None
    machine: str | None = None
    field: str | None = None

    def covers_site(self, locatario: str, site: str) -> bool:
        """Whether a box is meant."""
        return matches(self.locatario or "*", locatario) and matches(self.site or "*", site)

    def covers_plc(self, locatario: str, site: str, plc: str) -> bool:
        """Whether a PLC is meant."""
        return self.covers_site(locatario, site) and matches(self.plc or "*", plc)

    def covers_stream(self, group: str, machine: str) -> bool:
        """Whether a group's record is meant, the PLC given."""
        if group == HEARTBEAT:
            return self.group == HEARTBEAT
        return matches(self.group or "*", group) and matches(self.machine or "*", machine)

    def covers_field(self, name: str) -> bool:
        """Whether a field is meant, the record given."""
        return matches(self.field or "*", name)


@dataclass(frozen=True, slots=True)
class Shift:
    """Hours in which a rule counts: days from Monday = 0, minutes of the local day."""

    days: frozenset[int]
    begin_min: int
    end_min: int
    """May lie at or before ``begin_min``: the shift then ends on the next day."""
    utc_offset_min: int = 0

    def due_ms(self, since_ms: int, for_ms: int) -> int | None:
        """The first moment at which ``for_ms`` have passed uninterrupted within one shift, counted
        from ``since_ms`` or the beginning of a shift; None where no shift is long enough.
        """
        local = since_ms + self.utc_offset_min * 60_000
        length = (self.end_min - self.begin_min) % 1440 or 1440
        if for_ms >= length * 60_000:
            return None
        first_day = local // DAY_MS - 1  # yesterday's may reach into today
        for day in range(first_day, first_day + 9):
            if (day + _EPOCH_WEEKDAY) % 7 not in self.days:
                continue
            begin = day * DAY_MS + self.begin_min * 60_000
            due = max(local, begin) + for_ms
            if due < begin + length * 60_000:
                return due - self.utc_offset_min * 60_000
        return None


@dataclass(frozen=True, slots=True)
class Condition:
    """One question to one series (or PLC, or box)."""

    kind: str
    """threshold | state_for | rate_change | percentage | absence."""
    where: Where = field(default_factory=Where)
    op: str = ""
    """above | below | outside | equal | unchanged; empty for absence."""
    limit: Any = None
    """A number; (low, high) of outside; a tuple of values of equal."""
    returns_at: Any = None
    for_ms: int = 0
    of: str = ""
    """absence: value | plc | heartbeat | box | link. percentage: value | mean | field | samples |
    increase."""
    per_ms: int = 0
    window_ms: int = 0
    counter: str = ""
    """Empty: a plain value. Else a key of ``measured.COUNTER_BITS``, or ``any``: a fall is a
    restart at 0.
    """
    reference: Any = None
    """percentage: the value of ``value``, the other field of ``field`` and ``increase``,
    (op, limit) of ``samples``."""

    @property
    def scope(self) -> str:
        """What one instance of it belongs to: site | plc | stream | field."""
        if self.kind != "absence":
            return "field"
        if self.of in ("box", "link"):
            return "site"
        if self.of in ("plc", "heartbeat"):
            return "plc"
        return "stream" if self.where.field is None else "field"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. With ``mode`` one, its single condition carries ``for_ms`` and ``where``."""

    name: str
    conditions: tuple[Condition, ...]
    where: Where = field(default_factory=Where)
    mode: str = "one"
    """one | all | any."""
    for_ms: int = 0
    cooldown_ms: int = 0
    severity: str = "aviso"
    route: str = ""
    unit: str = ""
    message: str = ""
    shift: Shift | None = None
    digest: str = ""
    """Changes when the rule changes: what was known under another one is not believed."""

    def due_ms(self, since_ms: int, for_ms: int) -> int | None:
        """When something that holds since then has held for long enough."""
        if self.shift is None:
            return since_ms + for_ms
        return self.shift.due_ms(since_ms, for_ms)

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Rule:
        """A rule from plain data. Raises KeyError or TypeError for what nothing of ours made."""
        text = json.dumps(spec, sort_keys=True, ensure_ascii=False)
        known = dict(spec)
        where = Where(**known.pop("where", {}))
        shift = known.pop("shift", None)
        conditions = tuple(_condition(c) for c in known.pop("conditions"))
        return cls(
            **known,
            where=where,
            conditions=conditions,
            shift=Shift(**{**shift, "days": frozenset(shift["days"])}) if shift else None,
            digest=hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        )


def _condition(spec: dict[str, Any]) -> Condition:
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
    known["where"] = Where(**spec.get("where", {}))
    return Condition(**known)
