"""Where each member lies: the classic rules of non-optimised blocks.

After STEP 7's rules for data blocks: BOOLs pack into a byte, one-byte types take any byte, all else
begins at an even byte; structures and arrays begin at an even byte, structures also end at one, and
so does what follows an array; each row of the last dimension of an array of BOOL begins a new byte;
the elements of an array of odd strings lie at even bytes.
"""

from __future__ import annotations

import itertools
import math
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.s7.importers import system_types
from services.s7.importers.constants import NotConstant, evaluate
from services.s7.importers.model import (
    Array,
    Bound,
    Member,
    Named,
    Place,
    SourceProblem,
    Sources,
    Struct,
    Type,
    TypeDef,
)
from services.s7.types import STRING_MAX, WSTRING_MAX, S7Type

# A data block holds 64 KiB (S7-1500 allows more, out of reach of absolute addresses).
MAX_BYTES = 65_536
_DEFAULT_STRING = 254
_MAX_STRING = {"STRING": STRING_MAX, "WSTRING": WSTRING_MAX}
_MAX_DEPTH = 32

Scope = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar, or an array of scalars, at its place; ``type.base`` may be one that holds nothing
    to publish (``system_types.publishable``)."""

    path: tuple[str, ...]
    type: S7Type
    byte: int
    bit: int
    comment: str
    place: Place


@dataclass(frozen=True, slots=True)
class _Elementary:
    name: str
    length: int
    opaque_bytes: int | None = None
    """The user's word for the size of a type that no source declares."""

    @property
    def size_bytes(self) -> int:
        """A BOOL takes 1: it packs."""
        return self.array_bytes(())

    def array_bytes(self, bounds: tuple[tuple[int, int], ...]) -> int:
        """Of an array of it."""
        if self.opaque_bytes is None:
            return system_types.size_bytes(self.name, self.length, bounds)
        return self.opaque_bytes * math.prod(high - low + 1 for low, high in bounds)


