"""A field that the PLC gives again while a scan without it is under way is named in that scan."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import orjson
import pytest

from services.protocols.s7.group import RETRY_S
from services.protocols.s7.source import S7Source
from services.reader.engine import Engine
from services.runtime.stats import Stats
from services.s7.session import Answer

FIELDS = [{"name": n, "type": "INT", "area": "DB", "db": 1, "byte": at, "bit": 0}
          for n, at in (("a", 0), ("b", 2))]  # fmt: skip


class Line:
    """A session that answers when it is told to."""

    pdu_bytes, jobs = 240, 1

    def __init__(self) -> None:
        self.asked: list[Answer] = []

    def submit(self, answer: Answer) -> None:
        answer.sent_s = 1.0
        self.asked.append(answer)

    def receive(self) -> list[Answer]:
        return []


class Rig:
    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        group = {"name": "g1", "measurement": "m", "db": 1, "scan_s": 1.0, "publish": "always",
                 "max_silence_s": 60.0, "raw": None, "consistent": False, "timestamp": None,
                 "machines": [[None, 0]], "fields": FIELDS}  # fmt: skip
        plc = {"id": "p1", "locatario": "acme", "hosts": ["h"], "alive": None, "heartbeat_s": 10.0}
        process = MagicMock(live=None, stats=Stats("reader", 1, 1), started_s=0.0)
        process.config = {"site": "s1", "plc": plc, "groups": [group], "clock_sync": "ignored"}
        keep = MagicMock(epoch=1, pending=0)
        keep.publish.side_effect = lambda _ts, body: self.bodies.append(orjson.loads(body(1, 1)))
        self.engine = Engine(process, keep, S7Source)
        source = self.engine.source
        assert isinstance(source, S7Source)
        self.source = source
        self.line = source.link.session = Line()  # type: ignore[assignment]
        source.link.is_proven = True
        self.group = source.jobs[0].group

    def scan(self) -> None:
        """Its slot has come."""
        self.engine._due(self.engine.jobs[0])

    def answer(self, denied: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """The oldest request is answered; these bytes are refused."""
        answer = self.line.asked.pop(0)
        for telegram in answer.telegrams:
            codes = [3 if denied & set(range(i.start, i.start + i.length)) else 0xFF
                     for i in telegram.items]  # fmt: skip
            if set(codes) != {0xFF}:
                answer.codes.append((telegram, codes))
        answer.left = 0
        answer.done_s = 1.0
        self.source.complete(answer)


@pytest.mark.parametrize("planned_anew", [False, True])
def test_given_again_between_request_and_reply(planned_anew: bool) -> None:
    rig = Rig()
    rig.scan()
    while rig.line.asked:
        rig.answer({2, 3})
    assert rig.bodies[-1]["bad"] == {"b": "access_denied"}
    rig.group._retry_at_s -= RETRY_S + 1
    rig.scan()  # and asks for b again
    assert len(rig.line.asked) == 2
    rig.answer()
    rig.group.replan_needed = planned_anew
    rig.scan()
    rig.answer()  # b is there
    rig.answer()
    assert rig.bodies[-1]["values"].keys() | rig.bodies[-1]["bad"].keys() == {"a", "b"}
    rig.scan()
    rig.answer()
    assert rig.bodies[-1]["values"].keys() == {"a", "b"}
    assert "bad" not in rig.bodies[-1]
