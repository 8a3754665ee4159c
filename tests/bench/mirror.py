"""Lag from the source's scan to the written target.

A whole box on loopback: a strict fake PLC changes all of its 500 bytes at each scan; a real reader
reads it every 50 ms; a real mirror writes a strict fake target. The clock starts when the source
gets the read telegram and stops when the last byte stands in the target. The baseline is the
same copy written by bare python-snap7 in one loop, without a bus.
"""

from __future__ import annotations

import time
from typing import Any

import psutil
from snap7.client import Client

from tests.bench.result import Options, Result, percentiles, rows
from tests.kit.common import free_ports, until
from tests.kit.fake_plc import FakePlc
from tests.kit.site import Site

SIZE = 500
SCAN_S = 0.05


def config(source: int, target: int, **mirror: Any) -> dict[str, Any]:
    """The box."""
    group = {"name": "db500", "db": 500, "scan": "50ms", "raw": {"start": 0, "length": SIZE},
             "fields": [{"name": "n", "address": "DB500.DBW0:INT"}]}  # fmt: skip
    return {
        "site": "s1", "locatario": "acme", "metrics": {"port": free_ports(1)[0]},
        "plcs": [{"id": "prensa-01", "host": "127.0.0.1", "port": source, "groups": [group]}],
        "outputs": [{"name": "console", "type": "stdout"}],
        "mirrors": [{"name": "copia", "enabled": True,
                     "source": {"plc": "prensa-01", "group": "db500"},
                     "target": {"host": "127.0.0.1", "port": target, "db": 600}, **mirror}],
    }  # fmt: skip


class Source(FakePlc):
    """Every scan finds other bytes, and the time of each is kept."""

    def __init__(self) -> None:
        self.block = bytearray(SIZE)
        super().__init__({500: self.block}, pdu_bytes=960)
        self.asked_s: dict[int, float] = {}
        self.moving = False
        self.before_read = self._change

    def _change(self) -> None:
        if self.moving:
            n = self.block[0] % 255 + 1
            self.block[:] = bytes([n]) * SIZE
            self.asked_s[n] = time.monotonic()


def measure(seconds: float, **mirror: Any) -> tuple[list[float], float]:
    """(lags, ms), and the CPU share of the mirror at rest."""
    source, copy = Source(), bytearray(SIZE + 4)
    lags_ms = []
    with (
        source,
        FakePlc({600: copy}, pdu_bytes=960, writable={600: (0, SIZE + 4)}) as target,
        Site(config(source.port, target.port, **mirror)) as site,
    ):
        site.wait_running()
        source.moving = True
        until(lambda: copy[SIZE - 1] != 0, 20, site.logs)
        end_s, seen = time.monotonic() + seconds, copy[SIZE - 1]
        while time.monotonic() < end_s:
            n = copy[SIZE - 1]
            if n != seen:
                lags_ms.append((time.monotonic() - source.asked_s[n]) * 1e3)
                seen = n
            time.sleep(0.0002)
        source.moving = False
        time.sleep(1.0)
        process = psutil.Process(site.pid("mirror-copia"))
        before = sum(process.cpu_times()[:2])
        time.sleep(5.0)
        idle = (sum(process.cpu_times()[:2]) - before) / 5.0
    return lags_ms, idle


def baseline(seconds: float) -> list[float]:
    """Read, then write, with python-snap7 alone."""
    lags_ms = []
    with (
        FakePlc({500: bytearray(SIZE)}, pdu_bytes=960) as source,
        FakePlc({600: bytearray(SIZE)}, pdu_bytes=960, writable={600: (0, SIZE)}) as target,
    ):
        reading, writing = Client(), Client()
        reading.connect("127.0.0.1", 0, 1, source.port)
        writing.connect("127.0.0.1", 0, 1, target.port)
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            begin_s = time.monotonic()
            writing.db_write(600, 0, reading.db_read(500, 0, SIZE))
            lags_ms.append((time.monotonic() - begin_s) * 1e3)
            time.sleep(SCAN_S)
        reading.disconnect()
        writing.disconnect()
    return lags_ms


def bench(options: Options) -> list[Result]:
    """By the size that one telegram may copy consistently, each beside the baseline."""
    seconds = options.seconds or 5
    results = []
    cases: dict[str, dict[str, Any]] = {
        "consistent_bytes: 64 (default)": {},
        "the same, commit: {begin, end}": {"commit": {"begin": SIZE, "end": SIZE + 2}},
        "consistent_bytes: 960": {"consistent_bytes": 960},
    }
    for name, mirror in cases.items():
        done = []
        for _ in range(options.rounds or 3):
            lags_ms, idle = measure(seconds, **mirror)
            ours = {**percentiles(lags_ms), "% of a core, nothing changes": 100 * idle}
            done.append((ours, {"bare python-snap7": percentiles(baseline(seconds / 2))}))
        results += rows("mirror", f"500 B, all changed at each scan of 50 ms, {name}", done)
    return results
