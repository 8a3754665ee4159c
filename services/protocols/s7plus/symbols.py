"""The names of a CPU's symbol tree, and where each is read.

The CPU gives one description per type (a block's interface, a UDT, an FB), and a block names the
description it is made of. A name is looked up by walking them, so that what is kept is as large as
the program's types are, not as its arrays: ``s7commplus``'s own browse makes one entry of 0.5 kB
for each element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from services.s7.types import S7Type

if TYPE_CHECKING:  # 10 MB, for those that read with it
    from s7commplus.typeinfo import PObject, VartypeListElement

# The CPU's number of a type -> ours. Names as in s7commplus.typeinfo.Softdatatype.
TYPES: Final = {
    1: "BOOL", 2: "BYTE", 3: "CHAR", 4: "WORD", 5: "INT", 6: "DWORD", 7: "DINT", 8: "REAL",
    9: "DATE", 10: "TOD", 11: "TIME", 12: "S5TIME", 14: "DT", 19: "STRING", 40: "BOOL",
    48: "LREAL", 49: "ULINT", 50: "LINT", 51: "LWORD", 52: "USINT", 53: "UINT", 54: "UDINT",
    55: "SINT", 61: "WCHAR", 62: "WSTRING", 64: "LTIME", 65: "LTOD", 66: "LDT", 67: "DTL",
}  # fmt: skip
_BBOOL, _DTL = 40, 67
# PLC tags lie in these areas; their descriptions have fixed numbers.
AREAS: Final = (("I", 0x50, 0x90010000), ("Q", 0x51, 0x90020000), ("M", 0x52, 0x90030000))
# Nobody nests deeper (TIA: 8 levels of structs); a CPU that says so lies.
_DEPTH_MAX = 32
_STEP = re.compile(r'(?:"([^"]+)"|([^."\[\]]+))(?:\[\s*(-?\d+(?:\s*,\s*-?\d+)*)\s*\])?')


class SymbolError(ValueError):
    """A name that the CPU does not have, or not like this. ``reason`` is one word for ``bad``."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Step:
    """One name of a symbol, with the element of an array that is meant."""

    name: str
    indices: tuple[int, ...] = ()


def parse_symbol(text: str) -> tuple[Step, ...]:
    """``"Motor 1".speed[3].actual`` or without quotes. Raises SymbolError."""
    steps: list[Step] = []
    at = 0
    while True:
        match = _STEP.match(text, at)
        name = "" if match is None else (match[1] or match[2]).strip()
        if match is None or not name:
            message = f'{text!r} is no symbol at character {at + 1}: e.g. "Motor 1".speed[3].actual'
            raise SymbolError("bad_symbol", message)
        indices = tuple(int(i) for i in match[3].split(",")) if match[3] else ()
        steps.append(Step(name, indices))
        at = match.end()
        if at == len(text):
            return tuple(steps)
        if text[at] != ".":
            raise SymbolError("bad_symbol", f"{text!r}: a dot is missing at character {at + 1}")
        at += 1


def quoted(name: str) -> str:
    """A name as it must stand in a symbol."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) else f'"{name}"'


@dataclass(frozen=True, slots=True)
class Member:
    """A variable of a block, struct or area, as its description has it."""

    name: str
    lid: int
    soft: int
    """The CPU's number of its type."""
    length: int = 0
    """Declared maximum of a STRING or WSTRING."""
    dims: tuple[tuple[int, int], ...] = ()
    """(low, high) of each dimension, the last running fastest."""
    struct: int = 0
    """The description of what is in it; 0: nothing is."""

    @property
    def type(self) -> S7Type | None:
        """As a field has it; None for structs and what has no value (POINTER, VARIANT, …)."""
        base = TYPES.get(self.soft)
        if base is None:
            return None
        return S7Type(base, self.length if base in ("STRING", "WSTRING") else 0, self.dims)

    def number(self, indices: tuple[int, ...]) -> int:
        """Which element that is, as the CPU counts: rows of BOOLs begin at a multiple of 8."""
        number = 0
        for n, (index, (low, high)) in enumerate(zip(indices, self.dims, strict=True)):
            count = high - low + 1
            if self.soft == _BBOOL and len(self.dims) > 1 and n == len(self.dims) - 1:
                count += -count % 8
            number = number * count + index - low
        return number


@dataclass(frozen=True, slots=True)
class Place:
    """Where a symbol is read: the area or block, and the way to it."""

    area: int
    lids: tuple[int, ...]
    member: Member
    """With ``dims`` only where a whole array is meant."""

    def elements(self) -> Iterator[tuple[int, ...]]:
        """The ways to each element of an array, the last index first; its own where it is none."""
        member = self.member
        if not member.dims:
            yield self.lids
            return
        inner = (1,) if member.struct else ()
        lows = [low for low, _ in member.dims]
        indices = list(lows)
        while True:
            yield (*self.lids, member.number(tuple(indices)), *inner)
            n = len(indices) - 1
            while n >= 0 and indices[n] == member.dims[n][1]:
                indices[n] = lows[n]
                n -= 1
            if n < 0:
                return
            indices[n] += 1


