"""``python -m tests.bench.publisher``: what the publisher does alone, and the whole box with it.

Alone: a store's stand-in feeds it over the real bus, real Mosquitto, QoS 1, MQTT 5. Whole box
(``--box``): simulated PLCs, readers, outbox with durability full, publisher, Mosquitto with TLS, a
subscriber; everything on this machine's cores. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import psutil

from tests.kit.box import LAYOUT, Box, plc
from tests.kit.broker import Broker
from tests.kit.dispatch_peer import DispatchPeer, body
from tests.kit.procs import service
from tests.kit.publisher_rig import mqtt_config, run_folder

Row = tuple[str, str]


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, seconds."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def alone(count: int, values: int, version: object, tls: bool) -> Row:
    """Messages per second from an outbox that is never empty."""
    with run_folder() as run, Broker(tls=tls) as broker, DispatchPeer(run, "central") as peer:
        one = body("prensa-01", 1764000000123, 12345, 1764000000123)
        if values > 1:
            message = orjson.loads(one)
            message["values"] = {f"campo_{i}": i / 7 for i in range(values)}
            one = orjson.dumps(message)
        certificates: Any = False
        if broker.authority is not None:
            certificates = {"ca": str(broker.authority.ca), "cert": None, "key": None}
        config = mqtt_config(run, broker.port, version=version, window=1_000, tls=certificates)
        peer.add(1)
        with service(config) as publisher:
            peer.wait_done(10)
            before_s = cpu_s(publisher.pid)
            begin_s = time.monotonic()
            peer.add(count, bodies=[one] * count)
            peer.wait_done(120)
            took_s = time.monotonic() - begin_s
            cost_us = (cpu_s(publisher.pid) - before_s) / count * 1e6
    what = f"{values} values, {len(one)} B" if values > 1 else f"{len(one)} B"
    name = f"publisher alone, MQTT {version}{' + TLS' if tls else ''}, {what}"
    rate = f"{count / took_s:,.0f} messages/s"
    if values > 1:
        rate += f" = {count * values / took_s:,.0f} values/s"
    return name, f"{rate}, {cost_us:.0f} µs CPU a message"


def fdatasync_ms(folder: Path) -> str:
    """Median and 99th percentile of 200 small appends with fdatasync in ``folder``."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as f:
        for _ in range(200):
            f.write(b"x" * 4_096)
            f.flush()
            begin_s = time.perf_counter()
            os.fdatasync(f.fileno())
            times.append((time.perf_counter() - begin_s) * 1e3)
    return f"{statistics.median(times):.2f} ms, {sorted(times)[197]:.2f} ms"


def whole(name: str, plcs: int, scan: str, seconds: float, values: int, **group: Any) -> list[Row]:
    """The whole box under a steady load."""
    box = Box(plcs=plcs, scan=scan)
    for i, entry in enumerate(box.config["plcs"]):
        box.config["plcs"][i] = plc(entry["id"], entry["port"], scan, **group)
        if "fields" in group:
            del box.config["plcs"][i]["groups"][0]["layout"]
    with box:
        for entry in box.config["plcs"]:
            box.wait_for_messages(entry["id"], 1)
        time.sleep(2)
        pids = {n: int(r["pid"]) for n, r in box.site.table().items()}
        before = {n: cpu_s(p) for n, p in pids.items()}
        memory = {n: psutil.Process(p).memory_info().rss for n, p in pids.items()}
        first = len(box.subscriber.received)
        latencies: list[float] = []
        begin_s, seen = time.monotonic(), first
        while time.monotonic() - begin_s < seconds:
            time.sleep(0.001)
            now_ms = time.time() * 1e3
            news = box.subscriber.received[seen:]
            seen += len(news)
            for topic, payload, _ in news:
                if topic.count("/") == 2 and topic.startswith("plc/"):
                    at = payload.index(b'"ts":') + 5
                    latencies.append(now_ms - int(payload[at : at + 13]))
        took_s = time.monotonic() - begin_s
        rate = len(latencies) / took_s
        latencies.sort()
        p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
        used = {n: (cpu_s(p) - before[n]) / took_s * 100 for n, p in pids.items()}
        grown = sum(psutil.Process(p).memory_info().rss - memory[n] for n, p in pids.items())
        sync = fdatasync_ms(box.site.state)
    cpu = ", ".join(f"{n} {u:.0f} %" for n, u in sorted(used.items()))
    text = f"{rate:,.0f} messages/s"
    if values > 1:
        text += f" = {rate * values:,.0f} values/s"
    return [
        (f"{name}: PLC to subscriber", text),
        (f"{name}: read to arrival p50, p99", f"{p50:.1f} ms, {p99:.1f} ms"),
        (f"{name}: CPU", cpu),
        (f"{name}: memory grown in {took_s:.0f} s, all processes", f"{grown / 1e6:.1f} MB"),
        (f"{name}: fdatasync of the disk p50, p99", sync),
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.publisher", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--box", action="store_true")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    rows: list[Row] = []
    if args.box:
        reals = [{"name": f"c{i}", "address": f"DB500.DBD{4 * i}:REAL"} for i in range(1_000)]
        machines = {"count": 30, "stride": 14}
        s = args.seconds
        rows += whole("500/s", 5, "10ms", s, 1)
        rows += whole("6,000/s small", 2, "10ms", s, 1, machines=machines, layout=LAYOUT)
        rows += whole("600/s of 1,000 values", 6, "10ms", s, 1_000, fields=reals)
    else:
        rows.append(alone(args.count, 1, 5, tls=False))
        rows.append(alone(args.count, 1, "3.1.1", tls=False))
        rows.append(alone(args.count, 1, 5, tls=True))
        rows.append(alone(args.count // 20, 1_000, 5, tls=False))
    sys.stdout.write("| | |\n|---|---|\n")
    for name, text in rows:
        sys.stdout.write(f"| {name} | {text} |\n")


if __name__ == "__main__":
    main()
