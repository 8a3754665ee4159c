"""SQLite that holds columns: hot blocks as they come, and when an hour is complete a chunk for each
field, in a file per day.

A chunk: decimals as whole numbers, the differences (of first or second order, whichever is
smaller), their bytes by significance, deflated.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import apsw
import numpy as np

from tests.bench.engines.engine import Buckets
from tests.bench.engines.signals import Columns

_PRAGMAS = ("journal_mode=WAL", "synchronous=full", "cache_size=-2048")
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
_DECIMALS = (0, 1, 2, 3, 4)
_UNSIGNED = (np.uint8, np.uint16, np.uint32, np.uint64)


def _whole(values: np.ndarray) -> tuple[int, np.ndarray]:
    """(decimals, whole numbers), or (-1, the bits) where there are more decimals than that."""
    if values.dtype.kind != "f":
        return 0, values.astype(np.int64)
    wide = values.astype(np.float64)
    for decimals in _DECIMALS:
        whole = np.rint(wide * 10**decimals)
        if np.array_equal((whole / 10**decimals).astype(values.dtype), values):
            return decimals, whole.astype(np.int64)
    return -1, values.view(f"u{values.dtype.itemsize}").astype(np.int64)


def pack(values: np.ndarray, level: int = 6) -> bytes:
    """One column."""
    decimals, whole = _whole(values)
    best, order = whole, 0
    for n in (1, 2):
        differences = np.diff(whole, n)
        if len(differences) and np.abs(differences).sum() < np.abs(best[order:]).sum():
            best = np.concatenate((np.diff(whole, n - 1)[:1] if n > 1 else whole[:0], differences))
            best, order = np.concatenate((whole[:1], best)), n
    zigzag = ((best << 1) ^ (best >> 63)).view(np.uint64)
    head, tail = zigzag[:order], zigzag[order:]
    top = int(tail.max()) if len(tail) else 0
    kind = next(k for k in _UNSIGNED if top <= np.iinfo(k).max)
    body = tail.astype(kind).view(np.uint8).reshape(-1, kind().itemsize).T.tobytes()
    start = bytes((decimals + 1, order, kind().itemsize)) + head.tobytes()
    return start + zlib.compress(body, level)


def unpack(chunk: bytes, kind: str) -> np.ndarray:
    """What ``pack`` has made; ``kind``: the values' dtype."""
    decimals, order, size = chunk[0] - 1, chunk[1], chunk[2]
    head = np.frombuffer(chunk, np.uint64, order, 3)
    body = np.frombuffer(zlib.decompress(chunk[3 + 8 * order :]), np.uint8)
    tail = np.ascontiguousarray(body.reshape(size, -1).T).view(f"<u{size}").reshape(-1)
    zigzag = np.concatenate((head, tail.astype(np.uint64)))
    whole = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
    for n in reversed(range(order)):
        whole[n:] = np.cumsum(whole[n:])
    if np.dtype(kind).kind != "f":
        return whole.astype(kind)
    if decimals < 0:
        return whole.astype(f"u{np.dtype(kind).itemsize}").view(kind)
    values: np.ndarray = (whole / 10**decimals).astype(kind)
    return values


