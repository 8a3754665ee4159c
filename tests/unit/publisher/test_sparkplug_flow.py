"""What an edge node's connection numbers, marks as history and takes for arrived; no socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from tahutils.tahu.sparkplug_b_pb2 import Payload

from services.consumer.row import Row
from services.mqtt import packets as mqtt
from services.mqtt.flow import Outgoing
from services.publisher.sparkplug import flow as flow_module
from services.publisher.sparkplug.flow import NodeFlow
from services.publisher.sparkplug.node import Node
from tests.kit.sparkplug import plc

BORN_MS = 1_800_000_000_000


class Desk:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.settled: list[int] = []

    def delivered(self, rows: Sequence[Row]) -> None:
        for row in rows:
            row.done = True
            self.settled.append(row.seq)

    def refused(self, row: Row, reason: str) -> None:
        raise AssertionError(reason)

    def held(self, result: str) -> None: ...

    def status(self, status: str, code: str = "", message: str = "") -> None: ...


def row(seq: int, ts_ms: int, lane: str = "live") -> Row:
    body = {"group": "db500", "ts": ts_ms, "quality": "good", "values": {"n": seq}}
    return Row(1, lane, seq, seq, 0, "prensa-01", "acme", ts_ms, 1, seq, orjson.dumps(body))


class Rig:
    """A flow that was accepted and is born."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, grace_s: float = 0.0) -> None:
        self.now_ms = BORN_MS
        monkeypatch.setattr(flow_module, "now_ms", lambda: self.now_ms)
        self.desk = Desk()
        node = Node("acme", "planta-sp", [plc()])
        self.flow = NodeFlow(self.desk, 5, 100, 0, lambda *_: None, node, grace_s)
        self.flow.begin(mqtt.Connack(0), {})
        self.flow.bear()

    def send(self, *rows: Row) -> list[tuple[str, Any]]:
        """(kind, payload) of all packets since the last call."""
        self.flow.push(rows)
        self.flow.pump()
        found = []
        for _, body in mqtt.Incoming().feed(bytes(self.flow._out.data)):
            topic, _, payload = mqtt.parse_publish(5, 0, body)
            found.append((topic.split("/")[2], Payload.FromString(payload)))
        self.flow._out.sent_bytes = self.flow._out.end
        self.flow._out.data.clear()
        return found


def test_history_is_older_than_the_birth_or_comes_in_the_lane_of_the_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch)
    rows = [row(1, BORN_MS - 1), row(2, BORN_MS), row(3, BORN_MS + 5, "backfill")]
    sent = [p.metrics[0].is_historical for kind, p in rig.send(*rows) if kind == "DDATA" and p.body]
    assert sent == [True, False, True]


def test_a_clock_that_is_set_back_makes_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    rig.send(row(1, BORN_MS))
    rig.now_ms = BORN_MS - 3_600_000
    (_, payload), *_ = rig.send(row(2, rig.now_ms))
    assert not payload.metrics[0].is_historical


def test_numbers_run_to_255_and_begin_again_at_a_birth(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    births = rig.send()
    assert [(k, p.seq) for k, p in births] == [("NBIRTH", 0), ("DBIRTH", 1)]
    seqs = [p.seq for _, p in rig.send(*(row(i, BORN_MS) for i in range(1, 101)))]
    assert seqs == list(range(2, 102))
    rig.flow.on_pingresp(rig.flow._out.end, [])
    for first in (101, 201):
        seqs += [p.seq for _, p in rig.send(*(row(i, BORN_MS) for i in range(first, first + 100)))]
        rig.flow.on_pingresp(rig.flow._out.end, [])
    assert seqs == [n % 256 for n in range(2, 302)]
    rig.flow.rebirth()
    assert [(k, p.seq) for k, p in rig.send(row(400, BORN_MS))] == [
        ("NBIRTH", 0), ("DBIRTH", 1), ("DDATA", 2)
    ]  # fmt: skip


def test_an_answer_settles_what_stood_before_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch)
    rig.send(row(1, BORN_MS), row(2, BORN_MS))
    asked = rig.flow._out.end
    rig.send(row(3, BORN_MS))
    assert rig.flow.wants_answer
    acked: list[Row] = []
    rig.flow.on_pingresp(asked, acked)
    rig.flow.done(acked)
    assert rig.desk.settled == [1, 2]
    assert rig.flow.flying == 1


def test_what_the_broker_took_is_sent_again_where_the_host_was_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(monkeypatch, grace_s=1.0)
    rig.send(*(row(i, BORN_MS) for i in range(1, 5)))
    acked: list[Row] = []
    rig.flow.on_pingresp(rig.flow._out.end, acked)
    rig.flow.done(acked[:2])
    rig.flow.tick(1e12)
    rig.flow.done(acked[2:])
    assert rig.desk.settled == [1, 2]
    rig.send(row(5, BORN_MS))
    rig.flow.reset(Outgoing())
    rig.flow.begin(mqtt.Connack(0), {})
    rig.now_ms += 1
    rig.flow.bear()
    again = [orjson.loads(p.body)["seq"] for k, p in rig.send() if k == "DDATA" and p.body]
    assert again == [3, 4, 5]
