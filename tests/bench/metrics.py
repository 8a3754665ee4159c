"""What the metrics process costs: ``python tests/bench/metrics.py [PLCS [GROUPS]]``.

Prints time and size of /metrics, memory, CPU, and what 20 browsers cost those who send to it.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
import urllib3

from tests.kit.metrics_rig import Rig, until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
BROWSERS = 20
SPAN_S = 10.0


def cpu_percent(process: psutil.Process) -> float:
    """Of one core, over SPAN_S."""
    before = sum(process.cpu_times()[:2])
    time.sleep(SPAN_S)
    return 100 * (sum(process.cpu_times()[:2]) - before) / SPAN_S


def browse(rig: Rig, stop: threading.Event, plc: str, took: list[int]) -> None:
    """Reads the stream as an open panel does; appends the sizes of what came."""
    url = f"{rig.url}/api/stream?panel=1&plc={plc}&group={plc}/db500"
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", url, preload_content=False)
        while not stop.is_set():
            took.append(len(response.read1(65_536)))
        response.close()


def main() -> None:
    """Runs it all once."""
    plcs, groups = (int(a) for a in (*sys.argv[1:], "50", "10")[:2])
    with Rig(plcs=plcs, groups=groups, machines=4, fields=25) as rig:
        until("read", lambda: rig.get("/readyz").status == 200, 30)
        service = psutil.Process(rig.pid("metrics"))
        assert rig.feeder is not None
        feeder = psutil.Process(rig.feeder.pid)
        for accept in ("text/plain", OPENMETRICS):
            took_ms, size = [], 0
            for _ in range(20):
                started_s = time.perf_counter()
                size = len(rig.get("/metrics", accept=accept).data)
                took_ms.append(1e3 * (time.perf_counter() - started_s))
            kind = "OpenMetrics" if accept == OPENMETRICS else "classic"
            print(
                f"/metrics {kind}: median {statistics.median(took_ms):.1f} ms,"
                f" worst {max(took_ms):.1f} ms, {size / 1024:.0f} KiB"
            )
        started_s = time.perf_counter()
        size = len(rig.get("/api/last").data)
        print(f"/api/last: {1e3 * (time.perf_counter() - started_s):.1f} ms, {size / 1024:.0f} KiB")
        started_s = time.perf_counter()
        size = len(rig.get("/api/status").data)
        print(
            f"/api/status: {1e3 * (time.perf_counter() - started_s):.1f} ms, {size / 1024:.0f} KiB"
        )
        alone, sender = cpu_percent(service), cpu_percent(feeder)
        print(
            f"no browser: metrics {alone:.1f} % CPU, {service.memory_info().rss / 2**20:.1f} MiB;"
            f" senders {sender:.1f} % CPU"
        )
        stop = threading.Event()
        took: list[int] = []
        threads = [
            threading.Thread(
                target=browse, args=(rig, stop, rig.config["plcs"][n % plcs]["id"], took)
            )
            for n in range(BROWSERS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(3)
        took.clear()
        watched, sender = cpu_percent(service), cpu_percent(feeder)
        print(
            f"{BROWSERS} browsers: metrics {watched:.1f} % CPU,"
            f" {service.memory_info().rss / 2**20:.1f} MiB; senders {sender:.1f} % CPU"
        )
        print(f"each browser takes {sum(took) / 1024 / BROWSERS / (2 * SPAN_S):.1f} KiB/s")
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
