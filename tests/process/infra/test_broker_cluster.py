"""The same accounts on three NATS servers: who may do what, asked at one node and looked at on
another, and what differs from Mosquitto (docs/broker-cluster.md).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import fleet
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.fleet import ALERTS, WRITERS, topics
from tests.kit.fleet_broker import run
from tests.kit.fleet_client import Client
from tests.kit.nats_cluster import HOSTS, Cluster
from tests.kit.procs import service
from tests.kit.publisher_rig import mqtt_config, run_folder

ONE, TWO, THREE = HOSTS
BOX, READER = "edge-planta-sp-acme", "leitor-acme"
TOPIC = "plc/acme/prensa-01"
# Of Mosquitto's accounts all but the one that reads $SYS.
READERS = {name: topics for name, topics in fleet.READERS.items() if name != "saude"}
REFUSED = "Unspecified error"


def _render(nodes: object) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="pe", dir="/tmp") as folder:
        return fleet.rendered(Path(folder) / "boxes", nodes=HOSTS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(_render) as running:
        yield running


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Account -> the filters that it may read."""
    folder = fleet.write_boxes(tmp_path_factory.mktemp("fleet") / "boxes")
    return {a.name: a.read for a in fleet.load(folder).accounts if a.name != "saude"}


def _client(cluster: Cluster, account: str, host: str = ONE, **more: object) -> Client:
    return Client(
        cluster.port,
        **{  # type: ignore[arg-type]
            "host": host,
            "ca": cluster.pki / "ca.pem",
            "user": account,
            "password": cluster.password(account),
            "version": 4,
            **more,
        },
    )


def _login(cluster: Cluster) -> dict[str, Any]:
    """Of a publisher of ours."""
    return {
        "hosts": [*HOSTS],
        "username": BOX,
        "password": {"file": str(cluster.password_file(BOX))},
        "tls": {"ca": str(cluster.pki / "ca.pem"), "cert": None, "key": None},
    }


def test_the_table_names_every_account(cluster: Cluster) -> None:
    users = [u for u in cluster.files["nats/users.txt"].splitlines() if u[:1] not in ("#", "")]
    assert sorted(users) == sorted(["admin", *WRITERS, *READERS])


@pytest.mark.parametrize("account", [*WRITERS, *READERS])
def test_writing(cluster: Cluster, account: str, reads: dict[str, tuple[str, ...]]) -> None:
    """What may be written arrives at another node; what may not does not, and nobody says so."""
    allowed = WRITERS.get(account, set())
    n = 1 if account.startswith("telegraf-2") else 2
    marks = {
        "dados": [TOPIC],
        "sinais": [f"{TOPIC}/heartbeat", f"{TOPIC}/gap"],
        "edge": ["edge/acme/planta-sp/status"],
    }
    payload = account.encode()
    with contextlib.ExitStack() as stack:
        observers = {}
        for role in marks:
            name = f"telegraf-{n}-{role}"
            observers[role] = stack.enter_context(_client(cluster, name, TWO))
            assert REFUSED not in observers[role].subscribe(*reads[name])
        with _client(cluster, account) as client:
            assert client.connected, client.reason
            for topic in topics():
                assert client.publish(topic, payload) == "Success"
            for topic in (TOPIC.replace("/", "."), f"{TOPIC}/", f"/{TOPIC}", f"$MQTT/msgs/{TOPIC}"):
                assert client.publish(topic, payload) == "Success"
        came = set()
        with _client(cluster, "doctor-planta-sp", THREE) as marker:
            for role, mine in marks.items():
                for mark in mine:
                    assert marker.publish(mark, b"mark " + payload) == "Success"
                    assert observers[role].wait_for(mark, b"mark " + payload)
                came |= {t for t, p in observers[role].messages if p == payload}
        assert came == allowed - ALERTS


