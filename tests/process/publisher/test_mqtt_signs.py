"""What several failures in a row say of the broker: named with its mend, and nothing lost."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from tests.kit.broker import Broker, Seen
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer, check
from tests.kit.procs import Service, service
from tests.kit.publisher_rig import TOPIC, mqtt_config, run_folder
from tests.kit.scripted_broker import Script, ScriptedBroker

WINDOW = 20


def of(seen: list[bytes], peer: DispatchPeer) -> list[bytes]:
    """The messages of one box: two have one PLC and topic, so they differ in their epoch."""
    return [body for body in seen if b'"epoch":%d,' % peer.epoch in body]


def all_of(seen: Seen, peer: DispatchPeer) -> bool:
    return len(of(seen.topic(TOPIC), peer)) >= len(peer.rows)


def came(broker: ScriptedBroker, connects: int) -> bool:
    return broker.connects >= connects


@contextmanager
def box(broker: Broker, **options: Any) -> Iterator[tuple[DispatchPeer, Service]]:
    with ExitStack() as stack:
        run = stack.enter_context(run_folder())
        peer = stack.enter_context(DispatchPeer(run, "central"))
        config = mqtt_config(run, broker.port, window=WINDOW, **options)
        yield peer, stack.enter_context(service(config))


@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_two_boxes_with_one_client_id(version: object) -> None:
    """Each login ends the other's connection. Both say so, neither storms, nothing is lost."""
    with (
        Broker() as broker,
        broker.subscribe(TOPIC) as seen,
        box(broker, version=version) as (first, one),
        box(broker, version=version) as (second, two),
    ):
        peers = ((first, one), (second, two))

        def named() -> bool:
            for peer, _ in peers:
                peer.add(1)
            said = [s.said('"output_unstable"') or s.said('"output_taken_over"') for _, s in peers]
            return all(said)

        begin_s = time.monotonic()
        until(named, 30, lambda: one.stderr() + two.stderr())
        for _, publisher in peers:
            publisher.wait_said("client id planta-sp-central-acme")
            publisher.wait_said("own `site:` (or `client_id:`)")
        for peer, _ in peers:
            peer.add(100)
        for peer, _ in peers:
            peer.wait_done(20)
        restarts = broker.log().count("New client connected")
        # Their pauses grow: it is no storm (20 logins in 25 s were measured, of both together).
        assert restarts < 12 + 2 * (time.monotonic() - begin_s)
        for peer, _ in peers:
            until(partial(all_of, seen, peer), 5, "all seen")
            check(peer, of(seen.topic(TOPIC), peer), WINDOW, restarts)
            assert not peer.refused


def test_a_session_taken_over_is_named_at_once() -> None:
    """MQTT 5 has a word for it (0x8E), where the broker says it."""
    script = Script(disconnect_after=3, disconnect_code=0x8E)
    with (
        run_folder() as run,
        ScriptedBroker(script) as broker,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port, window=WINDOW, username="edge")) as publisher,
    ):
        peer.add(10)
        until(lambda: publisher.said('"output_taken_over"'), 10, publisher.stderr)
        publisher.wait_said("client id planta-sp-central-acme or account edge")
        broker.heal()
        peer.wait_done(10)
        check(peer, broker.rows(), WINDOW, broker.connects)


def test_what_the_broker_explains_is_no_message_s_fault() -> None:
    """Taken over again and again before one message's answer: it is no dead letter."""
    with (
        run_folder() as run,
        ScriptedBroker(Script(disconnect_after=1, disconnect_code=0x8E)) as broker,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port, window=WINDOW)) as publisher,
    ):
        peer.add(10)
        until(partial(came, broker, 7), 30, publisher.stderr)
        assert not peer.refused
        broker.heal()
        peer.wait_done(20)
        check(peer, broker.rows(), WINDOW, broker.connects)
        assert not peer.refused


def test_a_broker_that_drops_idle_clients_before_the_keepalive() -> None:
    """Each is soon back, with what came meanwhile; the third time the cause is named."""
    with (
        run_folder() as run,
        ScriptedBroker(Script(drop_idle_s=0.5)) as broker,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port, window=WINDOW)) as publisher,
    ):
        for connects in range(1, 5):
            until(partial(came, broker, connects), 10, publisher.stderr)
            peer.add(5)
            peer.wait_done(10)
        until(lambda: publisher.said('"output_unstable"'), 5, publisher.stderr)
        publisher.wait_said("a shorter `keepalive:`")
        peer.wait_done(10)
        check(peer, broker.rows(), WINDOW, broker.connects)
        assert not peer.refused
        assert not broker.complaints


def test_a_tls_port_where_none_is_wanted() -> None:
    with (
        Broker(tls=True) as broker,
        box(broker) as (peer, publisher),
    ):
        peer.add(3)
        until(lambda: publisher.said('"output_wants_tls"'), 15, publisher.stderr)
        publisher.wait_said("remove `tls: false` (and give `tls: {ca: …}`), or correct `port:`")
        assert not peer.settled
        assert publisher.terminate() == 0


def test_a_silent_port_where_tls_is_wanted() -> None:
    """Something takes the connection and waits for words of its own protocol."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        run_folder() as run,
        service(
            mqtt_config(run, silent.getsockname()[1], tls={"ca": None, "cert": None, "key": None})
        ) as publisher,
    ):
        until(lambda: publisher.said('"output_no_tls"'), 15, publisher.stderr)
        assert publisher.terminate() == 0
