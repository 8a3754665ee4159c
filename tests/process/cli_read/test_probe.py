"""``plc-edge probe``: what it finds, and what it says must be changed."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.s7.session import Session
from tests.kit.common import ROOT, free_ports
from tests.kit.fake_plc import FakePlc
from tests.kit.s7plus_cpu import SymbolCpu, Var, certificate
from tests.kit.simulator import Simulator
from tests.kit.site import PLC_EDGE


def probe(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLC_EDGE, "probe", "--opcua-port", "1", *words],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    (port,) = free_ports(1)
    fields = [{"name": "a", "address": "DB500.DBW328:INT"}, {"name": "b", "address": "M0.0"}]
    group = {"name": "grupo", "fields": fields}
    plc = {"id": "prensa-01", "host": "127.0.0.1", "port": port, "groups": [group]}
    config = {"site": "teste", "locatario": "acme", "plcs": [plc]}
    with Simulator(config, "--pdu", "240", "--jobs", "3") as running:
        yield running


@pytest.fixture
def port(simulator: Simulator) -> str:
    return str(simulator.ports["prensa-01"])


def found(*words: str) -> dict[str, Any]:
    done = probe(*words, "--json")
    assert "Traceback" not in done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == report["usable"]
    return report


def test_a_plc_that_is_ready(port: str) -> None:
    report = found("127.0.0.1", "--port", port, "--db", "500")
    assert report["usable"]
    assert report["config"] == "rack: 0, slot: 1"
    assert (report["local_tsap"], report["remote_tsap"]) == ("01.00", "02.01")
    assert (report["pdu"], report["parallel_jobs"]) == (240, 3)
    assert report["cpu_state"] == "run"
    assert report["put_get"] is True
    assert report["blocks"] == [{"db": 500, "readable": True, "bytes": 330, "reason": None}]
    assert report["clock"].startswith("20")
    assert report["identity"] is None  # only with --identify
    assert report["advice"] == []


def test_in_words(port: str) -> None:
    done = probe("127.0.0.1", "--port", port, "--db", "500", "--identify")
    assert done.returncode == 0, done.stderr
    assert "OP, rack 0, slot 1" in done.stdout
    assert "PDU 240, 3 parallel jobs" in done.stdout
    assert "readable, 330 bytes" in done.stdout
    assert "6ES7 515-2SIM0-0AB0" in done.stdout
    assert "ready to be read" in done.stdout


def test_a_plc_by_its_id(simulator: Simulator, port: str) -> None:
    report = found("prensa-01", "-c", str(simulator.file))
    assert (report["host"], str(report["port"])) == ("127.0.0.1", port)
    assert report["usable"]


def test_a_missing_block(port: str) -> None:
    report = found("127.0.0.1", "--port", port, "--db", "7", "--db", "500")
    assert not report["usable"]
    assert [b["readable"] for b in report["blocks"]] == [False, True]
    assert "DB7 does not exist" in report["advice"][0]


def test_a_stopped_cpu_and_reads_refused(simulator: Simulator, port: str) -> None:
    simulator.tell("stop prensa-01")
    simulator.tell("refuse prensa-01")
    try:
        report = found("127.0.0.1", "--port", port, "--db", "500")
    finally:
        simulator.tell("run prensa-01")
        simulator.tell("permit prensa-01")
    assert not report["usable"]
    assert report["cpu_state"] == "stop"
    assert report["put_get"] is False
    said = " ".join(report["advice"])
    assert "Permit access with PUT/GET communication from remote partner" in said
    assert "in STOP" in said


def test_nothing_there() -> None:
    (free,) = free_ports(1)
    done = probe("127.0.0.1", "--port", str(free))
    assert done.returncode == 1
    assert "nothing listens there" in done.stdout
    done = probe("nao-existe.invalid")
    assert done.returncode == 1
    assert "check `host:` or DNS" in done.stdout


def test_every_way_is_refused() -> None:
    """A station that closes on each connection request: all ways are tried, in bounded time."""
    tried = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def refuse() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.settimeout(5)
                    tried.append(peer.recv(100)[20:22].hex())

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        report = found("127.0.0.1", "--port", str(server.getsockname()[1]))
    assert report["connection"] is None
    assert "no rack and slot does" in report["advice"][0]
    assert tried[0] == "0201"
    assert len(set(tried)) >= 18


@pytest.mark.parametrize("how", ["disconnect", "setup", "close_setup"])
def test_all_connections_taken(how: str) -> None:
    """One attempt tells: the other ways of classic S7 would meet the same. Then S7CommPlus is tried
    (with TLS, and without): it has connections of its own.
    """
    with FakePlc({1: bytearray(4)}) as fake:
        fake.max_connections, fake.when_full = 1, how
        taken = Session("127.0.0.1", fake.port, (0x0100, 0x0201))
        report = found("127.0.0.1", "--port", str(fake.port))
        taken.close()
        assert 3 <= fake.connections <= 4
    assert report["connection"] is None
    assert "all S7 connections of the CPU are taken" in report["advice"][0]
    assert "Connection resources" in report["advice"][0]


def test_silence_ends_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        report = found("127.0.0.1", "--port", str(server.getsockname()[1]), "--timeout", "0.3")
    assert "no answer" in report["advice"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a b"], "is no host"),
        (["http://plc"], "is no host"),
        (["127.0.0.1", "--db", "70000"], "block numbers are 1 to 65535"),
        (["127.0.0.1", "--port", "0"], "--port"),
        ([], "Missing argument"),
    ],
)
def test_wrong_words(words: list[str], said: str) -> None:
    done = probe(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("level", "state", "said"),
    [(1, "readable", "optimised blocks by name"), (4, "answers", "give `password:`")],
)
def test_a_cpu_as_it_leaves_the_factory(tmp_path: Path, level: int, state: str, said: str) -> None:
    """No classic access, no OPC UA: S7CommPlus is what is left."""
    cert, key = certificate(tmp_path)
    cpu = SymbolCpu({"Prensa": [Var("ciclos", "DINT")]}, version=2, level=level)
    (port,) = free_ports(1)
    cpu.start("127.0.0.1", port, use_tls=True, tls_cert=str(cert), tls_key=str(key))
    report = found("127.0.0.1", "--port", str(port))
    assert report["usable"] == (state == "readable")
    plus, opcua = report["ways"]
    assert (plus["protocol"], plus["state"]) == ("s7plus", state)
    assert plus["identity"] == ""  # only with --identify
    assert (opcua["protocol"], opcua["state"]) == ("opcua", "not_offered")
    assert report["recommended"] == "s7plus"
    assert said in report["reason"]
    assert (
        "6ES7 512-1CK01-0AB0 V3.1" in (probe("127.0.0.1", "--port", str(port), "--identify").stdout)
        or level == 4
    )


def test_an_opc_ua_server_is_recognised() -> None:
    """By its acknowledgement of a hello, as OPC 10000-6 has it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def acknowledge() -> None:
            peer, _ = server.accept()
            with peer:
                hello = peer.recv(1_000)
                if hello[:4] == b"HELF" and int.from_bytes(hello[4:8], "little") == len(hello):
                    peer.sendall(b"ACKF" + struct.pack("<6I", 28, 0, 65_536, 65_536, 0, 0))

        threading.Thread(target=acknowledge, daemon=True).start()
        opcua = str(server.getsockname()[1])
        report = found("127.0.0.1", "--port", str(free_ports(1)[0]), "--opcua-port", opcua)
    assert report["ways"][-1]["state"] == "answers"
    assert report["recommended"] == "opcua"
