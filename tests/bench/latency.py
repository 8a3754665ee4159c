"""The whole box under a steady load: simulated PLCs, readers, outbox (``durability: full``),
publisher, Mosquitto with TLS, all on this machine's cores.

Latency is from a message's ``ts`` (the read's midpoint) to an independent subscriber's hands: the
broker sends that together with the PUBACK. The baseline is bare paho, TLS, at the same rate and
size, from publish to PUBACK: no PLC, no outbox, no bus.
"""

from __future__ import annotations

import time
from typing import Any

from tests.bench.bare_paho import BarePaho
from tests.bench.result import Figures, Options, Result, percentiles, rows
from tests.bench.watch import Cpu, site_pids
from tests.kit.box import Box, plc
from tests.kit.broker import Broker

BARE_S = 3.0
SETTLE_S = 2.0


def run(plcs: int, seconds: float, **group: Any) -> tuple[dict[str, float], bytes]:
    """Figures, and one of the messages."""
    box = Box(plcs)
    box.config["plcs"] = [
        plc(entry["id"], entry["port"], "10ms", **group) for entry in box.config["plcs"]
    ]
    if "fields" in group:
        for entry in box.config["plcs"]:
            del entry["groups"][0]["layout"]
    with box:
        for entry in box.config["plcs"]:
            box.wait_for_messages(entry["id"], 1)
        time.sleep(SETTLE_S)
        cpu, begin_s = Cpu(site_pids(box.site)), time.monotonic()
        lags_ms: list[float] = []
        seen = len(box.subscriber.received)
        payload = b""
        while (took_s := time.monotonic() - begin_s) < seconds:
            time.sleep(0.001)
            now_ms = time.time() * 1e3
            news = box.subscriber.received[seen:]
            seen += len(news)
            for topic, message, _ in news:
                if topic.startswith("plc/") and topic.count("/") == 2:
                    payload = message
                    at = payload.index(b'"ts":') + 5
                    lags_ms.append(now_ms - int(payload[at : at + 13]))
        rate = len(lags_ms) / took_s
        figures = {"messages/s": rate, **percentiles(lags_ms)}
        figures["% of a core, all services"] = cpu.percent()
    return figures, payload


def bare(rate: float, payload: bytes) -> Figures:
    """The same rate and size without us."""
    with Broker(tls=True) as broker, broker.subscribe("plc/#"):
        client = BarePaho(broker)
        try:
            client.send(100, payload)
            took_s, cpu_s, lags_ms = client.send(int(rate * BARE_S), payload, 1 / rate)
        finally:
            client.close()
    sent = {"messages/s": rate * BARE_S / took_s, **percentiles(lags_ms)}
    return {**sent, "% of a core, all services": 100 * cpu_s / took_s}


def bench(options: Options) -> list[Result]:
    """Three loads."""
    seconds = options.seconds or 8
    reals = [{"name": f"c{i}", "address": f"DB500.DBD{4 * i}:REAL"} for i in range(1_000)]
    machines = {"count": 30, "stride": 14}
    results = []
    for name, plcs, group in (
        ("500 messages/s offered", 5, {}),
        ("6,000 small messages/s offered", 2, {"machines": machines}),
        ("600 messages/s of 1,000 values offered", 6, {"fields": reals}),
    ):
        done = []
        for _ in range(options.rounds or 3):
            figures, payload = run(plcs, seconds, **group)
            done.append((figures, {"bare paho": bare(figures["messages/s"], payload)}))
        results += rows("latency", name, done)
    return results
