"""The two clocks: wall time for messages, ``time.monotonic`` for every schedule."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Unix time in ms, UTC. It may step; nothing is scheduled by it."""
    return time.time_ns() // 1_000_000
