"""What came to a subscriber, of a thousand boxes: counted, in order or not, how old; and whether it
is all that the boxes say the broker has acknowledged.

Only numbers are kept, as runs, so hours of messages fit.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from services.consumer.seen import add

Runs = list[list[int]]
"""[[first seq, last seq], …]"""


@dataclass(slots=True)
class Stream:
    """One PLC in one epoch."""

    newest: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    """By lane: whether it is replayed."""
    came: Runs = field(default_factory=list)
    told: Runs = field(default_factory=list)
    """In gap messages."""


class Arrivals:
    """Take every message; ``points``: also what a database would keep of it."""

    def __init__(self, points: bool = False) -> None:
        self.streams: dict[tuple[str, int], Stream] = {}
        self.messages = self.replayed = self.repeats = self.disordered = 0
        self.wrong: list[str] = []
        self.ages_ms: Counter[int] = Counter()
        """Of live messages since the last ``report``."""
        self.points: dict[str, tuple[int, int]] | None = {} if points else None
        """"topic ts" -> (checksum of its values, when it came)."""

    def take(self, topic: str, payload: bytes, now_ms: int) -> None:
        """One message of a data or gap topic."""
        _, tenant, plc, *kind = topic.split("/")
        try:
            m: dict[str, Any] = orjson.loads(payload)
            if (m["locatario_id"], m["plc_id"]) != (tenant, plc):
                self.wrong.append(f"{topic} holds a message of {m['locatario_id']}/{m['plc_id']}")
            key = (f"plc/{tenant}/{plc}", m["epoch"])
            stream = self.streams.get(key)
            if stream is None:
                stream = self.streams[key] = Stream()
            if kind == ["gap"]:
                add(stream.told, m["first_seq"], m["last_seq"])
                return
            seq, replay = m["seq"], m.get("replay", False)
            self._count(stream, seq, replay)
            if not replay:
                self.ages_ms[max(0, now_ms - m["ts"])] += 1
            if self.points is not None:
                checksum = zlib.crc32(orjson.dumps(m["values"]))
                self.points[f"{topic} {m['ts']}"] = (checksum, now_ms)
        except (ValueError, KeyError, TypeError) as e:
            self.wrong.append(f"{topic}: {e!r} in {payload[:80]!r}")

    def _count(self, stream: Stream, seq: int, replay: bool) -> None:
        self.messages += 1
        self.replayed += replay
        is_new = add(stream.came, seq, seq)
        self.repeats += not is_new
        if seq > stream.newest[replay]:
            stream.newest[replay] = seq
        else:
            self.disordered += is_new

    def report(self) -> dict[str, Any]:
        """Counts since the beginning, ages since the last report."""
        ages, self.ages_ms = self.ages_ms, Counter()
        return {
            "messages": self.messages,
            "replayed": self.replayed,
            "repeats": self.repeats,
            "disordered": self.disordered,
            "wrong": self.wrong[:5],
            "streams": len(self.streams),
            "ages_ms": sorted(ages.items()),
        }

    def dump(self, file: Path) -> None:
        """For ``Verdict``, and for who compares points."""
        with file.open("w") as out:
            for (topic, epoch), s in self.streams.items():
                line = {"topic": topic, "epoch": epoch, "came": s.came, "told": s.told}
                out.write(json.dumps(line) + "\n")
            if self.points is not None:
                out.write(json.dumps({"points": self.points}) + "\n")


def percentile_ms(ages_ms: Iterable[tuple[int, int]], percent: float) -> int:
    """Of (age, how many) pairs, sorted."""
    pairs = list(ages_ms)
    left = sum(count for _, count in pairs) * percent / 100
    for age_ms, count in pairs:
        left -= count
        if left <= 0:
            return age_ms
    return pairs[-1][0] if pairs else 0


@dataclass(slots=True)
class Verdict:
    """The boxes' account against what came."""

    made: int = 0
    acknowledged: int = 0
    came: int = 0
    told: int = 0
    lost_messages: int = 0
    lost: list[str] = field(default_factory=list)
    """Of which PLC, and which numbers: acknowledged, and neither come nor told of."""


def judge(accounts: Iterable[Path], dumps: Iterable[Path]) -> Verdict:
    """``accounts``: files of ``account``; ``dumps``: of one subscriber, or of several that share a
    subscription.
    """
    came: dict[tuple[str, int], Runs] = {}
    both: dict[tuple[str, int], Runs] = {}
    verdict = Verdict()
    for file in dumps:
        for stream in map(orjson.loads, file.read_bytes().splitlines()):
            if "topic" not in stream:
                continue
            key = (stream["topic"], stream["epoch"])
            for first, last in stream["came"]:
                add(came.setdefault(key, []), first, last)
            for first, last in [*stream["came"], *stream["told"]]:
                add(both.setdefault(key, []), first, last)
            verdict.told += _size(stream["told"])
    for file in accounts:
        for plc in map(orjson.loads, file.read_bytes().splitlines()):
            topic = f"plc/{plc['locatario_id']}/{plc['plc_id']}"
            verdict.made += plc["made"]
            verdict.acknowledged += _size(plc["acknowledged"])
            key = (topic, plc["epoch"])
            verdict.came += _size(came.get(key, []))
            missing = _without(plc["acknowledged"], both.get(key, []))
            verdict.lost_messages += _size(missing)
            verdict.lost += [f"{topic} {first} to {last}" for first, last in missing]
    return verdict


def _size(runs: Runs) -> int:
    return sum(last - first + 1 for first, last in runs)


def _without(runs: Runs, there: Runs) -> Runs:
    """What of ``runs`` is not in ``there``."""
    left: Runs = []
    for first, last in runs:
        for begin, end in there:
            if first <= last and begin <= last and end >= first:
                if begin > first:
                    left.append([first, begin - 1])
                first = end + 1
        if first <= last:
            left.append([first, last])
    return left
