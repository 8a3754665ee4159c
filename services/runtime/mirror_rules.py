"""What one mirror's keys alone cannot tell: where it may never write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

from services.protocols.s7.model import S7Group, S7Plc
from services.runtime.config import Mirror
from services.runtime.document import KeyPath
from services.runtime.errors import Problem
from services.runtime.judged import Unknown
from services.runtime.plc_model import GroupBase, PlcBase
from services.runtime.site import Site, raw_range
from services.s7.layout import BLOCK_BYTES

# A host is compared as it is written: a name and its address for one PLC go unnoticed.
Block = tuple[str, int, int]
"""(host, port, DB number)"""


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


def check(site: Site) -> Iterator[Problem]:
    """Every broken rule; mirrors whose source does not exist are told elsewhere."""
    written: list[tuple[int, Mirror, Block, list[tuple[int, int]]]] = []
    edges: dict[Block, set[Block]] = {}
    for i, mirror in enumerate(site.config.mirrors):
        with suppress(Unknown):
            yield from _blocks(site, mirror, ("mirrors", i), edges)
        with suppress(Unknown):
            yield from _bytes(site, mirror, i, written)


def _blocks(
    site: Site, mirror: Mirror, at: KeyPath, edges: dict[Block, set[Block]]
) -> Iterator[Problem]:
    """Which block may be copied where."""
    plc, group = _source(site, mirror)
    if not isinstance(plc, S7Plc) or not isinstance(group, S7Group):
        hint = "read that PLC with `protocol: s7`, or remove the mirror"
        message = f"a mirror copies bytes, and `protocol: {plc.protocol}` of {plc.id!r} reads none"
        yield site.problem((*at, "source", "plc"), message, hint)
        return
    if group.raw is False:
        hint = f"set `raw: true` in group {group.name!r} of {plc.id!r}"
        yield site.problem((*at, "source", "group"), "its bytes are not on the bus", hint)
        return
    t = mirror.target
    target, origins = _block(mirror), [(host, plc.port, group.db or 0) for host in plc.all_hosts]
    if target in origins:
        message = f"DB{t.db} of {t.host} is the source itself"
        yield site.problem((*at, "target", "db"), message, "name another block")
        return
    for origin in origins:
        edges.setdefault(origin, set()).add(target)
    if any(_reaches(edges, target, origin) for origin in origins):
        message = f"closes a loop: DB{t.db} of {t.host} is copied back to its source"
        yield site.problem((*at, "target", "db"), message, "remove one of the mirrors")


def _bytes(
    site: Site,
    mirror: Mirror,
    i: int,
    written: list[tuple[int, Mirror, Block, list[tuple[int, int]]]],
) -> Iterator[Problem]:
    """Which bytes of the target are written; ``written`` are those of the mirrors before."""
    plc, group = _source(site, mirror)
    if not isinstance(group, S7Group) or group.raw is False:
        return
    at: KeyPath = ("mirrors", i)
    source, target = raw_range(site, plc, group), _block(mirror)
    yield from _map_problems(site, mirror, source, at)
    mine = extents(mirror, source)
    for (a, b), (c, _) in pairwise(sorted(mine)):
        if c < b:
            message = f"two of its own ranges meet at byte {c} of the target (one begins at {a})"
            hint = "keep maps, commit and watchdog apart"
            yield site.problem((*at, "target", "start"), message, hint)
    for j, other, block, theirs in written:
        if block == target and any(a < d and c < b for a, b in mine for c, d in theirs):
            message = f"writes bytes that mirror {other.name!r} (mirrors[{j}]) writes too"
            hint = "give each mirror bytes of its own"
            yield site.problem((*at, "target", "start"), message, hint)
    written.append((i, mirror, target, mine))


def _block(mirror: Mirror) -> Block:
    return mirror.target.host, mirror.target.port, mirror.target.db


def _source(site: Site, mirror: Mirror) -> tuple[PlcBase, GroupBase]:
    """Raises Unknown where it does not exist, or is not known."""
    wanted = (mirror.source.plc, mirror.source.group)
    for plc in site.config.plcs:
        if getattr(plc, "id", None) == wanted[0]:
            for group in plc.groups:
                if getattr(group, "name", None) == wanted[1]:
                    return plc, group
    raise Unknown("source")


def _map_problems(
    site: Site, mirror: Mirror, source: tuple[int, int], at: KeyPath
) -> Iterator[Problem]:
    first, end = source[0], source[0] + source[1]
    for k, m in enumerate(mirror.maps):
        if m.start < first or m.start + m.length > end:
            message = f"bytes {m.start} to {m.start + m.length - 1} are not read"
            hint = f"the group's raw bytes are {first} to {end - 1}; widen its `raw:`"
            yield site.problem((*at, "maps", k, "from"), message, hint)
    for begin, stop in extents(mirror, source):
        if stop > BLOCK_BYTES:
            message = f"byte {begin} on reaches past byte {BLOCK_BYTES - 1}"
            yield site.problem((*at, "target", "start"), message)


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
