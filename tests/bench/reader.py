"""How fast one reader process goes, with the site around it: scans as fast as a group may (10 ms)
of several groups, or of the largest image; everything decoded, numbered and on the bus.

The C snap7 server answers, and its first bytes change 500 times a second: a record of which no
byte has changed would not be decoded. The baseline is one python-snap7 client at the same server,
right afterwards: ``db_read`` and ``struct.unpack`` in a loop, into a list.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import snap7

from tests.bench.result import Figures, Options, Result, rows
from tests.bench.watch import Cpu, Scrape
from tests.kit.c_snap7 import CServer
from tests.kit.common import free_ports, until
from tests.kit.site import Site

PLC = "forno-02"
SCANS = "plc_edge_scan_duration_seconds_count"
# Overwritten in the ring before the outbox had them: a gap each, never silent.
LOST = "plc_edge_ring_overwritten_total"
IMAGE_BYTES = 65_000
CHANGE_S = 0.002
# Until the store has greeted the reader (1 s) and what waited for it is through.
SETTLE_S = 3.0
# A group scans at most 100 times a second: more of them than one reader can serve.
SMALL_GROUPS, IMAGE_GROUPS = 100, 4


def config(
    fields: list[dict[str, Any]], groups: int, port: int, metrics_port: int
) -> dict[str, Any]:
    """One PLC whose groups all read the same."""
    group = {"scan": "10ms", "publish": "always", "fields": fields}
    many = [{"name": f"g{n + 1}", **group} for n in range(groups)]
    return {
        "site": "bench", "locatario": "acme", "metrics": {"port": metrics_port},
        "plcs": [{"id": PLC, "host": "127.0.0.1", "port": port, "groups": many}],
    }  # fmt: skip


def image(size_bytes: int, code: str) -> bytes:
    """Random integers, or REALs with two decimals of a few thousand distinct values."""
    draw = random.Random(1)
    if code != "f":
        return draw.randbytes(size_bytes)
    count = size_bytes // 4
    return struct.pack(f">{count}f", *(round(draw.uniform(-20, 20), 2) for _ in range(count)))


@contextmanager
def moving(server: CServer) -> Iterator[None]:
    """Changes one value all the time."""
    stop = threading.Event()

    def move() -> None:
        for n in range(1 << 32):
            if stop.wait(CHANGE_S):
                return
            server.write(7, 0, struct.pack(">f", n % 1_000 / 100))

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def fresh(metrics_port: int) -> tuple[Scrape, float]:
    """The next numbers that the reader tells (once a second), and when they came."""
    old = Scrape(metrics_port).total(SCANS)

    def newer() -> Scrape | None:
        scrape = Scrape(metrics_port)
        return scrape if scrape.total(SCANS) != old else None

    return until(newer, 10, "the reader tells nothing"), time.monotonic()


def ours(port: int, fields: list[dict[str, Any]], groups: int, seconds: float) -> Figures:
    """Scans and values a second, and the reader's CPU."""
    metrics_port = free_ports(1)[0]
    with Site(config(fields, groups, port, metrics_port)) as site:
        site.wait_running()
        until(lambda: Scrape(metrics_port).total(SCANS) > 10, 30, "scans")
        time.sleep(SETTLE_S)
        cpu = Cpu([site.pid(f"reader-{PLC}")])
        before, begin_s = fresh(metrics_port)
        time.sleep(seconds)
        after, end_s = fresh(metrics_port)
        scans = after.total(SCANS) - before.total(SCANS)
        scans_s = scans / (end_s - begin_s)
        lost = after.total(LOST) - before.total(LOST)
        return {"scans/s": scans_s, "values/s": scans_s * len(fields),
                "% of a core": cpu.percent(),
                "% of messages beyond what the outbox can take": 100 * lost / scans}  # fmt: skip


def usual(port: int, size_bytes: int, code: str, seconds: float) -> Figures:
    """The same with python-snap7 alone."""
    layout = struct.Struct(f">{size_bytes // struct.calcsize(code)}{code}")
    client = snap7.client.Client()
    client.connect("127.0.0.1", 0, 1, port)
    scans, cpu_s, begin_s = 0, time.process_time(), time.monotonic()
    while (took_s := time.monotonic() - begin_s) < seconds:
        values = list(layout.unpack(client.db_read(7, 0, size_bytes)))
        scans += 1
    client.disconnect()
    cpu_s = time.process_time() - cpu_s
    return {"scans/s": scans / took_s, "values/s": scans * len(values) / took_s,
            "% of a core": 100 * cpu_s / took_s}  # fmt: skip


def bench(options: Options) -> list[Result]:
    """Many scans of a small block; then the largest image, by type."""
    seconds = options.seconds or 5
    results = []
    for name, kind, letter, code, size_bytes, groups in (
        ("200-byte block, as many scans as it can", "INT", "W", "h", 200, SMALL_GROUPS),
        ("65,000-byte image of INTs", "INT", "W", "h", IMAGE_BYTES, IMAGE_GROUPS),
        ("65,000-byte image of DWORDs", "DWORD", "D", "I", IMAGE_BYTES, IMAGE_GROUPS),
        ("65,000-byte image of REALs", "REAL", "D", "f", IMAGE_BYTES, IMAGE_GROUPS),
    ):
        width = struct.calcsize(code)
        fields = [{"name": f"x{i}", "address": f"DB7.DB{letter}{i * width}:{kind}"}
                  for i in range(size_bytes // width)]  # fmt: skip
        with CServer({7: image(size_bytes, code)}) as server, moving(server):
            done = []
            for _ in range(options.rounds or 3):
                mine = ours(server.port, fields, groups, seconds)
                theirs = usual(server.port, size_bytes, code, seconds / 2)
                done.append((mine, {"python-snap7 db_read + unpack": theirs}))
        results += rows("reader", name, done)
    return results
