"""CPU of each process per scan where nothing repeats: 1,000 contiguous REALs, all of them new at
every scan, 10 scans a second, PDU 960, every scan published at QoS 1 to Mosquitto with TLS.

The C snap7 server answers. Baselines, in the same round and at the same pace: raw sockets that send
the same telegrams and only receive, and python-snap7's ``db_read`` with ``struct.unpack``.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import snap7

from services.s7.plan import Extent, make_plan
from services.s7.session import JOBS_ASKED
from tests.bench.result import Figures, Options, Result, Round, rows
from tests.bench.scan import Raw, client
from tests.bench.watch import pss_mb
from tests.kit.box import Box
from tests.kit.c_snap7 import CServer

PLC, DB, PDU_BYTES = "forno-02", 500, 960
REALS, SCAN_S = 1_000, 0.1
SETTLE_S = 3.0
UNIT = "µs CPU a scan"


def image(draw: random.Random) -> bytes:
    """What sensors with noise show: every bit of a REAL is used."""
    return struct.pack(f">{REALS}f", *(draw.gauss(50, 20) for _ in range(REALS)))


@contextmanager
def changing(server: CServer) -> Iterator[None]:
    """Other values twice in the time of a scan."""
    stop, draw = threading.Event(), random.Random(1)

    def change() -> None:
        for _ in range(1 << 32):
            if stop.wait(SCAN_S / 2):
                return
            server.write(DB, 0, image(draw))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def cpu_ns(pid: int) -> int:
    """Of all its threads, from the scheduler (ticks of 10 ms would be half of what is measured)."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files)


def ours(box: Box, seconds: float) -> Figures:
    """Each process, and all of them."""
    pids = {name: row["pid"] for name, row in box.site.table().items()}
    came = len(box.subscriber.data(PLC))
    before = {n: cpu_ns(p) for n, p in pids.items()}
    time.sleep(seconds)
    used_us = {n: (cpu_ns(p) - before[n]) / 1e3 for n, p in pids.items()}
    news = box.subscriber.data(PLC)[came:]
    scans = len(news)
    assert scans > 0.9 * seconds / SCAN_S, f"only {scans} scans were published"
    different = {message["values"]["c7"] for message in news}
    assert len(different) > 0.95 * scans, "values repeat"
    figures = {f"{UNIT}, {name.split('-')[0]}": us / scans for name, us in used_us.items()}
    return {
        **figures,
        f"{UNIT}, all": sum(used_us.values()) / scans,
        "MB PSS, reader": pss_mb([pids[f"reader-{PLC}"]]),
    }


def paced(scan: Callable[[], object], seconds: float) -> Figures:
    """CPU of this thread for one scan at our scan rate: with caches as cold as the reader's."""
    used_ns, count = 0, int(seconds / SCAN_S)
    due_s = time.monotonic()
    for _ in range(count):
        due_s += SCAN_S
        time.sleep(max(0.0, due_s - time.monotonic()))
        begin_ns = time.thread_time_ns()
        scan()
        used_ns += time.thread_time_ns() - begin_ns
    return {f"{UNIT}, reader": used_ns / 1e3 / count}


def by_hand(usual: snap7.client.Client) -> tuple[float, ...]:
    """What python-snap7 makes of the same bytes."""
    return struct.unpack(f">{REALS}f", usual.db_read(DB, 0, 4 * REALS))


def bench(options: Options) -> list[Result]:
    """Over ``--seconds`` (20) each."""
    seconds = options.seconds or 20
    fields = [{"name": f"c{i}", "address": f"DB{DB}.DBD{4 * i}:REAL"} for i in range(REALS)]
    done: list[Round] = []
    for _ in range(options.rounds or 3):
        with CServer({DB: os.urandom(4 * REALS)}) as server, changing(server):
            box = Box(0)
            group = {"name": "reals", "scan": f"{SCAN_S * 1e3:g}ms", "publish": "always"}
            box.real_plcs = [
                {"id": PLC, "host": "127.0.0.1", "port": server.port, "pdu": PDU_BYTES,
                 "groups": [{**group, "fields": fields}]}
            ]  # fmt: skip
            with box:
                box.wait_for_messages(PLC, 10)
                time.sleep(SETTLE_S)
                mine = ours(box, seconds)
            plan = make_plan([Extent("DB", DB, 4 * i, 4) for i in range(REALS)], PDU_BYTES)
            raw, usual = Raw(server.port, plan, PDU_BYTES, JOBS_ASKED), client(server.port)
            base = {
                "raw sockets, not decoded": paced(raw.scan, seconds / 2),
                "python-snap7 db_read + unpack": paced(partial(by_hand, usual), seconds / 2),
            }
            raw.socket.close()
            usual.disconnect()
            done.append((mine, base))
    return rows("new-values", "1,000 REALs, all new at each of 10 scans/s", done)
