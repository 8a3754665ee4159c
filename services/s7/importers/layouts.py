"""Placed sources to layouts: what a layout file or a group's inline fields hold."""

from __future__ import annotations

import re
import unicodedata
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.s7.importers import system_types
from services.s7.importers.model import (
    Array,
    Block,
    Located,
    Named,
    Place,
    SourceError,
    SourceProblem,
    Sources,
    Struct,
    Tag,
    TypeDef,
    wrong,
)
from services.s7.importers.offsets import Leaf, Placer
from services.s7.layout import MAX_FIELDS, LayoutError, resolve_inline, resolve_layout
from services.s7.types import S7Type

OPTIMIZED_HINT = (
    'in TIA Portal open the block\'s Properties > Attributes, untick "Optimized block access",'
    " compile, download, and export it again"
)
_ILLEGAL = re.compile(r"[^\w.-]")
_ADDRESS = re.compile(
    r"(?P<area>[MIQEA])(?P<width>[XBWD]?)(?P<byte>\d{1,9})(?:\.(?P<bit>[0-7]))?"
    r"|DB(?P<db>\d{1,9})\.DB(?P<db_width>[XBWD])(?P<db_byte>\d{1,9})(?:\.(?P<db_bit>[0-7]))?"
    r"|(?P<numbered>[TCZ])(?P<number>\d{1,9})"
)
_PERIPHERY = re.compile(r"P[IQEA][BWD]?\d|[IQEA][BWD]?\d+(\.\d)?:P")
_MAX_NAME = 128
_BOOL = S7Type("BOOL")
_WIDTH = {1: "B", 2: "W", 4: "D"}


@dataclass(slots=True)
class Layout:
    """One layout file, or (``addressed``) fields with addresses for a group without a layout."""

    name: str
    """Fit for a group's and a file's name."""
    title: str
    """As the source calls it."""
    fields: list[dict[str, Any]]
    db: int | None = None
    record_bytes: int | None = None
    machines: dict[str, int] | None = None
    addressed: bool = False
    place: Place = field(default_factory=lambda: Place(""))
    notes: list[str] = field(default_factory=list)


def layouts(
    sources: Sources, block: str | None = None, machines: str | None = None
) -> list[Layout]:
    """Every block (or UDT, where there is no block) and the tags, as layouts.

    ``block`` takes one of them by name or number. ``machines`` names a member, an array of
    structures, that becomes a layout of its own beside the rest of its block. Raises SourceError
    carrying every problem.
    """
    placer = Placer(sources)
    chosen = [b for b in _blocks(sources, placer) if block is None or _matches(b, block)]
    if block is not None and not chosen:
        names = ", ".join(repr(b.name) for b in _blocks(sources, placer)) or "none"
        place = Place(chosen[0].place.file if chosen else "--block")
        raise SourceError([SourceProblem(place, f"no block {block!r}; there is: {names}")])
    out: list[Layout] = []
    refused: list[SourceProblem] = []
    for b in chosen:
        if (why := _refusal(b, placer)) is not None:
            refused.append(why)
            continue
        scope = ChainMap(b.constants, sources.constants)
        # Sizes first: they find every problem, and leaves of a type within itself have no end.
        placer.size_bytes(b.body, scope)
        if placer.problems:
            continue
        made = [one for one in _block_layouts(b, placer, scope, machines) if one.fields]
        out += made
        if not made and not placer.problems:
            refused.append(SourceProblem(b.place, f"block {b.name!r} holds nothing to publish"))
    if block is None:
        out += _tag_layouts(sources, placer)
    problems = [*sources.problems, *placer.problems]
    if out:
        placer.notes += [f"left out: {why}" for why in refused]
    else:
        problems += refused
    for layout in out:
        problems += _refused_by_configuration(layout)
    if problems:
        raise SourceError(problems)
    if out:
        out[0].notes[:0] = [*sources.notes, *placer.notes]
    _unique_names(out)
    return out


