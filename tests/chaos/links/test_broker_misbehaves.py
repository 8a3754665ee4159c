"""Every misbehaviour of a broker, against the real publisher: nothing lost, first deliveries in
order, and within 10 s of the broker's recovery all that waits has arrived.
"""

from __future__ import annotations

import time

import pytest

from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer, check
from tests.kit.procs import service
from tests.kit.publisher_rig import mqtt_config, run_folder
from tests.kit.scripted_broker import Script, ScriptedBroker

RESUME_S = 10.0
WINDOW = 100

FAULTS = {
    "refuses: unavailable": Script(refuse_connect=0x88),
    "refuses: bad password": Script(refuse_connect=0x86),
    "refuses: not authorized": Script(refuse_connect=0x87),
    "never answers CONNECT": Script(silent_connect=True),
    "half a CONNACK": Script(half_connack=True),
    "garbage for CONNACK": Script(garbage=b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "garbage after 5 messages": Script(garbage_after=5),
    "a packet of 200 MB": Script(oversize_length=True),
    "swallows every 7th PUBACK": Script(swallow_every=7),
    "swallows all PUBACKs, answers pings": Script(swallow_all=True),
    "closes before the PUBACK of the 8th": Script(drop_after=8),
    "closes before every PUBACK": Script(drop_after=1),
    "DISCONNECT: shutting down": Script(disconnect_after=8, disconnect_code=0x8B),
    "DISCONNECT: taken over": Script(disconnect_after=8, disconnect_code=0x8E),
    "stops reading": Script(stop_reading_after=5),
    "PUBACK twice": Script(puback_twice=True),
    "PUBACKs for nothing": Script(stray_pubacks=True),
    "PUBACKs in reverse": Script(reverse_pubacks=True),
    "PUBACKs late": Script(puback_delay_s=0.05),
    "byte by byte": Script(byte_by_byte=True),
}
ONLY_5 = {
    "PUBACK: not authorized": Script(puback_code=0x87),
    "PUBACK: quota exceeded": Script(puback_code=0x97),
    "PUBACK: unspecified error": Script(puback_code=0x80),
    "receive maximum 1": Script(receive_maximum=1),
    "receive maximum 5": Script(receive_maximum=5),
    "no retained messages": Script(retain_available=False),
    "server keep alive 1 s, no pings answered": Script(server_keepalive=1, no_pingresp=True),
}
CASES = [(n, s, v) for n, s in FAULTS.items() for v in (5, "3.1.1")]
CASES += [(n, s, 5) for n, s in ONLY_5.items()]


@pytest.mark.parametrize(
    ("name", "script", "version"), CASES, ids=[f"{n}-{v}" for n, _, v in CASES]
)
def test_nothing_is_lost(name: str, script: Script, version: object) -> None:
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(40)
        config = mqtt_config(run, broker.port, version=version, window=WINDOW)
        with service(config) as publisher:
            until(lambda: broker.connects, 5, publisher.stderr)
            faulty_until_s = time.monotonic() + 1.5
            until(lambda: peer.done or time.monotonic() > faulty_until_s, 10, "")
            broker.heal()
            healed_s = time.monotonic()
            peer.add(20)
            peer.wait_done(RESUME_S)
            assert time.monotonic() - healed_s < RESUME_S
            connections = broker.connects
            if not script.puback_code:
                check(peer, broker.rows(), WINDOW, connections)
            else:
                # What was already in flight behind a refused message has passed it.
                have = set(broker.rows())
                lost = [r for r in peer.rows if r[7] not in have and r[0] not in peer.refused]
                assert not lost
            assert not peer.refused, f"dead letters for a fault of the broker: {peer.refused}"
            assert not broker.complaints
            assert peer.most_unreceipted <= WINDOW
            assert publisher.terminate() == 0


@pytest.mark.parametrize(("seq", "lazy"), [(7, False), (1, True)], ids=["answers", "lazy"])
@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_a_poisonous_message_becomes_a_dead_letter_and_the_rest_goes_on(
    version: object, seq: int, lazy: bool
) -> None:
    """A broker that ends the connection at one message for ever: put aside after five times; also
    by one that has not answered anything by then (NATS).
    """
    script = Script(drop_on=b'"seq":%d,' % seq, lazy=lazy)
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(30)
        with service(mqtt_config(run, broker.port, version=version, window=WINDOW)):
            peer.wait_done(20)
            check(peer, broker.rows(), WINDOW, broker.connects)
            assert list(peer.refused) == [seq]
            assert broker.connects >= 6


@pytest.mark.parametrize("code", [0x90, 0x99])
def test_refused_for_ever(code: int) -> None:
    script = Script(puback_code=code, puback_code_every=10)
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(50)
        with service(mqtt_config(run, broker.port, window=WINDOW)):
            peer.wait_done(10)
            assert sorted(peer.refused) == [10, 20, 30, 40, 50]
            assert f"0x{code:02x}" in peer.refused[10]
            check(peer, broker.rows(), WINDOW, 1)
            assert broker.connects == 1


def test_too_large_for_the_broker() -> None:
    script = Script(maximum_packet=1_000)
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(5)
        peer.add(1, pad=2_000)
        peer.add(5)
        with service(mqtt_config(run, broker.port, window=WINDOW)):
            peer.wait_done(10)
            assert list(peer.refused) == [6]
            assert "the broker takes 1000" in peer.refused[6]
            check(peer, broker.rows(), WINDOW, 1)
            assert not broker.complaints


def test_a_refused_password_is_no_reason_for_dead_letters() -> None:
    """Held and tried again, however often; the log says why once, not once per attempt."""
    with (
        run_folder() as run,
        ScriptedBroker(Script(refuse_connect=0x86)) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(5)
        with service(mqtt_config(run, broker.port)) as publisher:
            until(lambda: broker.connects > 5, 20, publisher.stderr)
            assert not peer.settled
            said = [line for line in publisher.lines if line.get("code") == "output_auth"]
            assert len(said) == 1
            assert "bad user name or password" in said[0]["msg"]
            broker.heal()
            peer.wait_done(RESUME_S)
            assert not peer.refused


def test_a_broker_without_qos_1() -> None:
    """Then nothing is acknowledged: it goes out all the same, and the panel says so."""
    script = Script(maximum_qos=0)
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
    ):
        peer.add(40)
        with service(mqtt_config(run, broker.port, window=WINDOW)) as publisher:
            peer.wait_done(10)
            until(lambda: len(broker.rows()) == 40, 5, publisher.stderr)
            check(peer, broker.rows(), 0, 0)
            publisher.wait_said("takes QoS 0 only")
            assert not broker.complaints


@pytest.mark.parametrize("answers", [True, False])
def test_an_idle_connection_is_kept_up_and_a_dead_one_found(answers: bool) -> None:
    """Pings go out without any message; a broker that does not answer them is left."""
    script = Script(server_keepalive=1, no_pingresp=not answers)
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port)) as publisher,
    ):
        until(lambda: peer.sessions and broker.connects, 5, publisher.stderr)
        if answers:
            until(lambda: broker.pings >= 4, 10, publisher.stderr)
            assert broker.connects == 1
        else:
            until(lambda: broker.connects >= 2, 12, publisher.stderr)
            publisher.wait_said("127.0.0.1 does not answer")
