"""Faults of the line between a whole box (readers, outbox, publisher) and its broker."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.chaos.kills.driver import WINDOW, Driver
from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.proxy import Proxy

RESUME_S = 10.0
FAULT_S = 2.5
OUTAGE_S, SCAN_S = 12.0, 0.05


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


@pytest.mark.timeout(120)
def test_after_a_lost_line_live_messages_pass_beside_the_backlog() -> None:
    """No process was started anew: that alone used to open lanes."""
    replay = {"mode": "lanes", "max_rate": 20}
    with (
        Box(plcs=1, scan=f"{SCAN_S * 1_000:g}ms", store={"replay": replay}) as box,
        Proxy(box.broker.port) as proxy,
    ):
        # Few, so that most of the outage waits in the outbox.
        box.config["outputs"][0] |= {"port": proxy.port, "window": 20}
        box.site.configure(box.config)
        applied = box.site.run("apply")
        assert applied.returncode == 0, applied.stderr

        def newest() -> dict[str, Any]:
            live = [m for m in box.subscriber.data("prensa-01") if not m.get("replay")]
            return live[-1] if live else {"seq": 0, "ts": 0}

        # What gathered while ``apply`` started the publisher anew is a backlog too, of its own.
        applied_ms = time.time() * 1_000
        until(lambda: newest()["ts"] > applied_ms, 30, box.site.logs)
        until(lambda: missing(box) == [], 30, lambda: f"not there: {missing(box)}")
        before = newest()["seq"]
        proxy.fault = "refuse"
        time.sleep(OUTAGE_S)
        proxy.fault = None

        def replayed() -> list[int]:
            """In the order of their first arrival: what waited for its acknowledgement when the
            line broke may come again."""
            backlog = [m["seq"] for m in box.subscriber.data("prensa-01") if m.get("replay")]
            return [seq for seq in dict.fromkeys(backlog) if seq > before]

        until(replayed, 30, box.site.logs)
        until(lambda: time.time() * 1_000 - newest()["ts"] < 1_000, 5, "live messages wait")
        backlog = OUTAGE_S / SCAN_S
        assert newest()["seq"] > max(replayed()) + backlog / 4, "the backlog was gone already"
        until(lambda: len(replayed()) > backlog / 2, 60, box.site.logs)
        until(lambda: missing(box) == [], 60, lambda: f"lost: {missing(box)}")
        assert replayed() == sorted(replayed())


def missing(box: Box) -> list[int]:
    """Numbers that have not come, of those before the newest."""
    came = {m["seq"] for m in box.subscriber.data("prensa-01")}
    return sorted(set(range(min(came), max(came) + 1)) - came)
