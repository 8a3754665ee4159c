"""A client of our server in a process of its own: ``python -m tests.kit.opcua_watch``.

Its first line of input is JSON: {port, folder (its certificate), user, password, paths (what it
watches), clock (the path of a value that holds the time of its change, s), publishing_ms, seconds}.
It prints "watching", then, with the next line of input, counts for ``seconds`` and prints what came
as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from tests.kit.opcua_rig import CLIENT_URI, NAMESPACE

CHUNK = 1_000


class Counter:
    """Every notification that comes; the ages of the clock's."""

    def __init__(self) -> None:
        self.count = 0
        self.ages_s: list[float] = []
        self.bad = 0
        self.clock: Any = None

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        """asyncua's name."""
        self.count += 1
        if not data.monitored_item.Value.StatusCode.is_good():
            self.bad += 1
        elif node == self.clock:
            self.ages_s.append(time.time() - value)


async def watch(told: dict[str, Any]) -> None:
    """Connects, watches, counts."""
    client = Client(f"opc.tcp://127.0.0.1:{told['port']}/", timeout=120)
    client.application_uri = CLIENT_URI
    client.set_user(told["user"])
    client.set_password(told["password"])
    await client.set_security(
        SecurityPolicyBasic256Sha256,
        certificate=f"{told['folder']}/own.der",
        private_key=f"{told['folder']}/own-key.pem",
        mode=ua.MessageSecurityMode.SignAndEncrypt,
    )
    async with client:
        namespace = await client.get_namespace_index(NAMESPACE)
        counter = Counter()
        nodes = [client.get_node(ua.NodeId(p, namespace)) for p in told["paths"]]
        counter.clock = client.get_node(ua.NodeId(told["clock"], namespace))
        subscription = await client.create_subscription(
            told["publishing_ms"], counter, queue_maxsize=100_000
        )
        for i in range(0, len(nodes), CHUNK):
            made = await subscription.subscribe_data_change(nodes[i : i + CHUNK])
            assert all(isinstance(handle, int) for handle in made), made
        print("watching", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        counter.count, counter.ages_s, counter.bad = 0, [], 0
        begin_s = time.monotonic()
        await asyncio.sleep(told["seconds"])
        took_s = time.monotonic() - begin_s
        ages = counter.ages_s
        said = {"notifications_per_s": counter.count / took_s, "bad": counter.bad, "ages_s": ages}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(watch(json.loads(sys.stdin.readline())))
