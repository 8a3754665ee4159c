"""Durations and sizes as people write them: ``500ms``, ``2s``, ``5m``; ``512MiB``."""

from __future__ import annotations

import re

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_PATTERN = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-zA-Z]+)\s*")


def duration_s(text: object) -> float:
    """Seconds in ``500ms``, ``2s``, ``5m``, ``14d``. Raises ValueError with the forms allowed."""
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _SECONDS:
        raise ValueError("a duration is a number and a unit: 500ms, 2s, 5m, 1h, 14d")
    return float(match[1]) * _SECONDS[match[2]]


def size_bytes(text: object) -> int:
    """Bytes in ``512MiB``. Raises ValueError with the forms allowed."""
    match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _BYTES:
        raise ValueError("a size is a number and a unit: 64KiB, 512MiB, 2GiB")
    return int(float(match[1]) * _BYTES[match[2]])
