"""A real reader process, whole site around it: ``python -m tests.bench.reader [SECONDS]``.

Round trips through a proxy that delays each way, scans of a small block, values of a 64 KiB image,
and jitter beside a bare timer's in the same run. Figures come from the messages and from /metrics.
"""

from __future__ import annotations

import heapq
import re
import socket
import statistics
import sys
import threading
import time
import urllib.request
from itertools import pairwise
from typing import Any

from tests.kit.box import Box
from tests.kit.fake_plc import FakePlc
from tests.kit.simulator import Simulator, free_ports
from tests.kit.site import Site, wait_for

DELAY_S = 0.005


class DelayProxy:
    """Passes TCP to ``port``, each piece ``DELAY_S`` later, in both directions."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            for a, b in ((client, server), (server, client)):
                a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_pass, args=(a, b), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    waiting: list[tuple[float, int, bytes]] = []
    ready = threading.Condition()

    def send() -> None:
        while True:
            with ready:
                while not waiting:
                    ready.wait()
                at_s, _, data = heapq.heappop(waiting)
            time.sleep(max(0.0, at_s - time.monotonic()))
            try:
                sink.sendall(data)
            except OSError:
                return

    threading.Thread(target=send, daemon=True).start()
    for n in range(sys.maxsize):
        try:
            data = source.recv(65_536)
        except OSError:
            return
        if not data:
            sink.close()
            return
        with ready:
            heapq.heappush(waiting, (time.monotonic() + DELAY_S, n, data))
            ready.notify()


def one_round_trip_ms(port: int, times: int = 50) -> float:
    """Median of a bare connection's request and reply through the same proxy."""
    took = []
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for packet in (
            "0300001611e00000000100c0010ac1020100c2020201",
            "0300001902f08032010000000100080000f0000003000300f0",
        ):
            s.sendall(bytes.fromhex(packet))
            s.recv(1_000)
        read = bytes.fromhex("0300001f02f080320100000002000e00000401120a10020004000784000000")
        for _ in range(times):
            begin_s = time.monotonic()
            s.sendall(read)
            s.recv(1_000)
            took.append((time.monotonic() - begin_s) * 1e3)
    return statistics.median(took)


def group(fields: list[dict[str, Any]], scan: str) -> dict[str, Any]:
    return {"name": "g1", "scan": scan, "publish": "always", "fields": fields}


def plc_at(port: int, *groups: dict[str, Any]) -> dict[str, Any]:
    return {"id": "forno-02", "host": "127.0.0.1", "port": port, "groups": list(groups)}


