"""The ``opcua`` output, as clients see it: asyncua's and node-opcua's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)

from bus.frames import Heartbeat, Reply, Request
from bus.sockets import Bus
from services.opcua.certificates import Own
from services.runtime.clock import now_ms
from tests.kit.common import free_port, until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.opcua_foreign import NodeClient
from tests.kit.opcua_rig import (
    CLIENT_URI,
    NAMESPACE,
    body,
    client_certificate,
    opcua_config,
    plc,
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

    async def until(self, condition: Callable[[], bool], timeout_s: float = 5) -> None:
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
            until(lambda: server.said("connected"), 15, server.stderr)
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


def test_browse_read_watch_and_nothing_else() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen:
                assert await seen.tree() == [
                    "acme", "acme/prensa-01",
                    *(f"acme/prensa-01/_status{n}"
                      for n in ("", "/status", "/scan_ms", "/latency_ms", "/failure")),
                    "acme/prensa-01/db500", TEMPERATURE, f"{TEMPERATURE}/EngineeringUnits",
                    "acme/prensa-01/db500/rodando", "acme/prensa-01/db500/ciclos",
                ]  # fmt: skip
                node = seen.node(TEMPERATURE)
                found = await node.read_data_value()
                assert (found.Value.Value, found.Value.VariantType) == (81.5, ua.VariantType.Float)
                age_s = now_ms() / 1e3 - found.SourceTimestamp.timestamp()
                assert -1 < age_s < 20
                assert (await node.read_description()).Text == "do molde"
                unit = await seen.node(f"{TEMPERATURE}/EngineeringUnits").read_value()
                assert (unit.DisplayName.Text, unit.UnitId) == ("°C", 4408652)
                await seen.watch(TEMPERATURE, "acme/prensa-01/db500/ciclos")
                fill(r, 2, temperatura=82.5)
                await seen.until(lambda: (TEMPERATURE, 82.5, "Good") in seen.changes)
                await seen.until(lambda: len(seen.changes) == 3)  # `ciclos` did not change
                with pytest.raises(ua.uaerrors.BadNotWritable):
                    await node.write_value(1.0)
                with pytest.raises(ua.uaerrors.BadHistoryOperationUnsupported):
                    await node.read_raw_history()
                with pytest.raises(ua.uaerrors.BadServiceUnsupported):
                    await seen.client.nodes.objects.add_object(seen.namespace, "x")
                with pytest.raises(ua.uaerrors.BadServiceUnsupported):
                    await seen.client.nodes.server.call_method("0:GetMonitoredItems", 1)

        go(work)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
def test_both_clients_with_every_policy(policy: str, mode: str) -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client(policy=policy, mode=ua.MessageSecurityMode[mode]) as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 81.5

        go(work)
        credentials = {"user": "ana", "password": "segredo"}
        security = {"policy": policy, "mode": mode}
        with NodeClient(r.port, r.run, r.own, [TEMPERATURE], **credentials, **security) as other:
            other.first("watching")
            value = other.first("read")["values"][TEMPERATURE]
            assert (value["value"], value["type"], value["status"]) == (81.5, "Float", "Good")
            assert other.first("history")["status"] == "BadHistoryOperationUnsupported"
            assert other.first("write")["status"] == "BadNotWritable"
            assert f"{TEMPERATURE}/EngineeringUnits" in other.first("tree")["paths"]
            fill(r, 2, temperatura=82.5)
            until(lambda: other.newest(TEMPERATURE).get("value") == 82.5, 5, other.shown)


def test_who_may_not() -> None:
    """A certificate that is not on the list, one that is changed, a wrong password, nobody."""
    with rig() as r:
        stranger = client_certificate(r.run / "stranger")
        watched = [TEMPERATURE]
        account = {"user": "ana", "password": "segredo", "once": True}

        async def refused(seen: Seen, *codes: str) -> None:
            with pytest.raises((ua.UaError, ConnectionError, TimeoutError)) as e:
                async with seen:
                    await seen.read(TEMPERATURE)
            if codes:
                assert any(c in repr(e.value) for c in codes), repr(e.value)

        async def work() -> None:
            await refused(r.client(own=stranger))
            await refused(r.client(password="Segredo"), "BadUserAccessDenied")
            await refused(r.client(name="admin", password="segredo"), "BadUserAccessDenied")
            await refused(r.client(name=""), "BadUserAccessDenied", "BadIdentityTokenRejected")
            await refused(r.client(own=None))

        go(work)
        for own, more in (
            (stranger, account),
            (r.own, {**account, "password": "x"}),
            (r.own, {"once": True}),
            (r.own, {**account, "mode": "None", "policy": "None"}),
        ):
            with NodeClient(r.port, r.run, own, watched, **more) as other:
                other.first("error", 20)
                assert not other.all("read")
        until(lambda: r.server.said("is not on the list"), 5, r.server.stderr)
        until(lambda: r.server.said("name or password is wrong"), 5, r.server.stderr)
        assert not r.server.said("Segredo"), "a password in the log"
        rejected = list((r.run / "opcua_server/scada/rejected").iterdir())
        assert [f.read_bytes() for f in rejected] == [stranger.cert.read_bytes()]
        # What a person does about it counts at once.
        shutil.move(rejected[0], r.run / "opcua_server/scada/trusted")
        fill(r)

        async def now() -> None:
            async with r.client(own=stranger) as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 81.5

        go(now)


def test_anonymous_and_insecure_only_where_it_is_said() -> None:
    with rig(anonymous=True, insecure=True, users=[]) as r:
        fill(r)

        async def work() -> None:
            async with r.client(name="", own=None) as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 81.5
                with pytest.raises(ua.uaerrors.BadNotWritable):
                    await seen.node(TEMPERATURE).write_value(1.0)

        go(work)
        with NodeClient(r.port, r.run, r.own, [TEMPERATURE], mode="None", policy="None") as other:
            assert other.first("read")["values"][TEMPERATURE]["value"] == 81.5


def test_a_users_certificate() -> None:
    """As a token, and as the application's own."""
    with run_folder() as run:
        port = free_port()
        own, personal = client_certificate(run / "client"), client_certificate(run / "bia")
        trust(run, own)
        users = [
            {"username": "bia", "password": None, "certificate": str(personal.cert),
             "locatarios": ["acme"]}
        ]  # fmt: skip
        config = opcua_config(run, port, users=users)
        with DispatchPeer(run, "scada") as peer, service(config) as server:
            until(lambda: server.said("connected"), 15, server.stderr)
            r = Rig(run, port, peer, server, own)
            fill(r)
            watched = [TEMPERATURE]
            token = {"userCert": str(personal.cert), "userKey": str(personal.key)}
            with NodeClient(port, run, own, watched, **token) as other:
                assert other.first("read")["values"][TEMPERATURE]["value"] == 81.5
            stolen = {"userCert": str(personal.cert), "userKey": str(own.key), "once": True}
            with NodeClient(port, run, own, watched, **stolen) as other:
                other.first("error", 20)
            with NodeClient(port, run, own, watched, once=True) as other:
                other.first("error", 20)  # trusted, and nobody
            trust(run, personal)
            with NodeClient(port, run, personal, watched) as other:
                assert other.first("read")["values"][TEMPERATURE]["value"] == 81.5
            assert server.terminate() == 0


