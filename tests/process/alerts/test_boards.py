"""The state of each rule on a real Mosquitto: TLS, an account of its own, killed anywhere."""

from __future__ import annotations

import random
import time
from typing import Any

import orjson
import pytest

from tests.kit.alerts_rig import HIGH, world
from tests.kit.broker import Broker, Seen
from tests.kit.common import until
from tests.process.alerts.test_process import POINTS, plc_edge

ACL = """\
user alertas-sp
topic write alertas/acme/#
user caixa-sp
topic write plc/acme/#
user watch
topic read alertas/#
"""
USERS = {"alertas-sp": "segredo", "caixa-sp": "outro"}
TOPIC = "alertas/acme/a-alto"
LOW = "    - {name: a-baixo, type: threshold, where: {plc: p2, field: a}, below: -5}\n"


def broker() -> Broker:
    return Broker(tls=True, users=USERS, acl=ACL)


def output(b: Broker) -> str:
    assert b.authority is not None
    return (
        f"outputs: [{{name: central, type: mqtt, host: 127.0.0.1, port: {b.port},"
        f" username: caixa-sp, password: outro, tls: {{ca: {b.authority.ca}}}}}]"
    )


BOARD = """\
    - {name: painel, type: mqtt, output: central, username: alertas-sp, password: segredo}
"""


def said(seen: Seen, topic: str = TOPIC) -> list[dict[str, Any]]:
    return [orjson.loads(p) for p in seen.topic(topic) if p]


def now_stands(b: Broker, topic: str = TOPIC) -> dict[str, Any] | None:
    """What a new subscriber is sent."""
    with b.subscribe(topic) as seen:
        until(lambda: seen.messages or settled(b), 5, b.log)
        last = [b"", *seen.topic(topic)][-1]
    return orjson.loads(last) if last else None


def settled(b: Broker) -> bool:
    time.sleep(0.5)  # a retained message comes with the subscription or not at all
    return True


def alarms(message: dict[str, Any]) -> set[tuple[str, float]]:
    return {(a["plc_id"], a["value"]) for a in message["active"]}


def test_a_topic_shows_its_rule_and_is_cleared_with_it() -> None:
    with broker() as b, world(BOARD, HIGH + LOW, outputs=output(b)) as w:
        with b.subscribe("alertas/#") as seen, w.alerts() as alerts:
            alerts.wait_ready()
            until(lambda: len(seen.messages) == 2, 10, alerts.stderr)
            both = [*said(seen), *said(seen, "alertas/acme/a-baixo")]
            shown = {m["rule"]: (m["state"], m["active"]) for m in both}
            assert shown == {"a-alto": ("ok", []), "a-baixo": ("ok", [])}
            w.feed("p1", 90)
            w.feed("p2", 85)
            w.settle()
            until(lambda: alarms(said(seen)[-1]) == {("p1", 90.0), ("p2", 85.0)}, 10, alerts.stderr)
            last = said(seen)[-1]
            assert (last["state"], last["count"], last["severity"]) == ("disparando", 2, "critica")
            assert last["active"][0]["since"] == w.expected["p1"][0][0]
            assert (last["locatario_id"], last["site"], last["v"]) == ("acme", "planta-sp", 1)
            plc_edge(w, "ack", "a-alto", "--plc", "p1", "--by", "ana")
            plc_edge(w, "silence", "a-alto", "--plc", "p2", "--for", "1h", "--why", "troca")

            def taken_care_of() -> bool:
                by_plc = {a["plc_id"]: a for a in said(seen)[-1]["active"]}
                ack, silence = by_plc["p1"]["confirmado"], by_plc["p2"]["silenciado"]
                return bool(ack and ack[0] == "ana" and silence and silence[1] == "troca")

            until(taken_care_of, 10, lambda: f"{said(seen)[-1]}")
            w.feed("p1", 10)
            w.feed("p2", 10)
            until(lambda: said(seen)[-1]["state"] == "ok", 10, alerts.stderr)
            ids = [m["id"] for m in said(seen)]
            assert len(set(ids)) == len(ids)
            assert alerts.terminate() == 0
        w.configure(BOARD, LOW)
        with w.alerts() as alerts:
            alerts.wait_ready()
            until(lambda: now_stands(b) is None, 10, alerts.stderr)
            left = until(lambda: now_stands(b, "alertas/acme/a-baixo"), 10, alerts.stderr)
            assert left["state"] == "ok"
        w.configure(BOARD, "")  # the last rule is gone: somebody must still clear its topic
        with w.alerts() as alerts:
            alerts.wait_ready()
            until(lambda: now_stands(b, "alertas/acme/a-baixo") is None, 10, alerts.stderr)


def test_killed_anywhere_it_shows_what_is() -> None:
    chance = random.Random(7)
    with broker() as b, world(BOARD, outputs=output(b)) as w, b.subscribe("alertas/#") as seen:
        for n in range(6):
            point = f"{POINTS[n % 5]}:{chance.randint(1, 6)}"
            with w.alerts({"PLC_EDGE_FAILPOINT": point}) as doomed:
                end_s = time.monotonic() + 20
                while doomed.process.poll() is None and time.monotonic() < end_s:
                    w.feed(chance.choice(("p1", "p2")), chance.choice((10, 90)))
                    time.sleep(0.01)  # the pace of a plant, not a wait
                assert doomed.process.poll() is not None, doomed.stderr()
            if n == 3:
                b.stop(kill=True)  # and it forgets what was retained
                b.start()
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.settle()
            wanted = {p for p, rows in w.expected.items() if rows and rows[-1][2] == "disparando"}

            def shown() -> set[str] | None:
                last = said(seen)
                return {a["plc_id"] for a in last[-1]["active"]} if last else None

            until(lambda: shown() == wanted, 15, lambda: f"{shown()} {wanted} {alerts.stderr()}")
            stands = now_stands(b)
            assert stands is not None
            assert {a["plc_id"] for a in stands["active"]} == wanted
        by_id = {(m["id"], orjson.dumps(m)) for m in said(seen)}
        assert len(by_id) == len({i for i, _ in by_id}), "one id, two contents"


def test_a_broker_that_refuses_or_is_away_is_told_later_and_delays_nobody() -> None:
    with broker() as b, world(BOARD, outputs=output(b)) as w:
        b.set_acl(ACL.replace("write alertas/acme/#", "write alertas/outra/#"))
        b.reload()
        with w.alerts() as alerts:
            alerts.wait_ready()
            w.feed("p1", 90)
            w.settle()
            until(lambda: alerts.said("receiver_failed"), 10, alerts.stderr)
            alerts.wait_said("access rules")
            b.set_acl(ACL)
            b.stop()
            w.feed("p2", 90)
            w.settle()
            b.start()
            with b.subscribe(TOPIC) as seen:
                until(lambda: bool(said(seen)) and said(seen)[-1]["count"] == 2, 20, alerts.stderr)
            alerts.wait_said("receiver_ok")


@pytest.mark.parametrize("password", ["segredo", "errado"])
def test_its_password_is_its_own(password: str) -> None:
    with broker() as b, world(BOARD.replace("segredo", password), outputs=output(b)) as w:  # noqa: SIM117
        with w.alerts() as alerts:
            alerts.wait_ready()
            if password == "segredo":
                until(lambda: now_stands(b) is not None, 10, alerts.stderr)
            else:
                until(lambda: "refuses the credentials" in alerts.stderr(), 10, alerts.stderr)
            assert not alerts.said(password)
