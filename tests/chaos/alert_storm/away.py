"""The broker is away for an hour: the box's alarms come on time all the same, every one of them.

A whole box with simulated PLCs whose BOOLs turn by themselves. What should have been told is worked
out afterwards from the messages that waited in the outbox meanwhile.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.kit.box import Box
from tests.kit.common import until
from tests.kit.http_sink import Answer, HttpSink, Post

Figures = list[tuple[str, str]]
PLCS = 5
BOOLS = ("pecas_ruim", "pecas_boas", "maquina_ligada")
ON_TIME_MS = 5_000
Told = tuple[str, str, str, int]
"""PLC, rule, state, time of the event."""


def expected(messages: Iterable[dict[str, Any]]) -> Iterator[Told]:
    """What one PLC's messages, in order, must have told. What was not read well, where the machine
    is too busy for PLC and reader, neither begins nor ends anything.
    """
    before = dict.fromkeys(BOOLS, False)
    for message in messages:
        if message["quality"] != "good":
            continue
        for name in BOOLS:
            now = bool(message["values"].get(name, before[name]))
            if now != before[name]:
                state = "disparando" if now else "resfriando"
                yield message["plc_id"], name.replace("_", "-"), state, message["ts"]
            before[name] = now


def run(seconds: float) -> Figures:
    """For so long."""
    told: list[tuple[Told, float]] = []

    def taken(post: Post) -> Answer:
        n = json.loads(post.body)
        which = n["plc_id"], n["rule"], n["to"], n["ts"]
        told.append((which, time.time() * 1e3 - n["ts"]))
        return 204, {}, b""

    with HttpSink() as sink:
        sink.answer = taken
        alerts = {
            "receivers": [{"name": "fone", "type": "webhook", "url": sink.url}],
            "rules": [
                {"name": name.replace("_", "-"), "type": "threshold", "above": 0.5,
                 "where": {"plc": "*", "field": name}}
                for name in BOOLS
            ],
        }  # fmt: skip
        with Box(PLCS, alerts=alerts) as box:
            plcs = [entry["id"] for entry in box.config["plcs"]]
            for plc in plcs:
                box.wait_for_messages(plc, 10)
            box.stop_broker()
            gone_ms = time.time() * 1e3
            time.sleep(seconds)
            back_ms = time.time() * 1e3
            box.start_broker()

            def arrived() -> bool:
                return all(box.subscriber.data(p)[-1]["ts"] > back_ms + 5_000 for p in plcs)

            until(arrived, 120 + seconds / 10, box.site.logs)
            of = {
                plc: sorted(box.subscriber.data(plc), key=lambda m: (m["epoch"], m["seq"]))
                for plc in plcs
            }
    for plc, found in of.items():
        seqs = {m["seq"] for m in found}
        lost = max(seqs) - min(seqs) + 1 - len(seqs)
        assert not lost, f"{plc}: {lost} messages have not come, so nothing can be judged"
    wanted = Counter(e for found in of.values() for e in expected(found) if e[3] <= back_ms)
    kinds = Counter(m["quality"] for found in of.values() for m in found)
    came = Counter(which for which, _ in told if which[3] <= back_ms)
    late_ms = sorted(lag for which, lag in told if gone_ms <= which[3] <= back_ms)
    missed, extra = wanted - came, came - wanted
    for what, some in (("never told", missed), ("told without cause", extra)):
        near = _near(next(iter(some)), of, came) if some else ""
        assert not some, f"{what}: {some.total()} of {wanted.total()}, {list(some)[:5]}\n{near}"
    assert late_ms[-1] < ON_TIME_MS, f"told after {late_ms[-1]:.0f} ms"
    p99_ms = late_ms[int(len(late_ms) * 0.99)]
    return [
        ("broker away", f"{seconds / 60:g} minutes"),
        ("messages, by quality", ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())),
        ("begins and ends of alarms meanwhile", f"{len(late_ms):,}"),
        ("never told, told without cause", "0, 0"),
        ("told after (median, p99, greatest)",
         f"{statistics.median(late_ms):.0f}, {p99_ms:.0f}, {late_ms[-1]:.0f} ms"),
    ]  # fmt: skip


def _near(event: Told, of: dict[str, list[dict[str, Any]]], came: Counter[Told]) -> str:
    """What lies within 2 s of an event: the messages of its PLC, and what was told."""
    plc, rule, _, ts = event
    name = rule.replace("-", "_")
    keys = ("ts", "epoch", "seq", "quality", "latency_ms")
    lines = [
        f"{ ({k: m.get(k) for k in keys}) } {name}={m['values'].get(name)} bad={m.get('bad')}"
        for m in of[plc]
        if abs(m["ts"] - ts) < 2_000
    ]
    told = [t for t in came if t[:2] == (plc, rule) and abs(t[3] - ts) < 2_000]
    return "\n".join([*lines, f"told: {told}"])
