"""Notifications that never came: asked for again, and told of where the server has them no more.
The server is not ours, the answers that get lost are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.uaerrors._base import UaStructParsingError

from services.protocols.opcua import connect, security
from services.protocols.opcua.batches import Batches
from services.protocols.opcua.subscriptions import Item, Notified, Subscriptions
from tests.kit.opcua import URI, NodeServer

COUNT_MS = 100
ENOUGH = 25
LOST = (4, 5, 9)
Publish = Callable[[list[Any]], Awaitable[Any]]


class Watch:
    """One subscription of the counter, over a session whose answers are tampered with."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.missing = 0
        self.enough = ENOUGH

    def told(self, _group: int, values: list[Notified]) -> None:
        self.numbers += [v.value.Value.Value for v in values]

    def tell_missing(self, _group: int, count: int) -> None:
        self.missing += count

    async def run(self, config: dict[str, Any], tamper: Callable[[Publish], Publish]) -> None:
        client = await connect.connect(config, "127.0.0.1")
        session = client.uaclient.session
        session.publish = tamper(session.publish)
        subscriptions = Subscriptions(client, Batches(), self.told, self.tell_missing)
        number = (await connect.namespaces(client))[URI]
        item = Item(0, ua.NodeId.from_string(f"ns={number};s=counter"), None)
        await subscriptions.watch([item], every_s=0.2, sampling_s=0, queue=50)
        task = asyncio.ensure_future(subscriptions.run())
        for _ in range(400):
            await asyncio.sleep(0.05)
            if task.done() or len(self.numbers) > self.enough:
                break
        task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        await client.disconnect()
        assert isinstance(result, asyncio.CancelledError), result
        assert len(self.numbers) > self.enough
        assert self.numbers == sorted(set(self.numbers)), "out of order, or twice"

    @property
    def holes(self) -> int:
        return sum(b > a + 1 for a, b in pairwise(self.numbers))


@pytest.fixture
def config(node_server: NodeServer, tmp_path: Path) -> dict[str, Any]:
    plc = {
        "id": "p", "port": node_server.port, "path": "", "timeout_s": 2.0, "username": None,
        "password": None, "user_certificate": None, "user_key": None,
        "policy": "Basic256Sha256", "mode": "sign_and_encrypt",
    }  # fmt: skip
    offered = asyncio.run(connect.endpoints(plc, "127.0.0.1"))
    shown = connect.leaf(connect.choose(offered, plc).ServerCertificate)
    security.trust(tmp_path, "p", shown)
    return {"site": "rig", "state": str(tmp_path), "plc": plc}


def watched(
    node_server: NodeServer, config: dict[str, Any], tamper: Callable[[Publish], Publish]
) -> Watch:
    """What came of the counter while it counted."""
    watch = Watch()
    node_server("count", period_ms=COUNT_MS)
    try:
        asyncio.run(watch.run(config, tamper))
    finally:
        node_server("stop")
    return watch


@pytest.mark.parametrize("acknowledge", [False, True])
def test_a_notification_that_is_lost(
    node_server: NodeServer, config: dict[str, Any], acknowledge: bool
) -> None:
    """``acknowledge``: the server hears that it came, and keeps it no longer."""
    dropped: list[int] = []
    told: list[asyncio.Future[Any]] = []

    def tamper(publish: Publish) -> Publish:
        answers = 0

        async def lossy(acks: list[Any]) -> Any:
            nonlocal answers
            response = await publish(acks)
            message = response.Parameters.NotificationMessage
            if message.NotificationData:
                answers += 1
                if answers in LOST:
                    dropped.append(message.SequenceNumber)
                    if acknowledge:
                        number = response.Parameters.SubscriptionId
                        ack = ua.SubscriptionAcknowledgement(number, message.SequenceNumber)
                        told.append(asyncio.ensure_future(publish([ack])))
                        await asyncio.sleep(0.05)
                    raise UaStructParsingError
            return response

        return lossy

    watch = watched(node_server, config, tamper)
    assert len(dropped) == len(LOST)
    if acknowledge:
        assert watch.missing == len(LOST)
        assert watch.holes in (len(LOST) - 1, len(LOST))  # 4 and 5 may be one
    else:
        assert (watch.missing, watch.holes) == (0, 0)


def test_the_last_change_is_lost(node_server: NodeServer, config: dict[str, Any]) -> None:
    """Nothing follows that would bring the present value."""
    watch, told = Watch(), list[asyncio.Future[Any]]()
    watch.enough = 1
    was: int = node_server("stop")
    value = {"node": "counter", "type": "Int32", "value": was}
    node_server("set", values=[value])

    def tamper(publish: Publish) -> Publish:
        async def lossy(acks: list[Any]) -> Any:
            response = await publish(acks)
            message = response.Parameters.NotificationMessage
            if not message.NotificationData or message.SequenceNumber > 2:
                return response
            if message.SequenceNumber == 1:
                node_server("set", values=[{**value, "value": was + 1}])
                return response
            ack = ua.SubscriptionAcknowledgement(response.Parameters.SubscriptionId, 2)
            told.append(asyncio.ensure_future(publish([ack])))
            await asyncio.sleep(0.05)
            raise UaStructParsingError

        return lossy

    try:
        asyncio.run(watch.run(config, tamper))
    finally:
        node_server("set", values=[value])
    assert watch.numbers == [was, was + 1]
    assert watch.missing == 1


def test_a_server_that_lets_few_requests_wait(
    node_server: NodeServer, config: dict[str, Any]
) -> None:
    refused: list[int] = []

    def tamper(publish: Publish) -> Publish:
        async def few(acks: list[Any]) -> Any:
            if not refused:
                refused.append(1)
                raise ua.uaerrors.BadTooManyPublishRequests
            return await publish(acks)

        return few

    watch = watched(node_server, config, tamper)
    assert refused
    assert (watch.missing, watch.holes) == (0, 0)
