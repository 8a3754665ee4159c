"""The last 15 minutes of the few fields that somebody looks at.

Not of all: 50,000 tags would cost 170 MB. A field is kept from when a viewer opens it (or always,
where the configuration names it), and forgotten when nobody has asked for WINDOW_S.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any

WINDOW_S = 900
# A point at most once a second: 900 points of 16 bytes. 200 fields take 3 MB.
MIN_STEP_MS = 1_000
MAX_FIELDS = 200

Field = tuple[str, str, str, str]
"""(plc, group, machine or "", field name)"""


class _Trend:
    __slots__ = ("asked_s", "pinned", "ts_ms", "values")

    def __init__(self, asked_s: float, pinned: bool) -> None:
        self.ts_ms = array("q")
        self.values = array("d")
        self.asked_s = asked_s
        self.pinned = pinned


class Trends:
    """Points of the fields asked for; ``clock`` is time.monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._trends: dict[Field, _Trend] = {}
        self._fields_of: dict[tuple[str, str, str], set[str]] = {}

    def pin(self, fields: Iterable[Field]) -> None:
        """These, and no others, are kept whether anybody asks or not."""
        wanted = set(fields)
        for field, trend in self._trends.items():
            trend.pinned = field in wanted
        for field in wanted - self._trends.keys():
            self._add(field, pinned=True)

    def wants(self, message: tuple[str, str, str]) -> bool:
        """Whether any field of (plc, group, machine) is kept: only then is a body decoded."""
        return message in self._fields_of

    def add_point(self, message: tuple[str, str, str], ts_ms: int, values: dict[str, Any]) -> None:
        """Takes the numbers (and booleans) of one message; ``ts_ms`` Unix ms."""
        for name in self._fields_of.get(message, ()):
            value = values.get(name)
            if not isinstance(value, int | float):
                continue
            trend = self._trends[(*message, name)]
            if trend.ts_ms and ts_ms - trend.ts_ms[-1] < MIN_STEP_MS:
                continue
            trend.ts_ms.append(ts_ms)
            trend.values.append(float(value))
            # In slices: moving 900 points on each new one is for nothing.
            if len(trend.ts_ms) % 64 == 0:
                self._trim(trend, ts_ms - WINDOW_S * 1_000)

    @staticmethod
    def _trim(trend: _Trend, oldest_ms: int) -> None:
        old = 0
        while old < len(trend.ts_ms) and trend.ts_ms[old] < oldest_ms:
            old += 1
        del trend.ts_ms[:old], trend.values[:old]

    def get(self, field: Field) -> tuple[list[int], list[float]]:
        """(Unix ms, values) so far; from now on the field is kept."""
        trend = self._trends.get(field)
        if trend is None:
            self._expire()
            trend = self._add(field, pinned=False)
        trend.asked_s = self._clock()
        return trend.ts_ms.tolist(), trend.values.tolist()

    def _add(self, field: Field, pinned: bool) -> _Trend:
        trend = self._trends[field] = _Trend(self._clock(), pinned)
        self._fields_of.setdefault(field[:3], set()).add(field[3])
        return trend

    def _expire(self) -> None:
        """Makes room: what nobody asked for lately, then the longest unasked."""
        loose = sorted(
            (trend.asked_s, field) for field, trend in self._trends.items() if not trend.pinned
        )
        now_s = self._clock()
        excess = len(self._trends) - MAX_FIELDS + 1
        for n, (asked_s, field) in enumerate(loose):
            if n >= excess and now_s - asked_s <= WINDOW_S:
                break
            del self._trends[field]
            names = self._fields_of[field[:3]]
            names.discard(field[3])
            if not names:
                del self._fields_of[field[:3]]
