"""The arithmetic of plans. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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


def share(limit: int, own: int, others: Iterable[int]) -> int:
    """What one box may send in a minute: the plan's number, less what the configurations of the
    tenant's other boxes may send, so that they never meet above it. Never less than its own
    configuration may send (``own``), which passed the check: a tenant above a plan whose number was
    lowered keeps what it has. At least 1.
    """
    return max(1, own, limit - sum(others))


def state(used: int, limit: int) -> str:
    """``ok``, ``warning`` from 80 % on, ``exceeded`` beyond the limit."""
    if used > limit:
        return "exceeded"
    return "warning" if used >= WARNING_SHARE * limit else "ok"


# -- the meter's judgement, a minute at a time ---------------------------------------------------

# A plan is a number of points in any one minute. Who passes BLOCK_FACTOR times that in each of
# BLOCK_MINUTES minutes in a row may not publish until the next window: the next full hour, UTC.
WINDOW_S = 3_600
BLOCK_FACTOR, BLOCK_MINUTES = 2, 5
# A value that comes so long after it was read is late: it waited for a line, a broker or us.
LATE_S = 120
# What a tenant left unused is kept for what comes late, for as long as a box keeps rows by default.
CREDIT_MINUTES = 14 * 24 * 60


@dataclass(frozen=True, slots=True)
class Minute:
    """What came of a tenant in one minute. ``load`` is its points, and one for each message that
    has none: a message without a value costs as much as one with.
    """

    start_s: int
    load: int = 0
    late: int = 0
    """Of those, what was late."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands; times in Unix s, 0: never."""

    over_minutes: int = 0
    """Minutes in a row beyond BLOCK_FACTOR times its plan."""
    credit: int = 0
    """Points that it left unused: late ones may use them."""
    warned_s: int = 0
    """The window in which it was last told that it comes near its plan."""
    exceeded_s: int = 0
    """The same of passing it."""
    withdrawn_until_s: int = 0
    """Until when it may not publish."""


def window(at_s: int) -> int:
    """When the window began that a moment lies in."""
    return at_s // WINDOW_S * WINDOW_S


def idle(before: Standing, minutes: int, limit: int) -> Standing:
    """After so many minutes in which nothing came."""
    if minutes <= 0:
        return before
    credit = min(CREDIT_MINUTES * limit, before.credit + minutes * limit)
    return replace(before, over_minutes=0, credit=credit)


def judge(before: Standing, minute: Minute, limit: int) -> tuple[Standing, list[str]]:
    """How a tenant stands after one minute, and what there is to say: ``warning`` and ``exceeded``
    (once a window), ``withdrawn``.

    What is late does not count as far as the tenant has left as much unused before: a box that was
    cut off for a day sends a day's values in minutes, and breaks no promise. Beyond that it counts
    like all else, so that nobody can send what he likes with an old date.
    """
    excused = min(minute.late, before.credit)
    load = minute.load - excused
    unused = max(0, limit - load)
    credit = min(CREDIT_MINUTES * limit, before.credit - excused + unused)
    over = before.over_minutes + 1 if load > BLOCK_FACTOR * limit else 0
    after = replace(before, credit=credit, over_minutes=over)
    now = window(minute.start_s)
    said = []
    if load >= WARNING_SHARE * limit and before.warned_s != now:
        after = replace(after, warned_s=now)
        said.append("warning")
    if load > limit and before.exceeded_s != now:
        after = replace(after, exceeded_s=now)
        said.append("exceeded")
    end_s = minute.start_s + 60
    if over >= BLOCK_MINUTES and before.withdrawn_until_s <= end_s:
        until_s = window(end_s) + WINDOW_S
        after = replace(after, over_minutes=0, withdrawn_until_s=until_s)
        said.append("withdrawn")
    return after, said
