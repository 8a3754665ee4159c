"""A whole ``opcua`` output for tests, and what an asyncua session sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)

from services.opcua.certificates import Own
from tests.kit.common import free_port, until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.opcua_rig import (
    CLIENT_URI,
    NAMESPACE,
    body,
    client_certificate,
    opcua_config,
    trust,
    user,
)
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import run_folder

TEMPERATURE = "acme/prensa-01/db500/temperatura"
_C = ua.StatusCodes
POLICIES = {"Basic256Sha256": SecurityPolicyBasic256Sha256,
            "Aes256_Sha256_RsaPss": SecurityPolicyAes256Sha256RsaPss}  # fmt: skip


@dataclass
class Rig:
    """A server, its store, and a client's certificate that is on its list."""

    run: Path
    port: int
    peer: DispatchPeer
    server: Service
    own: Own

    def client(self, name: str = "ana", password: str = "segredo", **more: Any) -> Seen:
        return Seen(self.port, more.pop("own", self.own), name, password, **more)


class Seen:
    """What one asyncua session sees."""

    def __init__(
        self,
        port: int,
        own: Own | None,
        name: str,
        password: str,
        policy: str = "Basic256Sha256",
        mode: ua.MessageSecurityMode = ua.MessageSecurityMode.SignAndEncrypt,
        auto_reconnect: bool = False,
    ) -> None:
        url = f"opc.tcp://127.0.0.1:{port}/"
        self.client = Client(url, timeout=5, auto_reconnect=auto_reconnect)
        self.client.application_uri = CLIENT_URI
        self._own, self._policy, self._mode = own, policy, mode
        if name:
            self.client.set_user(name)
            self.client.set_password(password)
        self.changes: list[tuple[str, Any, str]] = []
        """(path, value, status)."""

    async def secure(self) -> None:
        if self._own is not None:
            await self.client.set_security(
                POLICIES[self._policy],
                certificate=str(self._own.cert),
                private_key=str(self._own.key),
                mode=self._mode,
            )

    async def __aenter__(self) -> Seen:
        await self.secure()
        await self.client.connect()
        self.namespace = await self.client.get_namespace_index(NAMESPACE)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.disconnect()

    def node(self, path: str) -> Any:
        return self.client.get_node(ua.NodeId(path, self.namespace))

    async def read(self, path: str) -> Any:
        return await self.node(path).read_data_value(raise_on_bad_status=False)

    async def tree(self, start: Any = None, path: str = "") -> list[str]:
        found = []
        for child in await (start or self.client.nodes.objects).get_children():
            if not child.nodeid.NamespaceIndex:
                continue
            here = f"{path}{child.nodeid.Identifier.rsplit('/', 1)[-1]}"
            assert child.nodeid.Identifier == here
            found += [here, *await self.tree(child, f"{here}/")]
        return found

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        code = data.monitored_item.Value.StatusCode
        self.changes.append((node.nodeid.Identifier, value, code.name))

    async def watch(self, *paths: str) -> Any:
        subscription = await self.client.create_subscription(50, self)
        await subscription.subscribe_data_change([self.node(p) for p in paths])
        return subscription

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20) -> None:
        for _ in range(int(timeout_s * 100)):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within {timeout_s} s: {self.changes[-5:]}")


@contextmanager
def rig(plcs: list[dict[str, Any]] | None = None, **options: Any) -> Iterator[Rig]:
    """One user, ana, of all tenants, unless ``users`` says otherwise."""
    with run_folder() as run:
        port = free_port()
        own = client_certificate(run / "client")
        trust(run, own)
        users = options.pop("users", [("ana", "segredo", None)])
        options["users"] = [user(run, *u) for u in users]
        config = opcua_config(run, port, plcs, **options)
        with DispatchPeer(run, "scada") as peer, service(config) as server:
            until(lambda: server.said("connected"), 60, server.stderr)
            yield Rig(run, port, peer, server, own)
            assert not server.said("server fault"), server.stderr()
            assert server.terminate() == 0


def go(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In a loop of its own."""
    asyncio.run(work())


def fill(r: Rig, seq: int = 1, **values: Any) -> None:
    """One message of prensa-01, settled."""
    shown = {"temperatura": 81.5, "rodando": True, "ciclos": 7, **values}
    r.peer.add(1, bodies=[body(seq, shown)])
    r.peer.wait_done(5)
