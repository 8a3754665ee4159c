"""Which engine keeps a box's history: SQLite that holds chunks of columns, DuckDB over Parquet,
VictoriaMetrics. Each as small as it can be (``tests/bench/engines``), in a process of its own; a
commit holds what a site of 50 PLCs × 200 values brings in a second at 10 Hz, or in 5 s at 1 Hz.

Signals are the simulator's (``engines/signals.py``): *10 Hz*, every scan differs; *1 Hz*, values
that change once a second, which is what ``on_change`` sends of slower plants; *noise*, 10 Hz with
the last two digits of each REAL at random, which no engine can make small. ``--seconds`` (7,200) of
one PLC are kept, so all bytes are those of one PLC; a site's are 50 times as many. Queries ask for
a day of 864,000 raw values of one field, and a month of roll-ups by the minute, as 1,000 points of
mean, min and max. CPU is the engine's with its encoding, without the making of values.

A power cut is a copy of the disk's file while it runs (``tests/kit/power_disk.py``). DuckDB is
measured where it is installed (66 MB): ``.venv/bin/pip install duckdb``; it is in no lock file.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
import psutil

from tests.bench.engines.signals import Columns, columns
from tests.bench.engines.worker import ENGINES, save
from tests.bench.result import Figures, Options, Result, compare
from tests.chaos.storage.full import fill
from tests.kit.common import ROOT
from tests.kit.power_disk import Disk

OURS = "SQLite chunks"
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
BEGIN_MS = 1_790_812_800_000
"""A UTC midnight; everything is written as of then."""
POINTS = 1_000
ASKED = 7
DISK_MB = 96
CUTS = 10
BATCH = 250
# A plant's pace between two commits, so that a death finds some of different ages.
PAUSE_S = 0.1
FULL_S = 10.0


class Died(Exception):
    """The engine does not start, or has ended."""


class Process:
    """A worker (``engines/worker.py``)."""

    def __init__(self, name: str, folder: Path, signals: Path) -> None:
        command = [sys.executable, "-m", "tests.bench.engines.worker", name, str(folder)]
        self._process = subprocess.Popen(
            [*command, str(signals)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._started, self._server_pid = False, 0
        self._server_pid = int(self._answer())
        self._started = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def ask(self, *line: Any) -> Any:
        """Raises Died, or RuntimeError with what went wrong."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(line) + b"\n")
            self._process.stdin.flush()
        except OSError as e:
            raise Died(str(e)) from e
        return orjson.loads(self._answer())

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        if not answer or (answer.startswith(b"error") and not self._started):
            self.kill()
            raise Died(answer.decode())
        if answer.startswith(b"error"):
            if self._server_pid and not self._server():
                self.kill()
                raise Died(answer.decode())
            raise RuntimeError(answer.decode())
        return answer

    def kill(self) -> None:
        """``kill -9``, of its server too."""
        server = self._server()
        for process in server:
            process.kill()
        self._process.kill()
        self._process.communicate()
        psutil.wait_procs(server, 10)

    def _server(self) -> list[psutil.Process]:
        """The engine's own process, where it has one that lives."""
        try:
            server = psutil.Process(self._server_pid)
            return [server] if self._server_pid and server.status() != "zombie" else []
        except psutil.NoSuchProcess:
            return []


def noisy(rows: Columns) -> Columns:
    """The last two digits of each REAL are what a sensor's noise makes of them."""
    noise = np.random.default_rng(1).normal(0, 0.3, rows.reals.shape)
    reals = np.round(rows.reals + noise, 2).astype(np.float32)
    return Columns(rows.ts_ms, reals, rows.ints, rows.bools)


def folder_bytes(folder: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file())


