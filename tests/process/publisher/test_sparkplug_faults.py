"""Nothing is lost towards a primary host: kill -9 of publisher, broker and host, broken lines."""

from __future__ import annotations

import random
import time

import pytest

from bus.frames import GAP_ROW
from tests.kit.broker import Broker
from tests.kit.common import until
from tests.kit.dispatch_peer import DispatchPeer
from tests.kit.procs import Service
from tests.kit.proxy import Proxy
from tests.kit.publisher_rig import run_folder
from tests.kit.sparkplug import HOST, HostApplication, sparkplug_config
from tests.kit.sparkplug_judge import Judge

WINDOW = 500


def judged(peer: DispatchPeer, *hosts: HostApplication) -> Judge:
    """All rows are with the hosts; the oracle of delivery, over everything they heard."""
    judge = Judge()
    for host in hosts:
        judge.hear(host.heard)
    missing = judge.missing(peer.rows, peer.refused)
    assert not missing, f"{len(missing)} of {len(peer.rows)} lost: {missing[:5]}"
    assert not peer.refused
    return judge


def in_order(judge: Judge) -> None:
    """First deliveries follow the order of the store."""
    first = list(dict.fromkeys(judge.delivered))
    assert first == sorted(first)


def feed(peer: DispatchPeer, seconds: float, rng: random.Random) -> None:
    """Rows, and now and then a gap message."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        peer.add(rng.randint(1, 15))
        if rng.random() < 0.1:
            peer.add(1, kind=GAP_ROW)
        time.sleep(0.02)


def test_kill_9_of_publisher_and_broker() -> None:
    rng = random.Random(3)
    with run_folder() as run, Broker() as broker, DispatchPeer(run, "central") as peer:
        config = sparkplug_config(run, broker.port, primary_host=HOST, window=WINDOW)
        publisher = Service(config)
        try:
            with HostApplication(broker.port) as host:
                for turn in range(6):
                    feed(peer, rng.uniform(0.2, 1.0), rng)
                    if turn == 3:
                        peer.restart()  # a store that was killed, too
                        feed(peer, 0.2, rng)
                    if turn % 2:
                        publisher.kill()
                        publisher = Service(config)
                    else:
                        broker.stop(kill=True)
                        feed(peer, 0.2, rng)
                        broker.start()
                        until(lambda n=turn // 2: host.connections > n + 1, 10, "the host is back")  # type: ignore[misc]
                peer.wait_done(30)
                until(lambda: publisher.said("READY"), 5, publisher.stderr)
                assert publisher.terminate() == 0
                host.wait("NDEATH")
                judge = judged(peer, host)
        finally:
            publisher.end()
        in_order(judge)
        repeats = len(judge.delivered) - len(set(judge.delivered))
        assert repeats <= WINDOW * 7


def test_kill_9_of_the_primary_host() -> None:
    """What the broker had taken for a host that was dead already is told to the next one."""
    rng = random.Random(4)
    with run_folder() as run, Broker() as broker, DispatchPeer(run, "central") as peer:
        publisher = Service(
            sparkplug_config(run, broker.port, primary_host=HOST, window=WINDOW, host_grace=1.0)
        )
        hosts: list[HostApplication] = []
        try:
            for _ in range(3):
                host = HostApplication(broker.port)
                hosts.append(host)
                host.wait("DBIRTH")
                feed(peer, rng.uniform(0.5, 1.0), rng)
                host.freeze()
                feed(peer, 0.3, rng)
                host.leave()
                until(lambda: publisher.said("is offline"), 5, publisher.stderr)
                held = peer.settled
                feed(peer, 0.5, rng)
                assert peer.settled - held <= WINDOW, "rows are settled that no host was there for"
            host = HostApplication(broker.port)
            hosts.append(host)
            peer.wait_done(30)
            judge = judged(peer, *hosts)
            assert any(r.historical for rs in judge.readings.values() for r in rs)
            peer.add(1)
            peer.wait_done(10)
            assert publisher.terminate() == 0
        finally:
            publisher.end()


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("fault", ["reset", "blackhole", "half_open", "cut_ack"])
def test_a_line_that_breaks(fault: str, qos: int) -> None:
    """Without a primary host: the host is there all the time, only our line is not."""
    with (
        run_folder() as run,
        Broker() as broker,
        Proxy(broker.port) as proxy,
        DispatchPeer(run, "central") as peer,
        HostApplication(broker.port) as host,
    ):
        publisher = Service(sparkplug_config(run, proxy.port, window=WINDOW, qos=qos))
        try:
            host.wait("DBIRTH")
            rng = random.Random(5)
            feed(peer, 0.3, rng)
            proxy.fault = fault
            feed(peer, 0.5, rng)
            # Half-open and black hole are noticed by the answer that does not come.
            until(lambda: publisher.said('"output_'), 15, publisher.stderr)
            proxy.fault = None
            peer.wait_done(30)
            assert publisher.terminate() == 0
            until(lambda: host.heard[-1].kind == "NDEATH", 5, "the goodbye, after all rows")
            judge = Judge(qos=qos)
            judge.hear(host.heard)
            assert not judge.missing(peer.rows, peer.refused)
        finally:
            publisher.end()
