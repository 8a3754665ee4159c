"""Routes in the running process: a storm in one message, escalation, limits, killed anywhere."""

from __future__ import annotations

import random
import time
from collections import Counter

from tests.kit.alerts_rig import HIGH, world
from tests.kit.common import until
from tests.kit.http_sink import HttpSink
from tests.process.alerts.test_process import POINTS, plc_edge, said, told, webhook

RULES = HIGH.replace("severity: critica", "severity: critica, route: turno")


def test_what_nobody_acknowledges_goes_further() -> None:
    routes = "    turno: {receivers: [fone], escalate: [{after: 6s, to: [chefe]}]}\n"
    with HttpSink() as fone, HttpSink() as chefe:
        receivers = webhook("fone", fone) + webhook("chefe", chefe)
        with world(receivers, RULES, routes) as w, w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p1", 90)
            w.feed("p2", 90)
            w.settle()
            until(lambda: len(fone.taken) == 2, 10, alerts.stderr)
            assert plc_edge(w, "ack", "a-alto", "--plc", "p1", "--by", "ana").returncode == 0
            until(lambda: len(chefe.taken) == 1, 20, alerts.stderr)
            (one,) = said(chefe.taken)
            first = next(n for n in said(fone.taken) if n["plc_id"] == "p2")
            assert one == {**first, "id": f"{first['id']}-e1", "escalation": 1}
            w.feed("p1", 10)
            w.feed("p2", 10)
            w.settle()
            # Of the end hears who heard of the beginning.
            until(lambda: len(fone.taken) == 4 and len(chefe.taken) == 2, 10, alerts.stderr)
            assert [n["plc_id"] for n in said(chefe.taken)] == ["p2", "p2"]


def test_killed_anywhere_groups_and_limits_lose_nothing_and_tell_nothing_twice() -> None:
    chance = random.Random(11)
    routes = "    turno: {receivers: [fone, lento], group: {wait: 1s, max: 5}}\n"
    with HttpSink() as fone, HttpSink() as lento:
        slow = webhook("lento", lento, ", rate: {messages: 1, per: 6s}")
        with world(webhook("fone", fone) + slow, RULES, routes) as w:
            for n in range(6):
                point = f"{POINTS[n % 5]}:{chance.randint(1, 6)}"
                with w.alerts({"PLC_EDGE_FAILPOINT": point}) as doomed:
                    end_s = time.monotonic() + 20
                    while doomed.process.poll() is None and time.monotonic() < end_s:
                        w.feed(chance.choice(("p1", "p2")), chance.choice((10, 90)))
                        time.sleep(0.01)  # the pace of a plant, not a wait
                    assert doomed.process.poll() is not None, doomed.stderr()
            with w.alerts() as alerts:
                alerts.wait_ready()
                end_s = time.monotonic() + 4
                while time.monotonic() < end_s:
                    w.feed(chance.choice(("p1", "p2")), chance.choice((10, 90)))
                    time.sleep(0.02)
                w.settle()
                wanted = Counter({"begun": 0, "ended": 0})
                for _, _, to in told(w):
                    wanted["begun" if to == "disparando" else "ended"] += 1

                def counted(sink: HttpSink) -> Counter[str]:
                    once = {n["id"]: n for n in said(sink.taken)}
                    total = Counter({"begun": 0, "ended": 0})
                    for n in once.values():
                        begun, ended = n.get("rules", {}).get("a-alto") or (
                            int(n["to"] == "disparando"), int(n["to"] != "disparando"))  # fmt: skip
                        total["begun"] += begun
                        total["ended"] += ended
                    return total

                def both() -> list[Counter[str]]:
                    return [counted(fone), counted(lento)]

                until(lambda: both() == [wanted, wanted], 20, lambda: f"{both()} {wanted}")
            for sink in (fone, lento):
                contents = {(n["id"], p.body) for n, p in zip(said(sink.taken), sink.taken,
                                                             strict=True)}  # fmt: skip
                assert len(contents) == len({i for i, _ in contents})
            kinds = {n.get("kind") for n in said(lento.taken)}
            assert {"group", "rate_limit"} <= kinds
            groups = [n for n in said(fone.taken) if n.get("kind") == "group"]
            assert all(len(n["alerts"]) == min(n["count"], 5) for n in groups)
