"""What may fail between a reader and an OPC UA server, and what is told of it. The server is not
ours; it counts up, and every number is delivered, or a message says that some were lost.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from services.protocols.opcua import security
from tests.kit.opcua import (
    MiloServer,
    NodeServer,
    numbers,
    opcua_plc,
    place,
    reading,
    trust,
    untold,
)
from tests.kit.procs import Service
from tests.kit.proxy import Proxy
from tests.kit.reader_rig import ReaderRig

COUNT_MS = 100
COUNTER = {"counter": "DINT"}


def failing(rig: ReaderRig, code: str, timeout_s: float = 45) -> str:
    """Waits until a heartbeat names this failure; its message."""

    def failure() -> dict[str, Any]:
        return rig.beats[-1].failure or {} if rig.beats else {}

    rig.wait(lambda: failure().get("code") == code, timeout_s, code)
    return str(failure()["message"])


class Counting:
    """The server counts up, from ``before`` to ``last``, while something happens."""

    def __init__(self, server: NodeServer, rig: ReaderRig) -> None:
        self.server, self.rig = server, rig

    def __enter__(self) -> Self:
        self.before: int = self.server("count", period_ms=COUNT_MS)
        self.reach(5)
        return self

    def reach(self, count: int) -> None:
        """Waits until so many numbers have come since the beginning."""
        self.rig.wait(lambda: (numbers(self.rig) or [0])[-1] >= self.before + count, 45)

    def __exit__(self, *_: object) -> None:
        self.last: int = self.server("stop")
        self.rig.wait(lambda: numbers(self.rig)[-1] == self.last, 45, f"{self.last}")

    def check(self) -> None:
        """Every number was delivered, or told of."""
        assert untold(self.rig, self.before, self.last) == []

    @property
    def delivered(self) -> list[int]:
        """What has come of them."""
        return [n for n in numbers(self.rig) if n > self.before]


def test_changes_that_are_shorter_than_a_scan_are_all_delivered(node_server: NodeServer) -> None:
    plc = opcua_plc(node_server.port, COUNTER, group={"scan": "1s"})
    with reading(plc) as rig:
        with Counting(node_server, rig) as count:
            count.reach(30)
        expected = list(range(count.before + 1, count.last + 1))
        assert sorted(set(count.delivered)) == expected
        assert rig.metric("plc_edge_changes_lost_total", why="server_queue") == 0
        # Each at the time at which the server saw it, not when it told.
        stamps: dict[int, int] = {}
        for m in rig.messages:
            stamps.setdefault(m["values"].get("counter", 0), m["ts"])
        steps = [stamps[n + 1] - stamps[n] for n in expected[:-1]]
        assert all(step > 0 for step in steps)
        assert abs(sum(steps) / len(steps) - COUNT_MS) < COUNT_MS / 4


def test_a_queue_that_is_too_short_is_told(node_server: NodeServer) -> None:
    plc = opcua_plc(node_server.port, COUNTER, group={"scan": "1s", "queue": 3})
    with reading(plc) as rig:
        with Counting(node_server, rig) as count:
            count.reach(30)
        assert len(set(count.delivered)) < count.last - count.before, "nothing was lost"
        count.check()
        rig.wait(lambda: rig.metric("plc_edge_changes_lost_total", why="server_queue") >= 2, 20)
        rig.wait(lambda: rig.service.said("changes or more of group planta were lost"), 20)


@pytest.mark.parametrize("ahead_s", [3_600, -3_600])
def test_a_server_that_lies_about_the_time(node_server: NodeServer, ahead_s: int) -> None:
    with reading(opcua_plc(node_server.port, COUNTER)) as rig:
        stamp_ms = int((time.time() + ahead_s) * 1_000)
        value = {"node": "counter", "type": "Int32", "value": 77 + ahead_s, "at_ms": stamp_ms}
        node_server("set", values=[value])
        rig.wait(lambda: rig.messages[-1]["values"]["counter"] == 77 + ahead_s, 20)
        lie = next(m for m in rig.messages if m["values"].get("counter") == 77 + ahead_s)
        assert (lie["quality"], lie["bad"]) == ("uncertain", {"*": "source_time_off"})
        assert abs(lie["ts"] - time.time() * 1_000) < 30_000
        node_server("set", values=[{"node": "counter", "type": "Int32", "value": 1}])
        rig.wait(lambda: rig.messages[-1]["values"]["counter"] == 1, 20)
        assert rig.messages[-1]["quality"] == "good"


def test_a_session_that_the_server_forgets(node_server: NodeServer) -> None:
    with reading(opcua_plc(node_server.port, COUNTER)) as rig:
        with Counting(node_server, rig) as count:
            assert node_server("expire") >= 1
            rig.wait(lambda: rig.metric("plc_edge_reconnects_total") >= 1, 30)
            rig.wait(lambda: rig.messages[-1]["quality"] == "good", 30)
        count.check()
        assert any(m.get("bad") == {"*": "plc_offline"} for m in rig.messages)


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    with NodeServer(tmp_path) as server, reading(opcua_plc(server.port, COUNTER)) as rig:
        server.kill()
        rig.wait(lambda: rig.messages[-1].get("bad") == {"*": "plc_offline"}, 30)
        failing(rig, "refused")
        server.start()
        rig.wait(lambda: rig.messages[-1]["quality"] == "good", 45)
        rig.wait(lambda: rig.beats[-1].status == "online", 20)


def test_another_certificate_is_refused_until_a_person_confirms_it() -> None:
    with MiloServer() as server:
        rig = ReaderRig(opcua_plc(server.port, COUNTER))
        with rig:
            assert "plc-edge trust forno-01" in failing(rig, "opcua_not_trusted")
            assert not any(m["values"] for m in rig.messages)
            trust(rig)
            rig.wait(lambda: rig.messages and rig.messages[-1]["quality"] == "good", 45)
            server.kill()
            server.start()
            text = failing(rig, "opcua_certificate_changed", 60)
            assert "plc-edge trust forno-01" in text
            assert rig.messages[-1]["values"] == {}
            trust(rig)
            rig.wait(lambda: rig.messages[-1]["quality"] == "good", 45)


def test_a_server_that_does_not_trust_us(tmp_path: Path) -> None:
    with NodeServer(tmp_path, accept=False) as server:
        rig = ReaderRig(opcua_plc(server.port, COUNTER))
        trust(rig)
        with rig:
            assert "plc-edge trust --own" in failing(rig, "opcua_refuses_us")


def test_a_user_that_the_server_does_not_know(node_server: NodeServer, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("errado-3141\n")
    account = {"username": "edge", "password_file": str(tmp_path / "pw")}
    rig = ReaderRig(opcua_plc(node_server.port, COUNTER, **account))
    trust(rig)
    with rig:
        assert "'edge'" in failing(rig, "opcua_user_refused")
        assert "errado-3141" not in "\n".join(rig.service.text)
        assert "errado-3141" not in rig.service.file.read_text()


@pytest.mark.parametrize("what", ["password", "certificate", "own"])
def test_what_lies_on_this_box_and_cannot_be_read(
    node_server: NodeServer, tmp_path: Path, what: str
) -> None:
    """The fault is this box's: the server is not said to be away, nor the library to fail."""
    account: dict[str, Any] = {}
    files = [tmp_path / "pw"] if what == "password" else [tmp_path / "c.der", tmp_path / "k.der"]
    if what == "password":
        account = {"username": "edge", "password_file": str(files[0])}
    elif what == "certificate":
        account = {"user_certificate": str(files[0]), "user_key": str(files[1])}
    for file in files:
        file.write_text("segredo-2718\n")
    rig = ReaderRig(opcua_plc(node_server.port, COUNTER, **account))
    trust(rig)
    torn = security.own_file(rig.site.state)
    if what == "own":
        torn.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        torn.write_text("-----BEGIN CERTIFICATE-----")
    elif what == "password":
        files[0].unlink()
    with rig:
        text = failing(rig, "opcua_own_file")
        assert str(torn if what == "own" else files[0]) in text
        assert "Traceback" not in rig.service.stderr()
        assert "segredo-2718" not in rig.service.stderr()