@pytest.mark.parametrize("account", [*READERS, *WRITERS])
def test_reading(cluster: Cluster, account: str, reads: dict[str, tuple[str, ...]]) -> None:
    """An account is given the filters that are its own, and no other; and what they let through."""
    allowed = READERS.get(account, set())
    everybodys = sorted({f for filters in reads.values() for f in filters})
    wide = ["#", "+/#", "plc/#", "edge/#", "alertas/#", "plc/+/#", "plc/+/+/+"]
    hidden = ["$SYS/#", "$MQTT/#", "$MQTT/sub/#", "$MQTT/msgs/#", "$JS/#", "$share/x/plc/+/+"]
    payload = f"read {account}".encode()
    with _client(cluster, account) as client:
        assert client.connected, client.reason
        asked = [*everybodys, *wide, *hidden]
        given = {f for f, said in zip(asked, client.subscribe(*asked), strict=True)
                 if said != REFUSED}  # fmt: skip
        assert given == set(reads.get(account, ()))
        for writer, written in WRITERS.items():
            if writer.startswith("doctor-") or not given:
                continue
            with _client(cluster, writer, TWO) as box:
                for topic in sorted(written):
                    box.publish(topic, payload)
        for topic in sorted(allowed):
            assert client.wait_for(topic, payload), topic
        assert {t for t, p in client.messages if p == payload} == allowed


@pytest.mark.parametrize("how", ["no user", "wrong password", "empty password", "unknown user"])
def test_login_is_refused(cluster: Cluster, how: str) -> None:
    user = {"no user": None, "unknown user": "edge-planta-mg"}.get(how, BOX)
    password = None if user is None else "" if how == "empty password" else "wrong"
    with _client(cluster, BOX, user=user, password=password) as client:
        assert client.reason == "Not authorized"


def test_only_mqtt_3_is_spoken(cluster: Cluster) -> None:
    with _client(cluster, BOX, version=5) as client:
        assert client.reason == "Unsupported protocol version"


def test_a_box_that_speaks_mqtt_5_says_what_to_change(cluster: Cluster) -> None:
    with (
        run_folder() as folder,
        DispatchPeer(folder, "central"),
        service(mqtt_config(folder, cluster.port, **_login(cluster), version=5)) as publisher,
    ):
        until(lambda: publisher.said("set `version: 3.1.1`"), 10, publisher.stderr)


def test_old_tls_is_refused(cluster: Cluster) -> None:
    with _client(cluster, READER, tls_version=ssl.TLSVersion.TLSv1_1) as client:
        assert not client.connected
        assert "SSL" in str(client.reason), client.reason


def test_wrong_authority_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    run("pki.sh", str(tmp_path / "other"), "create")
    with _client(cluster, READER, ca=tmp_path / "other" / "ca.pem") as client:
        assert "CERTIFICATE_VERIFY_FAILED" in str(client.reason)


@pytest.mark.parametrize("who", ["a node", "a box", "nobody"])
def test_only_a_node_is_let_in_among_the_nodes(cluster: Cluster, who: str) -> None:
    """Else a box's certificate would read and forge everything."""
    name = {"a node": TWO, "a box": BOX}.get(who)
    if who == "a box":
        run("pki.sh", str(cluster.pki), "client", BOX)
    context = ssl.create_default_context(cafile=str(cluster.pki / "ca.pem"))
    if name is not None:
        issued = cluster.pki / "issued"
        context.load_cert_chain(issued / f"{name}.pem", issued / f"{name}.key")
    said = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((ONE, cluster.ports[6222]), 5) as plain,
        context.wrap_socket(plain, server_hostname=ONE) as peer,
    ):
        peer.sendall(b'CONNECT {"name":"intruder","cluster":"plc-edge"}\r\nPING\r\n')
        while b"PONG" not in said and (chunk := peer.recv(65_536)):
            said += chunk
    assert (b"PONG" in said) == (who == "a node"), said


