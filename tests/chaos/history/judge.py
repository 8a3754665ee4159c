"""Messages as plants have them, and the question whether the history holds each of them, once, as
it was, or tells of it in a gap.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from services.historian.reading import History, Series, Stream
from services.runtime.clock import now_ms

Identity = tuple[str, int, int]
"""(PLC, epoch, seq)."""
HOUR_MS = 3_600_000
# Messages begin so long ago and come to today: whole hours, and the end of two days.
SPAN_MS = 50 * HOUR_MS
_WORDS = ("PEÇA-A", "", "a/b", '"', "LOTE 17", "\N{OHM SIGN}")


class Plant:
    """Makes messages, and remembers them. ``step_ms``: how far a message is from the one before."""

    def __init__(self, draw: random.Random, plcs: list[str], step_ms: int) -> None:
        self._draw = draw
        self._step_ms = step_ms
        self._ts = dict.fromkeys(plcs, now_ms() - SPAN_MS)
        self._level = dict.fromkeys(plcs, 20.0)
        self._count = dict.fromkeys(plcs, 0)
        self.fed: dict[Identity, dict[str, Any]] = {}

    def members(self, plc: str) -> dict[str, Any]:
        """Of the next message of a PLC, without what the sender gives it."""
        draw = self._draw
        step_ms = draw.choice((0, 1, self._step_ms, self._step_ms, self._step_ms, -self._step_ms))
        ts = self._ts[plc] = min(self._ts[plc] + step_ms, now_ms())
        group = draw.choice(("rapido", "rapido", "lento", "a/b"))
        message: dict[str, Any] = {"v": 1, "site": "planta-sp", "locatario_id": "acme", "ts": ts,
                                   "ip": "192.168.0.10", "group": group}  # fmt: skip
        if group == "rapido":
            message |= {"db": 500, "measurement": "s7_db1", "machine": draw.choice(("m01", "m02"))}
        values, bad = self._values(plc, group), {}
        for name in list(values):
            if draw.random() < 0.02:
                bad[name] = draw.choice(("address_missing", "not_finite"))
                del values[name]
        quality = "bad" if bad else "good"
        if draw.random() < 0.02:
            quality, values, bad = "bad", {}, {"*": "plc_offline"}
        elif draw.random() < 0.02:
            quality, bad = "uncertain", {**bad, "*": "cpu_stop"}
        message |= {"quality": quality, "latency_ms": round(draw.uniform(0.5, 9), 2)}
        return message | {"values": values} | ({"bad": bad} if bad else {})

    def _values(self, plc: str, group: str) -> dict[str, Any]:
        draw = self._draw
        self._level[plc] = round(self._level[plc] + draw.gauss(0, 0.3), 2)
        self._count[plc] = (self._count[plc] + draw.randint(0, 3)) % 30_000
        if group == "a/b":
            return {"x": draw.choice((1, 1.5, True, "1", None, [1, 2.5], {"y": [True]}))}
        values: dict[str, Any] = {
            "temperatura": self._level[plc], "ciclos": self._count[plc],
            "ligada": draw.random() < 0.5, "lote": draw.choice(_WORDS),
        }  # fmt: skip
        if group == "lento":
            values |= {"grande": str(2**60 + draw.randint(0, 9)), "inteiro": 2**53 - 1,
                       "eixos": [round(draw.random(), 3) for _ in range(3)],
                       "motor/1": {"i": draw.random() * 1e-7, "n": -7}}  # fmt: skip
        return values

    def take(self, plc: str, body: bytes) -> bytes:
        """A message as it is sent."""
        message = orjson.loads(body)
        self.fed[plc, message["epoch"], message["seq"]] = message
        return body


@dataclass
class Held:
    """What the history has."""

    messages: dict[Identity, dict[str, Any]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    """What the reading has said of it."""

    def told(self, identity: Identity) -> bool:
        """Whether a gap names it."""
        plc, epoch, seq = identity
        return any(
            g["plc_id"] == plc and g["epoch"] == epoch and g["first_seq"] <= seq
            and (g["last_seq"] is None or seq <= g["last_seq"])
            for g in self.gaps
        )  # fmt: skip


def held(folder: Path, plant: Plant, plcs: list[str]) -> Held:
    """Reads all of it; each message is compared with the one that was fed."""
    found = Held()
    history = History(folder)
    try:
        for plc in plcs:
            for topic, message in history.messages(plc, now_ms() - 2 * SPAN_MS, now_ms() + HOUR_MS):
                if topic.endswith("/gap"):
                    found.gaps.append(message)
                    continue
                identity = (plc, message["epoch"], message["seq"])
                if topic != f"plc/acme/{plc}":
                    found.wrong.append(f"{identity} under {topic}")
                if identity in found.messages:
                    found.wrong.append(f"{identity} is there twice")
                fed = plant.fed.get(identity)
                if same(message, fed):
                    found.messages[identity] = message
                else:
                    found.wrong.append(f"{identity} is {differences(message, fed or {})}")
            found.damage += history.damage
    finally:
        history.close()
    return found


def stream_of(message: dict[str, Any]) -> Stream:
    """Where it belongs."""
    names = (message.get(k, "") for k in ("locatario_id", "plc_id", "group", "machine"))
    return Stream(*names)


def unknown(folder: Path, message: dict[str, Any]) -> bool:
    """Whether the history says that it does not know that time of the message's stream."""
    history, ts = History(folder), message["ts"]
    try:
        times = history.known(stream_of(message), ts - HOUR_MS, ts + HOUR_MS)
        return any(u.begin_ms <= ts <= u.end_ms for u in times)
    finally:
        history.close()


def differences(message: dict[str, Any], fed: dict[str, Any]) -> str:
    """Which members are others than they were."""
    names = sorted(message.keys() | fed.keys())
    return ", ".join(
        f"{n}: {message.get(n)!r} instead of {fed.get(n)!r}"
        for n in names
        if not same(message.get(n), fed.get(n))
    )


def same(one: Any, other: Any) -> bool:
    """Also of the same types: 1 is neither 1.0 nor True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check_rolled(folder: Path, found: Held) -> None:
    """By the hour each good value counts once, whatever roll-ups it has gone through."""
    wanted: dict[Series, Counter[int]] = {}
    for m in found.messages.values():
        if m["quality"] == "good" and "temperatura" in m["values"]:
            hours = wanted.setdefault(Series(*stream_of(m), "temperatura"), Counter())
            hours[m["ts"] // HOUR_MS * HOUR_MS] += 1
    history = History(folder)
    try:
        begin_ms = now_ms() // HOUR_MS * HOUR_MS - 2 * SPAN_MS
        rolled = history.rolled(list(wanted), begin_ms, now_ms() + HOUR_MS, HOUR_MS)
    finally:
        history.close()
    wrong = [
        (*r.series.stream, hour_ms, f"{count} instead of {wanted[r.series][hour_ms]}")
        for r in rolled
        for hour_ms, count in zip(r.begin_ms.tolist(), r.count.tolist(), strict=True)
        if count != wanted[r.series][hour_ms]
    ]
    assert not wrong, f"{len(wrong)} hours counted wrongly: {wrong[:5]}"


def check(found: Held, wanted: set[Identity]) -> None:
    """Nothing wrong, nothing twice, and all of ``wanted`` there or in a gap."""
    assert not found.wrong, f"{len(found.wrong)} wrong: {found.wrong[:3]}"
    missing = [i for i in wanted if i not in found.messages and not found.told(i)]
    assert not missing, f"{len(missing)} of {len(wanted)} missing: {sorted(missing)[:5]}"
