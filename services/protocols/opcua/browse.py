"""What a server has: its variables with path, type, unit and comment, and the layout of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from asyncua import Client, ua

from services.protocols.found import Found
from services.protocols.opcua import connect, node_ref
from services.protocols.opcua.batches import Batches
from services.protocols.opcua.structures import Structures
from services.runtime.errors import PlcEdgeError

# A server that shows a node under more parents than this has a circle that node ids do not show.
MAX_DEPTH = 24
MAX_VARIABLES = 100_000
# Strings of OPC UA have no declared length; a layout's have one.
TEXT = "WSTRING[254]"
# Built-in type (its number in namespace 0) -> the layout's.
TYPES = {
    ua.ObjectIds.Boolean: "BOOL", ua.ObjectIds.SByte: "SINT", ua.ObjectIds.Byte: "USINT",
    ua.ObjectIds.Int16: "INT", ua.ObjectIds.UInt16: "UINT", ua.ObjectIds.Int32: "DINT",
    ua.ObjectIds.UInt32: "UDINT", ua.ObjectIds.Int64: "LINT", ua.ObjectIds.UInt64: "ULINT",
    ua.ObjectIds.Float: "REAL", ua.ObjectIds.Double: "LREAL", ua.ObjectIds.String: TEXT,
    ua.ObjectIds.DateTime: "LDT", ua.ObjectIds.Guid: TEXT, ua.ObjectIds.ByteString: TEXT,
    ua.ObjectIds.LocalizedText: TEXT, ua.ObjectIds.QualifiedName: TEXT,
    ua.ObjectIds.StatusCode: TEXT, ua.ObjectIds.NodeId: TEXT,
}  # fmt: skip
_DTL_MEMBERS = ("YEAR", "MONTH", "DAY", "WEEKDAY", "HOUR", "MINUTE", "SECOND", "NANOSECOND")
_ATTRIBUTES = (
    ua.AttributeIds.DataType,
    ua.AttributeIds.ValueRank,
    ua.AttributeIds.ArrayDimensions,
    ua.AttributeIds.Description,
    ua.AttributeIds.UserAccessLevel,
)
_READABLE = 1


def find(config: Mapping[str, Any], host: str, path: str) -> list[Found]:
    """Everything under ``path``: browse names joined by ``/`` from Objects on, or a node."""

    async def look() -> list[Found]:
        client = await connect.connect(config, host)
        try:
            return await Browser(client).find(path)
        except (OSError, TimeoutError, ua.UaError) as e:
            raise connect.refusal(e, config["plc"]) from e
        finally:
            with contextlib.suppress(Exception):
                await client.disconnect()

    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    return asyncio.run(look())


class Browser:
    """One browse of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._batches = Batches()
        self._structures = Structures()
        self._uris: list[str] = []

    async def find(self, path: str) -> list[Found]:
        """Everything under ``path``: browse names joined by ``/`` from Objects on, or a node.

        Raises PlcEdgeError where there is no such place.
        """
        await self._batches.learn(self._client)
        self._uris = list(await connect.namespaces(self._client))
        start = await self._start(path)
        variables = [v async for v in self._walk(start)]
        attributes = await self._attributes([node for _, node in variables])
        found: list[Found] = []
        for (place, node), known in zip(variables, attributes, strict=True):
            found += await self._describe(place, node, known)
        return found

    async def _start(self, path: str) -> ua.NodeId:
        if "=" in path:
            try:
                ref = node_ref.parse(path)
            except ValueError as e:
                raise PlcEdgeError(str(e)) from None
            if ref.uri not in self._uris:
                raise PlcEdgeError(f"{path}: this server has no namespace {ref.uri}")
            number = self._uris.index(ref.uri)
            return ua.NodeId.from_string(f"ns={number};{ref.kind}={ref.value}")
        at = ua.NodeId(ua.ObjectIds.ObjectsFolder)
        for step in filter(None, path.split("/")):
            children = await self._children([at])
            names = {child.BrowseName.Name: child for child in children[0]}
            if step not in names:
                few = ", ".join(sorted(n for n in names if n)[:20])
                text = f"{path}: there is no {step!r}; there are: {few or 'none'}"
                raise PlcEdgeError(text + (" (steps are parted by `/`)" if "." in step else ""))
            at = _local(names[step].NodeId)
        return at

    async def _walk(self, start: ua.NodeId) -> AsyncIterator[tuple[str, ua.NodeId]]:
        """(path, node) of each variable, level by level, each node once."""
        seen = {start, ua.NodeId(ua.ObjectIds.Server)}
        level = [("", start)]
        count = 0
        if await self._is_variable(start):
            yield str((await self._client.get_node(start).read_browse_name()).Name), start
        for _ in range(MAX_DEPTH):
            following: list[tuple[str, ua.NodeId]] = []
            for (path, _), children in zip(
                level, await self._children([node for _, node in level]), strict=True
            ):
                for child in children:
                    node = _local(child.NodeId)
                    if node in seen:
                        continue
                    seen.add(node)
                    place = f"{path}.{child.BrowseName.Name}" if path else child.BrowseName.Name
                    if child.NodeClass == ua.NodeClass.Variable:
                        count += 1
                        if count > MAX_VARIABLES:
                            text = f"more than {MAX_VARIABLES:,} variables: give a PATH"
                            raise PlcEdgeError(text)
                        yield place, node
                    following.append((place, node))
            if not following:
                return
            level = following

    async def _is_variable(self, node: ua.NodeId) -> bool:
        return bool(await self._client.get_node(node).read_node_class() == ua.NodeClass.Variable)

    async def _children(self, nodes: Sequence[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
        """The objects and variables below each node; properties are no values of the plant."""
        is_property = ua.NodeId(ua.ObjectIds.HasProperty)
        session = self._client.uaclient.session

        async def browse(part: Sequence[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
            parameters = ua.BrowseParameters()
            parameters.View = ua.ViewDescription()
            parameters.RequestedMaxReferencesPerNode = 0
            parameters.NodesToBrowse = [_down(node) for node in part]
            out: list[list[ua.ReferenceDescription]] = []
            for result in await session.browse(parameters):
                references = list(result.References or [])
                point = result.ContinuationPoint
                while point:
                    more = ua.BrowseNextParameters(ContinuationPoints=[point])
                    following = (await session.browse_next(more))[0]
                    references += following.References or []
                    point = following.ContinuationPoint
                out.append([r for r in references if r.ReferenceTypeId != is_property])
            return out

        return (await self._batches.run("browse", nodes, browse))[0]

    async def _attributes(self, nodes: Sequence[ua.NodeId]) -> list[dict[Any, Any]]:
        asked = [(n, a) for n in nodes for a in _ATTRIBUTES]

        async def read(part: Sequence[tuple[ua.NodeId, Any]]) -> Sequence[ua.DataValue]:
            parameters = ua.ReadParameters(
                NodesToRead=[ua.ReadValueId(NodeId=n, AttributeId=a) for n, a in part]
            )
            read: list[ua.DataValue] = await self._client.uaclient.session.read(parameters)
            return read

        found, _ = await self._batches.run("read", asked, read)
        values = [v.Value.Value if v.Value is not None else None for v in found]
        width = len(_ATTRIBUTES)
        return [
            dict(zip(_ATTRIBUTES, values[i : i + width], strict=True))
            for i in range(0, len(values), width)
        ]

    async def _describe(self, path: str, node: ua.NodeId, known: Mapping[Any, Any]) -> list[Found]:
        data_type = known[ua.AttributeIds.DataType]
        ref = str(node_ref.NodeRef(self._uris[node.NamespaceIndex], *_identifier(node)))
        one = Found(path, {"node": ref}, unit=await self._unit(node), comment=_comment(known))
        if not (known[ua.AttributeIds.UserAccessLevel] or 0) & _READABLE:
            one.why = "not readable"
            return [one]
        if not isinstance(data_type, ua.NodeId):
            one.why = "the server does not tell its type"
            return [one]
        base = await self._structures.base_of(self._client, data_type)
        counts = await self._counts(node, known)
        if base != ua.ObjectIds.Structure:
            return [_typed(one, base, counts)]
        await self._structures.learn(self._client, data_type)
        if counts:
            one.why = "an array of structures: name elements by `member:`, e.g. `[0].speed`"
            return [one]
        return self._members(one, data_type)

    def _members(self, whole: Found, data_type: ua.NodeId) -> list[Found]:
        members = self._structures.members(data_type)
        if not members:
            whole.why = "a structure that the server does not describe"
            return [whole]
        if tuple(m.name for m in members) == _DTL_MEMBERS:
            whole.type = "DTL"
            return [whole]
        found: list[Found] = []
        for m in members:
            above = whole.tag.get("member")
            tag = {**whole.tag, "member": f"{above}.{m.name}" if above else m.name}
            one = Found(f"{whole.path}.{m.name}", tag, comment=whole.comment)
            if m.is_array:
                one.why = "an array of unknown length: name elements by `member:`"
                found.append(one)
            elif m.base == ua.ObjectIds.Structure:
                found += self._members(one, m.data_type)
            else:
                found.append(_typed(one, m.base, []))
        return found

    async def _counts(self, node: ua.NodeId, known: Mapping[Any, Any]) -> list[int]:
        """Elements of each dimension, as told; of one that tells none, as it is now."""
        rank = known[ua.AttributeIds.ValueRank]
        if rank is None or rank == -1:
            return []
        told = [int(n) for n in known[ua.AttributeIds.ArrayDimensions] or []]
        if told and all(told):
            return told
        value = await self._client.get_node(node).read_value()
        counts: list[int] = []
        while isinstance(value, list) and value:
            counts.append(len(value))
            value = value[0]
        return counts

    async def _unit(self, node: ua.NodeId) -> str:
        try:
            unit = await self._client.get_node(node).get_child("0:EngineeringUnits")
            value = await unit.read_value()
        except ua.UaError:
            return ""
        return str(value.DisplayName.Text or "") if isinstance(value, ua.EUInformation) else ""


def _down(node: ua.NodeId) -> ua.BrowseDescription:
    description = ua.BrowseDescription()
    description.NodeId = node
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    description.IncludeSubtypes = True
    description.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    description.ResultMask = ua.BrowseResultMask.All
    return description


def _local(node: ua.NodeId) -> ua.NodeId:
    """A reference's target without what makes it an expanded id."""
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _identifier(node: ua.NodeId) -> tuple[str, str]:
    text = ua.NodeId(node.Identifier, 0, node.NodeIdType).to_string()
    kind, _, value = text.partition("=")  # a name may hold anything
    return kind, value


def _comment(known: Mapping[Any, Any]) -> str:
    text = known[ua.AttributeIds.Description]
    return str(text.Text or "") if isinstance(text, ua.LocalizedText) else ""


def _typed(one: Found, base: int, counts: list[int]) -> Found:
    name = TYPES.get(base)
    if name is None:
        one.why = "a layout has no type for it"
        return one
    one.type = name
    if counts:
        one.type += "[" + ",".join(f"0..{n - 1}" for n in counts) + "]"
    return one