def kept(name: str, plc: str, steps: int, batch: int, block: int, signals: Path) -> Figures:
    """What keeping costs."""
    folder = Path(tempfile.mkdtemp(prefix="pe", dir="/var/tmp"))
    try:
        with Process(name, folder / "h", signals) as engine:
            values = 0
            began_s = time.perf_counter()
            for begin in range(0, steps, batch):
                values += engine.ask("take", plc, begin, min(begin + batch, steps), block)
            took_s = time.perf_counter() - began_s
            cpu_s, memory_mb = engine.ask("cost")
            new = folder_bytes(folder) / values
            engine.ask("settle")
            return {
                "bytes a value": folder_bytes(folder) / values,
                "bytes a value, before it is made smaller": new,
                "ms CPU per 100,000 values": cpu_s * 1e3 / (values / 1e5),
                "100,000 values/s": values / 1e5 / took_s,
                "MB PSS": memory_mb,
            }
    finally:
        shutil.rmtree(folder)


def asked(name: str, plc: str, signals: Path) -> Figures:
    """What answers take: a day of raw values, a month of roll-ups; and the memory after them."""
    folder = Path(tempfile.mkdtemp(prefix="pe", dir="/var/tmp"))
    try:
        with Process(name, folder / "h", signals) as engine:
            steps = DAY_MS // 100
            for begin in range(0, steps, 18_000):
                engine.ask("take", plc, begin, begin + 18_000, 600)
            month_ms = BEGIN_MS - 30 * DAY_MS
            engine.ask("minutes", plc, "r0", month_ms, 30)
            engine.ask("settle")
            took: dict[str, float] = {}
            for what, begin_ms, end_ms in (("day", BEGIN_MS, BEGIN_MS + DAY_MS),
                                           ("month", month_ms, BEGIN_MS)):  # fmt: skip
                got = [
                    engine.ask("ask", what, plc, "r0", begin_ms, end_ms, POINTS)
                    for _ in range(ASKED)
                ]
                assert all(abs(count - POINTS) <= 1 for _, count, _ in got), got
                first, *rest = (ms for ms, _, _ in got)
                took[f"ms, a {what}"] = statistics.median(rest)
                took[f"ms, a {what}, the first time"] = first
            return {**took, "MB PSS after asking": engine.ask("cost")[1]}
    finally:
        shutil.rmtree(folder)


