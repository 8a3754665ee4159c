"""What the publisher does alone, QoS 1 to a real Mosquitto: a store's stand-in feeds it over the
real bus from an outbox that is never empty.

The baseline is bare paho in a process of its own: the same payloads to the same broker, as many
unacknowledged, until the last PUBACK.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import orjson

from tests.bench.bare_paho import WINDOW, BarePaho
from tests.bench.result import Figures, Options, Result, compare
from tests.bench.watch import Cpu
from tests.kit.broker import Broker
from tests.kit.dispatch_peer import DispatchPeer, body
from tests.kit.procs import service
from tests.kit.publisher_rig import mqtt_config, run_folder

VALUES = 1_000


@contextmanager
def both(version: int, tls: bool) -> Iterator[tuple[DispatchPeer, int, BarePaho]]:
    """(who feeds the publisher, its pid, the baseline), at one broker."""
    with run_folder() as run, Broker(tls=tls) as broker, DispatchPeer(run, "central") as peer:
        trust: object = False
        if broker.authority is not None:
            trust = {"ca": str(broker.authority.ca), "cert": None, "key": None}
        spelled = {4: "3.1.1", 5: 5}[version]
        config = mqtt_config(run, broker.port, window=WINDOW, tls=trust, version=spelled)
        peer.add(1)
        with service(config) as publisher:
            peer.wait_done(10)
            bare = BarePaho(broker, version)
            try:
                yield peer, publisher.pid, bare
            finally:
                bare.close()


def ours(peer: DispatchPeer, pid: int, payload: bytes, count: int) -> Figures:
    cpu, begin_s = Cpu([pid]), time.perf_counter()
    peer.add(count, bodies=[payload] * count)
    peer.wait_done(120)
    took_s = time.perf_counter() - begin_s
    cpu_us = cpu.percent() / 100 * took_s * 1e6
    return {"messages/s": count / took_s, "µs CPU a message": cpu_us / count}


def paho_alone(bare: BarePaho, payload: bytes, count: int) -> Figures:
    took_s, cpu_s, _ = bare.send(count, payload)
    return {"messages/s": count / took_s, "µs CPU a message": cpu_s * 1e6 / count}


def bench(options: Options) -> list[Result]:
    """Small messages by protocol, then large ones."""
    small = body("prensa-01", 1764000000123, 12345, 1764000000123)
    values = {f"campo_{i}": i / 7 for i in range(VALUES)}
    large = orjson.dumps({**orjson.loads(small), "values": values})
    cases = (
        ("MQTT 5", 5, False, small, 15_000),
        ("MQTT 3.1.1", 4, False, small, 15_000),
        ("MQTT 5 + TLS", 5, True, small, 15_000),
        (f"MQTT 5, {VALUES:,} values", 5, False, large, 2_000),
    )
    results = []
    for name, version, tls, payload, count in cases:
        with both(version, tls) as (peer, pid, bare):
            mine, base = partial(ours, peer, pid, payload), partial(paho_alone, bare, payload)
            mine(100), base(100)  # connected, everything loaded
            results += compare(
                "publisher", f"{name}, {len(payload):,} B", partial(mine, count),
                {"bare paho": partial(base, count)}, options.rounds or 5,
            )  # fmt: skip
    return results
