"""Every (account, action, topic) of two tenants and two boxes against a real Mosquitto over TLS."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.common import until
from tests.kit.fleet import ALERTS, READERS, WRITERS, WRITTEN, topics
from tests.kit.fleet_broker import Broker, run
from tests.kit.fleet_client import Client


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as b:
        yield b


VERSIONS = pytest.mark.parametrize("version", [5, 4], ids=["mqtt5", "mqtt311"])


def _client(broker: Broker, account: str, version: int = 5, **more: object) -> Client:
    return Client(
        broker.ports[8883],
        ca=broker.pki / "ca.pem",
        user=account,
        password=broker.password(account),
        version=version,
        **more,  # type: ignore[arg-type]
    )


def test_the_table_names_every_account(broker: Broker) -> None:
    users = [u for u in broker.files["mosquitto/users.txt"].splitlines() if u[:1] not in ("#", "")]
    assert sorted(users) == sorted([*WRITERS, *READERS])


@VERSIONS
@pytest.mark.parametrize("account", [*WRITERS, *READERS])
def test_writing(broker: Broker, account: str, version: int) -> None:
    """What may be written arrives; what may not does not, and MQTT 5 says so. (Of the alarms'
    topics no Telegraf hears: see test_reading.)
    """
    allowed = WRITERS.get(account, set())
    # One Telegraf may read everything that anyone may write; the other one watches the first.
    n = 1 if account.startswith("telegraf-2") else 2
    marks = {
        "dados": "plc/acme/prensa-01",
        "sinais": "plc/acme/prensa-01/gap",
        "edge": "edge/acme/planta-sp/status",
    }
    payload = f"{account} {version}".encode()
    with contextlib.ExitStack() as stack:
        observers = {
            role: stack.enter_context(_client(broker, f"telegraf-{n}-{role}")) for role in marks
        }
        for observer in observers.values():
            observer.subscribe("#")
        with _client(broker, account, version) as client:
            assert client.connected, client.reason
            for topic in topics():
                said = client.publish(topic, payload)
                if version == 5:
                    denied = said not in ("Success", "No matching subscribers")
                    assert denied == (topic not in allowed), (topic, said)
                else:
                    # MQTT 3.1.1 cannot say that a message was refused.
                    assert said == "Success"
        came = set()
        for role, mark in marks.items():
            # The broker keeps the order towards one subscriber: after the mark nothing more comes.
            with _client(broker, "doctor-planta-sp") as marker:
                assert marker.publish(mark, b"mark " + payload) == "Success"
            assert observers[role].wait_for(mark, b"mark " + payload)
            came |= {t for t, p in observers[role].messages if p == payload}
        assert came == allowed - ALERTS


@VERSIONS
@pytest.mark.parametrize("account", [*READERS, *WRITERS])
def test_reading(broker: Broker, account: str, version: int) -> None:
    """Whatever filters it asks for, an account is sent only what it may read."""
    allowed = READERS.get(account, set())
    payload = f"read {account} {version}".encode()
    with _client(broker, account, version) as client:
        assert client.connected, client.reason
        client.subscribe(
            "#", "plc/#", "edge/#", "alertas/#", "plc/+/+", "plc/+/+/heartbeat", *sorted(WRITTEN)
        )
        for writer, written in WRITERS.items():
            if writer.startswith("doctor-") or writer == account:
                continue
            with _client(broker, writer) as box:
                for topic in sorted(written):
                    box.publish(topic, payload)
        for topic in sorted(allowed):
            assert client.wait_for(topic, payload), topic
        if not allowed:
            # Its own heartbeat of the broker is the only thing: ask for one round trip more.
            client.subscribe("$SYS/broker/uptime")
        assert {t for t, p in client.messages if p == payload} == allowed


def test_shared_subscription_obeys_the_acl(broker: Broker) -> None:
    with _client(broker, "telegraf-1-dados") as one, _client(broker, "telegraf-2-dados") as two:
        for telegraf in (one, two):
            telegraf.subscribe("$share/telegraf/plc/+/+")
        with _client(broker, "edge-planta-sp-acme") as box:
            for i in range(20):
                assert box.publish("plc/acme/prensa-01", b"%d" % i) == "Success"
        both = one.wait_for("plc/acme/prensa-01", b"0") or two.wait_for("plc/acme/prensa-01", b"0")
        assert both
        deadline = [m for c in (one, two) for m in c.messages]
        for i in range(20):
            if ("plc/acme/prensa-01", b"%d" % i) not in deadline:
                side = one if i % 2 == 0 else two
                side.wait_for("plc/acme/prensa-01", b"%d" % i)
        assert len(one.messages) + len(two.messages) == 20
        assert one.messages
        assert two.messages


def test_health_account_reads_uptime_and_what_was_dropped(broker: Broker) -> None:
    counters = {"$SYS/broker/uptime", "$SYS/broker/publish/messages/dropped"}
    with _client(broker, "saude") as client:
        client.subscribe("$SYS/#")
        until(lambda: {t for t, _ in client.messages} == counters, 15, broker.log)


def test_websocket_listener(broker: Broker) -> None:
    account = "leitor-acme"
    client = Client(
        broker.ports[8083],
        ca=broker.pki / "ca.pem",
        user=account,
        password=broker.password(account),
        websockets=True,
    )
    with client:
        assert client.connected, client.reason
        client.subscribe("#")
        with _client(broker, "edge-planta-sp-acme") as box:
            box.publish("plc/acme/prensa-01", b"by web")
        assert client.wait_for("plc/acme/prensa-01", b"by web")


def test_a_client_id_does_not_end_another_accounts_connection(broker: Broker) -> None:
    with _client(broker, "edge-planta-sp-acme") as victim:
        with _client(broker, "leitor-beta", client_id="edge-planta-sp-acme") as thief:
            assert thief.connected
        assert victim.publish("plc/acme/prensa-01", b"still here") in (
            "Success",
            "No matching subscribers",
        )


@VERSIONS
@pytest.mark.parametrize("how", ["no user", "wrong password", "empty password", "unknown user"])
def test_login_is_refused(broker: Broker, how: str, version: int) -> None:
    user = {"no user": None, "unknown user": "edge-planta-mg"}.get(how, "edge-planta-sp-acme")
    password = "" if how == "empty password" else "wrong"
    client = Client(
        broker.ports[8883],
        ca=broker.pki / "ca.pem",
        user=user,
        password=password if user else None,
        version=version,
    )
    with client:
        assert client.reason == "Not authorized"


def test_old_tls_is_refused(broker: Broker) -> None:
    with _client(broker, "leitor-acme", tls_version=ssl.TLSVersion.TLSv1_1) as client:
        assert not client.connected
        assert "SSL" in str(client.reason), client.reason


def test_wrong_authority_is_refused(broker: Broker, tmp_path: Path) -> None:
    run("pki.sh", str(tmp_path / "other"), "create")
    other = tmp_path / "other" / "ca.pem"
    with Client(broker.ports[8883], ca=other, user="leitor-acme", password="x") as client:
        assert "CERTIFICATE_VERIFY_FAILED" in str(client.reason)


# --- client certificates -----------------------------------------------------------------------


def _with_certificate(broker: Broker, pki: Path | None, name: str, version: int) -> Client:
    cert = (pki / "issued" / f"{name}.pem", pki / "issued" / f"{name}.key") if pki else None
    return Client(broker.ports[8884], ca=broker.pki / "ca.pem", cert=cert, version=version)


@VERSIONS
def test_certificate_is_the_account(broker: Broker, version: int) -> None:
    account = "edge-planta-rj-beta"
    run("pki.sh", str(broker.pki), "client", account)
    with _with_certificate(broker, broker.pki, account, version) as box:
        assert box.connected, box.reason
        with _client(broker, "leitor-beta") as reader:
            reader.subscribe("#")
            box.publish("plc/acme/prensa-11", b"not mine")
            box.publish("plc/beta/forno-12", b"mine")
            assert reader.wait_for("plc/beta/forno-12", b"mine")
        if version == 5:
            assert box.publish("plc/beta/forno-02", b"not mine") == "Not authorized"


@VERSIONS
@pytest.mark.parametrize("how", ["none", "wrong ca", "expired", "revoked", "server's own"])
def test_certificate_is_refused(broker: Broker, how: str, version: int, tmp_path: Path) -> None:
    account, pki = "edge-planta-sp-acme", broker.pki
    if how == "wrong ca":
        pki = tmp_path / "other"
        run("pki.sh", str(pki), "create")
    if how in ("wrong ca", "revoked", "expired"):
        past = {"PKI_START": "20200101000000Z", "PKI_END": "20210101000000Z"}
        run("pki.sh", str(pki), "client", account, env=past if how == "expired" else None)
    if how == "revoked":
        with _with_certificate(broker, pki, account, version) as client:
            assert client.connected, "it must be good before it is revoked"
        run("pki.sh", str(pki), "revoke", account)
        broker.reload()
        # Mosquitto reads the CRL in its own loop: the next message it answers comes after.
        with _client(broker, "leitor-acme") as barrier:
            assert barrier.connected
    name = "localhost" if how == "server's own" else account
    with _with_certificate(broker, None if how == "none" else pki, name, version) as client:
        assert not client.connected, how


def test_password_file_holds_hashes_only(broker: Broker) -> None:
    lines = (broker.secrets / "passwd").read_text().splitlines()
    assert len(lines) == len(WRITERS) + len(READERS)
    clear = {broker.password(a) for a in (*WRITERS, *READERS)}
    assert len(clear) == len(lines)
    for line in lines:
        assert line.split(":", 1)[1].startswith("$7$")
        assert not any(c in line for c in clear)
    assert (broker.secrets / "passwd").stat().st_mode & 0o077 == 0