def test_what_the_server_does_not_offer(milo_server: MiloServer) -> None:
    plc = opcua_plc(milo_server.port, COUNTER, security={"policy": "none"})
    with ReaderRig(plc) as rig:
        text = failing(rig, "opcua_no_endpoint")
        assert "Basic256Sha256 sign_and_encrypt" in text


def test_a_line_that_breaks_under_a_group_that_is_read(node_server: NodeServer) -> None:
    group = {"mode": "scan"}
    with (
        Proxy(node_server.port) as proxy,
        reading(opcua_plc(proxy.port, COUNTER, timeout="1s", group=group)) as rig,
    ):
        for fault in ("blackhole", "reset"):
            proxy.fault = fault
            rig.wait(lambda: rig.messages[-1].get("bad") == {"*": "plc_offline"}, 30, fault)
            proxy.fault = None
            rig.wait(lambda: rig.messages[-1]["quality"] == "good", 45, fault)


@pytest.mark.parametrize("mode", ["scan", "subscribe"])
def test_a_value_that_cannot_be_decoded_is_bad_alone(node_server: NodeServer, mode: str) -> None:
    plc = opcua_plc(node_server.port, {"Int16": "INT"}, group={"mode": mode})
    unit = {"name": "unit", "node": place("unit"), "member": "UnitId", "type": "DINT"}
    plc["groups"][0]["fields"].append(unit)
    with reading(plc) as rig:
        assert rig.messages[-1]["values"]["unit"] == 7
        node_server("unit", torn=True)
        value = {"node": "Int16", "type": "Int16"}
        try:
            rig.wait(lambda: rig.messages[-1].get("bad") == {"unit": "BadDecodingError"}, 30)
            node_server("set", values=[{**value, "value": 4_711}])
            rig.wait(lambda: rig.messages[-1]["values"] == {"Int16": 4_711}, 20)
        finally:
            node_server("set", values=[{**value, "value": -32_768}])
            node_server("unit", torn=False)
        rig.wait(lambda: rig.messages[-1]["quality"] == "good", 30)
        assert not any(m.get("bad") == {"*": "plc_offline"} for m in rig.messages)


