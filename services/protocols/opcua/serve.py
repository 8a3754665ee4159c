"""One connection to an OPC UA server, from its beginning to its end, in a thread of the reader."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncua import Client, ua

from services.protocols.opcua import connect, node_ref
from services.protocols.opcua.batches import Batches
from services.protocols.opcua.structures import Structures
from services.protocols.opcua.subscriptions import Item, Notified, Subscriptions, Terms
from services.protocols.opcua.values import pick, plain
from services.protocols.source import Lost
from services.protocols.tags import Change
from services.protocols.threaded import Line
from services.s7.types import BadValue

# The server's state is asked so often; a line that is cut is seen by it.
STATE_S = 1.0
STATE = ua.ObjectIds.Server_ServerStatus_State


class Serve:
    """Reads until the line is closed. Raises PlcUnavailable when the connection is gone, or cannot
    be made. ``config``: a reader's, as rendered.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._is_new = True
        """This process has not been subscribed yet: what changed before is not known. (Afterwards
        the loss of a connection tells as much.)"""

    def __call__(self, host: str, line: Line) -> None:
        asyncio.run(_Talk(self._config, host, line, self._is_new).run(self._subscribed))

    def _subscribed(self) -> None:
        self._is_new = False


class _Node:
    """One node of a group, and the fields that its value fills."""

    def __init__(self, ref: node_ref.NodeRef) -> None:
        self.ref = ref
        self.id = ua.NodeId()
        self.read_id = ua.NodeId()
        """As registered, where the server registers."""
        self.fields: list[tuple[str, tuple[str | int, ...]]] = []
        self.refused = ""
        """Why it is not read, a status code's name."""