def test_two_tenants_do_not_see_each_other() -> None:
    plcs = [plc(), plc("forno-02", "beta")]
    other_path = "beta/forno-02/db500/temperatura"
    users = [("ana", "segredo", ["acme"]), ("beto", "secreto", ["beta"]), ("rui", "todos", None)]
    with rig(plcs, users=users) as r:
        fill(r)
        of_beta: dict[str, Any] = {"plc": "forno-02", "locatario": "beta"}
        hot = body(1, {"temperatura": 900.0}, **of_beta)
        r.peer.add(1, **of_beta, bodies=[hot])
        r.peer.wait_done(5)

        async def work() -> None:
            async with (
                r.client() as ana,
                r.client("beto", "secreto") as beto,
                r.client("rui", "todos") as rui,
            ):
                assert {p.split("/")[0] for p in await ana.tree()} == {"acme"}
                assert {p.split("/")[0] for p in await beto.tree()} == {"beta"}
                assert {p.split("/")[0] for p in await rui.tree()} == {"acme", "beta"}
                assert (await beto.read(other_path)).Value.Value == 900.0
                hidden, unknown = await ana.read(other_path), await ana.read("beta/no/such/thing")
                assert hidden.StatusCode.value == _C.BadNodeIdUnknown
                assert hidden == unknown, "one can tell what is hidden from what is not there"
                assert not await ana.node("beta/forno-02").get_children()
                with pytest.raises(ua.uaerrors.BadNoMatch):
                    await ana.client.nodes.objects.get_child(f"{ana.namespace}:beta")
                subscription = await beto.watch(other_path)
                await beto.until(lambda: bool(beto.changes))
                mine = await ana.client.create_subscription(50, ana)
                (code,) = await mine.subscribe_data_change([ana.node(other_path)])
                assert code.value == _C.BadNodeIdUnknown
                await meddle(ana, subscription.subscription_id)
                beto.changes.clear()
                r.peer.add(1, **of_beta, bodies=[body(2, {"temperatura": 901.0}, **of_beta)])
                await beto.until(lambda: (other_path, 901.0, "Good") in beto.changes)
                assert not ana.changes

        go(work)


