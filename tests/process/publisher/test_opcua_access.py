"""Who may see what of an ``opcua`` output, and who may not, with two clients that are not ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
from asyncua import ua

from services.publisher.opcua.session import MAX_SESSION_SUBSCRIPTIONS
from tests.kit.common import free_port, until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.opcua_foreign import NodeClient
from tests.kit.opcua_rig import (
    body,
    client_certificate,
    ended_certificate,
    opcua_config,
    plc,
    trust,
)
from tests.kit.opcua_seen import POLICIES, TEMPERATURE, Rig, Seen, fill, go, rig
from tests.kit.procs import service
from tests.kit.publisher_rig import run_folder

# Where packages of npm or Maven are not there yet, the first test fetches them.
pytestmark = pytest.mark.timeout(300)

_C = ua.StatusCodes


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


def test_a_users_certificate_that_has_ended() -> None:
    """Nobody proves who he is by it; the application's own still counts."""
    with run_folder() as run:
        port, own = free_port(), client_certificate(run / "client")
        personal = ended_certificate(run / "bia")
        trust(run, own)
        users = [
            {"username": "bia", "password": None, "certificate": str(personal.cert),
             "locatarios": None}
        ]  # fmt: skip
        config = opcua_config(run, port, users=users)
        with DispatchPeer(run, "scada"), service(config) as server:
            until(lambda: server.said("connected"), 15, server.stderr)
            token = {"userCert": str(personal.cert), "userKey": str(personal.key), "once": True}
            with NodeClient(port, run, own, [TEMPERATURE], **token) as other:
                other.first("error", 20)
            assert server.said("of his certificate: it ended on")


def test_a_session_leaves_room_for_others() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as greedy, r.client() as other:
                for _ in range(MAX_SESSION_SUBSCRIPTIONS):
                    await greedy.client.create_subscription(1_000, greedy)
                with pytest.raises(ua.uaerrors.BadTooManySubscriptions):
                    await greedy.client.create_subscription(1_000, greedy)
                await other.watch(TEMPERATURE)
                await other.until(lambda: bool(other.changes))

        go(work)


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


def test_a_plc_that_goes_to_another_tenant_takes_no_value_along() -> None:
    users = [("beto", "secreto", ["beta"])]
    moved = "beta/prensa-01/db500/temperatura"
    with rig(users=users) as r:
        fill(r)
        rendered = json.loads(r.server.file.read_text())
        rendered["plcs"] = [plc(locatario="beta")]
        r.server.configure(rendered)

        async def work() -> None:
            async with r.client("beto", "secreto") as beto:
                end_s = time.monotonic() + 30
                while moved not in await beto.tree():
                    assert time.monotonic() < end_s, r.server.stderr()
                    await asyncio.sleep(0.05)
                found = await beto.read(moved)
                assert found.StatusCode.value == _C.BadWaitingForInitialData
                new = body(2, {"temperatura": 90.0}, locatario="beta")
                r.peer.add(1, locatario="beta", bodies=[new])
                await beto.watch(moved)
                await beto.until(lambda: (moved, 90.0, "Good") in beto.changes)

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


def test_a_session_that_nobody_signed_in_to_goes_with_the_next() -> None:
    """A client whose password is wrong asks for one again and again."""
    with rig() as r:
        fill(r)

        async def work() -> None:
            one, two = r.client(), r.client()
            for seen in (one, two):
                await seen.secure()
                await seen.client.connect_socket()
                await seen.client.send_hello()
                await seen.client.open_secure_channel()
            await one.client.create_session()
            token = one.client.uaclient.session.authentication_token
            nonce = one.client._server_nonce
            await one.client.create_session()
            two.client.uaclient.session.restore_authentication_token(token)
            two.client._server_nonce = nonce
            with pytest.raises(ua.uaerrors.BadSessionIdInvalid):
                await two.client._activate_with_credentials()
            for seen in (one, two):
                with suppress(Exception):
                    await seen.client.disconnect()

        go(work)


def test_a_request_for_more_than_is_said_is_refused() -> None:
    with rig() as r:
        fill(r)

        async def work() -> None:
            async with r.client() as seen:
                one = ua.ReadValueId(
                    NodeId=seen.node(TEMPERATURE).nodeid, AttributeId=ua.AttributeIds.Value
                )
                read = seen.client.uaclient.session.read
                assert len(await read(ua.ReadParameters(NodesToRead=[one] * 10_000))) == 10_000
                with pytest.raises(ua.uaerrors.BadTooManyOperations):
                    await read(ua.ReadParameters(NodesToRead=[one] * 10_001))

        go(work)


def test_a_password_on_its_way_opens_no_other_session() -> None:
    """Where messages are only signed, whoever listens has it encrypted: he must not use it so."""
    with rig() as r:
        fill(r)
        other = client_certificate(r.run / "other")
        trust(r.run, other)
        sign = ua.MessageSecurityMode.Sign

        async def work() -> None:
            ana, thief = r.client(mode=sign), r.client(mode=sign, own=other)
            heard: list[tuple[bytes, str]] = []
            encrypt = ana.client._encrypt_password

            def listen(*given: str) -> tuple[bytes, str]:
                heard.append(encrypt(*given))
                return heard[-1]

            ana.client._encrypt_password = listen
            thief.client._encrypt_password = lambda *_: heard[0]
            async with ana:
                with pytest.raises(ua.uaerrors.BadIdentityTokenInvalid):
                    await thief.__aenter__()

        go(work)


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
