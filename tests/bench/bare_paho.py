"""The publisher's baseline: bare paho in a process of its own."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.kit.broker import Broker

WINDOW = 1_000
"""Unacknowledged messages, of both."""
ANSWER_S = 120.0


def paho_process(orders: Connection, port: int, version: int, ca: str | None) -> None:
    """Obeys ``(count, payload, interval_s)``; answers (seconds until the last PUBACK, CPU seconds,
    ms from publish to PUBACK of each).
    """
    protocol = MQTTProtocolVersion(version)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
    client.max_inflight_messages_set(WINDOW)
    if ca:
        client.tls_set(ca)
    acked_s: dict[int, float] = {}

    connected, all_acked = threading.Event(), threading.Event()
    count = 0

    def on_publish(_c: object, _u: object, mid: int, *_: object) -> None:
        acked_s[mid] = time.perf_counter()
        if len(acked_s) == count:
            all_acked.set()

    client.on_publish = on_publish
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(10), "the broker does not answer"
    while (order := orders.recv()) is not None:
        count, payload, interval_s = order
        acked_s.clear()
        all_acked.clear()
        sent_s: dict[int, float] = {}
        cpu_s, begin_s = time.process_time(), time.perf_counter()
        for n in range(count):
            if interval_s:
                time.sleep(max(0.0, begin_s + n * interval_s - time.perf_counter()))
            # A PUBACK may come before publish() returns.
            at_s = time.perf_counter()
            sent_s[client.publish("plc/acme/bench", payload, 1).mid] = at_s
        assert all_acked.wait(ANSWER_S), "not every PUBACK came"
        took_s = max(acked_s.values()) - begin_s
        lags = [(acked_s[mid] - at_s) * 1e3 for mid, at_s in sent_s.items()]
        orders.send((took_s, time.process_time() - cpu_s, lags))


class BarePaho:
    """The process above."""

    def __init__(self, broker: Broker, version: int = 5) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        ca = str(broker.authority.ca) if broker.authority else None
        self._process = context.Process(
            target=paho_process, args=(theirs, broker.port, version, ca)
        )
        self._process.start()

    def send(
        self, count: int, payload: bytes, interval_s: float = 0
    ) -> tuple[float, float, list[float]]:
        """(seconds, CPU seconds, latencies in ms)."""
        self._orders.send((count, payload, interval_s))
        assert self._orders.poll(ANSWER_S), "bare paho does not answer"
        took_s, cpu_s, lags = self._orders.recv()
        return took_s, cpu_s, lags

    def close(self) -> None:
        self._process.kill()
        self._process.join()
