"""What the ``opcua`` output costs: CPU, memory, and the time from a change in the PLC to a client.

A whole box reads REALs from the C snap7 server, all or some of them new at every scan, PDU 960; one
asyncua client, in a process of its own, watches over SignAndEncrypt (Basic256Sha256). A further
LREAL holds the time at which the PLC's memory was written, 200 times a second: its age at the
client is the latency, scan and publishing interval included.
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.opcua.certificates import TrustList
from tests.bench.new_values import cpu_ns
from tests.bench.result import Figures, Options, Result, Round, percentiles, rows
from tests.bench.watch import pss_mb
from tests.kit.c_snap7 import CServer
from tests.kit.common import ROOT, free_ports, until
from tests.kit.opcua_rig import client_certificate
from tests.kit.site import Site

DB, PLC = 500, "forno-02"
SETTLE_S = 5.0
CLOCK_S = 0.005
# REALs, of them new at each scan, watched, scan in ms, publishing interval in ms.
ROUNDS = [
    (1_000, 1_000, 1_000, 100, 100),
    (1_000, 1_000, 1_000, 1_000, 1_000),
    (10_000, 10_000, 10_000, 1_000, 1_000),
    (10_000, 1_000, 10_000, 100, 100),
    (10_000, 10_000, 1_000, 100, 100),
    (10_000, 10_000, 0, 100, 100),
]


@contextmanager
def changing(server: CServer, reals: int, new: int, scan_s: float) -> Iterator[None]:
    """``new`` other values twice in the time of a scan, and the time all the time."""
    stop, draw = threading.Event(), random.Random(1)

    def change() -> None:
        due_s = 0.0
        while not stop.wait(CLOCK_S):
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + scan_s / 2
                image = struct.pack(f">{new}f", *(draw.random() * 100 for _ in range(new)))
                server.write(DB, 0, image)
            server.write(DB, 4 * reals, struct.pack(">d", time.time()))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(
    reals: int, new: int, watched: int, scan_ms: int, period_ms: int, seconds: int
) -> Figures:
    """One run."""
    metrics_port, port = free_ports(2)
    fields = [{"name": f"c{i:05d}", "address": f"DB{DB}.DBD{4 * i}:REAL"} for i in range(reals)]
    fields.append({"name": "clock", "address": f"DB{DB}.DBB{4 * reals}:LREAL"})
    group = {"name": "reals", "scan": f"{scan_ms}ms", "publish": "always", "fields": fields}
    with CServer({DB: os.urandom(4 * reals + 8)}) as server:
        config = {
            "site": "planta-sp", "locatario": "acme", "metrics": {"port": metrics_port},
            "plcs": [
                {"id": PLC, "host": "127.0.0.1", "port": server.port, "pdu": 960,
                 "groups": [group]}
            ],
            "outputs": [
                {"name": "scada", "type": "opcua", "port": port,
                 "users": [{"username": "ana", "password": "segredo"}]}
            ],
        }  # fmt: skip
        site = Site(config)
        folder = site.folder / "client"
        own = client_certificate(folder)
        lists = site.state / "opcua_server" / "scada"
        TrustList(lists / "trusted", lists / "rejected").make()
        (lists / "trusted" / "client.der").write_bytes(own.cert.read_bytes())
        with site, changing(server, reals, new, scan_ms / 1e3):
            site.wait_running()
            prefix = f"acme/{PLC}/reals/"
            told = {
                "port": port, "folder": str(folder), "user": "ana", "password": "segredo",
                "paths": [*(f"{prefix}c{i:05d}" for i in range(watched)), f"{prefix}clock"],
                "clock": f"{prefix}clock", "publishing_ms": period_ms, "seconds": seconds,
            }  # fmt: skip
            log = site.state / "log" / "publisher-scada.log"
            until(lambda: b"connected" in log.read_bytes(), 20, site.logs)
            command = [sys.executable, "-m", "tests.kit.opcua_watch"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
            ) as client:
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.write(json.dumps(told) + "\n")
                client.stdin.flush()
                assert client.stdout.readline() == "watching\n"
                time.sleep(SETTLE_S)
                pids = {name: row["pid"] for name, row in site.table().items()}
                before = {n: cpu_ns(p) for n, p in pids.items()}
                client.stdin.write("go\n")
                client.stdin.flush()
                said: dict[str, Any] = json.loads(client.stdout.readline())
                used = {n: (cpu_ns(p) - before[n]) / 1e9 / seconds for n, p in pids.items()}
                memory = pss_mb([pids["publisher-scada"]])
                reader = used[f"reader-{PLC}"]
            assert said["ages_s"], site.logs()
    return {
        "values/s at the client": said["notifications_per_s"],
        "cores, of the output": used["publisher-scada"],
        "cores, of the reader": reader,
        "MB PSS, of the output": memory,
        **percentiles([1e3 * age_s for age_s in said["ages_s"]], "ms to the client", 50, 99),
    }


def bench(options: Options) -> list[Result]:
    """A case each row of ``ROUNDS``."""
    seconds, results = round(options.seconds or 15), []
    for reals, new, watched, scan_ms, period_ms in ROUNDS:
        case = f"{reals:,} REALs, {new:,} new, {watched:,} watched, {scan_ms} ms"
        done: list[Round] = [
            (measure(reals, new, watched, scan_ms, period_ms, seconds), {})
            for _ in range(options.rounds or 1)
        ]
        results += rows("opcua-server", case, done)
    return results
