"""What every kind of source is read into: types, data blocks, tags, constants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a source."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """One mistake in a source: where, what, and how to mend it."""

    place: Place
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f"\n    fix: {self.hint}" if self.hint else "")


class SourceError(Exception):
    """A source cannot be imported; carries every problem found."""

    def __init__(self, problems: list[SourceProblem]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def wrong(place: Place, message: str, hint: str = "") -> SourceError:
    """A SourceError of one problem."""
    return SourceError([SourceProblem(place, message, hint)])


# A bound or a length: a number, or an expression over constants in the source's own words.
Bound = int | str


@dataclass(frozen=True, slots=True)
class Named:
    """A type by its name: elementary, UDT, FB or system type. ``length`` is a string's."""

    name: str
    place: Place
    length: Bound | None = None
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Array:
    """``bounds`` first to last dimension, both ends included; the last index runs fastest."""

    bounds: tuple[tuple[Bound, Bound], ...]
    element: Type
    place: Place


@dataclass(frozen=True, slots=True)
class Struct:
    """Members in the order of memory. ``sections`` begin at these member indices (instance DBs:
    inputs, outputs, in-outs, statics; each begins at an even byte)."""

    members: tuple[Member, ...]
    place: Place
    sections: tuple[int, ...] = ()


Type = Named | Array | Struct


@dataclass(frozen=True, slots=True)
class Member:
    """One declared variable."""

    name: str
    type: Type
    place: Place
    comment: str = ""
    bit_offset: int | None = None
    """What the source itself says of its place (Openness exports it), to check ours against."""


@dataclass(slots=True)
class TypeDef:
    """A UDT or an FB; ``constants`` are its own, ``#`` before their names (lower case)."""

    name: str
    body: Type
    place: Place
    optimized: bool | None = None
    constants: dict[str, str] = field(default_factory=dict)
    function_block: bool = False
    classic: bool = False


@dataclass(slots=True)
class Block:
    """A data block. ``optimized`` is None where its source does not say."""

    name: str
    number: int | None
    body: Type
    place: Place
    optimized: bool | None = None
    comment: str = ""
    classic: bool = False
    """From STEP 7, where nothing is optimised."""
    constants: dict[str, str] = field(default_factory=dict)
    """Its own, as a type's."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A PLC tag: a name for an absolute address, as the source writes it (``%MW20``)."""

    name: str
    type: Type
    address: str
    place: Place
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Located:
    """A tag of a python-snap7 tag file: a place in a data block."""

    name: str
    type: Type
    db: int
    byte: int
    bit: int
    place: Place


@dataclass(slots=True)
class Sources:
    """All that was read from all files."""

    encoding: str | None = None
    types: dict[str, TypeDef] = field(default_factory=dict)
    """By name in lower case: names are case-insensitive (STEP 7 and TIA alike)."""
    expanded: dict[str, TypeDef] = field(default_factory=dict)
    """Types as an Openness export repeats them in each member; used where ``types`` has none."""
    blocks: list[Block] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    located: list[Located] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    """User constants, name in lower case -> expression."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Numbers of data blocks that a symbol table names, by name in lower case."""
    aliases: dict[str, str] = field(default_factory=dict)
    """``udt 5``, ``fb 10`` -> symbolic name (lower case), from a symbol table."""
    type_bytes: dict[str, int] = field(default_factory=dict)
    """Sizes that the user gives for types without a source, by name in lower case."""
    notes: list[str] = field(default_factory=list)
    problems: list[SourceProblem] = field(default_factory=list)

    def add_type(self, definition: TypeDef) -> None:
        """Adds a UDT or FB; twice the same is read once, two that differ are a problem."""
        key = definition.name.lower()
        before = self.types.setdefault(key, definition)
        if before is definition or before.place == definition.place:
            return
        if not _is_same(before, definition):
            message = f"type {definition.name!r} is declared otherwise at {before.place}"
            hint = "export the sources anew, all from the same version of the program"
            self.problems.append(SourceProblem(definition.place, message, hint))

    @contextmanager
    def gather(self) -> Iterator[None]:
        """What is wrong in one row does not hide what is wrong in the next."""
        try:
            yield
        except SourceError as e:
            self.problems += e.problems

    def add_block(self, block: Block) -> None:
        """Adds a data block; twice the same is read once."""
        for before in self.blocks:
            if (before.name.lower(), before.number) == (block.name.lower(), block.number):
                if _is_same(before, block):
                    return
                text = f"{block.place}: {block.name!r} is declared otherwise at {before.place}: two"
                self.notes.append(f"{text} layouts are made")
        self.blocks.append(block)


def _is_same(first: TypeDef | Block, second: TypeDef | Block) -> bool:
    """Whether both declare the same; then the first knows what either said of its access."""
    if (first.constants, _shape(first.body)) != (second.constants, _shape(second.body)):
        return False
    if first.optimized is None:
        first.optimized = second.optimized
    return second.optimized in (None, first.optimized)


def _shape(kind: Type) -> object:
    """What makes two declarations the same: names and types, not places and comments."""
    if isinstance(kind, Named):
        return kind.name.lower(), str(kind.length)
    if isinstance(kind, Array):
        return tuple((str(low), str(high)) for low, high in kind.bounds), _shape(kind.element)
    # That the first section begins at the first member, an XML export says and a text does not.
    sections = [start for start in kind.sections if start]
    return tuple((m.name.lower(), _shape(m.type)) for m in kind.members), tuple(sections)
