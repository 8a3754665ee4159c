"""50 PLCs × 200 values at 10 Hz, every scan published to Mosquitto with TLS, ``durability: full``.

Simulators, broker and subscriber run on the same machine and are counted apart. No baseline: the
target is overruns of at most 0.1 % of scans.
"""

from __future__ import annotations

import os
import time
from typing import Any

from tests.bench.result import Figures, Options, Result, Round, rows
from tests.bench.watch import Cpu, Scrape, idle_percent, pss_mb, site_pids
from tests.kit.box import Box

PLCS, SCANS_S = 50, 10
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


def measure(seconds: float) -> Figures:
    """One site, once."""
    box = Box(PLCS, f"{1000 // SCANS_S}ms")
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
        agent, reading = Cpu(pids), Cpu(readers)
        others = {name: Cpu([pid]) for name, pid in apart.items()}
        idle = idle_percent(seconds)
        figures = {"% of a core, agent": agent.percent(),
                   "% of a core, of that readers": reading.percent()}  # fmt: skip
        for name, cpu in others.items():
            figures[f"% of a core, {name}, apart"] = cpu.percent()
        after, took_s = Scrape(port), time.monotonic() - begin_s
        came = len(box.subscriber.received) - came
        scans, overruns = (
            after.total(name) - before.total(name)
            for name in ("plc_edge_scan_duration_seconds_count", "plc_edge_scan_overruns_total")
        )
        return {
            "overruns, % of scans": 100 * overruns / scans,
            "scans, % of what was due": 100 * scans / (PLCS * SCANS_S * took_s),
            "values/s read": scans * VALUES / took_s,
            "messages/s at the subscriber": came / took_s,
            **figures,
            "% idle, whole machine": idle,
            "MB PSS, agent": pss_mb(pids),
            "MB PSS a reader": pss_mb(readers) / PLCS,
        }


def bench(options: Options) -> list[Result]:
    """Over ``--seconds`` (30)."""
    seconds = options.seconds or 30
    done: list[Round] = [(measure(seconds), {}) for _ in range(options.rounds or 3)]
    name = f"{PLCS} PLCs × {VALUES} values at {SCANS_S} Hz, {seconds:g} s"
    return rows("site", name, done)
