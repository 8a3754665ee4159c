"""What one mirror's keys alone cannot tell: where it may never write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from services.runtime.config import Group, Mirror, Plc

if TYPE_CHECKING:
    from services.runtime.loader import Site

# A host is compared as it is written: a name and its address for one PLC go unnoticed.
Block = tuple[str, int, int]
"""(host, port, DB number)"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One broken rule; ``path`` as in ``mirrors[0].target.db``."""

    path: str
    message: str
    hint: str = ""


def ranges(mirror: Mirror, source: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(first source byte, length, first target byte) of each range that is copied.

    ``source`` is (first byte, length) of what the source's raw frames hold.
    """
    if mirror.maps:
        return [(m.start, m.length, m.to) for m in mirror.maps]
    return [(source[0], source[1], mirror.target.start)]


def extents(mirror: Mirror, source: tuple[int, int]) -> list[tuple[int, int]]:
    """(first byte, byte after the last) of everything the mirror may write, markers included."""
    found = [(to, to + length) for _, length, to in ranges(mirror, source)]
    if (c := mirror.commit) is not None:
        # begin and end are 16-bit counters; the single commit byte is a byte.
        found += [(o, o + 2) for o in (c.begin, c.end) if o is not None]
        found += [(o, o + 1) for o in (c.offset,) if o is not None]
    if mirror.watchdog is not None:
        found.append((mirror.watchdog.offset, mirror.watchdog.offset + 1))
    return found


def check(site: Site) -> Iterator[Rule]:
    """Every broken rule; mirrors whose source does not exist are left to the loader."""
    written: list[tuple[int, Mirror, Block, list[tuple[int, int]]]] = []
    edges: dict[Block, set[Block]] = {}
    for i, mirror in enumerate(site.config.mirrors):
        found = _source(site, mirror)
        if found is None:
            continue
        plc, group = found
        at = f"mirrors[{i}]"
        if group.raw is False:
            hint = f"set `raw: true` in group {group.name!r} of {plc.id!r}"
            yield Rule(f"{at}.source.group", "its bytes are not on the bus", hint)
            continue
        from services.runtime.render import raw_range

        source = raw_range(site, plc, group)
        t = mirror.target
        target: Block = (t.host, t.port, t.db)
        origins = [(host, plc.port, group.db or 0) for host in plc.all_hosts]
        if target in origins:
            message = f"DB{t.db} of {t.host} is the source itself"
            yield Rule(f"{at}.target.db", message, "name another block")
        yield from _map_problems(mirror, source, at)
        mine = extents(mirror, source)
        yield from _own_overlaps(mirror, source, at)
        for j, other, block, theirs in written:
            if block == target and any(a < d and c < b for a, b in mine for c, d in theirs):
                message = f"writes bytes that mirror {other.name!r} (mirrors[{j}]) writes too"
                yield Rule(f"{at}.target.start", message, "give each mirror bytes of its own")
        written.append((i, mirror, target, mine))
        if target not in origins:
            for origin in origins:
                edges.setdefault(origin, set()).add(target)
            if any(_reaches(edges, target, origin) for origin in origins):
                message = f"closes a loop: DB{t.db} of {t.host} is copied back to its source"
                yield Rule(f"{at}.target.db", message, "remove one of the mirrors")


def _source(site: Site, mirror: Mirror) -> tuple[Plc, Group] | None:
    for plc in site.config.plcs:
        for group in plc.groups:
            known = (plc.id, group.name) in site.fields
            if (plc.id, group.name) == (mirror.source.plc, mirror.source.group) and known:
                return plc, group
    return None


def _map_problems(mirror: Mirror, source: tuple[int, int], at: str) -> Iterator[Rule]:
    first, end = source[0], source[0] + source[1]
    for k, m in enumerate(mirror.maps):
        if m.start < first or m.start + m.length > end:
            message = f"bytes {m.start} to {m.start + m.length - 1} are not read"
            hint = f"the group's raw bytes are {first} to {end - 1}; widen its `raw:`"
            yield Rule(f"{at}.maps[{k}].from", message, hint)
    for begin, stop in extents(mirror, source):
        if stop > 65_536:
            yield Rule(f"{at}.target.start", f"byte {begin} on reaches past byte 65535")


def _own_overlaps(mirror: Mirror, source: tuple[int, int], at: str) -> Iterator[Rule]:
    found = sorted(extents(mirror, source))
    for (a, b), (c, _) in pairwise(found):
        if c < b:
            message = f"two of its own ranges meet at byte {c} of the target (one begins at {a})"
            hint = "keep maps, commit and watchdog apart"
            yield Rule(f"{at}.target.start", message, hint)


def _reaches(edges: dict[Block, set[Block]], start: Block, goal: Block) -> bool:
    seen: set[Block] = set()
    todo = [start]
    while todo:
        block = todo.pop()
        if block == goal:
            return True
        if block not in seen:
            seen.add(block)
            todo += edges.get(block, ())
    return False
