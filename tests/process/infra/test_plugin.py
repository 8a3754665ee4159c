"""`infra render --accounts control-plane`: a real Mosquitto on the rendered file, its plugin begun
as the script begins it, and a control plane that keeps the accounts of boxes and tenants there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.centre import Centre
from tests.kit.common import until
from tests.kit.fleet_broker import Broker
from tests.kit.fleet_client import Client

TOPIC = "plc/acme/clp-1"


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(control_plane=True) as broker:
        yield broker


def _client(broker: Broker, user: str, password: str | None = None, port: int = 8883) -> Client:
    password = broker.password(user) if password is None else password
    return Client(broker.ports[port], ca=broker.pki / "ca.pem", user=user, password=password)


def test_boxes_and_tenants_are_the_control_planes(broker: Broker) -> None:
    section = {
        "host": "127.0.0.1",
        "port": broker.ports[8883],
        "password_file": str(broker.secrets / "mqtt-admin.pw"),
        "tls": {"ca": str(broker.pki / "ca.pem")},
    }
    with Centre("sqlite", section) as centre:
        centre.tenant("acme")
        made = [
            centre.make("/v1/tenants/acme/credentials", {"kind": "broker", **whose})
            for whose in ({"role": "box", "site": "caixa-1"}, {"role": "reader"})
        ]

        def connects() -> bool:
            for one in made:
                with _client(broker, one["username"], one["secret"]) as client:
                    if not client.connected:
                        return False
            return True

        until(connects, 10, broker.log)
        box, reader = made
        with (
            _client(broker, "telegraf-1-dados") as telegraf,
            _client(broker, reader["username"], reader["secret"]) as own,
            _client(broker, box["username"], box["secret"]) as sender,
        ):
            telegraf.subscribe("$share/telegraf/plc/+/+")
            own.subscribe("plc/acme/#")
            assert sender.publish(TOPIC, b"1") == "Success"
            assert sender.publish("plc/acme/outro", b"2") == "Not authorized"
            assert telegraf.publish(TOPIC, b"3") == "Not authorized"
            assert telegraf.wait_for(TOPIC, b"1")
            assert own.wait_for(TOPIC, b"1")
            assert [p for _, p in telegraf.messages] == [b"1"]


def test_the_platforms_own_accounts_are_there_from_the_beginning(broker: Broker) -> None:
    """Each with its own right, and no more; nobody without a password."""
    users = [u for u in broker.files["mosquitto/users.txt"].splitlines() if u[:1] not in ("#", "")]
    assert "admin" in users
    for user in users:
        with _client(broker, user) as client:
            assert client.connected, (user, client.reason)
        with _client(broker, user, "errada") as client:
            assert not client.connected
    with _client(broker, "saude") as health:
        health.subscribe("$SYS/broker/uptime")
        until(lambda: health.messages, 10, broker.log)
    with _client(broker, "telegraf-1-sinais") as telegraf, _client(broker, "admin") as admin:
        telegraf.subscribe("#", "plc/+/+", "$CONTROL/#", "$share/telegraf/plc/+/+/gap")
        assert admin.publish(TOPIC, b"x") == "Not authorized"
        assert telegraf.messages == []


def test_no_rendered_file_holds_a_password(broker: Broker) -> None:
    passwords = [file.read_text().strip() for file in broker.secrets.glob("mqtt-*.pw")]
    assert len(passwords) == 8
    begun = (broker.secrets / "dynamic-security.json").read_text()
    assert "@" not in begun
    for text in (begun, *broker.files.values()):
        assert not [p for p in passwords if p in text]
