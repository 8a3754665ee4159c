"""What the metrics process costs: 50 PLCs with 10 groups send to it, and 0, 1, 5 and 20 browsers
hold its stream open. The baseline of each is the same process without a browser.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import urllib3

from tests.bench.result import Figures, Options, Result, compare, rows
from tests.bench.watch import Cpu, pss_mb
from tests.kit.common import until
from tests.kit.metrics_rig import Rig

PLCS, GROUPS = 50, 10
BROWSERS = (1, 5, 20)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SETTLE_S = 2.0


@contextmanager
def browsers(rig: Rig, count: int) -> Iterator[list[int]]:
    """So many open panels, each of another PLC; yields the sizes of what comes."""
    came: list[int] = []
    stop = threading.Event()

    def browse(plc: str) -> None:
        url = f"{rig.url}/api/stream?panel=1&plc={plc}&group={plc}/db500"
        with urllib3.PoolManager() as pool:
            response = pool.request("GET", url, preload_content=False)
            while not stop.is_set():
                came.append(len(response.read1(65_536)))
            response.close()

    ids = [p["id"] for p in rig.config["plcs"]]
    threads = [threading.Thread(target=browse, args=(ids[n % PLCS],)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(SETTLE_S)
        came.clear()
        yield came
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def used(rig: Rig, count: int, seconds: float) -> Figures:
    """What the process uses with so many browsers."""
    pid = rig.pid("metrics")
    with browsers(rig, count) as came:
        cpu = Cpu([pid])
        time.sleep(seconds)
        figures = {"% of a core": cpu.percent(), "MB PSS": pss_mb([pid])}
        if count:
            figures["KiB/s a browser"] = sum(came) / 1_024 / count / seconds
    return figures


def answers(rig: Rig, path: str, accept: str) -> Figures:
    """Median of ten GETs."""
    took_ms = []
    for _ in range(10):
        begin_s = time.perf_counter()
        size = len(rig.get(path, accept=accept).data)
        took_ms.append((time.perf_counter() - begin_s) * 1e3)
    return {"ms": statistics.median(took_ms), "KiB": size / 1_024}


def bench(options: Options) -> list[Result]:
    """Answers first, then browsers."""
    rounds, seconds = options.rounds or 2, options.seconds or 5
    results = []
    with Rig(plcs=PLCS, groups=GROUPS, machines=4, fields=25) as rig:
        until(lambda: rig.get("/readyz").status == 200, 30, "read")
        for path, accept in (("/metrics", "text/plain"), ("/metrics", OPENMETRICS),
                             ("/api/last", "*/*"), ("/api/status", "*/*")):  # fmt: skip
            name = f"GET {path}{', OpenMetrics' if accept == OPENMETRICS else ''}"
            ask = lambda path=path, accept=accept: answers(rig, path, accept)  # noqa: E731
            results += compare("dashboard", name, ask, {}, rounds)
        assert rig.feeder is not None
        feeder = Cpu([rig.feeder.pid])
        for count in BROWSERS:
            done = [(used(rig, count, seconds), {"no browser": used(rig, 0, seconds)})
                    for _ in range(rounds)]  # fmt: skip
            results += rows("dashboard", f"{PLCS} PLCs, browsers: {count}", done)
        senders = {"% of a core": feeder.percent(), "MB RSS": _rss_mb(rig.feeder.pid)}
        results += rows("dashboard", "the stand-in for all senders, apart", [(senders, {})])
    return results


def _rss_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6
