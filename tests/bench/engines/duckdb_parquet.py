"""DuckDB over Parquet: a table of its own file for what is new, and when an hour is complete a
Parquet file of it (zstd), a column for each field. One thread and 64 MB, as a box can give.

Not locked with the rest: ``.venv/bin/pip install duckdb``.
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import numpy as np

from tests.bench.engines.engine import Buckets
from tests.bench.engines.signals import Columns

_HOUR_MS = 3_600_000
_KINDS = {"f": "FLOAT", "i": "SMALLINT", "u": "UTINYINT"}
_COPY = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2"


class DuckdbParquet:
    """``recent.duckdb``, ``<plc>-<hour>.parquet`` and ``<plc>-<field>-minutes.parquet``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._db = duckdb.connect(str(folder / "recent.duckdb"))
        for setting in ("threads=1", "memory_limit='64MB'", "preserve_insertion_order=true"):
            self._db.execute(f"SET {setting}")
        tables = self._db.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        self._hour_end_ms: dict[str, int] = {}
        for (table,) in tables:
            plc = table.removeprefix("recent_").replace("_", "-")
            for (first,) in self._db.execute(
                f"SELECT min(ts) AS first FROM {table} HAVING first IS NOT NULL"
            ).fetchall():
                self._hour_end_ms[plc] = first // _HOUR_MS * _HOUR_MS + _HOUR_MS

    @staticmethod
    def _table(plc: str) -> str:
        return f"recent_{plc.replace('-', '_')}"

    def take(self, plc: str, rows: Columns, block_rows: int) -> None:
        """Blocks make no difference here: rows of all PLCs of one layout could be one table."""
        table, named = self._table(plc), rows.named()
        if plc not in self._hour_end_ms:
            columns = ", ".join(f"{n} {_KINDS[a.dtype.kind]}" for n, a in named)
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {table} (ts BIGINT, {columns})")
            self._hour_end_ms[plc] = int(rows.ts_ms[0]) // _HOUR_MS * _HOUR_MS + _HOUR_MS
        new = {"ts": rows.ts_ms, **{n: np.ascontiguousarray(a) for n, a in named}}  # noqa: F841
        self._db.execute(f"INSERT INTO {table} SELECT * FROM new")
        hour_end_ms = self._hour_end_ms[plc]
        if rows.ts_ms[-1] >= hour_end_ms:
            self._move(plc, hour_end_ms)

    def _move(self, plc: str, hour_end_ms: int) -> None:
        file = self._folder / f"{plc}-{hour_end_ms // _HOUR_MS}.parquet"
        self._copy(f"SELECT * FROM {self._table(plc)} WHERE ts < {hour_end_ms} ORDER BY ts", file)
        self._db.execute(f"DELETE FROM {self._table(plc)} WHERE ts < {hour_end_ms}")
        self._hour_end_ms[plc] = hour_end_ms + _HOUR_MS

    def _copy(self, query: str, file: Path) -> None:
        new = file.with_suffix(".new")
        self._db.execute(f"COPY ({query}) TO '{new}' ({_COPY})")
        handle = os.open(new, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        new.rename(file)
        handle = os.open(self._folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def take_minutes(self, plc: str, field: str, ts_ms: np.ndarray, of: Buckets) -> None:
        minutes = dict(zip(("ts", "mean", "min", "max"), (ts_ms, *of), strict=True))  # noqa: F841
        self._db.execute("CREATE OR REPLACE TEMP TABLE made AS SELECT * FROM minutes")
        self._copy("SELECT * FROM made", self._folder / f"{plc}-{field}-minutes.parquet")

    def settle(self) -> None:
        for plc, hour_end_ms in list(self._hour_end_ms.items()):
            self._move(plc, hour_end_ms)
        self._db.execute("CHECKPOINT")

    def _sources(self, plc: str, begin_ms: int, end_ms: int, columns: str) -> str:
        """Hours that are files, and after them what is new: a death between the two steps of
        ``_move`` leaves an hour in both.
        """
        hours = [int(f.stem.rpartition("-")[2]) for f in self._folder.glob(f"{plc}-*.parquet")
                 if "minutes" not in f.name]  # fmt: skip
        wanted = [h for h in hours if begin_ms < h * _HOUR_MS and (h - 1) * _HOUR_MS < end_ms]
        last_ms = max(hours, default=0) * _HOUR_MS
        query = f"SELECT {columns} FROM {self._table(plc)} WHERE ts >= {last_ms}"
        if wanted:
            files = ", ".join(f"'{self._folder}/{plc}-{h}.parquet'" for h in sorted(wanted))
            query = f"SELECT {columns} FROM read_parquet([{files}]) UNION ALL {query}"
        return query

    def day(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        source = self._sources(plc, begin_ms, end_ms, f"ts, {field} AS mean")
        source = f"SELECT ts, mean, mean AS min, mean AS max FROM ({source})"
        return self._reduced(source, begin_ms, end_ms, buckets)

    def month(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        file = self._folder / f"{plc}-{field}-minutes.parquet"
        return self._reduced(f"SELECT * FROM '{file}'", begin_ms, end_ms, buckets)

    def _reduced(self, source: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        query = (
            "SELECT avg(mean) AS mean, min(min) AS min, max(max) AS max FROM"
            f" (SELECT *, (ts - {begin_ms}) * {buckets} // {end_ms - begin_ms} AS bucket"
            f" FROM ({source}) WHERE ts >= {begin_ms} AND ts < {end_ms})"
            " GROUP BY bucket ORDER BY bucket"
        )
        got = self._db.execute(query).fetchnumpy()
        return got["mean"], got["min"], got["max"]

    def held(self, plc: str) -> np.ndarray:
        if not self._db.execute(
            "SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [self._table(plc)]
        ).fetchone():
            return np.empty(0)
        query = f"SELECT ts FROM ({self._sources(plc, 0, 2**62, 'ts')}) ORDER BY ts"
        ts_ms: np.ndarray = self._db.execute(query).fetchnumpy()["ts"]
        return ts_ms

    def pid(self) -> int:
        return 0
