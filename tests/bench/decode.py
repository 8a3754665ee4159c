"""What decoding costs, CPU; the baseline is bare ``struct.unpack`` of the same
bytes into a dict.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from itertools import cycle

from services.s7 import real
from services.s7.decode import Record
from services.s7.field import Field
from tests.bench.result import Figures, Measure, Options, Result, compare, cpu_only, timed

RANDOM = random.Random(1)
IMAGES = 20
SIZE = 65_536
REALS, BOOLS, INTS = 1_000, 500, 200


def block() -> list[Field]:
    """1,000 REALs, 500 BOOLs and 200 INTs: the block the targets are given for."""
    fields = [Field(f"real{i}", "REAL", byte=4 * i) for i in range(REALS)]
    fields += [Field(f"bool{i}", "BOOL", byte=4_000 + i // 8, bit=i % 8) for i in range(BOOLS)]
    return fields + [Field(f"int{i}", "INT", byte=4_064 + 2 * i) for i in range(INTS)]


def reals(count: int, repeating: bool) -> bytes:
    """What sensors with 2 decimals that hover about a set point show (4,000 distinct values), or
    values that use every bit of a REAL.
    """
    values = (RANDOM.uniform(-100, 100) for _ in range(count))
    return struct.pack(f">{count}f", *(round(v / 5, 2) if repeating else v for v in values))


def over(run: Callable[[bytes], object], images: Sequence[bytes], calls: int) -> Measure:
    """µs of CPU for one call, each with the next image."""
    turn = cycle(images)
    return cpu_only(timed(lambda: run(next(turn)), calls))


def target_block(rounds: int) -> list[Result]:
    """Changed, unchanged, with unknown REALs."""
    fields = block()
    record = Record(fields)
    tail = [RANDOM.randbytes(64 + 2 * INTS) for _ in range(IMAGES)]
    sensors = [reals(REALS, True) + t for t in tail]
    noise = [reals(REALS, False) + t for t in tail]
    names = [f.name for f in fields]
    layout = struct.Struct(f">{REALS}f64s{INTS}h")

    def bare(image: bytes) -> dict[str, object]:
        values = layout.unpack(image)
        bits = int.from_bytes(values[REALS], "little")
        bools = [bool(bits >> i & 1) for i in range(BOOLS)]
        return dict(zip(names, (*values[:REALS], *bools, *values[REALS + 1 :]), strict=True))

    def forget(image: bytes) -> None:
        real._SHORTENED.clear()
        record.changed(image)

    def unchanged() -> Figures:
        record.changed(sensors[0])
        return over(record.changed, sensors[:1], 100)()

    for image in sensors:
        record.changed(image)
        want = {k: struct.unpack(">f", struct.pack(">f", v))[0] if type(v) is float else v
                for k, v in record.values.items()}  # fmt: skip
        assert bare(image) == want
    base = {"bare struct": over(bare, sensors, 100)}
    results = []
    for name, ours in (
        ("changed", over(record.changed, sensors, 100)),
        ("every REAL new", over(forget, noise, 40)),
        ("unchanged", unchanged),
    ):
        case = f"1,000 REAL + 500 BOOL + 200 INT, {name}"
        results += compare("decode", case, ours, base, rounds)
    return results


def full_image(rounds: int) -> list[Result]:
    """64 KiB in several shapes: million values a second of CPU (the target is 1)."""
    ints = [Field(f"i{i}", "INT", byte=2 * i) for i in range(SIZE // 2)]
    bools = [Field(f"b{i}", "BOOL", byte=i // 8, bit=i % 8) for i in range(SIZE * 8)]
    floats = [Field(f"r{i}", "REAL", byte=4 * i) for i in range(SIZE // 4)]
    machine = [Field(f"f{i}", "BOOL", bit=i) for i in range(3)]
    for i in range(5):
        machine += [Field(f"s{i}.v", "REAL", byte=2 + 6 * i)]
        machine += [Field(f"s{i}.f", "BYTE", byte=6 + 6 * i)]
    machine += [Field("good", "INT", byte=62), Field("bad", "INT", byte=64)]
    any_bytes = [RANDOM.randbytes(SIZE) for _ in range(4)]
    plant = [
        b"".join(RANDOM.randbytes(2) + b"".join(reals(1, True) + b"\1\0" for _ in range(5))
                 + RANDOM.randbytes(34) for _ in range(SIZE // 66))
        for _ in range(4)
    ]  # fmt: skip
    shapes = {
        "INTs": ([ints], any_bytes, f">{SIZE // 2}h"),
        "BOOLs": ([bools], any_bytes[:2], ""),
        "REALs with 2 decimals": ([floats], [reals(SIZE // 4, True)] * 4, f">{SIZE // 4}f"),
        "REALs, every one new": ([floats], [reals(SIZE // 4, False) for _ in range(4)],
                                 f">{SIZE // 4}f"),
        f"{SIZE // 66} machines of 66 B": ([machine] * (SIZE // 66), plant, ""),
    }  # fmt: skip
    results = []
    for name, (records, images, layout) in shapes.items():
        decoders = [Record(fields, 66 * n) for n, fields in enumerate(records)]
        count = sum(map(len, records))

        def whole(
            image: bytes, decoders: list[Record] = decoders, new: bool = name.endswith("new")
        ) -> None:
            if new:
                real._SHORTENED.clear()
            for decoder in decoders:
                decoder.forget()  # as if every value had changed
                decoder.changed(image)

        def rate(measure: Measure, count: int = count) -> Measure:
            return lambda: {"M values/s of CPU": count / measure()["µs CPU"]}

        def bare(image: bytes, layout: str = layout, fields: list[Field] = records[0]) -> object:
            return dict(zip((f.name for f in fields), struct.unpack(layout, image), strict=True))

        base = {"bare struct": rate(over(bare, images, 5))} if layout else {}
        ours = rate(over(whole, images, 5))
        results += compare("decode", f"64 KiB of {name}", ours, base, rounds)
    return results


def bench(options: Options) -> list[Result]:
    """The block the targets are given for; without ``quick`` also a full image."""
    rounds = options.rounds or (3 if options.quick else 7)
    return target_block(rounds) + ([] if options.quick else full_image(min(rounds, 5)))
