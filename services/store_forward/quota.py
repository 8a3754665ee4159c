"""Which rows of a tenant go out now and which wait, so that it keeps to its points a minute. Pure:
no clock, no socket.

A token bucket for each tenant: one point is one value of one field. While it holds some, a row
passes as if there were no quota. Once it is empty, only the newest row of each group (of each
machine) of a PLC waits, and what it supersedes is withheld. When the bucket has filled again, the
PLC that has waited longest sends all that waits of it, in the order of its sequence. So every group
of a tenant is thinned to one and the same interval, the one that fits; a group that is slower than
it loses nothing; the newest value always comes; and nothing ever overtakes another row of its PLC.

``always`` groups are thinned the same way as ``on_change`` ones: to let the ones pass and hold back
the others would put the rows of a PLC out of order. A row whose quality, or whose set of bad
fields, is another than before passes at once, with all that waits before it: a PLC that goes away,
a sensor that breaks, and their return; ``CHANGES_PER_MIN`` of a group, then it waits as others do.
Gaps always pass. What they cost is paid back by waiting longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import orjson

# What a tenant that was below its quota may send at once: a quiet minute's points.
BURST_S = 60.0
# What waits and nothing else is committed after so long: a flood costs others no fdatasync.
HOLD_COMMIT_S = 0.25
# What is withheld of a PLC is told at most so often, and behind a row that is newer (so that an
# alarm's `for` goes on: nothing new is missing); after so long in any case, or in so many pieces.
NOTICE_S, NOTICE_MAX_S, NOTICE_RUNS = 10.0, 60.0, 500
# So many changes of a group's state a minute pass whatever the bucket holds, and are paid for
# later: a sensor that flaps at each scan waits as others do.
CHANGES_PER_MIN = 12
REASON = "quota"


class Head(NamedTuple):
    """What the quota needs to know of a message."""

    key: str
    """Group and machine: a newer row of the same key supersedes it."""
    points: int
    mark: tuple[object, ...]
    """Differs where the quality, or what is bad, does."""


def head(body: bytes) -> Head:
    """Of a message as the reader made it."""
    try:
        message = orjson.loads(body)
    except ValueError:
        message = {}
    bad = message.get("bad") or ()
    return Head(
        f"{message.get('group', '')}/{message.get('machine', '')}",
        len(message.get("values") or ()),
        (message.get("quality"), *sorted(bad)),
    )


class Bucket:
    """Points that may be sent now. It may owe some: a row larger than what is left passes whole."""

    def __init__(self, points_per_min: int, now_s: float) -> None:
        self._level = 0.0
        self._at_s = now_s
        self.configure(points_per_min)
        self._level = self._most

    def configure(self, points_per_min: int) -> None:
        """Another rate; what is owed stays owed."""
        self.points_per_min = points_per_min
        self._rate = points_per_min / 60.0
        self._most = self._rate * BURST_S
        self._level = min(self._level, self._most)

    def level(self, now_s: float) -> float:
        """Points that it holds; negative: owes."""
        if now_s > self._at_s:
            self._level = min(self._most, self._level + (now_s - self._at_s) * self._rate)
            self._at_s = now_s
        return self._level

    def take(self, points: int) -> None:
        """They are sent."""
        self._level -= points

    def owe(self, points: int) -> None:
        """They are sent whatever it holds; that alone makes it owe a minute's points at most, so
        that a sensor that flaps for a day does not silence its tenant for another.
        """
        self._level = max(min(self._level, -self._most), self._level - points)

    def wait_s(self, now_s: float) -> float:
        """Until it holds a whole point; 0 where it does."""
        return max(0.0, (1.0 - self.level(now_s)) / self._rate)


class Meter:
    """One tenant."""

    def __init__(self, points_per_min: int, now_s: float) -> None:
        self.bucket = Bucket(points_per_min, now_s)
        self.waiting: dict[str, None] = {}
        """PLCs of which rows wait, the one that has waited longest first."""
        self._marks: dict[tuple[str, str], tuple[object, ...]] = {}
        """(PLC, key) -> of the newest row that went out."""
        self._changes: dict[tuple[str, str], Bucket] = {}
        """(PLC, key) -> the changes that may pass now."""

    def passes(self, plc: str, what: Head, now_s: float) -> bool:
        """Whether a row goes out now, and is paid for; what waits of its PLC goes before it."""
        if plc not in self.waiting and self.bucket.level(now_s) >= 1.0:
            self.bucket.take(what.points)
        elif self._may_change(plc, what, now_s):
            self.bucket.owe(what.points)
        else:
            return False
        self.went(plc, what)
        return True

    def _may_change(self, plc: str, what: Head, now_s: float) -> bool:
        key = (plc, what.key)
        if self._marks.get(key) == what.mark:
            return False
        changes = self._changes.get(key)
        if changes is None:
            changes = self._changes[key] = Bucket(CHANGES_PER_MIN, now_s)
        if changes.level(now_s) < 1.0:
            return False
        changes.take(1)
        return True

    def went(self, plc: str, what: Head) -> None:
        """A row went out: what is like it is no change."""
        self._marks[plc, what.key] = what.mark

    def forget(self) -> None:
        """Nobody knows what went out: the next row of each key is a change."""
        self._marks = {}

    def next(self, now_s: float) -> str | None:
        """The PLC whose turn it is; None where nothing waits, or the bucket is empty."""
        if self.waiting and self.bucket.level(now_s) >= 1.0:
            return next(iter(self.waiting))
        return None


def limits(configured: Mapping[str, int], centre: bytes) -> dict[str, int]:
    """Points a minute by tenant: the configuration's and, from ``<state>/quotas.json``, the
    centre's (``{"v": 1, "points_per_min": {"acme": 5000}}``); the smaller one holds.

    Raises ValueError where ``centre`` is not such a document; b"" is an empty one.
    """
    told: object = {}
    if centre:
        document = orjson.loads(centre)
        told = document.get("points_per_min") if isinstance(document, dict) else None
    if not isinstance(told, dict) or not all(type(n) is int and n >= 1 for n in told.values()):
        raise ValueError('is not {"v": 1, "points_per_min": {tenant: points, at least 1}}')
    found = dict(configured)
    for tenant, points in told.items():
        found[tenant] = min(points, found.get(tenant, points))
    return found


def meters(
    known: Mapping[str, Meter], limits: Mapping[str, int], tenants: Iterable[str], now_s: float
) -> dict[str, Meter]:
    """Those of the tenants here that have a limit; who had one before keeps what it holds."""
    found = {}
    for tenant in sorted(set(tenants) & limits.keys()):
        found[tenant] = known.get(tenant) or Meter(limits[tenant], now_s)
        found[tenant].bucket.configure(limits[tenant])
    return found
