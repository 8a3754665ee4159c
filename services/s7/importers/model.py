"""What every kind of source is read into: types, data blocks, tags, constants."""

from __future__ import annotations

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
    """A UDT or an FB; ``constants`` are its own."""

    name: str
    body: Type
    place: Place
    optimized: bool | None = None
    constants: dict[str, str] = field(default_factory=dict)


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
    notes: list[str] = field(default_factory=list)
    problems: list[SourceProblem] = field(default_factory=list)

    def add_type(self, definition: TypeDef) -> None:
        """Adds a UDT or FB; the same name twice is a problem."""
        key = definition.name.lower()
        before = self.types.get(key)
        if before is not None and before.place != definition.place:
            message = f"type {definition.name!r} is declared twice, first at {before.place}"
            hint = "give one of the two files only"
            self.problems.append(SourceProblem(definition.place, message, hint))
        self.types[key] = definition
