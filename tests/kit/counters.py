"""What came of a counter that a subscription watches: every number of it is known, so what is
missing is known too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

HOLES = ("changes_lost", "plc_offline")
"""What ``bad["*"]`` says of a message before which numbers may be missing."""


@dataclass
class Course:
    """One counter's. A hole is the numbers between which some are missing."""

    first: int = 0
    last: int = 0
    count: int = 0
    """Different numbers that were delivered."""
    told: list[tuple[int, int]] = field(default_factory=list)
    """Holes that a message told of, between the one number and the other."""
    untold: list[tuple[int, int]] = field(default_factory=list)
    back: list[tuple[int, int]] = field(default_factory=list)
    """A lower number after a higher one."""

    @property
    def missing(self) -> int:
        """Numbers in the holes that were told."""
        return sum(b - a - 1 for a, b in self.told)


def in_order(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Data and gap messages by their numbers, each once; a gap stands at its first."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for m in messages:
        found.setdefault((m["epoch"], m["seq"] if "seq" in m else m["first_seq"]), m)
    return [found[place] for place in sorted(found)]


def course(messages: Iterable[dict[str, Any]], name: str, after: int | None = None) -> Course:
    """The counter ``name`` in the messages of its group and the gaps of its PLC, in their order.
    ``after``: it is judged from this number on; None: from the first that was delivered.

    A hole is told by a gap, or by a message that says so, after the last number before it and not
    after the first one behind it: nowhere else.
    """
    c = Course(first=after or 0, last=after or 0)
    told = False
    for m in messages:
        told = told or "seq" not in m or m.get("bad", {}).get("*") in HOLES
        n = m.get("values", {}).get(name)
        if n is None:
            continue
        if c.count == 0 and after is None:
            c.first, c.last = n, n - 1
        if n == c.last and c.count:
            continue  # what tells of a hole may stand before the number that follows it
        if n > c.last:
            if n > c.last + 1:
                (c.told if told else c.untold).append((c.last, n))
            c.last = n
            c.count += 1
        elif c.count:
            c.back.append((c.last, n))
        told = False
    return c
