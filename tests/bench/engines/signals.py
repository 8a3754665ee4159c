"""The simulator's signals as a site's PLC has them (``tests/bench/site.py``): 100 REALs (a slow
wave with a ripple, rounded to 0.01), 60 INTs that count up every 2 to 20 steps, 40 BOOLs that
change every 10 to 120 steps. A step is one tick of the simulator.

Each PLC draws its own. They are read from the simulated CPU's memory, so they are what a reader
reads; 150 µs a step of 200 values.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from services.s7.field import Field
from services.simulator.motion import AREAS, Mover
from services.simulator.station import Station
from tests.bench.site import BOOLS, INTS, REALS

DB = 500


@dataclass(frozen=True)
class Columns:
    """Values of consecutive steps, a row each."""

    ts_ms: np.ndarray
    reals: np.ndarray
    """float32."""
    ints: np.ndarray
    """int16."""
    bools: np.ndarray
    """uint8, 0 or 1."""

    def part(self, begin: int, end: int) -> Columns:
        """Some of the rows, copied: nothing of the rest is held."""
        return Columns(*(a[begin:end].copy() for a in self.arrays()))

    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.ts_ms, self.reals, self.ints, self.bools

    def named(self) -> list[tuple[str, np.ndarray]]:
        """(field, its values) of each."""
        return [
            (f"{letter}{i}", matrix[:, i])
            for letter, matrix in (("r", self.reals), ("i", self.ints), ("b", self.bools))
            for i in range(matrix.shape[1])
        ]

    @property
    def values(self) -> int:
        return self.reals.size + self.ints.size + self.bools.size


def columns(
    steps: int, begin_ms: int, step_ms: int, share: float = 1.0, plc: str = "prensa-01"
) -> Columns:
    """``steps`` rows; ``share`` of the fields of each kind."""
    reals, ints, bools = (max(1, round(share * n)) for n in (REALS, INTS, BOOLS))
    station = Station(plc)
    mover = Mover(station, random.Random(f"1/{plc}"))
    ints_at = 4 * reals
    bools_at = ints_at + 2 * ints
    for i in range(reals):
        mover.add(Field(f"r{i}", "REAL", db=DB, byte=4 * i))
    for i in range(ints):
        mover.add(Field(f"i{i}", "INT", db=DB, byte=ints_at + 2 * i))
    for i in range(bools):
        mover.add(Field(f"b{i}", "BOOL", db=DB, byte=bools_at + i // 8, bit=i % 8))
    memory = station.memory[AREAS["DB"], DB]
    raw = np.empty((steps, len(memory)), np.uint8)
    for n in range(steps):
        raw[n] = np.frombuffer(memory, np.uint8)
        mover.advance()
    bits = np.unpackbits(raw[:, bools_at:], axis=1, bitorder="little")
    return Columns(
        begin_ms + step_ms * np.arange(steps, dtype=np.int64),
        np.ascontiguousarray(raw[:, :ints_at]).view(">f4").astype(np.float32),
        np.ascontiguousarray(raw[:, ints_at:bools_at]).view(">i2").astype(np.int16),
        np.ascontiguousarray(bits[:, :bools]),
    )
