"""The disk of a whole box fills up: real readers, outbox, publisher and broker; the PLC's own log
says when it was read.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bus.frames import Reply, Request
from bus.sockets import Bus
from tests.chaos.kills.driver import WINDOW, Driver
from tests.chaos.storage.full import fill
from tests.kit.box import Box
from tests.kit.common import until

PLCS = ("prensa-01", "prensa-02")
SCAN_S = 0.1
OUTAGE_S, FULL_S = 3.0, 4.0
STORE = {"max_size": "16MiB", "min_free": "64KiB"}


@contextmanager
def kept_full(folder: Path) -> Iterator[None]:
    """Takes every byte that anybody gives back, until the block ends."""
    stop = threading.Event()

    def keep() -> None:
        count = 0
        while not stop.wait(0.02):
            count += 1
            fill(folder / f"filler-{count}")

    fill(folder / "filler-0")
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for path in folder.glob("filler-*"):
            path.unlink()


def status(box: Box) -> dict[str, Any]:
    """What the store says of itself."""
    bus = Bus(box.site.runtime)
    try:
        port = bus.connect("control")
        until(lambda: port.send(Request("status")), 5, "no control socket")
        assert port.socket.poll(10_000), "the store does not answer"
        reply = port.receive()
        assert isinstance(reply, Reply)
        assert not reply.error, reply.error
        result: dict[str, Any] = reply.result
        return result
    finally:
        bus.close()


def missed_scans(reads_ns: list[int], from_ns: int, to_ns: int) -> list[float]:
    """Pauses between two reads in which a scan should have begun, seconds."""
    seen = [t for t in reads_ns if from_ns <= t <= to_ns]
    assert len(seen) >= (to_ns - from_ns) / 1e9 / SCAN_S - 2, "fewer reads than scans"
    pauses_s = [(b - a) / 1e9 for a, b in pairwise(seen)]
    return [p for p in pauses_s if p >= 2 * SCAN_S]


@pytest.mark.timing
def test_a_full_disk_stops_neither_polling_nor_draining() -> None:
    if os.geteuid() != 0:
        pytest.fail("needs root to mount a small tmpfs: run it with sudo or in a container")
    with Box(plcs=2, state_mb=24, store=STORE) as box:
        driver = Driver(box, seed=1)
        for plc in PLCS:
            driver.wait_current(plc)
        box.stop_broker()
        until(lambda: status(box)["outputs"]["central"]["pending"] > 2 * OUTAGE_S / SCAN_S - 10,
                 20, "a backlog")  # fmt: skip
        with kept_full(box.site.state):
            from_ns = time.monotonic_ns()
            until(lambda: status(box)["disk_full"], 10, "the disk is full")
            backlog = status(box)["outputs"]["central"]["pending"]
            assert backlog > 10
            box.start_broker()
            drained = lambda: status(box)["outputs"]["central"]["pending"] == 0  # noqa: E731
            until(drained, 20, lambda: f"{backlog} rows drained while full\n{box.site.logs()}")
            assert status(box)["disk_full"], "it drained because it was not full any more"
            left_s = FULL_S - (time.monotonic_ns() - from_ns) / 1e9
            threading.Event().wait(max(0.0, left_s))  # as long as asked, at least
            to_ns = time.monotonic_ns()
            names = {row["name"] for row in box.site.table().values() if row["pid"]}
            assert names == set(box.site.table()), "somebody died of it"
        until(lambda: not status(box)["disk_full"], 10, "recovered alone")
        for plc in PLCS:
            driver.wait_current(plc, 10)
            missed = missed_scans(box.simulator.reads_ns(plc), from_ns, to_ns)
            assert not missed, f"{plc}: {missed}"
        driver.judge()
        driver.verdict.repeats_allowed = WINDOW  # the broker went away once
        assert driver.verdict.good, driver.verdict
        reads = [t for plc in PLCS for t in box.simulator.reads_ns(plc) if t <= to_ns]
        assert driver.verdict.acquired >= len(reads), "a scan that became no message"