class _Talk:
    """One connection."""

    def __init__(self, config: Mapping[str, Any], host: str, line: Line, is_new: bool) -> None:
        self._config = config
        self._is_new = is_new
        self._host = host
        self._line = line
        self._groups = [_nodes(group) for group in config["groups"]]
        self._structures = Structures()
        self._batches = Batches()
        self._wake = asyncio.Event()
        self._state = 0

    async def run(self, subscribed: Callable[[], None]) -> None:
        """``subscribed`` is called when values are on their way."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        self._line.on_asked = wake
        client = await connect.connect(self._config, self._host)
        try:
            await self._serve(client, subscribed)
        except Exception as e:
            raise connect.refusal(e, self._config["plc"]) from e
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.disconnect(), 1.0)
            client.disconnect_socket()

    async def _serve(self, client: Client, subscribed: Callable[[], None]) -> None:
        subscriptions = Subscriptions(client, self._batches, self._told, self._missing)
        await self._batches.learn(client)
        await self._resolve(client)
        text = f"{self._config['plc']['policy']}, {sum(map(len, self._groups))} nodes"
        watched = [
            (n, group, await self._watch(subscriptions, n, group))
            for n, group in enumerate(self._config["groups"])
            if group["mode"] == "subscribe"
        ]
        self._line.connected(text)
        for n, group, terms in watched:
            if self._is_new:
                self._line.lost_changes(n, Lost(1, why="reader_started"))
            self._tell_terms(n, group, terms)
        subscribed()
        tasks = [
            asyncio.ensure_future(work)
            for work in (self._answer(client), self._watch_state(client), subscriptions.run())
        ]
        try:
            while not self._line.is_closed:
                done, _ = await asyncio.wait(tasks, timeout=0.2, return_when="FIRST_COMPLETED")
                for task in done:
                    task.result()
                    tasks.remove(task)  # without a subscription there is nothing to take
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, client: Client) -> None:
        """Node ids for this server as it is numbered today, and the structures behind them."""
        numbers = await connect.namespaces(client)
        nodes = [node for group in self._groups for node in group]
        for node in nodes:
            if node.ref.uri not in numbers:
                node.refused = "namespace_unknown"
                continue
            number = numbers[node.ref.uri]
            node.id = ua.NodeId.from_string(f"ns={number};{node.ref.kind}={node.ref.value}")
            node.read_id = node.id
        known = [node for node in nodes if not node.refused]
        types = await self._read_all(client, known, ua.AttributeIds.DataType)
        for node, found in zip(known, types, strict=True):
            if found.StatusCode is not None and not found.StatusCode.is_good():
                node.refused = found.StatusCode.name
            elif found.Value is not None and isinstance(found.Value.Value, ua.NodeId):
                await self._structures.learn(client, found.Value.Value)
        polled = [
            node
            for group, config in zip(self._groups, self._config["groups"], strict=True)
            for node in group
            if config["mode"] != "subscribe" and not node.refused
        ]
        with contextlib.suppress(ua.UaStatusCodeError):  # a server need not register anything
            ids, _ = await self._batches.run(
                "register", [node.id for node in polled], self._register(client)
            )
            for node, registered in zip(polled, ids, strict=True):
                node.read_id = registered

    def _register(self, client: Client) -> Any:
        async def register(part: Sequence[ua.NodeId]) -> Sequence[ua.NodeId]:
            ids: list[ua.NodeId] = await client.uaclient.session.register_nodes(list(part))
            return ids

        return register

    async def _read_all(
        self, client: Client, nodes: Sequence[_Node], attribute: ua.AttributeIds
    ) -> list[ua.DataValue]:
        return (await self._read(client, nodes, attribute))[0]

    async def _read(
        self, client: Client, nodes: Sequence[_Node], attribute: ua.AttributeIds
    ) -> tuple[list[ua.DataValue], int]:
        async def read(part: Sequence[_Node]) -> Sequence[ua.DataValue]:
            asked = [ua.ReadValueId(NodeId=n.read_id, AttributeId=attribute) for n in part]
            parameters = ua.ReadParameters(
                TimestampsToReturn=ua.TimestampsToReturn.Both, NodesToRead=asked
            )
            found: list[ua.DataValue] = await client.uaclient.session.read(parameters)
            return found

        return await self._batches.run("read", nodes, read)

    # -- polled groups -------------------------------------------------------------------

    async def _answer(self, client: Client) -> None:
        while True:
            group = self._line.asked(0)
            if group is None:
                self._wake.clear()
                group = self._line.asked(0)
            if group is None:
                await self._wake.wait()
                continue
            began_s = time.monotonic()
            nodes = [node for node in self._groups[group] if not node.refused]
            try:
                found, requests = await self._read(client, nodes, ua.AttributeIds.Value)
            except (ua.uaerrors.BadUserAccessDenied, ua.uaerrors.BadServiceUnsupported) as e:
                name = e.__class__.__name__
                text = f"the server refuses to be read ({name})"
                self._line.refused(group, name, text, began_s=began_s)
                continue
            values: dict[str, Any] = {}
            bad: dict[str, str] = {}
            for node in self._groups[group]:
                if node.refused:
                    bad |= {name: node.refused for name, _ in node.fields}
            for node, value in zip(nodes, found, strict=True):
                for change in self._changes(node, value, 0):
                    if change.bad:
                        bad[change.name] = change.bad
                    else:
                        values[change.name] = change.value
            self._line.read(group, values, bad, began_s=began_s, requests=requests)

    # -- subscribed groups ---------------------------------------------------------------

    async def _watch(
        self, subscriptions: Subscriptions, group: int, config: Mapping[str, Any]
    ) -> Terms:
        nodes = [node for node in self._groups[group] if not node.refused]
        terms = await subscriptions.watch(
            group,
            [Item(node.id, node) for node in nodes],
            every_s=config["scan_s"],
            sampling_s=config["sampling_s"],
            queue=config["queue"],
        )
        for place, status in terms.refused.items():
            nodes[place].refused = status.name
        return terms

    def _tell_terms(self, group: int, config: Mapping[str, Any], terms: Terms) -> None:
        refused = [node for node in self._groups[group] if node.refused]
        changes = [Change(name, bad=n.refused) for n in refused for name, _ in n.fields]
        if changes:
            self._line.changed(group, changes)
        if terms.slower or terms.shorter:
            text = f"group {config['name']}: the server gives less than asked: "
            text += f"{terms.slower} nodes are sampled every {terms.sampling_ms:.0f} ms, "
            text += f"{terms.shorter} have a queue of {terms.queue}: changes that are shorter, or"
            text += " more of them, are not seen"
            self._line.event("warning", "opcua_revised", text)

    def _told(self, group: int, values: list[Notified]) -> None:
        changes: list[Change] = []
        for told in values:
            if told.has_overflowed and not told.is_first:
                names = {name: 1 for name, _ in told.item.key.fields}
                if changes:
                    self._line.changed(group, changes)
                    changes = []
                self._line.lost_changes(group, Lost(1, names))
            stamp = told.value.SourceTimestamp or told.value.ServerTimestamp
            # A first value is as old as its last change; what is told of it is that it holds now.
            ts_ms = 0 if told.is_first or stamp is None else _unix_ms(stamp)
            changes += self._changes(told.item.key, told.value, ts_ms)
        self._line.changed(group, changes)

    def _missing(self, group: int, count: int) -> None:
        self._line.lost_changes(group, Lost(count))

    # -- both ----------------------------------------------------------------------------

    def _changes(self, node: _Node, found: ua.DataValue, ts_ms: int) -> list[Change]:
        status = found.StatusCode
        if status is not None and not status.is_good():
            # Uncertain values too: the CONTRACT lets no stale value through as good.
            name = _name(status)
            return [Change(field, bad=name, ts_ms=ts_ms) for field, _ in node.fields]
        try:
            value = plain(found.Value, self._structures)
        except BadValue as e:
            return [Change(field, bad=e.reason, ts_ms=ts_ms) for field, _ in node.fields]
        changes: list[Change] = []
        for field, steps in node.fields:
            try:
                changes.append(Change(field, pick(value, steps), ts_ms=ts_ms))
            except BadValue as e:
                changes.append(Change(field, bad=e.reason, ts_ms=ts_ms))
        return changes

    async def _watch_state(self, client: Client) -> None:
        """The server's state; a session that has expired is seen here too."""
        node = client.get_node(ua.NodeId(STATE))
        while True:
            state = int(await node.read_value())
            if state != self._state:
                self._state = state
                self._line.frozen("" if state == 0 else f"server_{_state_name(state)}")
            await asyncio.sleep(STATE_S)


def _nodes(group: Mapping[str, Any]) -> list[_Node]:
    """The distinct nodes of a group's fields: of a structure several fields may be of one."""
    nodes: dict[str, _Node] = {}
    for f in group["fields"]:
        name, member = f["tag"]["node"], f["tag"].get("member")
        node = nodes.get(name)
        if node is None:
            node = nodes[name] = _Node(node_ref.parse(name))
        node.fields.append((f["name"], node_ref.parse_member(member) if member else ()))
    return list(nodes.values())


def _name(status: ua.StatusCode) -> str:
    """The standard's name of a status code, without the info bits."""
    return str(ua.StatusCode(status.value & 0xFFFF0000).name)


def _state_name(state: int) -> str:
    try:
        return str(ua.ServerState(state).name).lower()
    except ValueError:
        return str(state)


def _unix_ms(stamp: Any) -> int:
    """asyncua's times are UTC."""
    passed: datetime.timedelta = stamp.replace(tzinfo=None) - _EPOCH
    return round(passed.total_seconds() * 1_000)


_EPOCH = datetime.datetime(1970, 1, 1)
