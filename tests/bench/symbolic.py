"""1,000 REALs by S7CommPlus, by name, beside the same by classic S7 from one block: what a reader
costs and how long a scan takes. The CPU they are read from runs apart, on loopback.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from tests.bench.result import Figures, Options, Result, rows
from tests.bench.watch import Cpu, pss_mb
from tests.kit.common import ROOT, free_port
from tests.kit.reader_rig import ReaderRig
from tests.kit.simulator import Simulator

TAGS = 1_000
SETTLE_S = 2.0
SCAN = "1s"


def measure(plc: dict[str, Any], seconds: float) -> Figures:
    """A reader's figures at this PLC."""
    with ReaderRig({**plc, "timeout": "5s"}) as rig:
        rig.wait(lambda: any(m["quality"] == "good" for m in rig.messages), 30)
        time.sleep(SETTLE_S)
        pid, seen = rig.service.pid, len(rig.messages)
        cpu = Cpu([pid])
        time.sleep(seconds)
        percent = cpu.percent()
        latencies = [m["latency_ms"] for m in rig.messages[seen:]]
        assert all(len(m["values"]) == TAGS for m in rig.messages[seen:])
        return {
            "ms a scan, as read": statistics.median(latencies),
            "% of a core": percent,
            "MB PSS": pss_mb([pid]),
        }


def plus(tls: bool, seconds: float) -> Figures:
    """By name."""
    port = free_port()
    command = [sys.executable, "-m", "tests.kit.s7plus_cpu", str(port), str(TAGS)]
    served = subprocess.Popen(command + ["--tls"] * tls, cwd=ROOT)
    fields = [
        {"name": f"t{n:04d}", "symbol": f"Prensa.t{n:04d}", "type": "REAL"} for n in range(TAGS)
    ]
    group = {"name": "tudo", "scan": SCAN, "publish": "always", "fields": fields}
    try:
        return measure(
            {"id": "prensa-01", "protocol": "s7plus", "host": "127.0.0.1", "port": port,
             "groups": [group]}, seconds,
        )  # fmt: skip
    finally:
        served.kill()
        served.wait(10)


def classic(seconds: float) -> Figures:
    """By address."""
    fields = [{"name": f"t{n:04d}", "type": "REAL", "offset": 4 * n} for n in range(TAGS)]
    group = {"name": "tudo", "db": 1, "scan": SCAN, "publish": "always", "fields": fields}
    plc = {"id": "prensa-01", "host": "127.0.0.1", "port": free_port(), "groups": [group]}
    with Simulator({"site": "bench", "locatario": "acme", "plcs": [plc]}):
        return measure(plc, seconds)


def bench(options: Options) -> list[Result]:
    """Without TLS and with it."""
    seconds = options.seconds or 10
    results = []
    for name, tls in (("S7CommPlus V1", False), ("S7CommPlus V2, TLS", True)):
        done = [
            (plus(tls, seconds), {"classic S7": classic(seconds)})
            for _ in range(options.rounds or 3)
        ]
        results += rows("symbolic", f"{name}, {TAGS:,} REALs, scan {SCAN}", done)
    return results
