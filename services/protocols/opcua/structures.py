"""Structures (S7: UDTs) by the definition that the server gives of each data type.

Decoded here rather than by classes that asyncua makes from the server's names: those stand in one
namespace of the library, where a second type of the same name takes the first one's place, and are
made by running text that the server has sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from asyncua import Client, ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import (
    Primitives,
    extensionobject_from_binary,
    nodeid_from_binary,
    unpack_uatype,
)

from services.s7.types import BadValue

Decode = Callable[[Buffer], Any]

MAX_DEPTH = 16
# Elements of one array within a structure; more is a damaged message.
MAX_ELEMENTS = 1_000_000
_OPTIONAL = ua.StructureType.StructureWithOptionalFields
# Not those whose members may be of a subtype, which are encoded otherwise (OPC 10000-3 §8.48).
_KINDS = (ua.StructureType.Structure, _OPTIONAL, ua.StructureType.Union)


@dataclass(slots=True)
class Member:
    """One member of a structure."""

    name: str
    data_type: ua.NodeId
    base: int
    """The built-in type that it is encoded as (``ua.ObjectIds``)."""
    decode: Decode
    is_array: bool
    has_dimensions: bool
    is_optional: bool


@dataclass(slots=True)
class _Structure:
    kind: int
    """ua.StructureType"""
    members: list[Member]


class Structures:
    """What this connection's server has told of its structures."""

    def __init__(self) -> None:
        self._by_type: dict[ua.NodeId, _Structure] = {}
        self._by_encoding: dict[ua.NodeId, _Structure] = {}
        self._asked: set[ua.NodeId] = set()
        self._bases: dict[ua.NodeId, int] = {}

    async def learn(self, client: Client, data_type: ua.NodeId, depth: int = 0) -> None:
        """Asks for a data type's definition, and those of its members; nothing where the type is no
        structure, or the server does not tell.
        """
        if data_type in self._asked or depth > MAX_DEPTH or data_type.NamespaceIndex == 0:
            return
        self._asked.add(data_type)
        try:
            definition = await client.get_node(data_type).read_data_type_definition()
        except ua.UaError:
            return
        if (
            not isinstance(definition, ua.StructureDefinition)
            or definition.StructureType not in _KINDS
        ):
            return
        structure = _Structure(int(definition.StructureType), [])
        for f in definition.Fields or []:
            try:
                base = await self.base_of(client, f.DataType)
            except ua.UaError:  # it does not say what a member is: nor can the rest be found
                return
            decode = await self._decoder(client, f.DataType, base, depth)
            optional = bool(f.IsOptional) and structure.kind == _OPTIONAL
            rank = f.ValueRank
            member = Member(f.Name or "", f.DataType, base, decode, rank >= 0, rank > 1, optional)
            structure.members.append(member)
        self._by_type[data_type] = structure
        self._by_encoding[definition.DefaultEncodingId] = structure

    async def _decoder(self, client: Client, data_type: ua.NodeId, base: int, depth: int) -> Decode:
        if base == ua.ObjectIds.Structure:
            await self.learn(client, data_type, depth + 1)
            if data_type in self._by_type:
                structure = self._by_type[data_type]
                return lambda data: self._members(structure, data)
            # An abstract member carries its own type along.
            return cast(Decode, extensionobject_from_binary)
        if base in (ua.ObjectIds.NodeId, ua.ObjectIds.ExpandedNodeId):
            return cast(Decode, nodeid_from_binary)
        kind = ua.VariantType(base) if base <= 25 else ua.VariantType.Variant
        return lambda data: unpack_uatype(kind, data)

    async def base_of(self, client: Client, data_type: ua.NodeId) -> int:
        """The built-in type (its number in namespace 0) that a data type is encoded as."""
        path: list[ua.NodeId] = []
        at = data_type
        base = int(ua.ObjectIds.BaseDataType)
        while len(path) < MAX_DEPTH:
            if at in self._bases:
                base = self._bases[at]
                break
            path.append(at)
            if at.NamespaceIndex == 0 and isinstance(at.Identifier, int):
                if at.Identifier == ua.ObjectIds.Enumeration:
                    base = int(ua.ObjectIds.Int32)
                    break
                if 1 <= at.Identifier <= 25 and at.Identifier != ua.ObjectIds.BaseDataType:
                    base = at.Identifier
                    break
            parents = await client.get_node(at).get_referenced_nodes(
                refs=ua.ObjectIds.HasSubtype, direction=ua.BrowseDirection.Inverse
            )
            if not parents:
                break
            at = parents[0].nodeid
        self._bases.update(dict.fromkeys(path, base))
        return base

    def decode(self, found: ua.ExtensionObject) -> dict[str, Any]:
        """The members of a structure. Raises BadValue."""
        structure = self._by_encoding.get(found.TypeId)
        if structure is None:
            raise BadValue("unknown_structure")
        data = Buffer(found.Body or b"")
        try:
            members = self._members(structure, data)
        except BadValue:
            raise
        except Exception:  # bytes that are no such structure fail in many ways
            raise BadValue("bad_structure") from None
        if data:  # of another definition: its members stand elsewhere
            raise BadValue("bad_structure")
        return members

    def members(self, data_type: ua.NodeId) -> list[Member]:
        """The members of a known structure; none of other types."""
        structure = self._by_type.get(data_type)
        return structure.members if structure else []

    def _members(self, structure: _Structure, data: Buffer) -> dict[str, Any]:
        if structure.kind == ua.StructureType.Union:
            switch = Primitives.UInt32.unpack(data)
            if switch == 0:
                return {}
            return _one(structure.members[switch - 1], data)
        mask = -1
        if structure.kind == ua.StructureType.StructureWithOptionalFields:
            mask = Primitives.UInt32.unpack(data)
        found: dict[str, Any] = {}
        bit = 0
        for member in structure.members:
            if member.is_optional:
                bit += 1
                if not mask >> bit - 1 & 1:
                    continue
            found |= _one(member, data)
        return found


def _one(member: Member, data: Buffer) -> dict[str, Any]:
    if not member.is_array:
        return {member.name: member.decode(data)}
    if member.has_dimensions:
        counts = _array(Primitives.Int32.unpack, data)
        flat = [member.decode(data) for _ in range(_product(counts))]
        return {member.name: _nest(flat, counts)}
    return {member.name: _array(member.decode, data)}


def _array(decode: Decode, data: Buffer) -> list[Any]:
    count = Primitives.Int32.unpack(data)
    if count > MAX_ELEMENTS:
        raise BadValue("bad_structure")
    return [decode(data) for _ in range(max(0, count))]


def _product(counts: list[int]) -> int:
    total = 1
    for count in counts:
        total *= max(0, count)
    if total > MAX_ELEMENTS:
        raise BadValue("bad_structure")
    return total


def _nest(flat: list[Any], counts: list[int]) -> list[Any]:
    for count in reversed(counts[1:]):
        flat = [flat[i : i + count] for i in range(0, len(flat), max(1, count))]
    return flat
