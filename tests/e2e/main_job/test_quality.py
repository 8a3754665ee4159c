"""What a PLC refuses costs only itself, is named, and comes back by itself."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from services.protocols.s7 import group as s7_group
from tests.kit.box import Box, plc
from tests.kit.common import until
from tests.kit.fake_plc import FakePlc

pytestmark = pytest.mark.timing

IMAGE = bytearray(bytes.fromhex("0600412400003DF5C28F00980003"))
NAMES = {"pecas_ruim", "pecas_boas", "maquina_ligada", "AI_Corrente", "AI_Vibracao",
         "contador_bom", "contador_ruim"}  # fmt: skip


def last(box: Box, plc_id: str) -> dict[str, Any]:
    data = box.subscriber.data(plc_id)
    return data[-1] if data else {}


def beat(box: Box, plc_id: str) -> dict[str, Any]:
    topic = f"plc/acme/{plc_id}/heartbeat"
    beats = [json.loads(p) for t, p, _ in list(box.subscriber.received) if t == topic and p]
    return beats[-1] if beats else {}


def test_what_the_plc_refuses() -> None:
    box = Box(1)
    with FakePlc({500: bytearray(IMAGE)}, pdu_bytes=240, jobs=3) as fake:
        fake.denied.add((500, 6, 10))
        box.real_plcs = [plc("forno-02", fake.port)]
        with box:
            # A bad field: named, its neighbours good, within a few scans.
            until(lambda: last(box, "forno-02").get("bad") == {"AI_Vibracao": "access_denied"},
                     15, "only the denied field is bad")  # fmt: skip
            message = last(box, "forno-02")
            assert message["quality"] == "good"
            assert set(message["values"]) == NAMES - {"AI_Vibracao"}
            assert message["values"]["contador_bom"] == 152
            until(lambda: beat(box, "forno-02").get("status") == "degraded", 5, "heartbeat")
            assert beat(box, "forno-02")["failure"]["code"] == "fields_refused"
            # STOP: the CPU answers with frozen data.
            fake.cpu.running = False
            until(lambda: last(box, "forno-02").get("quality") == "uncertain", 5, "STOP")
            assert last(box, "forno-02")["bad"]["*"] == "cpu_stop"
            fake.cpu.running = True
            until(lambda: last(box, "forno-02").get("quality") == "good", 5, "RUN")
            # PUT/GET taken away: everything is refused, nothing is sent as good.
            fake.cpu.refuses = True
            until(lambda: last(box, "forno-02").get("values") == {}, 15, "all refused")
            assert last(box, "forno-02")["quality"] == "bad"
            assert set(last(box, "forno-02")["bad"].values()) == {"access_denied"}
            fake.cpu.refuses = False
            fake.denied.clear()
            # Asked for again by itself.
            until(lambda: set(last(box, "forno-02").get("values", ())) == NAMES,
                     s7_group.RETRY_S + 10, "all good again")  # fmt: skip
            until(lambda: beat(box, "forno-02").get("status") == "online", 5, "online")
            assert "failure" not in beat(box, "forno-02")
            assert fake.violations == []


def test_a_plc_that_comes_and_goes() -> None:
    box = Box(1)
    with FakePlc({500: bytearray(IMAGE)}, pdu_bytes=240, jobs=1) as fake:
        fake.answers_state = False
        box.real_plcs = [plc("forno-02", fake.port)]
        with box:
            box.wait_for_messages("forno-02", 5)
            fake.silent = True  # half-open: TCP lives, nobody answers
            until(lambda: last(box, "forno-02")["quality"] == "bad", 10, "half-open")
            assert last(box, "forno-02")["bad"] == {"*": "plc_offline"}
            until(lambda: beat(box, "forno-02").get("status") == "offline", 5, "heartbeat")
            # Of the read, then of each new connection.
            assert beat(box, "forno-02")["failure"]["code"] in ("timeout", "no_s7")
            fake.reset_all()
            fake.silent = False
            # It comes back as another CPU: another PDU, other jobs.
            fake.cpu.pdu_bytes, fake.cpu.jobs = 960, 8
            until(lambda: last(box, "forno-02")["quality"] == "good", 30, "back")
            until(lambda: "plc_changed" in box.site.log("reader-forno-02"), 5, "told")
            for _ in range(3):
                fake.reset_all()
                box.wait_for_messages("forno-02", 3)
            until(lambda: fake.open_connections == 1, 5, "no socket is leaked")
            assert fake.violations == []


def test_a_slow_group_does_not_starve_a_fast_one() -> None:
    box = Box(1)
    with FakePlc({500: bytearray(IMAGE), 7: bytearray(20_000)}, pdu_bytes=240, jobs=1) as fake:
        fake.delay_s = 0.005  # 90 telegrams of the slow group take half a second
        slow = {"name": "lento", "scan": "1s", "publish": "always",
                "fields": [{"name": f"x{i}", "address": f"DB7.DBW{i * 2}:INT"}
                           for i in range(9_990)]}  # fmt: skip
        both = plc("forno-02", fake.port)
        both["groups"].append(slow)
        box.real_plcs = [both]
        with box:
            box.wait_for_messages("forno-02", 60)
            data = [m for m in box.subscriber.data("forno-02") if m["group"] == "db500"][5:]
            steps = [b["ts"] - a["ts"] for a, b in pairwise(data)]
            print(f"fast group beside a slow one: {max(steps)} ms at most between scans")
            assert max(steps) < 190
            assert any(m["group"] == "lento" for m in box.subscriber.data("forno-02"))