async def meddle(ana: Seen, foreign: int) -> None:
    """Everything that names another's subscription."""
    session = ana.client.uaclient
    (code,) = await session.delete_subscriptions([foreign])
    assert code.value == _C.BadSubscriptionIdInvalid
    transfer = ua.TransferSubscriptionsParameters(SubscriptionIds=[foreign])
    with pytest.raises(ua.uaerrors.BadServiceUnsupported):
        await session.transfer_subscriptions(transfer)
    create = ua.CreateMonitoredItemsParameters(SubscriptionId=foreign)
    with pytest.raises(ua.uaerrors.BadSubscriptionIdInvalid):
        await session.create_monitored_items(create)


def test_a_session_cannot_be_taken_over() -> None:
    """Somebody who has learnt its token, with another certificate or as another user; its owner
    may, on a new channel.
    """
    users = [("ana", "segredo", ["acme"]), ("beto", "secreto", None)]
    with rig(users=users) as r:
        fill(r)
        other = client_certificate(r.run / "other")
        trust(r.run, other)

        async def take(victim: Seen, seen: Seen) -> None:
            client, of = seen.client, victim.client
            await seen.secure()
            await client.connect_socket()
            try:
                await client.send_hello()
                await client.open_secure_channel()
                token = of.uaclient.session.authentication_token
                client.uaclient.session.restore_authentication_token(token)
                client._server_nonce = of._server_nonce
                await client._activate_with_credentials()
                of._server_nonce = client._server_nonce
            finally:
                client.disconnect_socket()

        async def work() -> None:
            async with r.client() as ana:
                await ana.watch(TEMPERATURE)
                for thief in (r.client(own=other), r.client("beto", "secreto", own=other)):
                    with pytest.raises(ua.uaerrors.BadSecurityChecksFailed):
                        await take(ana, thief)
                with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                    await take(ana, r.client("beto", "secreto"))
                fill(r, 2, temperatura=82.5)
                await ana.until(lambda: ana.changes[-1:] == [(TEMPERATURE, 82.5, "Good")])
                await take(ana, r.client())

        go(work)


