"""Faults of the line between a whole box (readers, outbox, publisher) and its broker."""

from __future__ import annotations

import time

import pytest

from tests.chaos.kills.driver import WINDOW, Driver
from tests.kit.box import Box
from tests.kit.proxy import Proxy

RESUME_S = 10.0
FAULT_S = 2.5


@pytest.mark.timeout(240)
def test_one_fault_after_another_and_nothing_is_lost() -> None:
    with Box(plcs=2, scan="50ms") as box, Proxy(box.broker.port) as proxy:
        box.config["outputs"][0]["port"] = proxy.port
        box.site.configure(box.config)
        applied = box.site.run("apply")
        assert applied.returncode == 0, applied.stderr
        driver = Driver(box, seed=1)
        driver.wait_current("prensa-01")
        for fault in ("refuse", "reset", "blackhole", "half_open", "delay", "drip"):
            proxy.fault = fault
            time.sleep(FAULT_S)
            proxy.fault = None
            for plc in ("prensa-01", "prensa-02"):
                driver.wait_current(plc, RESUME_S)
        assert proxy.connections > 5
        driver.judge()
        driver.verdict.repeats_allowed = WINDOW * proxy.connections
        assert driver.verdict.good, driver.verdict
        assert driver.verdict.delivered > 2 * 6 * FAULT_S / 0.05
