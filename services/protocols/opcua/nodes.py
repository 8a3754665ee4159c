"""The nodes of all groups on one server: found by URI, read in batches, and made fields."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from asyncua import Client, ua

from services.protocols.opcua import connect, node_ref
from services.protocols.opcua.batches import Batches, read_values
from services.protocols.opcua.structures import Structures
from services.protocols.opcua.values import pick, plain
from services.protocols.tags import Change
from services.s7.types import BadValue


class Node:
    """One node of a group, and the fields that its value fills."""

    def __init__(self, ref: node_ref.NodeRef) -> None:
        self.ref = ref
        self.id = ua.NodeId()
        self.read_id = ua.NodeId()
        """As registered, where the server registers."""
        self.fields: list[tuple[str, tuple[str | int, ...]]] = []
        """(name, the way into the value) of each."""
        self.is_known = False
        """The server has its namespace."""
        self.is_watched = False
        self.refused = ""
        """Why it is not read, a word."""


class Nodes:
    """Those of one connection. ``groups``: of a reader, as rendered."""

    def __init__(self, groups: Sequence[Mapping[str, Any]]) -> None:
        self.groups = [_nodes(group) for group in groups]
        self.batches = Batches()
        self._polled = [group["mode"] != "subscribe" for group in groups]
        self._structures = Structures()

    async def resolve(self, client: Client) -> None:
        """Node ids for this server as it is numbered today, and the structures behind them."""
        await self.batches.learn(client)
        numbers = await connect.namespaces(client)
        for node in (node for group in self.groups for node in group):
            node.is_known = node.ref.uri in numbers
            if not node.is_known:
                node.refused = "namespace_unknown"
                continue
            number = numbers[node.ref.uri]
            node.id = ua.NodeId.from_string(f"ns={number};{node.ref.kind}={node.ref.value}")
            node.read_id = node.id
        known = [node for group in self.groups for node in group if node.is_known]
        types, _ = await self._attributes(client, known, ua.AttributeIds.DataType)
        for found in types:
            if found.Value is not None and isinstance(found.Value.Value, ua.NodeId):
                await self._structures.learn(client, found.Value.Value)
        await self._register(client)

    async def _register(self, client: Client) -> None:
        polled = [
            node
            for group, is_polled in zip(self.groups, self._polled, strict=True)
            for node in group
            if is_polled and node.is_known
        ]

        async def register(part: Sequence[Node]) -> Sequence[ua.NodeId]:
            asked = [node.id for node in part]
            ids: list[ua.NodeId] = await client.uaclient.session.register_nodes(asked)
            return ids

        with contextlib.suppress(ua.UaStatusCodeError):  # a server need not register anything
            ids, _ = await self.batches.run("register", polled, register)
            for node, registered in zip(polled, ids, strict=True):
                node.read_id = registered

    async def _attributes(
        self, client: Client, nodes: Sequence[Node], attribute: ua.AttributeIds
    ) -> tuple[list[ua.DataValue], int]:
        async def read(part: Sequence[Node]) -> Sequence[ua.DataValue]:
            return await read_values(client, [node.read_id for node in part], attribute)

        return await self.batches.run("read", nodes, read)

    async def read(self, client: Client, group: int) -> tuple[dict[str, Any], dict[str, str], int]:
        """(values, bad, number of requests) of every field of a group, now."""
        nodes = [node for node in self.groups[group] if node.is_known]
        found, requests = await self._attributes(client, nodes, ua.AttributeIds.Value)
        values: dict[str, Any] = {}
        bad: dict[str, str] = {}
        for node in self.groups[group]:
            if not node.is_known:
                bad |= {name: node.refused for name, _ in node.fields}
        for node, value in zip(nodes, found, strict=True):
            for change in self.changes(node, value, 0):
                if change.bad:
                    bad[change.name] = change.bad
                else:
                    values[change.name] = change.value
        return values, bad, requests

    def changes(self, node: Node, found: ua.DataValue, ts_ms: int) -> list[Change]:
        """What a node's value makes of each of its fields."""
        status = found.StatusCode
        try:
            if status is not None and not status.is_good():
                # Uncertain ones too: the CONTRACT lets no stale value through as good.
                raise BadValue(name_of(status))
            value = plain(found.Value, self._structures)
        except BadValue as e:
            return [Change(name, bad=e.reason, ts_ms=ts_ms) for name, _ in node.fields]
        changes: list[Change] = []
        for name, steps in node.fields:
            try:
                changes.append(Change(name, pick(value, steps), ts_ms=ts_ms))
            except BadValue as e:
                changes.append(Change(name, bad=e.reason, ts_ms=ts_ms))
        return changes


def name_of(status: ua.StatusCode) -> str:
    """The standard's name of a status code, without the info bits."""
    return str(ua.StatusCode(status.value & 0xFFFF0000).name)


def _nodes(group: Mapping[str, Any]) -> list[Node]:
    """The distinct nodes of a group's fields: of a structure several fields may be of one."""
    nodes: dict[str, Node] = {}
    for f in group["fields"]:
        name, member = f["tag"]["node"], f["tag"].get("member")
        node = nodes.get(name)
        if node is None:
            node = nodes[name] = Node(node_ref.parse(name))
        node.fields.append((f["name"], node_ref.parse_member(member) if member else ()))
    return list(nodes.values())