def test_quality_becomes_status() -> None:
    fields = [
        {"name": "a", "type": "REAL"}, {"name": "b", "type": "INT"}, {"name": "c", "type": "INT"},
    ]  # fmt: skip
    group = {"name": "db500", "machines": [None], "timezone": "UTC", "fields": fields}
    path = "acme/prensa-01/db500/"
    with rig([plc(groups=[group])]) as r:
        seq = 0

        def say(**more: Any) -> None:
            nonlocal seq
            seq += 1
            r.peer.add(1, bodies=[body(seq, more.pop("values"), **more)])
            r.peer.wait_done(5)

        async def codes(seen: Seen) -> list[str]:
            read = [await seen.read(f"{path}{n}") for n in "abc"]
            assert all((d.Value.Value is None) == d.StatusCode.is_bad() for d in read)
            return [d.StatusCode.name for d in read]

        async def settle(seen: Seen, wanted: list[str]) -> None:
            for _ in range(300):
                if await codes(seen) == wanted:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(f"{await codes(seen)}, not {wanted}")

        async def work() -> None:
            async with r.client() as seen:
                await settle(seen, ["BadWaitingForInitialData"] * 3)
                say(values={"a": 1.5, "b": 2, "c": 3})
                await settle(seen, ["Good"] * 3)
                say(values={"b": 2}, bad={"a": "nan", "c": "address_out_of_range"})
                await settle(seen, ["BadOutOfRange", "Good", "BadConfigurationError"])
                everything = {"a": 1.5, "b": 2, "c": 3}
                say(values=everything, quality="uncertain", bad={"*": "cpu_stop"})
                await settle(seen, ["UncertainLastUsableValue"] * 3)
                say(values=everything, quality="uncertain", bad={"*": "clock_unsynchronised"})
                await settle(seen, ["Uncertain"] * 3)
                say(values={}, quality="bad", bad={"*": "plc_offline"})
                await settle(seen, ["BadNoCommunication"] * 3)
                say(values=everything)
                await settle(seen, ["Good"] * 3)
                await seen.watch(f"{path}a")
                await seen.until(lambda: len(seen.changes) == 1)
                beat: dict[str, Any] = {
                    "plc": "prensa-01",
                    "locatario": "acme",
                    "ip": "x",
                    "interval_s": 10.0,
                }
                r.peer.beat(Heartbeat(**beat, ts_ms=now_ms(), status="offline"))
                await settle(seen, ["BadNoCommunication"] * 3)
                await seen.until(lambda: seen.changes[-1][1:] == (None, "BadNoCommunication"))
                status = await seen.read("acme/prensa-01/_status/status")
                assert status.Value.Value == "offline"
                r.peer.beat(Heartbeat(**beat, ts_ms=now_ms(), status="online"))
                await settle(seen, ["Good"] * 3)
                await seen.until(lambda: seen.changes[-1][1:] == (1.5, "Good"))

        go(work)


def test_alarms() -> None:
    """What the alarm engine says on its wire; and that it does not answer."""
    path = "acme/_alarms/quente/"
    active = f"{path}active"
    alarm = {
        "rule": "quente", "severity": "critica", "locatario": "acme", "site": "planta-sp",
        "plc": "prensa-01", "group": "db500", "machine": None, "field": "temperatura",
        "state": "disparando", "since": 1_764_000_000_000, "value": 91.0, "text": "91 °C",
        "confirmado": None, "silenciado": None, "sem_medida": False,
    }  # fmt: skip
    cooling = {**alarm, "rule": "fria", "state": "resfriando"}
    alarms = [{"locatario": "acme", "name": "quente"}, {"locatario": "acme", "name": "fria"}]
    with rig(alarms=alarms) as r, closing(Bus(r.run)) as bus:
        port = bus.bind("alarms")

        async def answer(said: list[dict[str, Any]], done: Callable[[], bool]) -> None:
            for _ in range(1_000):
                while (frame := port.receive()) is not None:
                    assert frame == Request("list", {})
                    port.send(Reply({"alarms": said, "count": len(said), "history": []}))
                if done():
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("not within 10 s")

        async def work() -> None:
            async with r.client() as seen:
                await seen.watch(active)
                changes = seen.changes
                await answer([alarm, cooling], lambda: changes[-1:] == [(active, True, "Good")])
                for name, value in (("count", 1), ("severity", "critica"), ("text", "91 °C"),
                                    ("acknowledged", False)):  # fmt: skip
                    assert (await seen.read(path + name)).Value.Value == value
                since = (await seen.read(f"{path}since")).Value.Value
                assert since.timestamp() == 1_764_000_000
                fria = await seen.read("acme/_alarms/fria/active")
                assert (fria.Value.Value, fria.StatusCode.name) == (False, "Good")
                never = await seen.read("acme/_alarms/fria/since")
                assert (never.Value.Value, never.StatusCode.name) == (None, "Good")
                await answer([], lambda: changes[-1:] == [(active, False, "Good")])
                port.close()
                lost = [(active, None, "BadNoCommunication")]
                await seen.until(lambda: changes[-1:] == lost, 12)

        go(work)


