"""A history of days, written by the historian's own parts as fast as they can."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.historian.compact import Compactor
from services.historian.known import Known
from services.historian.recent import Block, Commit, Recent
from services.historian.shapes import HOUR_MS, Stream

TEMPERATURE, RUNNING, PARTS = "temperatura", "ligada", "pecas"
FIELDS = [
    {"name": TEMPERATURE, "type": "REAL", "unit": "°C", "counts": False, "scaled": False},
    {"name": RUNNING, "type": "BOOL", "unit": "", "counts": False, "scaled": False},
    {"name": PARTS, "type": "DINT", "unit": "", "counts": True, "scaled": False},
]


def values_at(ts_ms: int) -> dict[str, Any]:
    """A day's swing and a minute's, a machine that runs two hours of three, parts that it makes."""
    swing = 20 * math.sin(ts_ms / 13_750_987) + 3 * math.sin(ts_ms / 9_549)
    running = ts_ms // HOUR_MS % 3 != 2
    return {TEMPERATURE: round(60 + swing, 2), RUNNING: running, PARTS: ts_ms // 4_000 % 100_000}


def fill(
    folder: Path,
    plc: str,
    begin_ms: int,
    hours: int,
    every_ms: int,
    hole: Callable[[int], bool] = lambda ts_ms: False,
    group: str = "avulsos",
) -> int:
    """Writes whole hours from the one of ``begin_ms`` on into ``folder`` (``<state>/history``);
    where ``hole`` says so messages are missing. Returns how many rows.
    """
    stream = Stream("acme", plc, group, "")
    known = Known(
        [{"locatario": "acme", "plc": plc, "group": group, "hold_ms": 65_000, "fields": FIELDS}]
    )
    recent = Recent(folder, lambda path, why: pytest.fail(f"{path}: {why}"))
    known.save(folder)
    compactor = Compactor(folder, recent, known, lambda *said: pytest.fail(str(said)))
    waiting: list[int] = []

    def condense(hour_ms: int) -> None:
        for _ in compactor.condense(hour_ms):
            pass

    first_ms, seq, kept = begin_ms - begin_ms % HOUR_MS, 0, 0
    for hour_ms in range(first_ms, first_ms + hours * HOUR_MS, HOUR_MS):
        block = Block(stream, hour_ms)
        for ts_ms in range(hour_ms, hour_ms + HOUR_MS, every_ms):
            seq += 1
            if hole(ts_ms):
                continue
            body = {
                "v": 1, "locatario_id": "acme", "plc_id": plc, "group": group, "ts": ts_ms,
                "epoch": first_ms, "seq": seq, "quality": "good", "values": values_at(ts_ms),
            }  # fmt: skip
            block.ts_ms.append(ts_ms)
            block.identities.append((first_ms, seq))
            block.joined.append(kept == seq - 1 > 0)
            kept = seq
            block.bodies.append(orjson.dumps(body))
        if block.bodies:
            recent.save(Commit(b"", [block], [], []))
        # As in service: what the next hour begins with says how long the last value held.
        waiting.append(hour_ms)
        if len(waiting) > 1:
            condense(waiting.pop(0))
    condense(waiting.pop())
    recent.close()
    return seq
