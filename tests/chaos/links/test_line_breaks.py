"""Faults of the line between the publisher and a real Mosquitto: nothing lost, first deliveries in
order, all arrived within 10 s of the line's recovery.
"""

from __future__ import annotations

import time
from functools import partial

import pytest

from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer, check
from tests.kit.procs import service
from tests.kit.proxy import Proxy
from tests.kit.publisher_rig import TOPIC, mqtt_config, run_folder

FAULTS = ["refuse", "reset", "blackhole", "half_open", "delay", "drip", "cut_ack"]
RESUME_S = 10.0
WINDOW = 100


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("fault_s", [1.0, 8.0])
def test_nothing_is_lost(fault: str, tls: bool, fault_s: float) -> None:
    if tls and fault == "cut_ack":
        pytest.skip("what is inside TLS cannot be cut at a packet")
    with (
        run_folder() as run,
        Broker(tls=tls) as broker,
        broker.subscribe(TOPIC) as seen,
        Proxy(broker.port) as proxy,
        DispatchPeer(run, "central") as peer,
    ):
        certificates: dict[str, str | None] = {"ca": None, "cert": None, "key": None}
        if broker.authority is not None:
            certificates["ca"] = str(broker.authority.ca)
        config = mqtt_config(run, proxy.port, tls=certificates if tls else False, window=WINDOW)
        with service(config) as publisher:
            peer.add(50)
            peer.wait_done(10)
            proxy.fault = fault
            end_s = time.monotonic() + fault_s
            while time.monotonic() < end_s:
                peer.add(5)
                time.sleep(0.05)
            proxy.fault = None
            healed_s = time.monotonic()
            peer.add(50)
            peer.wait_done(RESUME_S)
            assert time.monotonic() - healed_s < RESUME_S
            until(lambda: len(set(seen.topic(TOPIC))) == len(peer.rows), 5, "all seen")
            check(peer, seen.topic(TOPIC), WINDOW, proxy.connections)
            assert not peer.refused
            assert seen.gaps == 0
            assert publisher.terminate() == 0


def test_a_slow_line_is_not_taken_for_a_dead_one() -> None:
    """One message that takes longer than the acknowledgement's deadline to get through."""
    with (
        run_folder() as run,
        Broker() as broker,
        broker.subscribe(TOPIC) as seen,
        Proxy(broker.port, narrow=True) as proxy,
        DispatchPeer(run, "central") as peer,
    ):
        proxy.fault = "slow"
        with service(mqtt_config(run, proxy.port, window=WINDOW)):
            begin_s = time.monotonic()
            peer.add(1, pad=200_000)
            peer.add(10)
            peer.wait_done(40)
            assert time.monotonic() - begin_s > 8, "the line was not slow enough to prove anything"
            assert proxy.connections == 1
            until(lambda: len(seen.topic(TOPIC)) == 11, 5, "all seen")
            check(peer, seen.topic(TOPIC), WINDOW, 0)


def test_the_broker_is_killed_and_comes_back() -> None:
    with (
        run_folder() as run,
        Broker() as broker,
        DispatchPeer(run, "central") as peer,
        service(mqtt_config(run, broker.port, window=WINDOW)) as publisher,
    ):
        got: list[bytes] = []
        for _ in range(3):
            with broker.subscribe(TOPIC) as seen:
                peer.add(300)
                peer.wait_done(10)
                last = peer.rows[-1][7]
                arrived = partial(lambda s, row: row in s.topic(TOPIC), seen, last)
                until(arrived, 5, "the last one seen")
            got += seen.topic(TOPIC)
            broker.stop(kill=True)
            until(lambda: publisher.said("output_"), 5, publisher.stderr)
            broker.start()
        check(peer, got, WINDOW, 3)