def test_accounts_hold_hashes_only(cluster: Cluster) -> None:
    file = cluster.secrets / "accounts.conf"
    text = file.read_text()
    for account in ("admin", *WRITERS, *READERS):
        assert cluster.password(account) not in text
    assert text.count('password: "$2b$') == 1 + len(WRITERS) + len(READERS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_operators_account_reaches_no_message(cluster: Cluster) -> None:
    with _client(cluster, "admin") as client:
        assert client.reason == "Not authorized"


# --- sessions, retained messages and wills belong to the cluster, not to a node -------------------


def test_a_session_goes_with_its_client_to_another_node(cluster: Cluster) -> None:
    same = {"client_id": "wanderer", "persistent": True}
    with _client(cluster, READER, ONE, **same) as client:
        assert not client.session_present
        client.subscribe("plc/acme/#")
    with _client(cluster, BOX, TWO) as box:
        for n in range(50):
            box.publish(TOPIC, b"%d" % n)
    with _client(cluster, READER, THREE, **same) as client:
        assert client.session_present
        assert client.wait_for(TOPIC, b"49")
        assert [p for _, p in client.messages] == [b"%d" % n for n in range(50)]
    with _client(cluster, READER, TWO, client_id="wanderer"):
        """A clean session: the cluster forgets the other, and what it would have kept for it."""


def test_retained_messages_are_everywhere_and_are_cleared_everywhere(cluster: Cluster) -> None:
    topic = f"{TOPIC}/heartbeat"
    with _client(cluster, BOX, ONE) as box:
        box.publish(topic, b"kept", retain=True)
        for host in HOSTS:
            with _client(cluster, READER, host) as client:
                client.subscribe(topic)
                assert client.wait_for(topic, b"kept"), host
        box.publish(topic, b"", retain=True)
    box_topics = [topic, TOPIC]
    for host in HOSTS:
        with _client(cluster, READER, host) as client, _client(cluster, BOX, host) as box:
            client.subscribe(*box_topics)
            box.publish(TOPIC, b"after")
            assert client.wait_for(TOPIC, b"after")
            assert [t for t, _ in client.messages] == [TOPIC], host


def test_a_will_is_sent_to_every_node(cluster: Cluster) -> None:
    topic = "edge/acme/planta-sp/status"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_client(cluster, READER, host)) for host in HOSTS]
        for client in clients:
            client.subscribe(topic)
        with _client(cluster, BOX, TWO, will=topic) as box:
            box.drop()
            for client in clients:
                assert client.wait_for(topic, b"will")
    with _client(cluster, BOX, TWO) as box:
        box.publish(topic, b"", retain=True)


def test_a_taken_client_id_ends_the_other_connection_and_shows_nothing_of_it(
    cluster: Cluster,
) -> None:
    """Unlike our Mosquitto, where the account is the client id. What is left: a nuisance."""
    same = {"client_id": "leitor-1", "persistent": True}
    with _client(cluster, READER, ONE, **same) as victim:
        victim.subscribe("plc/acme/#")
        with _client(cluster, "leitor-beta", TWO, **same) as thief:
            assert thief.connected
            until(lambda: victim.ended, 5, "the victim's connection ends")
            with _client(cluster, BOX, THREE) as box:
                box.publish(TOPIC, b"secret")
            thief.subscribe("plc/beta/#")
            with _client(cluster, "edge-planta-sp-beta", THREE) as box:
                box.publish("plc/beta/forno-02", b"own")
            assert thief.wait_for("plc/beta/forno-02", b"own")
            assert {t for t, _ in thief.messages} == {"plc/beta/forno-02"}


def test_websocket_listener(cluster: Cluster) -> None:
    client = Client(
        cluster.ports[8083], host=ONE, ca=cluster.pki / "ca.pem", user=READER, version=4,
        password=cluster.password(READER), websockets=True,
    )  # fmt: skip
    with client:
        assert client.connected, client.reason
        client.subscribe("plc/acme/#")
        with _client(cluster, BOX, TWO) as box:
            box.publish(TOPIC, b"by web")
        assert client.wait_for(TOPIC, b"by web")


def test_a_message_too_large_is_a_dead_letter_and_the_rest_goes_on(cluster: Cluster) -> None:
    """The server ends the connection over it, each time; MQTT 3.1.1 cannot say why."""
    with run_folder() as folder, DispatchPeer(folder, "central") as peer:
        peer.add(3)
        peer.add(1, pad=1_048_576)
        peer.add(3)
        with service(mqtt_config(folder, cluster.port, **_login(cluster), version="3.1.1")):
            peer.wait_done(30)
    assert list(peer.refused) == [4]


def test_a_new_password_ends_the_old_ones_connection(cluster: Cluster) -> None:
    account = "edge-planta-rj-beta"
    old = cluster.password(account)
    with _client(cluster, account) as client:
        cluster.password_file(account).unlink()
        cluster.make_accounts()
        cluster.reload()
        until(lambda: client.ended, 10, "the connection with the old password ends")

    def refused() -> bool:
        with _client(cluster, account, password=old) as client:
            return client.reason == "Not authorized"

    until(refused, 10, "the old password is refused")
    with _client(cluster, account) as client:
        assert client.connected, client.reason