def _refused_by_configuration(layout: Layout) -> Iterator[SourceProblem]:
    """What the configuration would say to this layout, e.g. a REAL at an odd byte of a tag file."""
    try:
        if layout.addressed:
            resolve_inline(layout.fields)
        else:
            doc = {"record": layout.record_bytes} if layout.record_bytes else {}
            resolve_layout({"fields": layout.fields, **doc}, db=layout.db or 1)
    except LayoutError as e:
        for p in e.problems:
            index = re.search(r"\d+", p.path)
            name = layout.fields[int(index[0])]["name"] if index else layout.name
            yield SourceProblem(layout.place, f"{name!r}: {p.message}", p.hint)


def _blocks(sources: Sources, placer: Placer) -> list[Block]:
    """The data blocks; where there is none, the types that no other type uses."""
    for b in sources.blocks:
        if b.number is None:
            b.number = sources.numbers.get(b.name.lower())
    if sources.blocks or sources.tags or sources.located:
        return sources.blocks
    used = {
        id(found)
        for definition in sources.types.values()
        for name in _names(definition.body)
        if (found := placer.definition(name)) is not None
    }
    alone = [d for d in sources.types.values() if id(d) not in used]
    placer.notes += [
        f"{d.place}: {d.name!r} is a function block: this is what an instance of it holds"
        for d in alone
        if d.function_block
    ]
    return [
        Block(d.name, None, Named(d.name, d.place, quoted=True), d.place, d.optimized,
              classic=d.classic or not d.function_block)
        for d in alone
    ]  # fmt: skip


def _names(kind: object) -> Iterator[str]:
    if isinstance(kind, Named):
        yield kind.name
    elif isinstance(kind, Array):
        yield from _names(kind.element)
    elif isinstance(kind, Struct):
        for member in kind.members:
            yield from _names(member.type)


def _matches(block: Block, wanted: str) -> bool:
    wanted = wanted.strip('"').lower()
    return wanted in (block.name.lower(), f"db{block.number}", str(block.number))


def _refusal(block: Block, placer: Placer) -> SourceProblem | None:
    """Why a block has no layout: it is optimised, so its offsets are the compiler's secret; or it
    is the instance of a system block, which has no source."""
    definition: TypeDef | None = None
    if isinstance(block.body, Named):
        kind = block.body
        definition = placer.definition(kind.name)
        is_system = kind.name.upper().startswith("SFB") and definition is None
        if is_system and not system_types.structure(kind.name):
            message = f"block {block.name!r} is an instance of {kind.name}, which has no source"
            return SourceProblem(block.place, message)
    optimized = block.optimized
    if optimized is None and definition is not None:
        optimized = definition.optimized
    if optimized:
        message = f"block {block.name!r} has optimized access: its members have no fixed offsets"
        return SourceProblem(block.place, message, OPTIMIZED_HINT)
    if optimized is None and not block.classic:
        placer.notes.append(
            f"{block.place}: {block.name!r} does not say whether its access is optimized; these"
            ' offsets hold only if "Optimized block access" is not ticked'
        )
    return None


