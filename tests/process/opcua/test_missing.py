"""Notifications that never came: asked for again, and told of where the server has them no more.
The server is not ours, the answers that get lost are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.ua.uaerrors._base import UaStructParsingError

from services.protocols.opcua import connect, security
from services.protocols.opcua.batches import Batches
from services.protocols.opcua.subscriptions import Item, Notified, Subscriptions
from tests.kit.opcua import URI, NodeServer

COUNT_MS = 100


class Watch:
    """One subscription of the counter; some answers are lost on their way."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.missing = 0
        self.dropped = 0

    def told(self, _group: int, values: list[Notified]) -> None:
        self.numbers += [v.value.Value.Value for v in values]

    def tell_missing(self, _group: int, count: int) -> None:
        self.missing += count

    async def run(self, client: Client, acknowledge: bool, enough: Callable[[], bool]) -> None:
        batches = Batches()
        session = client.uaclient.session
        publish = session.publish
        answers = 0
        background: list[asyncio.Future[Any]] = []

        async def lossy(acks: list[Any]) -> Any:
            nonlocal answers
            response = await publish(acks)
            data = response.Parameters.NotificationMessage
            if data.NotificationData:
                answers += 1
                if answers in (4, 5, 9):
                    self.dropped += 1
                    if acknowledge:  # then the server keeps it no longer
                        ack = ua.SubscriptionAcknowledgement(
                            response.Parameters.SubscriptionId, data.SequenceNumber
                        )
                        background.append(asyncio.ensure_future(publish([ack])))
                        await asyncio.sleep(0.05)
                    raise UaStructParsingError
            return response

        session.publish = lossy
        subscriptions = Subscriptions(client, batches, self.told, self.tell_missing)
        number = (await connect.namespaces(client))[URI]
        item = Item(0, ua.NodeId.from_string(f"ns={number};s=counter"), None)
        await subscriptions.watch([item], every_s=0.2, sampling_s=0, queue=50)
        task = asyncio.ensure_future(subscriptions.run())
        for _ in range(200):
            await asyncio.sleep(0.05)
            if task.done() or enough():
                break
        task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(result, asyncio.CancelledError), result


@pytest.mark.parametrize("acknowledge", [False, True])
def test_a_notification_that_is_lost(
    node_server: NodeServer, tmp_path: Path, acknowledge: bool
) -> None:
    plc = {
        "id": "p", "port": node_server.port, "path": "", "timeout_s": 2.0, "username": None,
        "password": None, "user_certificate": None, "user_key": None,
        "policy": "Basic256Sha256", "mode": "sign_and_encrypt",
    }  # fmt: skip
    config = {"site": "rig", "state": str(tmp_path), "plc": plc}
    offered = asyncio.run(connect.endpoints(plc, "127.0.0.1"))
    shown = connect.leaf(connect.choose(offered, plc).ServerCertificate)
    security.trust(tmp_path, "p", shown)
    watch = Watch()

    async def talk() -> None:
        client = await connect.connect(config, "127.0.0.1")
        try:
            await watch.run(client, acknowledge, lambda: len(watch.numbers) > 25)
        finally:
            await client.disconnect()

    node_server("count", period_ms=COUNT_MS)
    try:
        asyncio.run(talk())
    finally:
        node_server("stop")
    assert watch.dropped == 3
    counted = watch.numbers
    assert counted == sorted(set(counted)), "out of order, or twice"
    holes = sum(b > a + 1 for a, b in pairwise(counted))
    if acknowledge:
        assert watch.missing == 3
        assert holes in (2, 3)
    else:
        assert (watch.missing, holes) == (0, 0)
