"""What is asked for and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.uint8]

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

GOOD, UNCERTAIN, BAD = 0, 1, 2
QUALITIES = ("good", "uncertain", "bad")


class Stream(NamedTuple):
    """The messages of one record."""

    locatario: str
    plc: str
    group: str
    machine: str
    """ "" where nothing repeats."""


@dataclass(frozen=True, slots=True)
class Series:
    """One field of a stream. Elements of arrays are ``name.0`` …, as for databases."""

    locatario: str
    plc: str
    group: str
    machine: str
    field: str

    @property
    def stream(self) -> Stream:
        """Whose field it is."""
        return Stream(self.locatario, self.plc, self.group, self.machine)


@dataclass(slots=True)
class SeriesInfo:
    """A series that has something."""

    series: Series
    kind: Literal["number", "bool", "counter", "text"]
    type: str
    """As configured (``REAL``); "" where the configuration does not know it any more."""
    unit: str
    first_ms: int
    last_ms: int
    """Of its stream; the first to the hour."""


@dataclass(slots=True)
class Raw:
    """Messages of a series in order of time, as they were delivered."""

    series: Series
    ts_ms: Ints
    values: NDArray[Any]
    """float64, int64, bool or object; of what is absent 0, False or None: ``quality`` says so."""
    quality: Codes
    """0 good, 1 uncertain, 2 bad: absent."""
    reasons: list[str]
    """Why a value is not good, per message; "" where it is."""
    joined: Bools
    """False: the PLC's sequence has a hole since the message before."""
    cut: bool = False
    """There were more than asked for: the first ones are here."""


@dataclass(slots=True)
class Rolled:
    """Roll-ups of a series, a bucket each; NaN where there is none. What each means:
    services/history/rollup.py. Of text there is ``count``, ``known_ms`` and ``last``.
    """

    series: Series
    kind: str
    step_ms: int
    begin_ms: Ints
    count: Ints
    mean: Floats
    low: Floats
    high: Floats
    last: NDArray[Any]
    """float64, of text object."""
    known_ms: Ints
    weighted: Floats
    """Time-weighted mean over the known time; of a BOOL its duty."""
    increase: Floats
    edges: Ints


@dataclass(slots=True)
class Unknown:
    """A time of which a stream's values are not known."""

    begin_ms: int
    end_ms: int
    why: str
    """``gap`` (messages are missing), ``silent`` (none came for longer than values hold), or the
    reason of the message (``plc_offline``, ``cpu_stop``, ``uncertain``, ``bad``).
    """


@dataclass(slots=True)
class Gap:
    """A gap message (CONTRACT §4)."""

    locatario: str
    plc: str
    from_ms: int | None
    to_ms: int | None
    message: dict[str, Any] = field(default_factory=dict)
