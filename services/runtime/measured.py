"""What a measured value says when it is compared or counted, and how long: alerts, history and OEE
ask the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

# For how long a value is held where nothing else is known: `max_silence`'s default, and slack for a
# scan and a slow line.
HOLD_MS = 65_000
# What a fall of a counter by more than half its range means: it passed its end (bits of S7 types).
COUNTER_BITS = {
    "SINT": 8, "USINT": 8, "BYTE": 8, "INT": 16, "UINT": 16, "WORD": 16,
    "DINT": 32, "UDINT": 32, "DWORD": 32, "LINT": 64, "ULINT": 64, "LWORD": 64,
}  # fmt: skip


def number(value: Any) -> float | None:
    """A value to compare: 64-bit integers come as text; None for what is no finite number. An int
    has at most 64 bits: it may become part of the state, which can keep no longer one.
    """
    try:
        if isinstance(value, str):
            value = int(value) if value.lstrip("-").isdigit() else float(value)
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return value if -(2**63) <= value < 2**64 else float(value)
    except (ValueError, OverflowError):
        return None


def comparison(op: str, limit: Any) -> Callable[[Any], bool | None]:
    """A function value -> whether it is beyond the limit, None where it cannot be compared."""
    if op == "equal":
        wanted = tuple(limit)

        def equal(value: Any) -> bool | None:
            if value in wanted:
                return True
            if isinstance(value, str) and any(not isinstance(w, str) for w in wanted):
                return number(value) in wanted
            return False

        return equal
    low, high = {
        "above": (-math.inf, limit), "below": (limit, math.inf), "outside": limit
    }[op]  # fmt: skip

    def beyond(value: Any) -> bool | None:
        if type(value) is not float and (value := number(value)) is None:
            return None
        if low <= value <= high:
            return False
        return True if value == value else None  # NaN

    return beyond


def increase(last: float, value: float, counter: str) -> float:
    """By how much a counter rose: a fall is a wrap of its type, or else a restart at zero."""
    if value >= last:
        return value - last
    bits = COUNTER_BITS.get(counter)
    if bits is not None:
        wrapped = (value - last) % float(2**bits)
        if wrapped < 2 ** (bits - 1):
            return wrapped
    return max(value, 0.0)