@pytest.mark.parametrize("fault", ["reset", "blackhole", "half_open"])
def test_a_line_that_breaks(node_server: NodeServer, fault: str) -> None:
    with (
        Proxy(node_server.port) as proxy,
        reading(opcua_plc(proxy.port, COUNTER, timeout="1s")) as rig,
    ):
        with Counting(node_server, rig) as count:
            proxy.fault = fault
            rig.wait(lambda: rig.messages[-1].get("bad") == {"*": "plc_offline"}, 30)
            proxy.fault = None
            rig.wait(lambda: rig.messages[-1]["quality"] == "good", 45)
        count.check()


def _has(rig: ReaderRig, messages: int) -> bool:
    return len(rig.messages) >= messages


def test_a_reader_that_is_killed_tells_that_it_was_away(node_server: NodeServer) -> None:
    with reading(opcua_plc(node_server.port, COUNTER)) as rig:
        with Counting(node_server, rig) as count:
            for _ in range(2):
                rig.service.kill()
                rig.service = Service(rig.config)
                rig.service.wait_ready()
                rig.wait(partial(_has, rig, len(rig.messages) + 6), 30)
        count.check()
        seqs = sorted({(m["epoch"], m["seq"]) for m in rig.messages})
        assert len({epoch for epoch, _ in seqs}) == 1
        assert [seq for _, seq in seqs] == list(range(1, len(seqs) + 1))