def round_trips(seconds: float) -> list[str]:
    fields = [{"name": f"x{i}", "address": f"DB7.DBD{i * 4}:DWORD"} for i in range(1_000)]
    with FakePlc({7: bytearray(4_000)}, pdu_bytes=240, jobs=3) as fake:
        proxy = DelayProxy(fake.port)
        box = Box(1)
        box.real_plcs = [plc_at(proxy.port, group(fields, "200ms"))]
        with box:
            box.wait_for_messages("forno-02", int(seconds * 5), timeout_s=seconds * 3)
            took = [m["latency_ms"] for m in box.subscriber.data("forno-02")[3:]]
            rtt_ms = one_round_trip_ms(proxy.port)
    trips = -(-19 // 3)
    ratio = statistics.median(took) / (trips * rtt_ms)
    return [
        f"| 4,000 B, PDU 240, 3 jobs, +5 ms each way: {trips} round trips of {rtt_ms:.1f} ms |"
        f" {statistics.median(took):.1f} ms | {ratio:.2f} (target ≤ 1.2) |"
    ]


def counted(url: str, name: str, **labels: str) -> float:
    text = urllib.request.urlopen(f"{url}/metrics", timeout=5).read().decode()
    total = 0.0
    for line in text.splitlines():
        if re.match(rf"{name}[{{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def rate(fields: list[dict[str, Any]], size: int, seconds: float) -> tuple[float, float]:
    """(scans per second, CPU seconds per second) of one reader that scans as fast as it may."""
    import psutil

    with Simulator(
        {"site": "bench", "locatario": "acme", "metrics": {"port": free_ports(1)[0]},
         "plcs": [plc_at(free_ports(1)[0], group(fields, "10ms"))]}, "--pdu", "960",
    ) as simulator:  # fmt: skip
        many = [{**group(fields, "10ms"), "name": f"g{n}"} for n in range(1, size + 1)]
        port = free_ports(1)[0]
        config = {"site": "bench", "locatario": "acme", "metrics": {"port": port},
                  "plcs": [plc_at(simulator.ports["forno-02"], *many)]}  # fmt: skip
        with Site(config) as site:
            site.wait_running()
            url = f"http://127.0.0.1:{port}"
            name = "plc_edge_scan_duration_seconds_count"
            wait_for(lambda: counted(url, name) > 10, 20, "scans")
            reader = psutil.Process(site.pid("reader-forno-02"))
            cpu_s = sum(reader.cpu_times()[:2])
            begin, begin_s = counted(url, name), time.monotonic()
            time.sleep(seconds)
            took_s = time.monotonic() - begin_s
            scans = (counted(url, name) - begin) / took_s
            return scans, (sum(reader.cpu_times()[:2]) - cpu_s) / took_s


def rates(seconds: float) -> list[str]:
    rows = []
    small = [{"name": f"x{i}", "address": f"DB7.DBW{i * 2}:INT"} for i in range(100)]
    # Thirty groups at the fastest rate a group may have (10 ms).
    scans, cpu = rate(small, 30, seconds)
    rows.append(f"| scans of a 200-byte block, one reader | {scans:,.0f} /s | CPU {cpu:.2f} |")
    for kind, width, code in (("INT", 2, "W"), ("DWORD", 4, "D"), ("REAL", 4, "D")):
        count = 65_000 // width
        fields = [{"name": f"x{i}", "address": f"DB7.DB{code}{i * width}:{kind}"}
                  for i in range(count)]  # fmt: skip
        scans, cpu = rate(fields, 1, seconds)
        values_s = scans * count / 1e6
        rows.append(
            f"| {kind} of a 65,000-byte image, decoded and on the bus | {values_s:.2f} M values/s |"
            f" {scans:.0f} scans/s, CPU {cpu:.2f} |"
        )
    return rows


def bare_timer(seconds: float) -> list[float]:
    """How late a sleep ends in a process of its own that does nothing else."""
    late = []
    due_s = time.monotonic()
    for _ in range(int(seconds * 10)):
        due_s += 0.1
        time.sleep(max(0.0, due_s - time.monotonic()))
        late.append((time.monotonic() - due_s) * 1e3)
    return late


def jitter(seconds: float) -> list[str]:
    rows = []
    with Box(1) as box:
        box.wait_for_messages("prensa-01", 20)
        for name, kills in (("", False), (", a sibling killed every second", True)):
            since = len(box.simulator.reads_ns("prensa-01"))
            bare: list[float] = []
            timer = threading.Thread(target=lambda bare=bare: bare.extend(bare_timer(seconds)))
            timer.start()
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                time.sleep(1)
                if kills and box.site.pid("metrics"):
                    box.site.kill("metrics")
            timer.join()
            reads = box.simulator.reads_ns("prensa-01")[since:]
            off = [abs((b - a) / 1e6 - 100) for a, b in pairwise(reads)]
            cuts, base = (statistics.quantiles(x, n=100) for x in (off, bare))
            rows.append(
                f"| jitter of a 100 ms group{name} | p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms |"
                f" bare timer p99 {base[98]:.2f} ms |"
            )
    return rows


def main(seconds: float) -> None:
    """Prints one table."""
    print("| what | measured | beside |\n|---|---|---|", flush=True)
    for part in (round_trips, rates, jitter):
        print("\n".join(part(seconds)), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
