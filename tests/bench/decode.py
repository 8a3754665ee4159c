"""What decoding costs: ``python tests/bench/decode.py [ROUNDS]``.

Prints median and spread (5th and 95th percentile), in µs of process CPU time: other processes
on the machine do not count. REAL's shortest decimal stands apart.
"""

from __future__ import annotations

import random
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from services.s7 import decode
from services.s7.change import ChangeFilter
from services.s7.decode import Record, shorten, shorten_fresh
from services.s7.field import Field

IMAGES = 50
RANDOM = random.Random(1)


def block() -> list[Field]:
    """1,000 REALs, 500 BOOLs and 200 INTs: the block the targets are given for."""
    fields = [Field(f"real{i}", "REAL", byte=4 * i) for i in range(1_000)]
    fields += [Field(f"bool{i}", "BOOL", byte=4_000 + i // 8, bit=i % 8) for i in range(500)]
    return fields + [Field(f"int{i}", "INT", byte=4_064 + 2 * i) for i in range(200)]


def reals(count: int, decimals: int | None) -> bytes:
    """Values of sensors: with 2 decimals (they repeat) or with every bit of a REAL used."""
    values = (RANDOM.uniform(-100, 100) for _ in range(count))
    if decimals is not None:
        # Of 4,000 distinct ones: what sensors that hover about a set point show in a while.
        values = (round(v / 5, decimals) for v in values)
    return struct.pack(f">{count}f", *values)


def measure(name: str, run: Callable[[Any], object], inputs: Sequence[Any], rounds: int) -> float:
    """Prints and returns the median, µs."""
    taken = []
    for given, _ in zip(cycle(inputs), range(rounds), strict=False):
        began_ns = time.process_time_ns()
        run(given)
        taken.append((time.process_time_ns() - began_ns) / 1_000)
    low, *_, high = statistics.quantiles(taken, n=20)
    median = statistics.median(taken)
    print(f"{name:<66}{median:9.1f} µs   ({low:.1f} to {high:.1f})")
    return median


def target_block(rounds: int) -> None:
    fields = block()
    record = Record(fields)
    tail = [RANDOM.randbytes(64 + 400) for _ in range(IMAGES)]
    sensors = [reals(1_000, 2) + t for t in tail]
    noise = [reals(1_000, None) + t for t in tail]
    bits = [struct.unpack(">1000I", image[:4_000]) for image in noise]
    known = [struct.unpack(">1000I", image[:4_000]) for image in sensors]

    for image in sensors:
        record.changed(image)
    whole = measure("changed, REALs that were seen before", record.changed, sensors, rounds)
    lookup = measure("  of that, REAL's shortest decimal: looked up", shorten, known, rounds)
    print(f"{'  without it (target: under 150 µs)':<66}{whole - lookup:9.1f} µs")

    def changed_unknown(image: bytes) -> None:
        decode._SHORTENED.clear()
        record.changed(image)

    measure("changed, every REAL new", changed_unknown, noise, rounds)
    measure("  of that, REAL's shortest decimal: computed", shorten_fresh, bits, rounds)
    record.changed(sensors[0])
    measure("unchanged (target: under 10 µs)", record.changed, sensors[:1], rounds)
    changes = ChangeFilter(fields, 1e9)
    changes.passes(record.values, {}, True, 0)
    same = [dict(record.values)]
    measure(
        "change filter, nothing differs", lambda v: changes.passes(v, {}, True, 1), same, rounds
    )
    banded = [Field(f.name, f.type, byte=f.byte, deadband={"abs": 1.0}) for f in fields[:1_000]]
    changes = ChangeFilter(banded, 1e9)
    now = {f.name: record.values[f.name] for f in banded}
    changes.passes(now, {}, True, 0)
    moved = [{name: value + 0.5 for name, value in now.items()}]
    measure("change filter, 1,000 REALs within their deadband",
            lambda v: changes.passes(v, {}, True, 1), moved, rounds)  # fmt: skip


def full_image(rounds: int) -> None:
    """64 KiB in three shapes; the target is 1,000,000 values a second."""

    def rate(name: str, records: list[Record], images: list[bytes], values: int) -> None:
        def run(image: bytes) -> None:
            for record in records:
                record.changed(image)

        for image in images:
            run(image)
        median = measure(name, run, images, rounds)
        print(f"{'':<66}{values / median:9.2f} million values/s")

    size = 65_536
    images = [RANDOM.randbytes(size) for _ in range(4)]
    ints = [Field(f"i{i}", "INT", byte=2 * i) for i in range(size // 2)]
    rate("64 KiB of INTs", [Record(ints)], images, len(ints))
    bools = [Field(f"b{i}", "BOOL", byte=i // 8, bit=i % 8) for i in range(size * 8)]
    rate("64 KiB of BOOLs", [Record(bools)], images[:2], len(bools))
    floats = [Field(f"r{i}", "REAL", byte=4 * i) for i in range(size // 4)]
    sensors = [reals(size // 4, 2) for _ in range(4)]
    rate("64 KiB of REALs with two decimals", [Record(floats)], sensors, len(floats))
    noise = [reals(size // 4, None) for _ in range(4)]
    rate("64 KiB of REALs, every one new", [Record(floats)], noise, len(floats))
    machine = [Field(f"f{i}", "BOOL", bit=i) for i in range(3)]
    for i in range(5):
        machine += [Field(f"s{i}.v", "REAL", byte=2 + 6 * i)]
        machine += [Field(f"s{i}.f", "BYTE", byte=6 + 6 * i)]
    machine += [Field("good", "INT", byte=62), Field("bad", "INT", byte=64)]
    count = size // 66
    plant = [
        b"".join(
            RANDOM.randbytes(2)
            + b"".join(reals(1, 2) + b"\1\0" for _ in range(5))
            + RANDOM.randbytes(34)
            for _ in range(count)
        )
        for _ in range(4)
    ]
    machines = [Record(machine, 66 * n) for n in range(count)]
    rate(f"64 KiB as {count} machines of 66 bytes (db500_maquinas)", machines, plant,
         count * len(machine))  # fmt: skip


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    target_block(rounds)
    full_image(max(10, rounds // 40))
