"""The arithmetic of plans. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A tenant is told before it is refused.
WARNING_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class GroupPoints:
    """What one group of one PLC sends at most: every field, at every scan.

    `on_change` sends less, but nobody knows how much less before the plant runs.
    """

    plc: str
    group: str
    fields: int
    scan_ms: int

    @property
    def per_min(self) -> int:
        """Points a minute; one point is one value of one field."""
        return -(-self.fields * 60_000 // self.scan_ms)

    def __str__(self) -> str:
        return f"{self.plc}/{self.group}: {self.fields} fields every {self.scan_ms} ms"


def groups(rows: Sequence[Mapping[str, Any]]) -> list[GroupPoints]:
    """Of the rows that the box's check prints (services/runtime/estimate.py)."""
    return [GroupPoints(r["plc"], r["group"], r["fields"], r["scan_ms"]) for r in rows]


def arithmetic(groups: Sequence[GroupPoints], others: Mapping[str, int]) -> str:
    """How the sum comes about, in one line; ``others``: points a minute of the other boxes."""
    parts = [f"{g} = {g.per_min}" for g in groups]
    parts += [f"box {site} = {points}" for site, points in others.items() if points]
    return "; ".join(parts)


def state(used: int, limit: int) -> str:
    """``ok``, ``warning`` from 80 % on, ``exceeded`` beyond the limit."""
    if used > limit:
        return "exceeded"
    return "warning" if used >= WARNING_SHARE * limit else "ok"
