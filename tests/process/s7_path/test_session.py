"""The session against a strict PLC: what it grants is kept, what it says is checked."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from services.runtime.errors import PlcUnavailable
from services.s7.plan import Extent, Plan, make_plan
from services.s7.session import Session
from services.s7.telegram import GOOD
from tests.kit.c_snap7 import CServer
from tests.kit.fake_plc import FakePlc

TSAPS = (0x0100, 0x0201)


def connect(port: int, **options: object) -> Session:
    return Session("127.0.0.1", port, TSAPS, timeout_s=0.5, **options)  # type: ignore[arg-type]


def plan_for(session: Session, length: int, step: int = 4) -> Plan:
    extents = [Extent("DB", 1, i, min(step, length - i)) for i in range(0, length, step)]
    return make_plan(extents, session.pdu_bytes)


@pytest.mark.timing
@pytest.mark.parametrize("pdu", [240, 480, 960])
@pytest.mark.parametrize("jobs", [1, 3, 8])
def test_what_is_granted_is_used_and_kept(pdu: int, jobs: int) -> None:
    data = bytearray(os.urandom(6_000))
    with FakePlc({1: data}, pdu_bytes=pdu, jobs=jobs) as plc:
        plc.delay_s = 0.003
        session = connect(plc.port)
        try:
            assert (session.pdu_bytes, session.jobs) == (pdu, jobs)
            plan = plan_for(session, 6_000)
            begin_s = time.monotonic()
            answer = session.read(plan.telegrams, plan.image_bytes)
            took_s = time.monotonic() - begin_s
        finally:
            session.close()
        assert bytes(answer.image) == bytes(data)
        assert plc.violations == []
        # One round trip after another would take this much; jobs in flight divide it.
        assert took_s < len(plan.telegrams) * 0.003 / jobs + 0.1


def test_replies_in_another_order_find_their_telegrams() -> None:
    data = bytearray(os.urandom(4_000))
    with FakePlc({1: data}, pdu_bytes=240, jobs=8) as plc:
        plc.faults = {"reorder": 0.4}
        session = connect(plc.port)
        plan = plan_for(session, 4_000)
        for _ in range(20):
            answer = session.read(plan.telegrams, plan.image_bytes)
            assert bytes(answer.image) == bytes(data)
        assert plc.faults_done["reorder"] > 50
        session.close()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("reset", "reset"),
        ("drop", "timeout"),
        ("late", "timeout"),
        ("half_open", "timeout"),
        ("cut", "reset"),
        ("short", "protocol"),
        ("fewer", "protocol"),
        ("stray", "protocol"),
        ("garbage", "protocol"),
    ],
)
def test_whatever_is_not_the_answer_drops_the_connection(fault: str, code: str) -> None:
    with FakePlc({1: bytearray(800)}, pdu_bytes=240) as plc:
        session = connect(plc.port)
        plan = plan_for(session, 800)
        plc.faults = {fault: 1.0}
        with pytest.raises(PlcUnavailable) as caught:
            session.read(plan.telegrams, plan.image_bytes)
        assert caught.value.code == code
        assert session.socket.fileno() == -1, "the socket is left open"


def test_refused_items_cost_only_themselves() -> None:
    data = bytearray(os.urandom(400))
    with FakePlc({1: data}) as plc:
        plc.denied.add((1, 100, 104))
        session = connect(plc.port)
        extents = frozenset(Extent("DB", 1, i, 4) for i in range(0, 400, 4))
        plan = make_plan(extents, session.pdu_bytes, apart=extents)
        answer = session.read(plan.telegrams, plan.image_bytes)
        refused = [
            (item.start, code)
            for telegram, codes in answer.codes
            for item, code in zip(telegram.items, codes, strict=True)
            if code != GOOD
        ]
        session.close()
        assert refused == [(100, 0x03)]
        expected = bytes(data[:100]) + bytes(4) + bytes(data[104:])
        assert bytes(answer.image) == expected


@pytest.mark.parametrize("pdu", [240, 480, 960])
def test_the_c_server_is_read_right(pdu: int) -> None:
    data = os.urandom(5_000)
    with CServer({1: data}) as server:
        session = connect(server.port, pdu_bytes=pdu)
        contiguous = plan_for(session, 5_000)
        assert bytes(session.read(contiguous.telegrams, 5_000).image) == data
        # 40 items a telegram at PDU 480: this server cuts at 20 and still answers OK.
        extents = [Extent("DB", 1, i * 50, 4) for i in range(100)]
        scattered = make_plan(extents, session.pdu_bytes)
        if max(len(t.items) for t in scattered.telegrams) > 20:
            with pytest.raises(PlcUnavailable) as caught:
                session.read(scattered.telegrams, scattered.image_bytes)
            assert (caught.value.code, caught.value.fields["items"]) == ("items_cut", 20)
            session = connect(server.port, pdu_bytes=pdu)
        fewer = make_plan(extents, session.pdu_bytes, max_items=20)
        image = session.read(fewer.telegrams, fewer.image_bytes).image
        for e in extents:
            place = fewer.place(e)
            assert bytes(image[place : place + 4]) == data[e.start : e.end]
        session.close()


def test_a_pdu_in_several_cotp_packets_is_one() -> None:
    data = bytearray(os.urandom(2_000))
    with FakePlc({1: data}, pdu_bytes=480) as plc:
        plc.part_bytes = 100
        session = connect(plc.port)
        plan = plan_for(session, 2_000)
        for _ in range(5):
            assert bytes(session.read(plan.telegrams, plan.image_bytes).image) == bytes(data)
        session.close()


def test_a_wrong_tsap_is_told_in_words() -> None:
    with FakePlc({1: bytearray(4)}, tsap=0x0102) as plc:
        with pytest.raises(PlcUnavailable, match="rack, slot or TSAP"):
            connect(plc.port)
        assert plc.open_connections == 0


@pytest.mark.parametrize("said", [b"\3\0\0\0", b"HTTP/1.1 400 Bad Request\r\n"])
def test_who_does_not_speak_s7_is_told_at_once(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            with other.accept()[0] as peer:
                peer.recv(1_000)
                peer.sendall(said)
                peer.recv(1_000)

        answer = threading.Thread(target=serve)
        answer.start()
        with pytest.raises(PlcUnavailable, match="is this the PLC's S7 port"):
            connect(other.getsockname()[1])
        answer.join(5)


def test_nobody_there_is_told_in_words() -> None:
    with FakePlc({1: bytearray(4)}) as plc:
        port = plc.port
    with pytest.raises(PlcUnavailable, match="nothing listens") as caught:
        connect(port)
    assert caught.value.code == "refused"


def test_a_hung_cpu_times_out() -> None:
    with FakePlc({1: bytearray(4)}) as plc:
        plc.silent = True
        begin_s = time.monotonic()
        with pytest.raises(PlcUnavailable) as caught:
            connect(plc.port)
        assert caught.value.code == "no_s7"
        assert time.monotonic() - begin_s < 10


def test_the_state_of_the_cpu() -> None:
    with FakePlc({1: bytearray(4)}) as plc:
        session = connect(plc.port)
        told: list[int | None] = []
        plan = plan_for(session, 4)
        for running, state in ((True, 8), (False, 4)):
            plc.cpu.running = running
            session.ask_state(told.append)
            session.read(plan.telegrams, plan.image_bytes)
            assert told[-1] == state
        session.close()
