"""How simulated values move: sensors drift, counters count, bits toggle, clocks run.

One ``Mover`` per PLC, with a random sequence of its own made from the seed and the PLC's id: the
same seed gives the same values, step by step, whatever the other PLCs do. Clock types follow the
clock.
"""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.s7.field import Field
from services.s7.types import S7Type, encode_value
from services.simulator.station import COUNTERS, DB, FLAGS, INPUTS, OUTPUTS, TIMERS, Station

AREAS = {"DB": DB, "M": FLAGS, "I": INPUTS, "Q": OUTPUTS, "T": TIMERS, "C": COUNTERS}
_RANGES = {
    "SINT": (0, 127), "USINT": (0, 255), "BYTE": (0, 255), "INT": (0, 32_767), "UINT": (0, 65_535),
    "WORD": (0, 65_535), "COUNTER": (0, 999), "DINT": (0, 2**31 - 1), "UDINT": (0, 2**32 - 1),
    "DWORD": (0, 2**32 - 1), "LINT": (0, 2**63 - 1), "ULINT": (0, 2**64 - 1),
    "LWORD": (0, 2**64 - 1),
}  # fmt: skip
_WORDS = ("PECA-A", "PECA-B", "SETUP", "LIMPEZA", "LOTE-17", "ÓLEO")
# At most so many values per PLC and step (0.8 µs each): 50 PLCs of large layouts stay cheap.
MAX_PER_STEP = 300

Make = Callable[[int], Any]
"""The value at a step (0, 1, 2 …)."""


@dataclass(slots=True)
class _Moving:
    area: int
    db: int
    byte: int
    bit: int
    type: S7Type
    encoding: str
    make: Make


@dataclass(slots=True)
class Mover:
    """Writes the values of one PLC's fields into its memory."""

    station: Station
    random: random.Random
    step: int = 0
    _moving: list[_Moving] = field(default_factory=list)
    _next: int = 0

    def add(self, f: Field, base_byte: int = 0, zone: datetime.tzinfo = datetime.UTC) -> None:
        """Takes a field whose record begins at ``base_byte``, and makes room for it. ``zone`` is
        whose time it shows, if it shows one.
        """
        area, byte = AREAS[f.area], f.byte + base_byte
        t = f.s7_type
        db = f.db if f.area == "DB" else 0
        self.station.area(area, db, byte + t.size_bytes)
        encoding = f.encoding or "latin-1"
        moving = _Moving(area, db, byte, f.bit, t, encoding, self._values(f, t, zone))
        self._moving.append(moving)
        self._write(moving)

    def advance(self) -> None:
        """One step: every value moves, or as many as a step may cost."""
        self.step += 1
        count = min(len(self._moving), MAX_PER_STEP)
        for _ in range(count):
            self._write(self._moving[self._next])
            self._next = (self._next + 1) % len(self._moving)

    def _write(self, m: _Moving) -> None:
        memory = self.station.memory[m.area, m.db]
        value = m.make(self.step)
        if m.type.base == "BOOL" and not m.type.dims:  # its neighbours share the byte
            mask = 1 << m.bit
            memory[m.byte] = memory[m.byte] | mask if value else memory[m.byte] & ~mask
            return
        raw = encode_value(m.type, value, m.bit, m.encoding)
        memory[m.byte : m.byte + len(raw)] = raw

    def _values(self, f: Field, t: S7Type, zone: datetime.tzinfo) -> Make:
        if not t.dims:
            return self._scalar(f, t, zone)
        makes = [self._scalar(f, t, zone) for _ in range(math.prod(t.counts))]

        def array(step: int) -> Any:
            flat: list[Any] = [make(step) for make in makes]
            for count in reversed(t.counts[1:]):
                flat = [flat[i : i + count] for i in range(0, len(flat), count)]
            return flat

        return array

    def _scalar(self, f: Field, t: S7Type, zone: datetime.tzinfo) -> Make:
        """What a value of this type does. The random numbers are drawn here, not per step, so that
        a value depends on its step alone."""
        draw = self.random
        base = t.base
        if base == "BOOL":
            period, phase = draw.randint(10, 120), draw.randrange(120)
            return lambda step: (step + phase) // period % 2 == 0
        if base in ("REAL", "LREAL"):
            return self._sensor(f)
        if base in _RANGES:
            low, high = _RANGES[base]
            start, every = draw.randint(0, min(high, 5_000) // 2), draw.randint(2, 20)
            return lambda step: low + (start + step // every) % (high - low + 1)
        if base in ("TIME", "S5TIME", "TIMER", "LTIME"):
            unit = 1_000_000 if base == "LTIME" else 1
            start, size = draw.randrange(100), draw.randint(100, 900)
            return lambda step: (start + step) % size * 10 * unit
        if base in ("STRING", "WSTRING"):
            offset, every = draw.randrange(len(_WORDS)), draw.randint(40, 200)
            words = [w.encode("ascii", "ignore").decode()[: t.length] for w in _WORDS]
            if base == "WSTRING":
                words = [w[: t.length] for w in _WORDS]
            return lambda step: words[(offset + step // every) % len(words)]
        if base in ("CHAR", "WCHAR"):
            offset = draw.randrange(26)
            return lambda step: chr(65 + (offset + step // 10) % 26)
        return _clock(base, zone)

    def _sensor(self, f: Field) -> Make:
        """A slow wave with a ripple, in published units: a temperature about 60, else 10 to 100."""
        draw = self.random
        centre = 60.0 if "C" in f.unit else round(draw.uniform(10, 100), 1)
        swing = centre * draw.uniform(0.05, 0.3)
        slow, fast = draw.uniform(300, 900), draw.uniform(7, 31)
        phase = draw.uniform(0, math.tau)
        factor, bias = f.scale or (1.0, 0.0)

        def sensor(step: int) -> float:
            wave = math.sin(math.tau * step / slow + phase)
            ripple = 0.05 * math.sin(math.tau * step / fast)
            return round((centre + swing * (wave + ripple) - bias) / factor, 2)

        return sensor


def _clock(base: str, zone: datetime.tzinfo) -> Make:
    def now(_step: int) -> str:
        moment = datetime.datetime.now(zone).replace(microsecond=0, tzinfo=None)
        if base == "DATE":
            return moment.date().isoformat()
        if base in ("TOD", "LTOD"):
            return moment.time().isoformat()
        return moment.isoformat()

    return now