class SymbolTree:
    """What a CPU has told of its blocks and types."""

    def __init__(self, roots: dict[str, tuple[int, int]], types: dict[int, list[Member]]) -> None:
        self.roots = roots
        """Name of a block -> (its number in requests, its description)."""
        self.types = types

    @classmethod
    def of(cls, roots: dict[str, tuple[int, int]], described: list[PObject]) -> SymbolTree:
        """From what s7commplus makes of the CPU's description."""
        types = {
            o.relation_id: [
                _member(name, element)
                for name, element in zip(o.varname_list, o.vartype_list, strict=False)
            ]
            for o in described
        }
        return cls(roots, types)

    def find(self, text: str) -> Place:
        """Where a symbol is read. Raises SymbolError, with what there is instead."""
        first, *rest = parse_symbol(text)
        if first.name in self.roots and not first.indices:
            area, described = self.roots[first.name]
            if not rest:
                raise SymbolError("no_value", f"{text} is a block: name a variable in it")
            return self._walk(text, area, described, rest)
        for _, area, described in AREAS:  # a PLC tag: their names and blocks' are all different
            if any(m.name == first.name for m in self.types.get(described, ())):
                return self._walk(text, area, described, [first, *rest])
        raise SymbolError("unknown_symbol", f"{text}: the CPU has no block or tag {first.name!r}")

    def _walk(self, text: str, area: int, described: int, steps: list[Step]) -> Place:
        lids: list[int] = []
        for n, step in enumerate(steps):
            members = self.types.get(described, [])
            member = next((m for m in members if m.name == step.name), None)
            if member is None:
                raise SymbolError("unknown_symbol", f"{text}: there is no {step.name!r} in it")
            is_last = n == len(steps) - 1
            lids.append(member.lid)
            if step.indices:
                self._check(text, member, step)
                lids.append(member.number(step.indices))
                if member.struct:
                    lids.append(1)
                member = replace(member, dims=())
            elif member.dims and not is_last:
                message = f"{text}: {step.name} is an array: say which element"
                raise SymbolError("no_value", message)
            if is_last:
                return Place(area, tuple(lids), member)
            described = member.struct
        raise AssertionError("a symbol has a step")

    @staticmethod
    def _check(text: str, member: Member, step: Step) -> None:
        dims = ",".join(f"{low}..{high}" for low, high in member.dims)
        if len(step.indices) != len(member.dims) or not all(
            low <= i <= high for i, (low, high) in zip(step.indices, member.dims, strict=True)
        ):
            has = f"has the elements [{dims}]" if dims else "is no array"
            raise SymbolError("unknown_symbol", f"{text}: {step.name} {has}")

    def variables(self, prefix: str = "") -> Iterator[tuple[str, S7Type | None]]:
        """Every variable that is or begins with ``prefix`` (a block, or a symbol), as (symbol,
        type); an array of an elementary type is one. None: of a type that has no value.
        """
        for name, (_, described) in self.roots.items():
            yield from self._below(quoted(name), described, prefix, 0)
        for _, _, described in AREAS:
            for member in self.types.get(described, ()):
                yield from self._of(quoted(member.name), member, prefix, 0)

    def _below(
        self, path: str, described: int, prefix: str, depth: int
    ) -> Iterator[tuple[str, S7Type | None]]:
        if depth > _DEPTH_MAX or not _may_hold(path, prefix):
            return
        for member in self.types.get(described, ()):
            yield from self._of(f"{path}.{quoted(member.name)}", member, prefix, depth)

    def _holds_any(self, described: int, depth: int) -> bool:
        """Whether there is any variable in a struct, however deep."""
        return depth <= _DEPTH_MAX and any(
            m.type is not None or not m.struct or self._holds_any(m.struct, depth + 1)
            for m in self.types.get(described, ())
        )

    def _of(
        self, path: str, member: Member, prefix: str, depth: int
    ) -> Iterator[tuple[str, S7Type | None]]:
        if not _may_hold(path, prefix):
            return
        if (found := member.type) is not None or not member.struct:
            yield path, found
        elif not self._holds_any(member.struct, depth):
            return  # or an array of a billion empty structs, which a damaged reply may have
        elif not member.dims:
            yield from self._below(path, member.struct, prefix, depth + 1)
        else:
            for indices in _indices(member.dims):
                element = f"{path}[{','.join(map(str, indices))}]"
                yield from self._below(element, member.struct, prefix, depth + 1)


def _may_hold(path: str, prefix: str) -> bool:
    """Whether something below ``path`` may begin with ``prefix``, or does."""
    path, prefix = path.replace('"', ""), prefix.replace('"', "")
    return path.startswith(prefix) or prefix.startswith(path)


def _indices(dims: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, ...]]:
    if not dims:
        yield ()
        return
    (low, high), *inner = dims
    for i in range(low, high + 1):
        for rest in _indices(tuple(inner)):
            yield (i, *rest)


def _member(name: str, element: VartypeListElement) -> Member:
    o = element.offset_info
    dims: tuple[tuple[int, int], ...] = ()
    if o.is_mdim:
        # The fastest dimension comes first here.
        axes = zip(o.mdim_lower_bounds, o.mdim_element_count, strict=True)
        dims = tuple((low, low + count - 1) for low, count in axes if count > 0)[::-1]
    elif o.is_1dim:
        low = o.array_lower_bound
        dims = ((low, low + o.array_element_count - 1),)
    soft = element.softdatatype
    length = o.unspecified1 if TYPES.get(soft) in ("STRING", "WSTRING") else 0
    return Member(name, element.lid, soft, length, dims, o.relation_id if o.has_relation else 0)
