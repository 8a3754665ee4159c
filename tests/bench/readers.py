"""What processes cost: a site with 1, 10 and 50 readers, DB500 of one machine every second.

The simulator is counted apart. The baseline is as many bare Python processes as the site has
services, which import pyzmq and wait: started one after the other, no supervisord.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.result import Figures, Options, Result, rows
from tests.bench.watch import Cpu, idle_percent, pss_mb, site_pids
from tests.kit.box import plc
from tests.kit.common import free_ports, until
from tests.kit.simulator import Simulator
from tests.kit.site import Site

COUNTS = (1, 10, 50)
SETTLE_S = 2.0  # what a start leaves to do is not what is measured
START = "s from start to all at work"
MEMORY = "MB PSS, all"
_BARE = "import sys, zmq; print(flush=True); sys.stdin.read()"


def ours(count: int, seconds: float) -> tuple[Figures, int]:
    """Figures, and how many services there are."""
    ports = free_ports(count + 1)
    plcs = [plc(f"prensa-{n:02d}", port, "1s") for n, port in enumerate(ports[:-1])]
    config = {"site": "bench", "locatario": "acme", "plcs": plcs, "metrics": {"port": ports[-1]}}
    with Simulator(config) as simulator:
        site = Site(config)
        begin_s = time.monotonic()
        with site:
            until(lambda: all(simulator.reads_ns(p["id"]) for p in plcs), 60, "all scanned")
            up_s = time.monotonic() - begin_s
            site.wait_running()
            time.sleep(SETTLE_S)
            pids = site_pids(site)
            readers = [site.pid(f"reader-{p['id']}") for p in plcs]
            agent, simulated = Cpu(pids), Cpu([simulator.process.pid])
            idle = idle_percent(seconds)
            figures = {
                START: up_s, MEMORY: pss_mb(pids), "MB PSS a reader": pss_mb(readers) / count,
                "% of a core, all": agent.percent(),
                "% of a core, simulator, apart": simulated.percent(),
                "% idle, whole machine": idle,
            }  # fmt: skip
            return figures, len(site.table())


def bare(count: int) -> Figures:
    """The least that so many Python processes take."""
    begin_s = time.monotonic()
    command = [sys.executable, "-c", _BARE]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        up_s = time.monotonic() - begin_s
        return {START: up_s, MEMORY: pss_mb(p.pid for p in processes)}
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def bench(options: Options) -> list[Result]:
    """By number of readers."""
    seconds = options.seconds or 5
    results = []
    for count in COUNTS:
        done = []
        for _ in range(options.rounds or 3):
            figures, services = ours(count, seconds)
            done.append((figures, {f"{services} bare Python processes": bare(services)}))
        results += rows("readers", f"{count} PLC{'s' if count > 1 else ''}, scan 1 s", done)
    return results
