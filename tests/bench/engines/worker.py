"""One engine in a process of its own, so that its CPU and memory are its own and it can be killed.

``python -m tests.bench.engines.worker ENGINE FOLDER SIGNALS``; SIGNALS is a folder of
``<plc>-<column>.npy``. A line on stdin is a JSON list, the name of one of ``Worker``'s methods and
what it takes; each gets an answer of one line on stdout. The first line there is the pid of the
engine's server, 0 where it has none.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import psutil

from tests.bench.engines.engine import Engine
from tests.bench.engines.signals import Columns

ENGINES = {
    "SQLite chunks": "sqlite_chunks.SqliteChunks",
    "DuckDB over Parquet": "duckdb_parquet.DuckdbParquet",
    "VictoriaMetrics": "victoria.VictoriaMetrics",
}
_NAMES = ("ts_ms", "reals", "ints", "bools")


def save(rows: Columns, folder: Path, plc: str) -> None:
    """For the worker."""
    for name, array in zip(_NAMES, rows.arrays(), strict=True):
        np.save(folder / f"{plc}-{name}.npy", array)


def load(folder: Path, plc: str, begin: int, end: int) -> Columns:
    """Some rows; the files are not kept mapped, which would count as memory."""
    return Columns(
        *(np.load(folder / f"{plc}-{n}.npy", mmap_mode="r")[begin:end].copy() for n in _NAMES)
    )


def make(name: str, folder: Path) -> Engine:
    """Imports no other engine."""
    module, _, cls = ENGINES[name].partition(".")
    found = getattr(importlib.import_module(f"tests.bench.engines.{module}"), cls)
    return cast(Engine, found(folder))


class Worker:
    """Does what a line says."""

    def __init__(self, name: str, folder: Path, signals: Path) -> None:
        self._engine = make(name, folder)
        self._signals = signals
        self._used_s = 0.0
        self._server = psutil.Process(self._engine.pid()) if self._engine.pid() else None
        self._server_used_s = self._server_s()

    def _server_s(self) -> float:
        return sum(self._server.cpu_times()[:2]) if self._server else 0.0

    def server_pid(self) -> int:
        """0 where the engine has none."""
        return self._server.pid if self._server else 0

    def take(self, plc: str, begin: int, end: int, block_rows: int) -> int:
        rows = load(self._signals, plc, begin, end)
        before_s = time.process_time()
        self._engine.take(plc, rows, block_rows)
        self._used_s += time.process_time() - before_s
        return rows.values

    def minutes(self, plc: str, field: str, begin_ms: int, days: int) -> int:
        """Roll-ups as they would be of such signals: the mean of a minute, less and more."""
        ts_ms = begin_ms + 60_000 * np.arange(days * 1_440, dtype=np.int64)
        mean = np.round(60 + 6 * np.sin(np.arange(len(ts_ms)) / 190), 4)
        self._engine.take_minutes(plc, field, ts_ms, (mean, mean - 0.25, mean + 0.25))
        return len(ts_ms)

    def settle(self) -> int:
        self._engine.settle()
        return 0

    def ask(
        self, what: str, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int
    ) -> list[float]:
        """[ms, buckets answered, mean of the means]."""
        begin_s = time.perf_counter()
        mean, *_ = getattr(self._engine, what)(plc, field, begin_ms, end_ms, buckets)
        return [(time.perf_counter() - begin_s) * 1e3, len(mean), float(np.mean(mean))]

    def held(self, plc: str, begin_ms: int, step_ms: int, count: int) -> list[int]:
        """[rows, different rows, of ``count`` that should be there how many are missing, and the
        first of these].
        """
        ts_ms = self._engine.held(plc)
        wanted = begin_ms + step_ms * np.arange(count, dtype=np.int64)
        missing = np.flatnonzero(~np.isin(wanted, ts_ms))
        first = int(missing[0]) if len(missing) else count
        return [len(ts_ms), len(np.unique(ts_ms)), len(missing), first]

    def cost(self) -> list[float]:
        """[CPU s of all ``take``, the server's too, which also merges; MB of both, PSS]."""
        processes = [psutil.Process(), *([self._server] if self._server else [])]
        memory = sum(p.memory_full_info().pss for p in processes) / 1e6
        return [self._used_s + self._server_s() - self._server_used_s, memory]


def main() -> None:
    """Until stdin ends. An error is an answer."""
    name, *folders = sys.argv[1:]
    try:
        worker = Worker(name, *map(Path, folders))
    except Exception as e:
        sys.stdout.write(f"error: {type(e).__name__}: {e}\n")
        return
    sys.stdout.write(f"{worker.server_pid()}\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        verb, *args = orjson.loads(line)
        answer: Any
        try:
            answer = orjson.dumps(getattr(worker, verb)(*args)).decode()
        except Exception as e:
            answer = f"error: {type(e).__name__}: {e}".splitlines()[0]
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
