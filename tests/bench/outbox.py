"""Outbox alone: rows a second, durable, by batch; and what the disk's fdatasync takes.

python -m tests.bench.outbox [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from bus.frames import Sample
from services.store_forward.outbox import Bounds, Outbox


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="/var/tmp")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pe", dir=args.folder) as folder:
        print(f"fdatasync of 4 KiB, median: {_fdatasync_ms(Path(folder) / 'probe'):.2f} ms")
        for batch in (1, 20, 100, 200, 1_000):
            rate = _rate(Path(folder) / str(batch), batch)
            print(f"batch {batch:5}: {rate[0]:9,.0f} rows/s in, {rate[1]:9,.0f} rows/s out")


def _fdatasync_ms(path: Path) -> float:
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            began_s = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began_s) * 1_000)
    return statistics.median(times)


def _rate(folder: Path, batch: int) -> tuple[float, float]:
    outbox = Outbox(folder, "bench", [("a", "oldest")], bounds=Bounds(min_free_bytes=0))
    body, seq = b"x" * 300, 0
    began_s = time.perf_counter()
    while time.perf_counter() - began_s < 1.5:
        for _ in range(batch):
            seq += 1
            outbox.offer(Sample("p", "acme", 1, seq, seq, body))
        outbox.commit()
    rate_in = seq / (time.perf_counter() - began_s)
    count, began_s = 0, time.perf_counter()
    while rows := outbox.read("a", "live", outbox.cursors["a"].done, 250):
        count += len(rows)
        outbox.settle("a", "live", rows[-1].pos)
    outbox.close()
    assert count == seq
    return rate_in, count / (time.perf_counter() - began_s)


if __name__ == "__main__":
    main()
