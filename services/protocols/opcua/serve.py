"""One connection to an OPC UA server, from its beginning to its end, in a thread of the reader."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any

from asyncua import Client, ua

from services.protocols.line import Line
from services.protocols.opcua import connect
from services.protocols.opcua.nodes import Nodes, name_of
from services.protocols.opcua.subscriptions import Item, Notified, Subscriptions, Terms
from services.protocols.source import Lost
from services.protocols.tags import Change

# The server's state is asked so often; a line that is cut is seen by it.
STATE_S = 1.0
# Nodes that the server refuses are asked for again after this time, doubling up to so often: a
# program may have been loaded since.
RETRY_S, RETRY_MAX_S = 5.0, 60.0
STATE = ua.ObjectIds.Server_ServerStatus_State
_EPOCH = datetime.datetime(1970, 1, 1)


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
        """One connection to one of the PLC's addresses."""
        asyncio.run(_Talk(self._config, host, line, self._is_new).run(self._subscribed))

    def _subscribed(self) -> None:
        self._is_new = False


class _Talk:
    """One connection."""

    def __init__(self, config: Mapping[str, Any], host: str, line: Line, is_new: bool) -> None:
        self._config = config
        self._is_new = is_new
        self._host = host
        self._line = line
        self._nodes = Nodes(config["groups"])
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
            self._line.on_asked = None
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.disconnect(), 1.0)
            client.disconnect_socket()

    async def _serve(self, client: Client, subscribed: Callable[[], None]) -> None:
        subscriptions = Subscriptions(client, self._nodes.batches, self._told, self._missing)
        self._nodes.batches.heard = self._line.heard
        await self._nodes.resolve(client)
        watched = [
            (n, group, await self._watch(subscriptions, n, group))
            for n, group in enumerate(self._config["groups"])
            if group["mode"] == "subscribe"
        ]
        policy, count = self._config["plc"]["policy"], sum(map(len, self._nodes.groups))
        text = f"security {policy}, {count} nodes"
        if sampled_ms := max((terms.sampling_ms for _, _, terms in watched), default=0.0):
            told_ms = max(terms.told_ms for _, _, terms in watched)
            text += f", looked at every {sampled_ms:.0f} ms, told every {told_ms:.0f} ms"
        await self._ask_state(client)  # before any value is told
        self._line.connected(text)
        for n, group, terms in watched:
            if self._is_new:
                self._line.lost_changes(n, Lost(0, why="reader_started"))
            self._tell_terms(n, group, terms)
        subscribed()
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                self._answer(client),
                self._watch_state(client),
                self._retry(subscriptions),
                subscriptions.run(),
            )
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

    # -- polled groups -------------------------------------------------------------------

    async def _answer(self, client: Client) -> None:
        while True:
            self._wake.clear()
            group = self._line.asked(0)
            if group is None:
                await self._wake.wait()
                continue
            began_s = time.monotonic()
            try:
                values, bad, requests = await self._nodes.read(client, group)
            except (ua.uaerrors.BadUserAccessDenied, ua.uaerrors.BadServiceUnsupported) as e:
                name = e.__class__.__name__
                text = f"the server refuses to be read ({name})"
                self._line.refused(group, name, text, began_s=began_s)
            else:
                self._line.read(group, values, bad, began_s=began_s, requests=requests)

    # -- subscribed groups ---------------------------------------------------------------

    async def _watch(
        self, subscriptions: Subscriptions, group: int, config: Mapping[str, Any]
    ) -> Terms:
        """Subscribes what of a group is not watched yet."""
        nodes = [n for n in self._nodes.groups[group] if n.is_known and not n.is_watched]
        if not nodes:
            return Terms()
        terms = await subscriptions.watch(
            [Item(group, node.id, node) for node in nodes],
            every_s=config["scan_s"],
            sampling_s=config["sampling_s"],
            queue=config["queue"],
        )
        for place, node in enumerate(nodes):
            node.is_watched = place not in terms.refused
            node.refused = "" if node.is_watched else name_of(terms.refused[place])
        return terms

    async def _retry(self, subscriptions: Subscriptions) -> None:
        wait_s = RETRY_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(RETRY_MAX_S, 2 * wait_s)
            for n, group in enumerate(self._config["groups"]):
                if group["mode"] == "subscribe":
                    await self._watch(subscriptions, n, group)

    def _tell_terms(self, group: int, config: Mapping[str, Any], terms: Terms) -> None:
        refused = [node for node in self._nodes.groups[group] if node.refused]
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
            node = told.item.key
            if told.has_overflowed and not told.is_first:
                if changes:
                    self._line.changed(group, changes)
                    changes = []
                self._line.lost_changes(group, Lost(1, {name: 1 for name, _ in node.fields}))
            stamp = told.value.SourceTimestamp or told.value.ServerTimestamp
            # A first value is as old as its last change; what is told of it is that it holds now.
            ts_ms = 0 if told.is_first or stamp is None else _unix_ms(stamp)
            changes += self._nodes.changes(node, told.value, ts_ms)
        self._line.changed(group, changes)

    def _missing(self, group: int, count: int) -> None:
        self._line.lost_changes(group, Lost(count))

    # -- both ----------------------------------------------------------------------------

    async def _watch_state(self, client: Client) -> None:
        """The server's state; a session that has expired is seen here too."""
        while True:
            await asyncio.sleep(STATE_S)
            await self._ask_state(client)

    async def _ask_state(self, client: Client) -> None:
        state = int(await client.get_node(ua.NodeId(STATE)).read_value())
        if state != self._state:
            self._state = state
            self._line.frozen("" if state == 0 else f"server_{_state_name(state)}")


def _state_name(state: int) -> str:
    try:
        return str(ua.ServerState(state).name).lower()
    except ValueError:
        return str(state)


def _unix_ms(stamp: datetime.datetime) -> int:
    """asyncua's times are UTC."""
    passed: datetime.timedelta = stamp.replace(tzinfo=None) - _EPOCH
    return round(passed.total_seconds() * 1_000)
