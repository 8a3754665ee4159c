"""What running processes use: CPU, memory with shared pages counted once, their own metrics."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.kit.site import Site


class Cpu:
    """CPU of some processes since this was made; those that end meanwhile are not counted."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = {p: sum(p.cpu_times()[:2]) for p in self._processes}
        self._begin_s = time.monotonic()

    def percent(self) -> float:
        """Of one core."""
        used_s = sum(sum(p.cpu_times()[:2]) - self._before[p] for p in self._processes
                     if p.is_running())  # fmt: skip
        return 100 * used_s / (time.monotonic() - self._begin_s)


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size, MB: a page that n processes share counts 1/n in each."""
    total_kb = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        assert found is not None
        total_kb += int(found[1])
    return total_kb * 1_024 / 1e6


def disk_mb(pids: Iterable[int]) -> float:
    """What they have caused to be written to a disk since their start, MB."""
    return sum(psutil.Process(pid).io_counters().write_bytes for pid in pids) / 1e6


def site_pids(site: Site) -> list[int]:
    """``plc-edge run``, its supervisord, every service."""
    assert site.process is not None
    root = psutil.Process(site.process.pid)
    return [root.pid, *(p.pid for p in root.children(recursive=True))]


def idle_percent(seconds: float) -> float:
    """Of all cores together."""
    return 100 - psutil.cpu_percent(seconds)


class Scrape:
    """What /metrics says now."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}/metrics"
        self._lines = urllib.request.urlopen(url, timeout=10).read().decode().splitlines()

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of that name and those labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self._lines
            if re.match(rf"{name}[{{ ]", line) and all(w in line for w in wanted)
        )
