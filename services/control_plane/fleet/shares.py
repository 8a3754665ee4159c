"""What each box of a tenant may send, kept for a moment: every box asks once a minute, and the sum
runs over the configurations of all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# A change by this process is seen at once, one by another process at the database within that.
KEEP_S = 10.0


@dataclass(frozen=True, slots=True)
class Points:
    """Points a minute: the plan's number, and those of each box's newest configuration."""

    limit: int
    by_site: Mapping[str, int]


class Shares:
    """By tenant."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, Points]] = {}
        self._lock = threading.Lock()

    def of(self, tenant: str, look: Callable[[], Points]) -> Points:
        """As ``look`` finds it, or found it a moment ago."""
        now_s = time.monotonic()
        with self._lock:
            until_s, points = self._kept.get(tenant, (0.0, None))
        if points is None or until_s <= now_s:
            points = look()
            with self._lock:
                self._kept[tenant] = now_s + KEEP_S, points
        return points

    def forget(self) -> None:
        """Something was changed."""
        with self._lock:
            self._kept.clear()
