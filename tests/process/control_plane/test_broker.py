"""Accounts at a real Mosquitto with TLS, made and ended by the API alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.control_plane.broker.accounts import METER
from services.control_plane.broker.dynsec import NAMES
from tests.kit.centre import DATABASES, Centre
from tests.kit.common import until
from tests.kit.dynsec import Accounts, connected

OK = ("Success", "No matching subscribers")
DENIED = "Not authorized"
ACME = "/v1/tenants/acme"
BOX = {"kind": "broker", "role": "box", "site": "caixa-1"}
READER = {"kind": "broker", "role": "reader"}


@pytest.fixture
def broker() -> Iterator[Accounts]:
    with Accounts() as broker:
        yield broker


@pytest.fixture
def centre(broker: Accounts) -> Iterator[Centre]:
    with Centre("sqlite", broker.section()) as centre:
        centre.tenant("acme")
        yield centre


def account(centre: Centre, form: dict[str, Any] = BOX, tenant: str = "acme") -> dict[str, Any]:
    made: dict[str, Any] = centre.make(f"/v1/tenants/{tenant}/credentials", form)
    return made


@pytest.mark.timing
@pytest.mark.parametrize("database", DATABASES)
def test_it_works_within_a_second_and_ends_within_one(database: str, broker: Accounts) -> None:
    with Centre(database, broker.section()) as centre:
        centre.tenant("acme")
        with connected(broker, account(centre)):  # from here on nothing has to be connected first
            made = account(centre)
            began_s = time.monotonic()
            with connected(broker, made) as client:
                assert time.monotonic() - began_s <= 1.0
                began_s = time.monotonic()
                centre.make(f"{ACME}/credentials/{made['id']}/revoke", {})
                until(lambda: client.ended_s is not None, 5, "disconnected")
                assert client.ended_s is not None
                assert client.ended_s - began_s <= 1.0


@pytest.mark.parametrize("database", DATABASES)
def test_each_may_do_what_is_its_own(database: str, broker: Accounts) -> None:
    """Two boxes of one tenant, one of another, a reader of each."""
    with Centre(database, broker.section()) as centre:
        for tenant in ("acme", "outra"):
            centre.tenant(tenant)
        centre.make(f"{ACME}/sites", {"id": "caixa-2"})
        centre.make(f"{ACME}/devices", {"id": "clp-2", "site": "caixa-2"})
        own = {
            "plc/acme/clp-1": ("acme", "caixa-1"),
            "plc/acme/clp-1/heartbeat": ("acme", "caixa-1"),
            "plc/acme/clp-1/gap": ("acme", "caixa-1"),
            "edge/acme/caixa-1/status": ("acme", "caixa-1"),
            "plc/acme/clp-2": ("acme", "caixa-2"),
            "edge/acme/caixa-2/status": ("acme", "caixa-2"),
            "plc/outra/clp-1": ("outra", "caixa-1"),
            "edge/outra/caixa-1/status": ("outra", "caixa-1"),
            "alertas/acme/mudo": ("acme", None),
            "alertas/outra/mudo/caixa-1": ("outra", None),
            "alertas/terceira/mudo": None,
            "plc/acme/clp-9": None,
            "plc/acme": None,
            "outro": None,
            "$CONTROL/dynamic-security/v1": None,
        }
        readers = {t: connected(broker, account(centre, READER, t)) for t in ("acme", "outra")}
        for tenant, reader in readers.items():
            for topic in (f"plc/{tenant}/#", f"edge/{tenant}/#", f"alertas/{tenant}/#"):
                assert reader.subscribe(topic) == "Granted QoS 1"
            other = "outra" if tenant == "acme" else "acme"
            for topic in ("#", "plc/#", "plc/+/clp-1", f"plc/{other}/#", f"alertas/{other}/#",
                          "alertas/#", "$SYS/#", "$CONTROL/#"):  # fmt: skip
                assert reader.subscribe(topic) == DENIED, topic
            for topic in own:
                assert reader.publish(topic) == DENIED, topic
        for site in (("acme", "caixa-1"), ("acme", "caixa-2"), ("outra", "caixa-1")):
            with connected(broker, account(centre, {**BOX, "site": site[1]}, site[0])) as box:
                for topic, owner in own.items():
                    said = box.publish(topic)
                    mine = owner in (site, (site[0], None))  # alarms: of any box of the tenant
                    assert (said in OK) if mine else (said == DENIED), (site, topic, said)
                for topic in ("#", f"plc/{site[0]}/#", "plc/acme/clp-1"):
                    assert box.subscribe(topic) == DENIED
        for tenant, reader in readers.items():
            boxes = 2 if tenant == "acme" else 1
            sent = [
                topic
                for topic, owner in own.items()
                if owner and owner[0] == tenant
                for _ in range(1 if owner[1] else boxes)
            ]
            assert sorted(reader.messages.get(timeout=10) for _ in sent) == sorted(sent)
            assert reader.messages.empty()
            reader.close()


def test_what_changes_in_the_tenant_changes_there(centre: Centre, broker: Accounts) -> None:
    made = account(centre)
    with connected(broker, made) as box:
        assert box.publish("plc/acme/clp-2") == DENIED
        centre.make(f"{ACME}/sites", {"id": "caixa-2"})
        centre.make(f"{ACME}/devices", {"id": "clp-2", "site": "caixa-1"})
        until(lambda: box.publish("plc/acme/clp-2") in OK, 10, broker.log)
        centre.call("PATCH", f"{ACME}/devices/clp-2", {"site": "caixa-2"})
        until(lambda: box.publish("plc/acme/clp-2") == DENIED, 10, broker.log)
        assert box.ended_s is None, "permissions change under a connection"
        centre.make(f"{ACME}/suspend", {})
        until(lambda: not box.is_connected, 10, broker.log)
    with broker.client(made) as box:
        assert box.answer() == DENIED
    centre.make(f"{ACME}/resume", {})
    with connected(broker, made) as box:
        assert centre.call("DELETE", ACME).status == 200
        until(lambda: not box.is_connected, 10, broker.log)
    until(lambda: not broker.accounts(), 10, broker.log)
    assert [r["rolename"] for r in broker.on_disk()["roles"]] == ["admin", METER]


def test_a_rotation_overlaps(centre: Centre, broker: Accounts) -> None:
    old = account(centre)
    with connected(broker, old) as before:
        path = f"{ACME}/credentials/{old['id']}/rotate"
        new = centre.make(path, {"overlap_s": 2})
        assert (new["id"], new["username"] != old["username"]) == (old["id"], True)
        with connected(broker, new) as after:
            assert before.publish("plc/acme/clp-1") in OK
            assert after.publish("plc/acme/clp-1") in OK
            until(lambda: not before.is_connected, 10, broker.log)
            last = centre.make(path, {"overlap_s": 0})
            until(lambda: not after.is_connected, 10, broker.log)
        with connected(broker, last) as third:
            assert third.publish("plc/acme/clp-1") in OK


def test_a_broker_that_was_away_gets_all_of_it(centre: Centre, broker: Accounts) -> None:
    """Killed in the middle of it, the control plane goes on where it was."""
    first = account(centre)
    connected(broker, first).close()
    broker.stop(kill=True)
    second = account(centre, READER)
    centre.make(f"{ACME}/credentials/{first['id']}/revoke", {})
    centre.kill()
    centre.start()
    third = account(centre)
    broker.start()
    for made in (second, third):
        connected(broker, made, 20).close()
    with broker.client(first) as client:
        assert client.answer() == DENIED


def test_drift_is_repaired(centre: Centre, broker: Accounts) -> None:
    kept, lost = account(centre), account(centre, READER)
    for made in (kept, lost):
        connected(broker, made).close()
    send = {"acltype": "publishClientSend", "priority": 0, "allow": True}
    broker.ask(
        {"command": "deleteClient", "username": lost["username"]},
        {"command": "disableClient", "username": kept["username"]},
        {"command": "addRoleACL", "rolename": "acme.caixa-1", "topic": "plc/outra/#", **send},
        {"command": "removeRoleACL", "rolename": "acme.caixa-1", "topic": "plc/acme/clp-1", **send},
        {"command": "setDefaultACLAccess", "acls": [{"acltype": "subscribe", "allow": True}]},
        {"command": "createClient", "username": "ninguem.caixa-1.0", "password": "x"},
        {"command": "createClient", "username": "telegraf", "password": "x"},
    )
    broker.restart()
    connected(broker, lost, 20).close()
    with connected(broker, kept, 20) as box:
        assert box.publish("plc/acme/clp-1") in OK
        assert box.publish("plc/outra/clp-1") == DENIED
        assert box.subscribe("#") == DENIED
    assert broker.accounts() == {"telegraf", kept["username"], lost["username"]}


def test_a_broker_from_a_backup_is_made_right(centre: Centre, broker: Accounts) -> None:
    revoked = account(centre)
    connected(broker, revoked).close()
    backup = broker.folder / "backup.json"
    shutil.copy(broker.dynsec, backup)
    centre.make(f"{ACME}/credentials/{revoked['id']}/revoke", {})
    made = account(centre)
    connected(broker, made).close()
    broker.stop()
    shutil.copy(backup, broker.dynsec)
    broker.start()
    connected(broker, made, 20).close()
    until(lambda: revoked["username"] not in broker.dynsec.read_text(), 10, broker.log)


def test_a_broker_that_begins_anew_gets_every_account(centre: Centre, broker: Accounts) -> None:
    made = [account(centre), account(centre, READER)]
    for one in made:
        connected(broker, one).close()
    broker.stop()
    broker.dynsec.write_text(broker.initial)
    broker.start()
    for one in made:
        connected(broker, one, 20).close()


def test_with_another_key_a_lost_account_needs_a_rotation(centre: Centre, broker: Accounts) -> None:
    made = account(centre)
    connected(broker, made).close()
    centre.kill()
    (centre.config.state / "broker.key").unlink()
    centre.start()
    connected(broker, made).close()  # what the broker holds goes on
    broker.ask({"command": "deleteClient", "username": made["username"]})
    broker.restart()
    assert centre.service is not None
    lost = lambda: made["username"] in "\n".join(centre.service.text)  # noqa: E731
    until(lost, 20, broker.log)
    new = centre.make(f"{ACME}/credentials/{made['id']}/rotate", {})
    connected(broker, new).close()


def test_many_accounts_are_listed_in_parts(broker: Accounts) -> None:
    """Most of them are none of the control plane's."""
    others = {f"outro-{n:04}" for n in range(NAMES + 40)}
    broker.ask(*({"command": "createClient", "username": n, "password": "x"} for n in others))
    with Centre("sqlite", broker.section()) as centre:
        centre.tenant("acme")
        made = account(centre)
        connected(broker, made, 20).close()
        centre.make(f"{ACME}/credentials/{made['id']}/revoke", {})
        until(lambda: broker.accounts() == others, 20, broker.log)


def test_a_password_of_the_broker_opens_nothing_else(centre: Centre) -> None:
    made = account(centre, READER)
    key = f"plce_{made['username'].rpartition('.')[2]}_{made['secret']}"
    assert centre.call("GET", "/v1/me", key=key).status == 401
    assert made["secret"].encode() not in (centre.folder / "central.db").read_bytes()
    assert centre.call("GET", f"{ACME}/credentials/{made['id']}").body["kind"] == "broker"
    reply = centre.call("POST", f"{ACME}/credentials", {"kind": "broker", "role": "admin"})
    assert reply.status == 422


def test_without_a_broker_there_are_no_accounts() -> None:
    with Centre() as centre:
        centre.tenant("acme")
        reply = centre.call("POST", f"{ACME}/credentials", BOX)
        assert (reply.status, reply.body["type"]) == (409, "urn:plc-edge:problem:no-broker")
