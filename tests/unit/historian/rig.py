"""A history without a process: messages of one PLC are kept, moved on and asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from services.historian.compact import Compactor
from services.historian.known import Known
from services.historian.reading import History
from services.historian.recent import Block, Commit, Recent, hour_of
from services.historian.sequences import Sequences
from services.historian.shapes import HOUR_MS, Series, Stream

H0 = 1_764_000_000_000 // HOUR_MS * HOUR_MS
EPOCH = 1_763_999_000_123
HOLD_MS = 65_000
STREAMS = [Stream("acme", "p1", group, machine) for group in ("g", "h") for machine in ("", "m01")]
GROUPS = [
    {
        "locatario": "acme",
        "plc": "p1",
        "group": group,
        "hold_ms": HOLD_MS,
        "fields": [
            {"name": "ciclos", "type": "INT", "unit": "", "counts": True, "scaled": False},
            {"name": "a", "type": "REAL", "unit": "°C", "counts": False, "scaled": False},
        ],
    }
    for group in ("g", "h")
]


def message(
    stream: Stream, ts: int, seq: int, values: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """As a reader makes it."""
    machine = {"machine": stream.machine} if stream.machine else {}
    return {
        "v": 1, "site": "planta", "locatario_id": stream.locatario, "plc_id": stream.plc,
        "ip": "192.168.0.10", "db": 500, "group": stream.group, "measurement": "s7_db1", **machine,
        "ts": ts, "epoch": EPOCH, "seq": seq, "quality": "good", "latency_ms": 2 + seq % 50 / 100,
        "values": values, **more,
    }  # fmt: skip


class Kept:
    """The writer's side, and a reader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[tuple[str, str, str]] = []
        self.recent = Recent(folder, lambda path, why: self.said.append(("error", "damaged", why)))
        known = Known(GROUPS)
        known.save(folder)
        self.compactor = Compactor(folder, self.recent, known, lambda *said: self.said.append(said))
        self.sequences = Sequences()
        self.sequences.restore(self.recent.plcs(), self.recent.streams())
        self.history = History(folder)

    def keep(
        self, messages: list[dict[str, Any]], gaps: list[dict[str, Any]] | None = None
    ) -> None:
        """One commit."""
        blocks: dict[tuple[Stream, int], Block] = {}
        for m in messages:
            stream = Stream(m["locatario_id"], m["plc_id"], m["group"], m.get("machine", ""))
            hour_ms = hour_of(m["ts"])
            block = blocks.setdefault((stream, hour_ms), Block(stream, hour_ms))
            block.ts_ms.append(m["ts"])
            block.identities.append((m["epoch"], m["seq"]))
            block.joined.append(self.sequences.add(stream, m["epoch"], m["seq"]))
            block.bodies.append(orjson.dumps(m))
        told = [("acme", "p1", g["from_ts"], g["to_ts"], orjson.dumps(g)) for g in gaps or []]
        self.recent.save(Commit(b"at", list(blocks.values()), self.sequences.dump(), told))

    def flush(self) -> None:
        """Moves everything to its hour's file."""
        for stream, hour_ms, _, _ in list(self.recent.held()):
            for _ in self.compactor.flush(stream, hour_ms):
                pass

    def condense(self, *hours: int) -> None:
        """Condenses hours, counted from H0."""
        for hour in hours:
            for _ in self.compactor.condense(H0 + hour * HOUR_MS):
                pass

    def messages(self, begin_ms: int = H0 - HOUR_MS, end_ms: int = H0 + 9 * HOUR_MS) -> list[Any]:
        """What is delivered again."""
        return [m for _, m in self.history.messages("p1", begin_ms, end_ms)]

    def close(self) -> None:
        """Closes the files."""
        self.history.close()
        self.recent.close()


@contextmanager
def kept(folder: Path) -> Iterator[Kept]:
    """One, closed at the end."""
    it = Kept(folder)
    try:
        yield it
    finally:
        it.close()


def plant(draw: random.Random, hours: float, step_ms: int = 1_000) -> list[dict[str, Any]]:
    """Messages of all streams, with holes, silences, bad ones, wraps and resets."""
    ts, seq, count, made = H0 - HOUR_MS // 4, 0, 32_000, []
    while ts < H0 + hours * HOUR_MS:
        ts += draw.choice([step_ms // 2, step_ms, step_ms, step_ms * 2])
        if draw.random() < 0.002:
            ts += draw.randrange(200_000)
        seq += 1 if draw.random() < 0.995 else draw.randrange(2, 6)
        count += draw.randrange(3)
        count = 0 if draw.random() < 0.001 else count - 65_536 if count > 32_767 else count
        values: dict[str, Any] = {
            "a": round(60 + 10 * draw.random(), 2), "ciclos": count, "ligada": draw.random() < 0.5,
            "lote": draw.choice(["L1", "L2", ""]), "eixos": [draw.randrange(9), 0.5],
            "grande": str(2**60 + count),
        }  # fmt: skip
        quality = draw.choices(["good", "uncertain", "bad"], [300, 1, 1])[0]
        more: dict[str, Any] = {} if quality == "good" else {"bad": {"*": "cpu_stop"}}
        if quality == "bad":
            values = {}
        elif draw.random() < 0.02:
            del values["a"]
            more = {"bad": {**more.get("bad", {}), "a": "nan"}}
        stream = draw.choice(STREAMS)
        made.append(message(stream, ts, seq, values, **{**more, "quality": quality}))
    return made


def all_series(history: History) -> list[Series]:
    """Every one."""
    return [info.series for info in history.series()]