class Placer:
    """Places the members of types and blocks; gathers problems instead of stopping at the first."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.problems: list[SourceProblem] = []
        self.notes: list[str] = []
        self._structs: dict[tuple[int, int], tuple[list[tuple[Member, int]], int]] = {}
        self._scopes: dict[int, Scope] = {}
        self._placing: set[tuple[int, int]] = set()
        self._depth = 0

    # --- types -------------------------------------------------------------------------------

    def resolve(self, kind: Type, scope: Scope) -> tuple[_Elementary | Array | Struct, Scope]:
        """What a type is, and the constants that hold inside of it. Unknown: a problem, 0 bytes."""
        if not isinstance(kind, Named):
            return kind, scope
        name = system_types.canonical(kind.name)
        if name is not None and not (kind.quoted and self.definition(kind.name)):
            return _Elementary(name, self._length(name, kind, scope)), scope
        definition = self.definition(kind.name)
        if definition is not None:
            return self._inside(definition)
        if (size_bytes := self.sources.type_bytes.get(kind.name.lower())) is not None:
            return _Elementary(kind.name, 0, size_bytes + size_bytes % 2), scope
        if (body := system_types.structure(kind.name)) is not None:
            return body, scope
        hint = "give the file that declares it too (.udt, .scl, .awl or its XML export)"
        if not kind.quoted:
            hint += (
                "; for a system type, which has none, give the bytes it takes (from the offset of"
                f" what follows it in TIA Portal or STEP 7): --type-bytes {kind.name}=N"
            )
        self._problem(kind.place, f"type {kind.name!r} is unknown", hint)
        return Struct((), kind.place), scope

    def _inside(self, definition: TypeDef) -> tuple[_Elementary | Array | Struct, Scope]:
        if self._depth >= _MAX_DEPTH:
            self._problem(definition.place, f"type {definition.name!r} contains itself")
            return Struct((), definition.place), self.sources.constants
        # One scope per type, so that its structure is placed once.
        scope = self._scopes.setdefault(
            id(definition), ChainMap(definition.constants, self.sources.constants)
        )
        self._depth += 1
        try:
            return self.resolve(definition.body, scope)
        finally:
            self._depth -= 1

    def definition(self, name: str) -> TypeDef | None:
        """The UDT or FB of that name, by symbol or number."""
        types, key = self.sources.types, name.lower()
        found = types.get(key) or types.get(self.sources.aliases.get(key, ""))
        return found or self.sources.expanded.get(key)

    def _length(self, name: str, kind: Named, scope: Scope) -> int:
        if name not in _MAX_STRING:
            return 0
        if kind.length is None:
            return _DEFAULT_STRING
        length = self.bound(kind.length, scope, kind.place)
        if not 1 <= length <= _MAX_STRING[name]:
            message = f"{name}[{length}]: the length is 1 to {_MAX_STRING[name]}"
            self._problem(kind.place, message)
            return _DEFAULT_STRING
        return length

    def bound(self, bound: Bound, scope: Scope, place: Place) -> int:
        """The number that a bound or length stands for."""
        if isinstance(bound, int):
            return bound
        try:
            return evaluate(bound, scope)
        except NotConstant as e:
            hint = "give the tag table or source that defines it too, or write the number"
            self._problem(place, str(e), hint)
            return 0

    def bounds(self, array: Array, scope: Scope) -> tuple[tuple[int, int], ...]:
        """The bounds as numbers."""
        out = []
        for low, high in array.bounds:
            numbers = (self.bound(low, scope, array.place), self.bound(high, scope, array.place))
            if numbers[1] < numbers[0]:
                self._problem(array.place, f"array bounds {numbers[0]}..{numbers[1]} are reversed")
                numbers = (numbers[0], numbers[0])
            out.append(numbers)
        return tuple(out)

    # --- sizes -------------------------------------------------------------------------------

    def size_bytes(self, kind: Type, scope: Scope) -> int:
        """Bytes that a type takes: a BOOL 1, a structure an even number."""
        return self._measure(*self.resolve(kind, scope))

    def _measure(self, resolved: _Elementary | Array | Struct, scope: Scope) -> int:
        if isinstance(resolved, _Elementary):
            return resolved.size_bytes
        if isinstance(resolved, Struct):
            return self.struct(resolved, scope)[1]
        bounds = self.bounds(resolved, scope)
        if sum(high - low for low, high in bounds) > MAX_BYTES * 8:
            self._problem(resolved.place, "an array larger than a data block")
            return 0
        element, inner = self.resolve(resolved.element, scope)
        if isinstance(element, _Elementary):
            return element.array_bytes(bounds)
        count = 1
        for low, high in bounds:
            count *= high - low + 1
        one_bytes = self._measure(element, inner)
        return count * (one_bytes + one_bytes % 2)

    def struct(self, struct: Struct, scope: Scope) -> tuple[list[tuple[Member, int]], int]:
        """(each member with its offset in bits, size in bytes) of a structure."""
        key = (id(struct), id(scope))
        if key in self._structs:
            return self._structs[key]
        if key in self._placing:
            self._problem(struct.place, "this type contains itself")
            return [], 0
        if len(self._placing) == _MAX_DEPTH:
            self._problem(struct.place, f"structures are nested more than {_MAX_DEPTH} deep")
            return [], 0
        self._placing.add(key)
        placed = []
        at_bits = 0
        odd_string: Member | None = None
        for index, member in enumerate(struct.members):
            if index in struct.sections:
                at_bits = -(-at_bits // 16) * 16
            resolved, inner = self.resolve(member.type, scope)
            if isinstance(resolved, _Elementary) and resolved.name == "BOOL":
                size_bits, align_bits = 1, 1
            else:
                size_bits = 8 * self._measure(resolved, inner)
                align_bits = 8 if size_bits <= 8 and isinstance(resolved, _Elementary) else 16
            start_bits = -(-at_bits // align_bits) * align_bits
            if odd_string is not None and align_bits < 16 and start_bits % 16:
                self.notes.append(
                    f"{member.place}: {member.name!r} follows {odd_string.name!r}, a STRING of odd"
                    f" length: placed at byte {start_bits // 8} of its structure; some tools pad."
                    " Compare with the offsets that TIA Portal shows"
                )
            odd = isinstance(resolved, _Elementary) and resolved.size_bytes % 2
            odd_string = member if odd and size_bits > 8 else None
            placed.append((member, start_bits))
            at_bits = start_bits + size_bits
            if isinstance(resolved, Array):  # what follows begins at an even byte
                at_bits = -(-at_bits // 16) * 16
        self._placing.remove(key)
        result = (placed, -(-at_bits // 16) * 2)
        self._structs[key] = result
        if result[1] > MAX_BYTES:
            message = f"{result[1]} bytes are more than a data block of {MAX_BYTES} holds"
            self._problem(struct.place, message)
        return result

    # --- leaves ------------------------------------------------------------------------------

    def leaves(
        self,
        kind: Type,
        scope: Scope,
        path: tuple[str, ...] = (),
        at_bits: int = 0,
        comment: str = "",
        place: Place | None = None,
    ) -> Iterator[Leaf]:
        """Every scalar and every array of scalars below a type, in the order of memory."""
        resolved, inner = self.resolve(kind, scope)
        if isinstance(resolved, _Elementary):
            where = place or Place("")
            s7_type = S7Type(resolved.name, resolved.length)
            yield Leaf(path, s7_type, at_bits // 8, at_bits % 8, comment, where)
        elif isinstance(resolved, Struct):
            if not self._measure(resolved, inner):
                return
            for member, offset_bits in self.struct(resolved, inner)[0]:
                if not path:
                    self._check_offset(member, at_bits + offset_bits)
                yield from self.leaves(
                    member.type,
                    inner,
                    (*path, member.name),
                    at_bits + offset_bits,
                    member.comment,
                    member.place,
                )
        else:
            yield from self._array_leaves(resolved, inner, path, at_bits, comment, place)

    def _array_leaves(
        self,
        array: Array,
        scope: Scope,
        path: tuple[str, ...],
        at_bits: int,
        comment: str,
        place: Place | None,
    ) -> Iterator[Leaf]:
        bounds = self.bounds(array, scope)
        element, inner = self.resolve(array.element, scope)
        if isinstance(element, _Elementary):
            where = place or array.place
            s7_type = S7Type(element.name, element.length, bounds)
            yield Leaf(path, s7_type, at_bits // 8, 0, comment, where)
            return
        one_bytes = self._measure(element, inner)
        if not one_bytes:
            return  # of nothing there may be any number
        stride_bits = 8 * (one_bytes + one_bytes % 2)
        for n, index in enumerate(itertools.product(*(range(a, b + 1) for a, b in bounds))):
            yield from self.leaves(
                element,
                inner,
                (*path, *map(str, index)),
                at_bits + n * stride_bits,
                comment,
                place,
            )

    def _check_offset(self, member: Member, at_bits: int) -> None:
        if member.bit_offset is not None and member.bit_offset != at_bits:
            said = f"{member.bit_offset // 8}.{member.bit_offset % 8}"
            ours = f"{at_bits // 8}.{at_bits % 8}"
            self._problem(
                member.place,
                f"the export says that {member.name!r} lies at {said}, by the rules it lies at"
                f" {ours}",
                "compile the block in TIA Portal and export it again",
            )

    def _problem(self, place: Place, message: str, hint: str = "") -> None:
        problem = SourceProblem(place, message, hint)
        if problem not in self.problems:
            self.problems.append(problem)
