"""The Sparkplug output towards its broker and its primary host: packets, refusals, STATE."""

from __future__ import annotations

import time

import pytest
from tahutils.tahu.sparkplug_b_pb2 import Payload

from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.procs import service
from tests.kit.publisher_rig import run_folder
from tests.kit.scripted_broker import Script, ScriptedBroker
from tests.kit.sparkplug import (
    HOST,
    STATE,
    HostApplication,
    decode,
    sparkplug_config,
)
from tests.kit.sparkplug_judge import Judge

PRENSA = "prensa-01"


@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_connect_and_subscriptions(version: object) -> None:
    with run_folder() as run, ScriptedBroker() as broker, DispatchPeer(run, "central") as peer:
        config = sparkplug_config(run, broker.port, version=version, primary_host="scada")
        with service(config) as publisher:
            until(lambda: len(broker.subscribed) == 2, 5, publisher.stderr)
            for _ in range(2):
                broker.drop_clients()
                until(lambda: len(broker.subscribed) % 2 == 0 and broker.connects > 1, 5, "back")
            until(lambda: broker.connects >= 3, 5, publisher.stderr)
            assert peer.sessions
        node = ("spBv1.0/acme/NCMD/planta-sp", 1)
        assert broker.subscribed[:2] == [node, ("spBv1.0/STATE/scada", 1)]
        assert not broker.received, "a birth although the primary host is not known"
        assert not broker.complaints
    for i, body in enumerate(broker.connected[:3]):
        assert body[7] & 0x02, "principles-persistence-clean-session"
        assert body[7] & 0x3C == 0x0C, "a will of QoS 1, not retained"
        if version == 5:
            assert body[10] == 5, "no property but the maximum packet size: the session ends"
        topic = b"spBv1.0/acme/NDEATH/planta-sp"
        at = body.index(topic) + len(topic)
        size = int.from_bytes(body[at : at + 2])
        will = Payload.FromString(body[at + 2 : at + 2 + size])
        assert [(m.name, m.long_value) for m in will.metrics] == [("bdSeq", i)]
        assert not will.HasField("seq")


def test_a_subscription_that_the_broker_refuses_is_told() -> None:
    with (
        run_folder() as run,
        ScriptedBroker(Script(suback_code=0x87)) as broker,
        DispatchPeer(run, "central"),
        service(sparkplug_config(run, broker.port)) as publisher,
    ):
        until(lambda: publisher.said("spBv1.0/acme/NCMD/planta-sp"), 5, publisher.stderr)
        publisher.wait_said("output_acl")


def test_at_qos_1_a_refused_value_is_held_and_told() -> None:
    with (
        run_folder() as run,
        ScriptedBroker(Script(puback_code=0x87)) as broker,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port, qos=1)) as publisher,
    ):
        peer.add(3)
        until(
            lambda: publisher.said("refuses spBv1.0/acme/DDATA/planta-sp/prensa-01"),
            5,
            publisher.stderr,
        )
        assert not peer.settled
        broker.heal()
        peer.wait_done(10)
        assert not peer.refused
        assert not broker.complaints


def test_hostile_packets_end_the_connection_and_not_the_process() -> None:
    hostile = [b"\x30\x01\x00", b"\x32\x03\x00\x01a", b"\x90\x01\x00", b"\x30\x04\x00\xff\x00\x00",
               b"\x36\x06\x00\x01a\x00\x01\x00", b"\xf0\x00"]  # fmt: skip
    with (
        run_folder() as run,
        ScriptedBroker() as broker,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port)) as publisher,
    ):
        for data in hostile:
            until(lambda: len(broker.received) >= 2, 10, publisher.stderr)
            broker.received.clear()
            broker.tell(data)
        broker.drop_clients()
        peer.add(10)
        peer.wait_done(15)
        assert publisher.terminate() == 0