def test_only_changes_are_told_unless_times_are_asked_for() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen, r.client() as other:
                await seen.watch(TEMPERATURE)
                every = await other.client.create_subscription(50, other)
                trigger = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
                assert await every._subscribe(other.node(TEMPERATURE), mfilter=trigger)
                await seen.until(lambda: len(seen.changes) == len(other.changes) == 1)
                fill(r, 2, ciclos=8)
                await other.until(lambda: len(other.changes) == 2)
                await asyncio.sleep(0.2)
                assert len(seen.changes) == 1
                band = ua.DataChangeFilter(Trigger=1, DeadbandType=1, DeadbandValue=2.0)
                for path, code in (
                    ("acme/prensa-01/db500/rodando", ua.uaerrors.BadFilterNotAllowed),
                    ("acme/prensa-01/_status/status", ua.uaerrors.BadFilterNotAllowed),
                ):
                    with pytest.raises(code):
                        await every._subscribe(other.node(path), mfilter=band)
                other.changes.clear()
                await every.unsubscribe(await every._subscribe(other.node(TEMPERATURE)))
                assert await every._subscribe(other.node(TEMPERATURE), mfilter=band)

        go(work)


TYPES: list[tuple[dict[str, Any], Any, ua.VariantType, Any]] = [
    ({"type": "BOOL"}, True, ua.VariantType.Boolean, True),
    ({"type": "BYTE"}, 255, ua.VariantType.Byte, 255),
    ({"type": "SINT"}, -128, ua.VariantType.SByte, -128),
    ({"type": "INT"}, -32768, ua.VariantType.Int16, -32768),
    ({"type": "WORD"}, 65535, ua.VariantType.UInt16, 65535),
    ({"type": "DINT"}, -(2**31), ua.VariantType.Int32, -(2**31)),
    ({"type": "DWORD"}, 2**32 - 1, ua.VariantType.UInt32, 2**32 - 1),
    ({"type": "LINT"}, "-9223372036854775808", ua.VariantType.Int64, -(2**63)),
    ({"type": "ULINT"}, "18446744073709551615", ua.VariantType.UInt64, 2**64 - 1),
    ({"type": "LWORD"}, 7, ua.VariantType.UInt64, 7),
    ({"type": "REAL"}, 0.1, ua.VariantType.Float, 0.10000000149011612),
    ({"type": "REAL", "scale": [0.1, 2.0]}, 0.12, ua.VariantType.Double, 0.12),
    ({"type": "INT", "scale": [0.1, 2.0]}, 5.3, ua.VariantType.Double, 5.3),
    ({"type": "LREAL"}, 0.1, ua.VariantType.Double, 0.1),
    ({"type": "STRING[20]"}, "água\n", ua.VariantType.String, "água\n"),
    ({"type": "WSTRING[20]"}, "高炉", ua.VariantType.String, "高炉"),
    ({"type": "CHAR"}, "x", ua.VariantType.String, "x"),
    ({"type": "TIME"}, -5, ua.VariantType.Double, -5.0),
    ({"type": "LTIME"}, 5, ua.VariantType.Int64, 5),
    ({"type": "TOD"}, "01:02:03.400", ua.VariantType.String, "01:02:03.400"),
    # São Paulo's, three hours behind.
    ({"type": "DTL"}, "2026-11-30T09:00:00.123456789", ua.VariantType.DateTime,
     "2026-11-30T12:00:00.123456+00:00"),
    ({"type": "DATE"}, "2001-02-03", ua.VariantType.DateTime, "2001-02-03T02:00:00+00:00"),
    ({"type": "INT[1..3]"}, [1, 2, 3], ua.VariantType.Int16, [1, 2, 3]),
    ({"type": "INT[0..1,0..2]"}, [[1, 2, 3], [4, 5, 6]], ua.VariantType.Int16,
     [[1, 2, 3], [4, 5, 6]]),
    ({"type": "LINT[0..1]"}, ["9223372036854775807", 1], ua.VariantType.Int64, [2**63 - 1, 1]),
]  # fmt: skip


