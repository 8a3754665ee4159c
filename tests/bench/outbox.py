"""The outbox alone: rows a second, durable, by batch; against bare SQLite that inserts the same
bodies in one transaction a batch, with the same pragmas.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import apsw

from bus.frames import Sample
from services.store_forward.outbox import Bounds, Outbox
from tests.bench.result import Figures, Options, Result, compare

# Not /tmp, which may be memory: the disk is part of what is measured.
DISK = "/var/tmp"
BODY = b"x" * 300
PAGE_ROWS = 250
# As services/store_forward/segment.py sets them.
PRAGMAS = ("locking_mode=EXCLUSIVE", "page_size=4096", "journal_mode=WAL", "synchronous=full",
           "wal_autocheckpoint=1000", "cache_size=-2048")  # fmt: skip


def fdatasync() -> Figures:
    """Of 4 KiB on the same disk."""
    took_ms = []
    with tempfile.NamedTemporaryFile(dir=DISK, buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4_096))
            begin_s = time.perf_counter()
            os.fdatasync(file.fileno())
            took_ms.append((time.perf_counter() - begin_s) * 1e3)
    return {"ms": statistics.median(took_ms)}


def ours(batch: int, seconds: float) -> Figures:
    """Numbered, checked, with their CRC and each stream's place; read and settled per output."""
    with tempfile.TemporaryDirectory(prefix="pe", dir=DISK) as folder:
        bounds = Bounds(min_free_bytes=0)
        outbox = Outbox(Path(folder), "bench", [("a", "oldest")], bounds=bounds)
        seq, begin_s = 0, time.perf_counter()
        while time.perf_counter() - begin_s < seconds:
            for _ in range(batch):
                seq += 1
                outbox.offer(Sample("p", "acme", 1, seq, seq, BODY))
            outbox.commit()
        took_in_s = time.perf_counter() - begin_s
        count, begin_s = 0, time.perf_counter()
        while found := outbox.read("a", "live", outbox.cursors["a"].done, PAGE_ROWS):
            count += len(found)
            outbox.settle("a", "live", found[-1].pos)
        took_out_s = time.perf_counter() - begin_s
        outbox.close()
    assert count == seq
    return {"rows/s in": seq / took_in_s, "rows/s out": count / took_out_s}


def bare(batch: int, seconds: float) -> Figures:
    """One table, one INSERT a row."""
    with tempfile.TemporaryDirectory(prefix="pe", dir=DISK) as folder:
        db = apsw.Connection(f"{folder}/bare.db")
        for pragma in PRAGMAS:
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("CREATE TABLE row (pos INTEGER PRIMARY KEY, plc TEXT, locatario TEXT,"
                   " ts_ms INTEGER, epoch INTEGER, seq INTEGER, body BLOB)")  # fmt: skip
        seq, begin_s = 0, time.perf_counter()
        while time.perf_counter() - begin_s < seconds:
            numbers = range(seq + 1, seq + batch + 1)
            with db:
                db.executemany("INSERT INTO row VALUES (?,?,?,?,?,?,?)",
                               [(n, "p", "acme", n, 1, n, BODY) for n in numbers])  # fmt: skip
            seq += batch
        took_in_s = time.perf_counter() - begin_s
        count, begin_s = 0, time.perf_counter()
        select = "SELECT * FROM row WHERE pos > ? ORDER BY pos LIMIT ?"
        while found := db.execute(select, (count, PAGE_ROWS)).fetchall():
            count += len(found)
        took_out_s = time.perf_counter() - begin_s
        db.close()
    assert count == seq
    return {"rows/s in": seq / took_in_s, "rows/s out": count / took_out_s}


def bench(options: Options) -> list[Result]:
    """By batch; and what the disk's fdatasync takes, which bounds the small ones."""
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = 0.2 if options.quick else 0.5
    results = compare("outbox", "fdatasync of this disk, 4 KiB", fdatasync, {}, rounds)
    for batch in (1, 200) if options.quick else (1, 20, 100, 200, 1_000):
        base = {"bare SQLite": partial(bare, batch, seconds)}
        name = f"batch of {batch:,} rows of 300 B"
        results += compare("outbox", name, partial(ours, batch, seconds), base, rounds)
    return results
