"""What is asked of each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from tests.bench.engines.signals import Columns

Buckets = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean, least and largest of each bucket that holds something."""


class Engine(Protocol):
    """Opens its folder, whatever a death left there."""

    def __init__(self, folder: Path) -> None: ...

    def take(self, plc: str, rows: Columns, block_rows: int) -> None:
        """One commit: ``rows`` in blocks of ``block_rows``, as so many PLCs would bring them. Kept,
        as well as the engine can, when this returns. Raises OSError, or the engine's own, where it
        is not kept.
        """

    def take_minutes(self, plc: str, field: str, ts_ms: np.ndarray, of: Buckets) -> None:
        """Roll-ups of one field."""

    def settle(self) -> None:
        """What can be made smaller is."""

    def day(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        """From raw values."""

    def month(self, plc: str, field: str, begin_ms: int, end_ms: int, buckets: int) -> Buckets:
        """From roll-ups."""

    def held(self, plc: str) -> np.ndarray:
        """ts_ms of every row that can be read, as often as it can."""

    def pid(self) -> int:
        """Of a process of its own; 0 where there is none."""
