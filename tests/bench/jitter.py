"""Scan jitter: how far the intervals between reads of a 100 ms group are from 100 ms, in the PLC's
own log. First with nothing else to do, then while a sibling process is killed every second: the
publisher, metrics and the store in turn.

The baseline is a bare timer in a process of its own, at the same time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.connection import Connection

from tests.bench.result import Figures, Options, Result, Round, percentiles, rows
from tests.kit.box import Box

SCAN_S = 0.1
SETTLE_S = 1.0
VICTIMS = ("publisher-central", "metrics", "store_forward")


def timer(results: Connection, seconds: float) -> None:
    """Says that it is there; sleeps until each tenth of a second; sends when it woke, ns."""
    results.send(None)
    time.sleep(SETTLE_S)
    woke_ns = []
    due_s = time.monotonic()
    for _ in range(int(seconds / SCAN_S)):
        due_s += SCAN_S
        time.sleep(max(0.0, due_s - time.monotonic()))
        woke_ns.append(time.monotonic_ns())
    results.send(woke_ns)


def off(times_ns: list[int]) -> Figures:
    """Percentiles of |interval - 100 ms|."""
    return percentiles([abs((b - a) / 1e6 - SCAN_S * 1e3) for a, b in pairwise(times_ns)])


def measure(box: Box, seconds: float, each_second: Callable[[], None]) -> tuple[Figures, Figures]:
    """(the reader's, the bare timer's) over the same seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    bare = context.Process(target=timer, args=(there, seconds))
    bare.start()
    # Its start, imports and all, is not what either should be measured with.
    assert here.poll(10), "the bare timer does not start"
    here.recv()
    time.sleep(SETTLE_S)
    plc = box.config["plcs"][0]["id"]
    since = len(box.simulator.reads_ns(plc))
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(1)
        each_second()
    assert here.poll(10), "the bare timer does not answer"
    woke_ns: list[int] = here.recv()
    bare.join()
    return off(box.simulator.reads_ns(plc)[since:]), off(woke_ns)


def bench(options: Options) -> list[Result]:
    """Both, over ``--seconds`` (30) each."""
    seconds = options.seconds or 30
    alone: list[Round] = []
    beside: list[Round] = []
    killed = 0

    def kill() -> None:
        nonlocal killed
        name = VICTIMS[killed % len(VICTIMS)]
        if box.site.pid(name):
            box.site.kill(name)
            killed += 1

    for _ in range(options.rounds or 3):
        with Box(1, f"{SCAN_S * 1e3:g}ms") as box:
            box.wait_for_messages("prensa-01", 20)
            reader_pid = box.site.pid("reader-prensa-01")
            for done, each_second in ((alone, lambda: None), (beside, kill)):
                mine, bare = measure(box, seconds, each_second)
                done.append((mine, {"bare timer": bare}))
            assert box.site.pid("reader-prensa-01") == reader_pid
    results = rows("jitter", "100 ms group, nothing else to do", alone)
    name = f"100 ms group, siblings killed {killed} times in {seconds * len(beside):g} s"
    return results + rows("jitter", name, beside)