class SqliteChunks:
    """``recent.db`` and a file per UTC day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._hot = self._open("recent.db")
        self._hot.execute("CREATE TABLE IF NOT EXISTS block (id INTEGER PRIMARY KEY, plc TEXT,"
                          " first INTEGER, last INTEGER, rows INTEGER, data BLOB)")  # fmt: skip
        self._days: dict[int, apsw.Connection] = {}
        for file in folder.glob("day-*.db"):
            self._day(int(file.stem[4:]))
        self._first: dict[str, int] = {}
        for plc, first in self._hot.execute("SELECT plc, min(first) FROM block GROUP BY plc"):
            self._first[plc] = first

    def _open(self, name: str) -> apsw.Connection:
        db = apsw.Connection(str(self._folder / name))
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}").fetchall()
        return db

    def _day(self, day: int) -> apsw.Connection:
        if day not in self._days:
            db = self._days[day] = self._open(f"day-{day}.db")
            db.execute(
                "CREATE TABLE IF NOT EXISTS chunk (plc TEXT, field TEXT, first INTEGER, kind TEXT,"
                " data BLOB, PRIMARY KEY (plc, field, first)) WITHOUT ROWID"
            )
        return self._days[day]

    def take(self, plc: str, rows: Columns, block_rows: int) -> None:
        with self._hot:
            for begin in range(0, len(rows.ts_ms), block_rows):
                part = rows.part(begin, begin + block_rows)
                # Column after column, so that the bytes of one field stand together.
                raw = b"".join(np.ascontiguousarray(m.T).tobytes() for m in part.arrays()[1:])
                data = part.ts_ms.tobytes() + raw
                widths = ",".join(str(m.shape[1]) for m in part.arrays()[1:]).encode()
                first, last = int(part.ts_ms[0]), int(part.ts_ms[-1])
                self._hot.execute(
                    "INSERT INTO block (plc, first, last, rows, data) VALUES (?,?,?,?,?)",
                    (plc, first, last, len(part.ts_ms), widths + b"\n" + zlib.compress(data, 1)),
                )
        begin_ms = self._first.setdefault(plc, int(rows.ts_ms[0]))
        hour_end_ms = begin_ms // _HOUR_MS * _HOUR_MS + _HOUR_MS
        if rows.ts_ms[-1] >= hour_end_ms:
            self._move(plc, hour_end_ms)

    def _blocks(self, plc: str, before_ms: int) -> Columns | None:
        parts = []
        query = "SELECT rows, data FROM block WHERE plc = ? AND first < ? ORDER BY first"
        for count, data in self._hot.execute(query, (plc, before_ms)):
            widths, _, body = data.partition(b"\n")
            raw = zlib.decompress(body)
            at, arrays = 8 * count, [np.frombuffer(raw, np.int64, count)]
            for width, kind in zip(widths.split(b","), ("f4", "i2", "u1"), strict=True):
                matrix = np.frombuffer(raw, kind, int(width) * count, at)
                arrays.append(matrix.reshape(int(width), count).T)
                at += matrix.nbytes
            parts.append(arrays)
        if not parts:
            return None
        return Columns(*(np.concatenate(same) for same in zip(*parts, strict=True)))

    def _move(self, plc: str, hour_end_ms: int) -> None:
        """A complete hour: its chunks first, then its blocks go; again after a death between."""
        rows = self._blocks(plc, hour_end_ms)
        if rows is None:
            return
        first = int(rows.ts_ms[0])
        db = self._day(first // _DAY_MS)
        with db:
            for name, values in [("ts", rows.ts_ms), *rows.named()]:
                row = (plc, name, first, values.dtype.str, pack(np.ascontiguousarray(values)))
                db.execute("INSERT OR REPLACE INTO chunk VALUES (?,?,?,?,?)", row)
        self._hot.execute("DELETE FROM block WHERE plc = ? AND first < ?", (plc, hour_end_ms))
        self._first[plc] = hour_end_ms

    def take_minutes(self, plc: str, field: str, ts_ms: np.ndarray, of: Buckets) -> None:
        for day in np.unique(ts_ms // _DAY_MS):
            mask = ts_ms // _DAY_MS == day
            db = self._day(int(day))
            with db:
                for name, values in zip(("ts", "mean", "min", "max"), (ts_ms, *of), strict=True):
                    row = (plc, f"{field}/{name}", int(day) * _DAY_MS, values.dtype.str,
                           pack(np.ascontiguousarray(values[mask])))  # fmt: skip
                    db.execute("INSERT OR REPLACE INTO chunk VALUES (?,?,?,?,?)", row)

    def settle(self) -> None:
        for plc in list(self._first):
            self._move(plc, 2**62)
        self._hot.execute("VACUUM")
        for db in (self._hot, *self._days.values()):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _read(self, plc: str, field: str, begin_ms: int, end_ms: int) -> np.ndarray:
        """Chunks of one column that begin in the range."""
        query = "SELECT kind, data FROM chunk WHERE plc=? AND field=? AND first>=? AND first<?"
        got = []
        for day in range(begin_ms // _DAY_MS, (end_ms - 1) // _DAY_MS + 1):
            if day in self._days:
                rows = self._days[day].execute(query, (plc, field, begin_ms, end_ms))
                got += [unpack(data, kind) for kind, data in rows]
        return np.concatenate(got) if got else np.empty(0)

    def day(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        ts_ms, values = (self._read(plc, name, begin_ms, end_ms) for name in ("ts", field))
        hot = self._blocks(plc, end_ms)
        if hot is not None:
            ts_ms = np.concatenate((ts_ms, hot.ts_ms))
            values = np.concatenate((values, dict(hot.named())[field]))
        at = _starts(ts_ms, begin_ms, end_ms, buckets)
        return _reduced(at, values, values, values)

    def month(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        names = ("ts", "mean", "min", "max")
        ts_ms, *of = (self._read(plc, f"{field}/{n}", begin_ms, end_ms) for n in names)
        return _reduced(_starts(ts_ms, begin_ms, end_ms, buckets), *of)

    def held(self, plc: str) -> np.ndarray:
        chunks = [self._read(plc, "ts", d * _DAY_MS, (d + 1) * _DAY_MS) for d in sorted(self._days)]
        hot = self._blocks(plc, 2**62)
        parts = [*chunks, *([hot.ts_ms] if hot else [])]
        return np.concatenate(parts) if parts else np.empty(0)

    def pid(self) -> int:
        return 0


def _starts(ts_ms: np.ndarray, begin_ms: int, end_ms: int, buckets: int) -> np.ndarray:
    """Where each bucket that holds something begins in ``ts_ms``."""
    bucket = (ts_ms - begin_ms) * buckets // (end_ms - begin_ms)
    return np.flatnonzero(np.diff(bucket, prepend=-1))


def _reduced(at: np.ndarray, mean: np.ndarray, least: np.ndarray, largest: np.ndarray) -> Buckets:
    counts = np.diff(at, append=len(mean))
    sums = np.add.reduceat(mean.astype(np.float64), at)
    return sums / counts, np.minimum.reduceat(least, at), np.maximum.reduceat(largest, at)