def test_every_type() -> None:
    fields = [{"name": f"t{i}", **field} for i, (field, *_) in enumerate(TYPES)]
    group = {"name": "db500", "machines": ["m00", "m01"], "timezone": "America/Sao_Paulo",
             "fields": fields}  # fmt: skip
    with rig([plc(groups=[group])]) as r:
        shown = {f"t{i}": value for i, (_, value, *_) in enumerate(TYPES)}
        r.peer.add(1, bodies=[body(1, shown, machine="m01")])
        r.peer.wait_done(5)

        async def work() -> None:
            async with r.client() as seen:
                for i, (field, _, variant, value) in enumerate(TYPES):
                    path = f"acme/prensa-01/db500/m01/t{i}"
                    found = await seen.read(path)
                    what = found.Value.Value
                    is_date = variant is ua.VariantType.DateTime
                    got = what.isoformat() if is_date and hasattr(what, "isoformat") else what
                    assert (found.StatusCode.name, got) == ("Good", value), field
                    assert found.Value.VariantType == variant, field
                    kind = await seen.node(path).read_data_type()
                    number = 290 if field["type"] == "TIME" else variant.value
                    assert kind.Identifier == number, field
                empty = await seen.read("acme/prensa-01/db500/m00/t0")
                assert empty.StatusCode.value == _C.BadWaitingForInitialData

        go(work)


def test_a_change_of_the_configuration_ends_no_session() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen:
                await seen.watch(TEMPERATURE, "acme/prensa-01/db500/ciclos")
                await seen.until(lambda: len(seen.changes) == 2)
                seen.changes.clear()
                changed = plc()
                group = changed["groups"][0]
                group["fields"] = [
                    {"name": "temperatura", "type": "REAL", "unit": "bar"},
                    {"name": "pressao", "type": "INT"},
                ]
                rendered = json.loads(r.server.file.read_text())
                rendered["plcs"] = [changed, plc("forno-02", "beta")]
                r.server.configure(rendered)
                gone = ("acme/prensa-01/db500/ciclos", None, "BadNodeIdUnknown")
                await seen.until(lambda: gone in seen.changes)
                fill(r, 2, temperatura=83.5, pressao=4)
                await seen.until(lambda: (TEMPERATURE, 83.5, "Good") in seen.changes)
                tree = await seen.tree()
                assert "beta/forno-02/db500/temperatura" in tree
                assert "acme/prensa-01/db500/ciclos" not in tree
                assert (await seen.read("acme/prensa-01/db500/pressao")).Value.Value == 4
                unit = await seen.node(f"{TEMPERATURE}/EngineeringUnits").read_value()
                assert unit.DisplayName.Text == "bar"

        go(work)
        assert r.server.process.poll() is None


def test_old_rows_do_not_come_after_new_ones() -> None:
    """A replay beside live rows, and rows that come again."""
    with rig() as r:
        epoch = 1_764_000_000_000
        r.peer.add(3, bodies=[
            body(50, {"temperatura": 50.0}, epoch=epoch),
            body(7, {"temperatura": 7.0}, epoch=epoch),
            body(60, {"temperatura": 60.0}, epoch=epoch - 1),
        ])  # fmt: skip
        r.peer.wait_done(5)

        async def work() -> None:
            async with r.client() as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 50.0
                r.peer.add(1, bodies=[body(1, {"temperatura": 1.0}, epoch=epoch + 1)])
                r.peer.wait_done(5)
                await asyncio.sleep(0.05)
                assert (await seen.read(TEMPERATURE)).Value.Value == 1.0

        go(work)