def _block_layouts(
    block: Block, placer: Placer, scope: Mapping[str, str], machines: str | None
) -> Iterator[Layout]:
    body, inner = placer.resolve(block.body, scope)
    title = block.name
    if isinstance(body, Array):
        element, element_scope = placer.resolve(body.element, inner)
        if isinstance(element, Struct):
            leaves = placer.leaves(element, element_scope)
            yield _repeating(block, title, body, leaves, 0, placer, inner)
            return
        leaves = placer.leaves(body, inner, (block.name,))
        yield _layout(block, title, leaves, placer.size_bytes(body, inner))
        return
    if not isinstance(body, Struct):
        return
    placed, size_bytes = placer.struct(body, inner)
    alone = placed[0][0] if len(placed) == 1 else None
    wanted = (machines or (alone.name if alone else "")).lower()
    hints = []
    for member, offset_bits in placed:
        repeated, member_scope = placer.resolve(member.type, inner)
        if not isinstance(repeated, Array):
            continue
        element, element_scope = placer.resolve(repeated.element, member_scope)
        if not isinstance(element, Struct):
            continue
        if member.name.lower() != wanted:
            hints.append(
                f"{member.place}: {member.name!r} is an array of structures; for one message per"
                f" element import it with --machines {member.name}"
            )
            continue
        leaves = placer.leaves(element, element_scope)
        name = title if alone else f"{title}_{member.name}"
        yield _repeating(block, name, repeated, leaves, offset_bits // 8, placer, member_scope)
        rest = tuple(m for m, _ in placed if m is not member)
        if rest:
            leaves = (leaf for leaf in placer.leaves(body, inner) if leaf.path[0] != member.name)
            yield _layout(block, title, leaves, size_bytes)
        return
    if machines is not None:
        message = f"{block.name!r} has no array of structures named {machines!r}"
        placer.problems.append(SourceProblem(block.place, message))
        return
    layout = _layout(block, title, placer.leaves(body, inner), size_bytes)
    layout.notes += hints
    yield layout


def _repeating(
    block: Block,
    title: str,
    array: Array,
    leaves: Iterable[Leaf],
    first: int,
    placer: Placer,
    scope: Any,
) -> Layout:
    """A layout of one element, and how it repeats."""
    count = 1
    for low, high in placer.bounds(array, scope):
        count *= high - low + 1
    stride = placer.size_bytes(array.element, scope)
    layout = _layout(block, title, leaves, stride)
    layout.machines = {"count": count, "stride": stride, "first": first}
    return layout


def _layout(block: Block, title: str, leaves: Iterable[Leaf], record_bytes: int) -> Layout:
    notes: list[str] = []
    fields = _fields(leaves, notes)
    name = _group_name(title)
    return Layout(name, title, fields, block.number, record_bytes, notes=notes, place=block.place)


def _fields(leaves: Iterable[Leaf], notes: list[str]) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = []
    names: dict[str, int] = {}
    for leaf in leaves:
        if not system_types.publishable(leaf.type.base):
            notes.append(
                f"{leaf.place}: {'.'.join(leaf.path)!r} is {leaf.type.base}: it keeps its place and"
                " is not published"
            )
            continue
        if len(fields) == MAX_FIELDS:
            hint = "read some of them only: mark the others in the source as arrays, or take tags"
            raise wrong(leaf.place, f"more than {MAX_FIELDS:,} values", hint)
        name = _field_name(leaf.path, leaf.place, names, notes)
        scalar_bit = leaf.type == _BOOL
        offset = float(f"{leaf.byte}.{leaf.bit}") if scalar_bit else leaf.byte
        item = {"name": name, "type": str(leaf.type), "offset": offset}
        fields.append(_described(item, leaf.comment))
    return fields


def _field_name(path: Iterable[str], place: Place, taken: dict[str, int], notes: list[str]) -> str:
    """A name that the configuration takes, unique in its group."""
    given = ".".join(path)
    name = _ILLEGAL.sub("_", unicodedata.normalize("NFC", given))[:_MAX_NAME]
    unique = name
    while unique in taken:
        taken[name] += 1
        unique = f"{name[: _MAX_NAME - 6]}_{taken[name]}"
    taken[unique] = 1
    if unique != given:
        notes.append(f"{place}: {given!r} is published as {unique!r}")
    return unique


def _group_name(title: str) -> str:
    """A block's name as a group's: lower case, without accents."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:32]
    return name if len(name) > 1 else f"db_{name}".rstrip("_")


def _unique_names(found: list[Layout]) -> None:
    taken: set[str] = set()
    for layout in found:
        name, n = layout.name, 2
        while layout.name in taken:
            layout.name, n = f"{name[:29]}_{n}", n + 1
        taken.add(layout.name)


# --- tags ------------------------------------------------------------------------------------


def _tag_layouts(sources: Sources, placer: Placer) -> Iterator[Layout]:
    if sources.tags:
        notes: list[str] = []
        names: dict[str, int] = {}
        fields = [item for tag in sources.tags for item in _tag_fields(tag, placer, names, notes)]
        if fields:
            place = Place(sources.tags[0].place.file)
            yield Layout("tags", "PLC tags", fields, addressed=True, notes=notes, place=place)
        else:
            placer.notes += notes
    by_db: dict[int, list[Located]] = {}
    for item in sources.located:
        by_db.setdefault(item.db, []).append(item)
    for db, items in sorted(by_db.items()):
        leaves = [leaf for item in items for leaf in _located_leaves(item, placer)]
        leaves.sort(key=lambda leaf: (leaf.byte, leaf.bit))
        notes, names = [], {}
        place = Place(items[0].place.file)
        if all(leaf.byte % 2 == 0 or leaf.type.element_bytes == 1 for leaf in leaves):
            fields = _fields(leaves, notes)
            yield Layout(f"db{db}", f"DB{db}", fields, db, notes=notes, place=place)
            continue
        # Not declared like this in a block, but readable: e.g. the block of a received telegram.
        fields = [
            {"name": _field_name(leaf.path, leaf.place, names, notes),
             "address": _address(f"DB{db}.DB", leaf)}
            for leaf in leaves
        ]  # fmt: skip
        title = f"DB{db}"
        yield Layout(f"db{db}", title, fields, addressed=True, notes=notes, place=place)


def _located_leaves(item: Located, placer: Placer) -> Iterator[Leaf]:
    at_bits = item.byte * 8 + item.bit
    placer.size_bytes(item.type, placer.sources.constants)
    if not placer.problems:
        yield from placer.leaves(
            item.type, placer.sources.constants, (item.name,), at_bits, "", item.place
        )


def _tag_fields(
    tag: Tag, placer: Placer, names: dict[str, int], notes: list[str]
) -> Iterator[dict[str, Any]]:
    text = "".join(tag.address.upper().split()).removeprefix("%")
    if _PERIPHERY.match(text):
        notes.append(f"{tag.place}: {tag.name!r} is a peripheral address ({text}), left out")
        return
    match = _ADDRESS.fullmatch(text)
    if match is None:
        hint = "addresses look like M10.3, MW20, I0.0, Q1.2, T5, C3, DB1.DBW4"
        problem = SourceProblem(tag.place, f"address {tag.address!r} is not understood", hint)
        placer.problems.append(problem)
        return
    if match["numbered"]:
        name = _field_name((tag.name,), tag.place, names, notes)
        yield _described({"name": name, "address": text}, tag.comment)
        return
    if (wrong_width := _wrong_width(tag, match, placer)) is not None:
        placer.problems.append(wrong_width)
        return
    prefix = f"DB{match['db']}.DB" if match["db"] else match["area"]
    byte = int(match["db_byte"] or match["byte"])
    bit = int(match["db_bit"] or match["bit"] or 0)
    placer.size_bytes(tag.type, placer.sources.constants)
    if placer.problems:
        return
    scope = placer.sources.constants
    for leaf in placer.leaves(tag.type, scope, (tag.name,), byte * 8 + bit, tag.comment, tag.place):
        if not system_types.publishable(leaf.type.base):
            notes.append(f"{leaf.place}: {'.'.join(leaf.path)!r} is {leaf.type.base}, left out")
            continue
        name = _field_name(leaf.path, leaf.place, names, notes)
        yield _described({"name": name, "address": _address(prefix, leaf)}, leaf.comment)


def _wrong_width(tag: Tag, match: re.Match[str], placer: Placer) -> SourceProblem | None:
    """A scalar whose address says another size (``MW10`` of a REAL), or a BOOL without its bit."""
    scope = placer.sources.constants
    kind, _ = placer.resolve(tag.type, scope)
    if isinstance(kind, Array | Struct):
        return None
    width = match["width"] or match["db_width"] or ""
    size_bytes = {"B": 1, "W": 2, "D": 4}.get(width)
    if kind.name == "BOOL":
        fits = bool(match["bit"] or match["db_bit"])
    else:
        # Longer types are addressed by their first byte, in whatever width.
        fits = size_bytes in (None, kind.size_bytes) or kind.size_bytes not in (1, 2, 4)
    if fits:
        return None
    message = f"{tag.name!r} is {kind.name}, its address {tag.address} is not"
    return SourceProblem(tag.place, message, "mend the type or the address in the tag table")


def _address(prefix: str, leaf: Leaf) -> str:
    if leaf.type == _BOOL:
        width = "X" if prefix.startswith("DB") else ""
        return f"{prefix}{width}{leaf.byte}.{leaf.bit}"
    width = _WIDTH.get(leaf.type.element_bytes, "B")
    return f"{prefix}{width}{leaf.byte}:{leaf.type}"


def _described(item: dict[str, Any], comment: str) -> dict[str, Any]:
    if comment:
        item["description"] = " ".join(comment.split())
    return item
