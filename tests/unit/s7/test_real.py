"""REALs in their shortest form: plain Python, compiled, and one by one give the same."""

from __future__ import annotations

import math
import random
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.s7 import real
from services.s7.real import Reals, shorten, shorten_fresh
from services.s7.types import shortest
from tests.kit.common import ROOT


def reference(raw: int) -> float | None:
    value = struct.unpack(">f", raw.to_bytes(4))[0]
    return shortest(value) if math.isfinite(value) else None


def unpacked(raws: list[int]) -> list[float | None]:
    """By the decoder that a reader uses here, from an image with gaps."""
    image = b"".join(b"--" + raw.to_bytes(4) for raw in raws)
    return Reals([2 + 6 * i for i in range(len(raws))]).unpack(image)


def agree(raws: list[int]) -> None:
    """To the letter: 0.0 and -0.0 are equal, but not the same."""
    wanted = repr([reference(raw) for raw in raws])
    assert repr(shorten_fresh(raws)) == wanted
    assert repr(unpacked(raws)) == wanted


def test_the_compiled_decoder_is_tested_here() -> None:
    assert real.IS_COMPILED, "deploy/test.sh builds it: is gcc here?"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60))
def test_all_ways_agree(raws: list[int]) -> None:
    agree(raws)
    assert shorten(raws) == [reference(raw) for raw in raws]


def test_near_every_power_of_two_and_ten() -> None:
    floats = [2.0**e for e in range(-149, 128)] + [10.0**e for e in range(-44, 39)]
    bits = [int.from_bytes(struct.pack(">f", v)) for v in floats]
    agree([b + d | sign for b in bits for d in (-2, -1, 0, 1, 2) for sign in (0, 1 << 31) if b > 1])


def test_zeros_and_what_is_no_number() -> None:
    agree([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 1, 0x7F7FFFFF])


def test_many_of_every_exponent() -> None:
    draw = random.Random(7)
    agree([draw.getrandbits(23) | e << 23 | draw.getrandbits(1) << 31
           for e in range(256) for _ in range(40)])  # fmt: skip


@pytest.mark.parametrize("size", [0, 3, 7])
def test_a_short_image_is_refused(size: int) -> None:
    with pytest.raises((ValueError, struct.error)):
        Reals([4]).unpack(bytes(size))


def test_without_the_compiled_part_all_goes_on() -> None:
    code = (
        "import sys; sys.modules['services.s7._native'] = None\n"
        "from services.s7 import real\n"
        "assert not real.IS_COMPILED\n"
        "print(real.Reals([0, 6]).unpack(bytes.fromhex('3df5c28f0000c2c80000')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[0.12, -100.0]", "")


def test_the_memo_is_bounded_and_right_when_it_turns_over() -> None:
    r = random.Random(3)
    for _ in range(12):
        raws = [int.from_bytes(struct.pack(">f", r.uniform(-1e3, 1e3))) for _ in range(3_000)]
        assert shorten(raws) == shorten_fresh(raws)
        mixed = raws[:2_000] + [raw ^ 1 for raw in raws[2_000:]]
        assert shorten(mixed) == shorten_fresh(mixed)
        assert len(real._SHORTENED) <= real._SHORTENED_MAX
    many = [0x3F800000 + i for i in range(real._SHORTENED_MAX + 5)]
    assert shorten(many) == shorten_fresh(many)
    assert len(real._SHORTENED) <= real._SHORTENED_MAX
