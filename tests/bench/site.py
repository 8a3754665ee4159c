"""A whole site by size, up to 50 PLCs × 200 values at 10 Hz: every scan published to Mosquitto with
TLS, ``durability: full``. The simulator moves all values 10 times a second.

Simulator, broker and subscriber run on the same machine and are counted apart. No baseline: the
target at the largest size is overruns of at most 0.1 % of scans.
"""

from __future__ import annotations

import os
import time
from typing import Any

from tests.bench.result import Figures, Options, Result, Round, rows
from tests.bench.watch import Cpu, Scrape, disk_mb, idle_percent, pss_mb, site_pids
from tests.kit.box import Box

# (PLCs, scans a second)
SIZES = ((10, 1), (50, 1), (50, 10))
REALS, INTS, BOOLS = 100, 60, 40
VALUES = REALS + INTS + BOOLS
SETTLE_S = 5.0


def fields() -> list[dict[str, Any]]:
    """As a plant's DB has them."""
    reals = [{"name": f"r{i}", "address": f"DB500.DBD{4 * i}:REAL"} for i in range(REALS)]
    at = 4 * REALS
    ints = [{"name": f"i{i}", "address": f"DB500.DBW{at + 2 * i}:INT"} for i in range(INTS)]
    at += 2 * INTS
    bools = [{"name": f"b{i}", "address": f"DB500.DBX{at + i // 8}.{i % 8}"} for i in range(BOOLS)]
    return reals + ints + bools


def measure(plcs: int, scans_s: int, seconds: float) -> Figures:
    """One site, once."""
    box = Box(plcs, f"{1000 // scans_s}ms")
    for entry in box.config["plcs"]:
        (group,) = entry["groups"]
        del group["layout"]
        group["fields"] = fields()
    with box:
        for entry in box.config["plcs"]:
            box.wait_for_messages(entry["id"], 1, timeout_s=60)
        time.sleep(SETTLE_S)
        port = box.config["metrics"]["port"]
        pids = site_pids(box.site)
        names = box.site.table()
        readers = [row["pid"] for name, row in names.items() if name.startswith("reader-")]
        apart = {"simulators": box.simulator.process.pid, "broker": box._broker.pid,
                 "subscriber": os.getpid()}  # fmt: skip
        before, came, begin_s = Scrape(port), len(box.subscriber.received), time.monotonic()
        written_mb = disk_mb(pids)
        agent, reading = Cpu(pids), Cpu(readers)
        others = {name: Cpu([pid]) for name, pid in apart.items()}
        idle = idle_percent(seconds)
        figures = {"% of a core, agent": agent.percent(),
                   "% of a core, of that readers": reading.percent()}  # fmt: skip
        for name, cpu in others.items():
            figures[f"% of a core, {name}, apart"] = cpu.percent()
        after, took_s = Scrape(port), time.monotonic() - begin_s
        written_mb = disk_mb(pids) - written_mb
        sizes = [len(p) for t, p, _ in box.subscriber.received[came:] if t.count("/") == 2]
        scans, overruns = (
            after.total(name) - before.total(name)
            for name in ("plc_edge_scan_duration_seconds_count", "plc_edge_scan_overruns_total")
        )
        return {
            "overruns, % of scans due": 100 * overruns / (scans + overruns),
            "values/s at the subscriber": len(sizes) * VALUES / took_s,
            "kB/s of payload to the broker": sum(sizes) / 1e3 / took_s,
            "kB/s written to disk, agent": 1e3 * written_mb / took_s,
            **figures,
            "% idle, whole machine": idle,
            "MB PSS, agent": pss_mb(pids),
            "MB PSS a reader": pss_mb(readers) / plcs,
        }


def bench(options: Options) -> list[Result]:
    """Each size, over ``--seconds`` (30)."""
    seconds, rounds = options.seconds or 30, options.rounds or 2
    results = []
    for plcs, scans_s in SIZES:
        done: list[Round] = [(measure(plcs, scans_s, seconds), {}) for _ in range(rounds)]
        name = f"{plcs} PLCs × {VALUES} values at {scans_s} Hz, {seconds:g} s"
        results += rows("site", name, done)
    return results