def test_births_wait_for_the_primary_host_and_old_states_count_for_nothing() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port, online=False) as host,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port, primary_host="scada")) as publisher,
    ):
        until(lambda: publisher.said("output_host_offline"), 5, publisher.stderr)
        peer.add(50)
        host.publish(STATE, b"online")
        host.publish(STATE, host.state(False, 5_000), retain=True)
        host.publish("spBv1.0/STATE/other", host.state(True, 9_000))
        host.publish(STATE, host.state(True, 4_000))
        until(lambda: publisher.said("bad_state"), 5, publisher.stderr)
        assert not host.heard, "nothing before the primary host is online"
        assert not peer.settled
        host.publish(STATE, host.state(True, 5_000))
        peer.wait_done(10)
        host.publish(STATE, host.state(False, 4_999))
        peer.add(1)
        peer.wait_done(10)
        assert not host.count("NDEATH"), "an older STATE ends nothing"
        publisher.wait_said("old_state")
        host.publish(STATE, host.state(False, 5_000), retain=True)
        host.wait("NDEATH")
        host.publish(STATE, host.state(True, 5_000), retain=True)
        host.wait("NBIRTH", 2)
        deaths = host.count("NDEATH")
        publisher.kill()
        host.wait("NDEATH", deaths + 1)
        numbers = [m["metrics"][0]["value"] for m in decode(host.heard) if "/N" in m["topic"]]
        assert numbers[0] == "0", "topics-nbirth-bdseq-increment"
        assert numbers[-2:] == ["1", "1"], "the will's is its birth's: payloads-ndeath-bdseq"
        judge = Judge()
        judge.hear(host.heard)
        assert not judge.missing(peer.rows, {})
        key = (PRENSA, peer.epoch, 50)
        assert all(r.historical for r in judge.readings[key])
        assert not any(r.historical for r in judge.readings[PRENSA, peer.epoch, 51])


def test_a_birth_that_the_broker_would_not_take_is_told_and_rows_are_kept() -> None:
    with (
        run_folder() as run,
        ScriptedBroker(Script(maximum_packet=300)) as broker,
        DispatchPeer(run, "central") as peer,
        service(sparkplug_config(run, broker.port)) as publisher,
    ):
        peer.add(5)
        until(lambda: publisher.said("output_packet"), 5, publisher.stderr)
        publisher.wait_said("DBIRTH/planta-sp/prensa-01 has ")
        assert not broker.received
        broker.heal()
        broker.drop_clients()
        peer.wait_done(10)
        assert not broker.complaints


def test_the_broker_with_the_primary_host_is_found() -> None:
    """And left again when the host appears at the other one."""
    with Broker() as first, Broker(host="127.0.0.2", port=first.port) as second:
        with (
            run_folder() as run,
            DispatchPeer(run, "central") as peer,
            HostApplication(first.port, online=False) as witness,
        ):
            hosts = [first.host, second.host]
            config = sparkplug_config(run, first.port, hosts=hosts, primary_host=HOST)
            with service(config) as publisher:
                host = HostApplication(second.port, broker=second.host)
                host.wait("DBIRTH", timeout_s=20)
                peer.add(10)
                peer.wait_done(10)
                assert not witness.heard
                host.leave()
                with HostApplication(first.port) as other:
                    peer.add(10)
                    other.wait("DBIRTH", timeout_s=20)
                    peer.wait_done(10)
                    assert publisher.terminate() == 0
                    other.wait("NDEATH")
                    judge = Judge()
                    judge.hear(host.heard)
                    judge.hear(other.heard)
        assert not judge.missing(peer.rows, peer.refused)


@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_a_command_too_long_to_be_one_is_left_out(version: object) -> None:
    """A retained one would come with each connection."""
    command = "spBv1.0/acme/NCMD/planta-sp"
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central") as peer,
    ):
        host.publish(command, bytes(300_000), retain=True)
        config = sparkplug_config(run, broker.port, version=version, primary_host=HOST)
        with service(config) as publisher:
            host.wait("DBIRTH")
            host.publish(command, bytes(300_000))
            host.rebirth()
            host.wait("DBIRTH", 2)
            peer.add(3)
            peer.wait_done(10)
            assert not publisher.said("does not speak MQTT"), publisher.stderr()
            assert host.count("NDEATH") == 0


def test_a_flood_of_commands_does_not_fill_the_log() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        HostApplication(broker.port) as host,
        DispatchPeer(run, "central"),
        service(sparkplug_config(run, broker.port, primary_host=HOST)) as publisher,
    ):
        host.wait("DBIRTH")
        begin_s = time.monotonic()
        for payload in (None, b"no payload") * 200:
            host.rebirth(payload)
        host.wait("DBIRTH", 2)
        lines = publisher.stderr().splitlines()
        took_s = time.monotonic() - begin_s
        said = sum("asks" in x or "NCMD is no" in x for x in lines)
        assert 2 <= said <= 2 * (took_s + 2), f"{said} lines of 400 commands in {took_s:.1f} s"
