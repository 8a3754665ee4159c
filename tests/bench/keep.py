"""The keep path: a reader's KeepClient here, a real store_forward process, back to its
acknowledgement after the commit (``durability: full``).

The baseline is bare ZeroMQ: the same bytes over PUSH/PULL to another process, which answers what
it found waiting over PUB/SUB; nothing numbered, kept, checked or written.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bus.frames import Sample, pack
from tests.bench.bare_zeromq import BareZeromq
from tests.bench.outbox import DISK
from tests.bench.result import Figures, Options, Result, compare, percentiles
from tests.kit.procs import service
from tests.kit.publisher_rig import run_folder
from tests.kit.source import Source
from tests.kit.store_rig import STORE_CONFIG

BODY = b"x" * 300
PLC, TENANT, TS_MS = "prensa-01", "acme", 1764000000123


class Kept:
    """The reader's end."""

    def __init__(self, folder: Path) -> None:
        self._source = Source(folder, PLC, TENANT)
        self.send(1)

    def send(self, count: int) -> None:
        """Returns when all are acknowledged."""
        for _ in range(count):
            self._source.publish(lambda _epoch, _seq: BODY, TS_MS)
        self._source.drain()

    def close(self) -> None:
        self._source.close()


@contextmanager
def both() -> Iterator[tuple[Kept, BareZeromq]]:
    with run_folder() as folder, tempfile.TemporaryDirectory(prefix="pe", dir=DISK) as state:
        config = {
            "process": "store_forward", "folder": "store_forward", "item": "", "site": "bench",
            "locatario": TENANT, "runtime": str(folder), "state": state,
            "store": STORE_CONFIG,
            "outputs": [{"name": "a", "locatarios": None, "from": "oldest", "strict": False}],
            "plcs": [{"id": PLC, "locatario": TENANT}],
        }  # fmt: skip
        with service(config):
            data = pack(Sample(PLC, TENANT, 1763999000123, 4182, TS_MS, BODY))
            kept, bare = Kept(folder), BareZeromq(folder, data)
            try:
                yield kept, bare
            finally:
                kept.close()
                bare.close()


def rate(end: Kept | BareZeromq, count: int) -> Figures:
    cpu_ns, begin_s = time.process_time_ns(), time.perf_counter()
    end.send(count)
    took_s, cpu_us = time.perf_counter() - begin_s, (time.process_time_ns() - cpu_ns) / 1e3
    return {"messages/s": count / took_s, "µs CPU a message, sender": cpu_us / count}


def one_by_one(end: Kept | BareZeromq, count: int) -> Figures:
    took_ms = []
    for _ in range(count):
        begin_s = time.perf_counter()
        end.send(1)
        took_ms.append((time.perf_counter() - begin_s) * 1e3)
    return percentiles(took_ms, "ms", 50, 99)


def bench(options: Options) -> list[Result]:
    """A window's worth at once, and one at a time."""
    rounds = options.rounds or (3 if options.quick else 7)
    results = []
    with both() as (kept, bare):
        for name, run, count in (
            ("2,000 messages of 300 B", rate, 2_000),
            ("one message, sent to acknowledged", one_by_one, 100),
        ):
            ours, base = partial(run, kept, count), {"bare ZeroMQ": partial(run, bare, count)}
            results += compare("keep", name, ours, base, rounds)
    return results
