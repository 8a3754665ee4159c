"""Fifty PLCs on one box: up and scanned, small, and gone again, in time."""

from __future__ import annotations

import statistics
import time

import psutil
import pytest

from tests.kit.box import plc
from tests.kit.common import free_ports, until
from tests.kit.simulator import Simulator
from tests.kit.site import Site

pytestmark = pytest.mark.timing

PLCS = 50


def test_fifty_readers() -> None:
    ports = free_ports(PLCS + 1)
    plcs = [plc(f"prensa-{n:02d}", port, "1s") for n, port in enumerate(ports[:-1])]
    config = {"site": "e2e", "locatario": "acme", "plcs": plcs, "metrics": {"port": ports[-1]}}
    with Simulator(config) as simulator:
        site = Site(config)
        begin_s = time.monotonic()
        with site:
            until(lambda: all(simulator.reads_ns(p["id"]) for p in plcs), 30, "every PLC scanned")
            up_s = time.monotonic() - begin_s
            site.wait_running()
            readers = [site.pid(f"reader-{p['id']}") for p in plcs]
            rss_mb = [psutil.Process(pid).memory_info().rss / 1e6 for pid in readers]
            begin_s = time.monotonic()
            assert site.stop() == 0
            down_s = time.monotonic() - begin_s
            left = [p for p in readers if psutil.pid_exists(p)]
        print(f"{PLCS} PLCs scanned {up_s:.1f} s after `run`; stopped in {down_s:.1f} s")
        print(f"reader RSS median {statistics.median(rss_mb):.1f} MB, largest {max(rss_mb):.1f} MB")
        assert not left
        assert up_s < 10
        assert down_s < 10
        assert max(rss_mb) < 25