@pytest.mark.timeout(120)
def test_kill_and_restart() -> None:
    """Values that do not change again are there after it; both clients come back by themselves."""
    with run_folder() as run:
        port = free_port()
        own = client_certificate(run / "client")
        trust(run, own)
        config = opcua_config(run, port, users=[user(run, "ana", "segredo")])
        still = "acme/prensa-01/db500/ciclos"
        with DispatchPeer(run, "scada") as peer:
            server = Service(config)
            r = Rig(run, port, peer, server, own)
            account = {"user": "ana", "password": "segredo"}

            async def work(other: NodeClient) -> None:
                async with r.client(auto_reconnect=True) as seen:
                    await seen.watch(TEMPERATURE, still)
                    await seen.until(lambda: len(seen.changes) == 2)
                    server.kill()
                    with service(config) as again:
                        await asyncio.to_thread(
                            until, lambda: again.said("connected"), 20, again.stderr
                        )
                        async with r.client() as fresh:
                            for path, value in ((TEMPERATURE, 82.5), (still, 1_234)):
                                found = await fresh.read(path)
                                assert (found.Value.Value, found.StatusCode.name) == (value, "Good")
                        r.peer.add(1, bodies=[body(3, {"temperatura": 83.5, "ciclos": 1_234})])
                        await seen.until(lambda: (TEMPERATURE, 83.5, "Good") in seen.changes, 30)
                        wanted = {"path": TEMPERATURE, "value": 83.5, "status": "Good"}
                        await asyncio.to_thread(
                            until,
                            lambda: wanted.items() <= other.newest(TEMPERATURE).items(),
                            40,
                            other.shown,
                        )
                        assert again.terminate() == 0

            try:
                until(lambda: server.said("connected"), 15, server.stderr)
                fill(r, 1, ciclos=1_234)
                peer.add(1, bodies=[body(2, {"temperatura": 82.5, "ciclos": 1_234})])
                with NodeClient(port, run, own, [TEMPERATURE, still], **account) as other:
                    until(lambda: other.newest(still).get("value") == 1_234, 15, other.shown)
                    peer.wait_done(5)
                    asyncio.run(work(other))
            finally:
                server.end()


def test_strangers_bytes() -> None:
    """Noise, a length of 4 GB, halves of messages: each ends its own connection at most."""
    hello = b"HELF" + (32 + 24).to_bytes(4, "little") + bytes(4) + b"\xff\xff\0\0" * 2
    hello += bytes(8) + (24).to_bytes(4, "little") + b"opc.tcp://127.0.0.1:1/ab"
    shots = [
        os.urandom(100_000),
        b"HELF" + (2**32 - 1).to_bytes(4, "little") + bytes(5_000_000),
        hello,
        hello + b"OPNF" + (200).to_bytes(4, "little") + os.urandom(192),
        hello + b"MSGF" + (64).to_bytes(4, "little") + bytes(56),
        hello + b"OPNC" + (65_000).to_bytes(4, "little") + bytes(64_992),
        b"HELF\x08\0\0\0",
        b"HELF\x00\0\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    with rig() as r:
        fill(r)
        memory = psutil.Process(r.server.pid).memory_info
        before_bytes = memory().rss
        held = []
        for shot in shots * 5:
            s = socket.create_connection(("127.0.0.1", r.port))
            s.settimeout(5)
            with suppress(OSError):
                s.sendall(shot)
            held.append(s)

        async def work() -> None:
            async with r.client() as seen:
                assert (await seen.read(TEMPERATURE)).Value.Value == 81.5

        go(work)
        for s in held:
            s.close()
        assert memory().rss - before_bytes < 30e6
        used = psutil.Process(r.server.pid).cpu_percent(0.5)
        assert used < 60, f"{used} % of a core for nobody"


def test_a_port_that_is_taken() -> None:
    """Said, and tried again; rows do not wait for it."""
    with run_folder() as run, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        config = opcua_config(run, port, users=[user(run, "ana", "segredo")])
        with DispatchPeer(run, "scada") as peer, service(config) as server:
            until(lambda: server.said("cannot serve"), 15, server.stderr)
            peer.add(1_000)
            peer.wait_done(10)
            holder.close()
            until(lambda: server.said("connected"), 15, server.stderr)
            assert server.terminate() == 0
