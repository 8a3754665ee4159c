"""Server-sent events: ``/api/stream``.

Every client has a small set of "latest" slots, not a queue: whoever reads slowly skips what has
been overtaken, and whoever does not read at all is cut off. The readers never know: they send to
this process whether anybody looks or not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from bus.frames import Event
from services.metrics.site import MessageKey, Site
from services.metrics.status import Status

# How often changes go out; eyes need no more, and a phone's battery less.
PUMP_S = 0.25
STATUS_EVERY = 4
# A proxy or phone drops silent connections; this keeps them.
PING_S = 15.0
# A client that has not taken a byte for so long is gone or broken.
SEND_TIMEOUT_S = 15.0
MAX_CLIENTS = 64
MAX_QUEUED_EVENTS = 100
SHOWN_EVENTS = 50


class Client:
    """One listener and what it has not yet been told."""

    def __init__(self, query: QueryParams) -> None:
        self.panel = query.get("panel") == "1"
        self.groups = {
            (plc, group) for plc, _, group in (g.partition("/") for g in query.getlist("group"))
        }
        self.plcs = set(query.getlist("plc"))
        self.everything = not self.panel and not self.groups and not self.plcs
        self.wake = asyncio.Event()
        self._latest: dict[Any, bytes] = {}
        self._events: deque[bytes] = deque(maxlen=MAX_QUEUED_EVENTS)

    def wants(self, key: MessageKey) -> bool:
        """Whether this listener takes the messages of (plc, group, machine)."""
        if self.everything or (key[0], key[1]) in self.groups:
            return True
        return not self.panel and key[0] in self.plcs

    def offer(self, key: Any, data: bytes) -> None:
        """Something that replaces what it has of the same key."""
        self._latest[key] = data
        self.wake.set()

    def offer_event(self, data: bytes) -> None:
        """Something that replaces nothing; the oldest goes when there are too many."""
        self._events.append(data)
        self.wake.set()

    def take(self) -> bytes:
        """All that waits, as bytes of the stream."""
        self.wake.clear()
        data = b"".join((*self._latest.values(), *self._events))
        self._latest.clear()
        self._events.clear()
        return data


class Hub:
    """All clients, and the task that feeds them; lives in the HTTP thread's event loop."""

    def __init__(self, site: Site, status: Status) -> None:
        self.site = site
        self.status = status
        self.clients: set[Client] = set()
        self.dropped = 0
        self.closing = False
        self._someone = asyncio.Event()
        """Set while there are clients."""

    async def pump(self) -> None:
        """Feeds the clients until ``closing``."""
        turn = 0
        while not self.closing:
            if not self.clients:
                await self._someone.wait()
                with self.site.lock:
                    self.site.take_changes()  # what they are told at first holds it
            await asyncio.sleep(PUMP_S)
            turn += 1
            self._feed(with_status=turn % STATUS_EVERY == 0)

    def _feed(self, with_status: bool) -> None:
        panels = [c for c in self.clients if c.panel]
        document: dict[str, Any] | None = None
        groups: dict[str, list[dict[str, Any]]] = {}
        with self.site.lock:
            changed, events = self.site.take_changes()
            if with_status and panels:
                document = self.status.document(groups=False)
                groups = self._groups({plc for c in panels for plc in c.plcs})
        for (key, is_published), body in changed.items():
            data = b"data: " + body + b"\n\n"
            for client in self.clients:
                if client.wants(key) and (is_published or client.panel):
                    client.offer(key, data)
        for event in events:
            data = sse("event", event_json(event))
            for client in panels:
                client.offer_event(data)
        if document is not None:
            data = sse("status", document)
            rows = {plc: sse("groups", {"plc": plc, "groups": g}) for plc, g in groups.items()}
            for client in panels:
                client.offer("status", data)
                for plc in client.plcs & rows.keys():
                    client.offer(("groups", plc), rows[plc])

    def _groups(self, plcs: set[str]) -> dict[str, list[dict[str, Any]]]:
        now_s = self.site.clock()
        return {
            name: [self.status.group(g, now_s) for g in self.site.plcs[name].groups.values()]
            for name in plcs
            if name in self.site.plcs
        }

    def _first(self, client: Client) -> None:
        """What a client must know at once: it may have been away."""
        with self.site.lock:
            if client.panel:
                client.offer("hello", sse("hello", self._hello()))
                client.offer("status", sse("status", self.status.document(groups=False)))
                for name, rows in self._groups(client.plcs).items():
                    client.offer(("groups", name), sse("groups", {"plc": name, "groups": rows}))
            for plc_id, plc in self.site.plcs.items():
                for group_name, group in plc.groups.items():
                    for machine, message in group.machines.items():
                        key = (plc_id, group_name, machine)
                        if client.wants(key):
                            body = message.body
                            if not client.panel:
                                body = group.published.get(machine, body)
                            client.offer(key, b"data: " + body + b"\n\n")

    def _hello(self) -> dict[str, Any]:
        """What changes seldom: latency lines so far, recent events, units."""
        return {
            "site": self.site.name,
            "sparks": {p.id: list(p.spark) for p in self.site.plcs.values()},
            "units": {
                p.id: {g.name: g.units for g in p.groups.values() if g.units}
                for p in self.site.plcs.values()
            },
            "events": [event_json(e) for e in list(self.site.events)[-SHOWN_EVENTS:]],
        }

    def _watch(self) -> None:
        groups: set[tuple[str, str]] = set()
        for client in self.clients:
            groups |= client.groups
            if not client.panel:
                groups |= {
                    (plc, g)
                    for plc in client.plcs & self.site.plcs.keys()
                    for g in self.site.plcs[plc].groups
                }
        with self.site.lock:
            self.site.watch(groups, any(c.everything for c in self.clients))

    def close(self) -> None:
        """Ends every stream."""
        self.closing = True
        self._someone.set()
        for client in self.clients:
            client.wake.set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One client's stream, until either side ends it."""
        client = Client(QueryParams(scope["query_string"]))
        self.clients.add(client)
        self._someone.set()
        self._watch()
        self._first(client)
        gone = asyncio.ensure_future(_until_gone(receive, client))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"text/event-stream; charset=utf-8"),
                        (b"cache-control", b"no-store"),
                        (b"x-accel-buffering", b"no"),
                    ],
                }
            )
            data = b"retry: 2000\n\n" + client.take()
            while not gone.done() and not self.closing:
                message = {"type": "http.response.body", "body": data, "more_body": True}
                await asyncio.wait_for(send(message), SEND_TIMEOUT_S)
                try:
                    await asyncio.wait_for(client.wake.wait(), PING_S)
                    data = client.take()
                except TimeoutError:
                    data = b": ping\n\n"
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self.dropped += 1
            # Not close: that would wait for the buffer, which nobody empties.
            scope["state"]["transport"].abort()
        finally:
            gone.cancel()
            self.clients.discard(client)
            if not self.clients and not self.closing:
                self._someone.clear()
            self._watch()


async def _until_gone(receive: Receive, client: Client) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    client.wake.set()


def sse(name: str, data: Any) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def event_json(event: Event) -> dict[str, Any]:
    """An Event as the page and programs get it."""
    return {
        "process": event.process,
        "ts": event.ts_ms,
        "level": event.level,
        "code": event.code,
        "text": event.text,
        "fields": event.fields,
    }