def died(name: str, signals: Path, how: str) -> Figures:
    """``CUTS`` deaths of a kind: ``power``, ``kill``, or ``torn``, where the file written last
    loses up to 4 KiB of its end as well.
    """
    tell: Counter[str] = Counter()
    worst_s = 0.0
    for seed in range(CUTS):
        draw = random.Random(seed)
        with Disk(DISK_MB) as disk:
            folder = disk.folder / "h"
            acknowledged_s: list[float] = []
            with Process(name, folder, signals) as engine:
                for n in range(draw.randint(10, 40)):
                    engine.ask("take", "slow", n * BATCH, (n + 1) * BATCH, 5)
                    acknowledged_s.append(time.monotonic())
                    time.sleep(PAUSE_S)
                if how == "power":
                    disk.snapshot()
                death_s = time.monotonic()
            if how == "power":
                disk.come_back()
            elif how == "torn":
                shorten(folder, draw)
            count = BATCH * len(acknowledged_s)
            tell["rows"] += count
            try:
                with Process(name, folder, signals) as engine:
                    rows, different, missing, first = engine.ask(
                        "held", "slow", BEGIN_MS, 1_000, count
                    )
                    tell["twice"] += rows - different
            except Died:
                tell["does not start"] += 1
                missing, first = count, 0
            tell["lost"] += missing
            if missing:
                worst_s = max(worst_s, death_s - acknowledged_s[first // BATCH])
    return {
        "% of acknowledged rows lost": 100 * tell["lost"] / tell["rows"],
        "s from acknowledged to death, oldest lost": worst_s,
        "rows twice": tell["twice"],
        "does not start": tell["does not start"],
    }


def shorten(folder: Path, draw: random.Random) -> None:
    """The file that was written last."""
    files = [f for f in folder.rglob("*") if f.is_file() and not f.name.endswith("-shm")]
    last = max((f for f in files if f.stat().st_size), key=lambda f: f.stat().st_mtime_ns)
    with last.open("rb+") as file:
        file.truncate(max(0, last.stat().st_size - draw.randint(1, 4_096)))


def full(name: str, signals: Path) -> Figures:
    """Work; no room for ten attempts; room again, and on until all commits are kept."""
    tell: Counter[str] = Counter()
    done = attempts = 0
    room_s = goes_on_s = 0.0
    with Disk(DISK_MB) as disk:
        filler = disk.folder / "filler"
        engine = Process(name, disk.folder / "h", signals)
        try:
            while done < 40:
                if done == 15 and not attempts:
                    fill(filler)
                if attempts == 10 and not room_s:
                    filler.unlink()
                    room_s = time.monotonic()
                if filler.exists():
                    attempts += 1
                    time.sleep(FULL_S / 10)
                try:
                    engine.ask("take", "slow", done * BATCH, (done + 1) * BATCH, 5)
                    done += 1
                    goes_on_s = goes_on_s or (room_s and time.monotonic() - room_s)
                except RuntimeError:
                    tell["refused"] += 1
                    assert not room_s or time.monotonic() - room_s < 60, "it does not recover"
                    time.sleep(0.2)
                except Died:
                    tell["deaths"] += 1
                    attempts = 10  # with room only: it would die again
                    if not room_s:
                        filler.unlink()
                        room_s = time.monotonic()
                    engine = Process(name, disk.folder / "h", signals)
            rows, different, missing, _ = engine.ask("held", "slow", BEGIN_MS, 1_000, done * BATCH)
        finally:
            engine.kill()
    return {"commits refused": tell["refused"], "deaths": tell["deaths"], "rows lost": missing,
            "rows twice": rows - different, "s until it goes on": goes_on_s}  # fmt: skip


def bench(options: Options) -> list[Result]:
    """SQLite against the others."""
    others = [n for n in ENGINES if n != OURS]
    if importlib.util.find_spec("duckdb") is None:
        others.remove("DuckDB over Parquet")
        sys.stderr.write("without DuckDB: .venv/bin/pip install duckdb\n")
    signals = Path(tempfile.mkdtemp(prefix="pe", dir="/var/tmp"))
    seconds = int(options.seconds or (600 if options.quick else 7_200))
    fast, slow = seconds * 10, seconds * 6
    results: list[Result] = []

    def table(case: str, measure: Callable[..., Figures], *args: Any) -> None:
        base = {n: partial(measure, n, *args) for n in others}
        results.extend(compare("history-engines", case, partial(measure, OURS, *args), base,
                               options.rounds or 1))  # fmt: skip

    try:
        rows = columns(fast, BEGIN_MS, 100)
        save(rows, signals, "fast")
        save(noisy(rows), signals, "noise")
        save(columns(slow, BEGIN_MS, 1_000), signals, "slow200")
        save(columns(20_000, BEGIN_MS, 1_000, 0.1), signals, "slow")
        save(columns(DAY_MS // 100, BEGIN_MS, 100, 0.04), signals, "day")
        table(f"{rows.values:,} values, 10 Hz", kept, "fast", fast, 500, 10, signals)
        table(f"{rows.values:,} values, 10 Hz, noise", kept, "noise", fast, 500, 10, signals)
        table(f"{slow * 200:,} values, 1 Hz", kept, "slow200", slow, 250, 5, signals)
        table("one field asked for", asked, "day", signals)
        for how, case in (("power", "power cuts"), ("kill", "kill -9"),
                          ("torn", "kill -9, newest file cut short")):  # fmt: skip
            table(f"{CUTS} × {case}", died, signals, how)
        table(f"disk full for {FULL_S:g} s", full, signals)
    finally:
        shutil.rmtree(signals)
    return results
