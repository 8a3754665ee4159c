"""Faults of a PLC and the way to it: doctor names each, and what to change where."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.cli.doctor_finding import Finding
from services.s7.session import Session
from tests.kit.common import ROOT, until
from tests.kit.fake_plc import FakePlc
from tests.kit.site import PLC_EDGE
from tests.process.doctor.kit import config, fault, findings, write
from tests.process.doctor.plc import plc


def ask(folder: Path, port: int, **changes: Any) -> list[Finding]:
    """The findings about the PLC."""
    data = config(folder, port)
    data["plcs"][0] |= changes
    return [f for f in findings(folder, data) if f.subject.startswith("plc ")]


def test_a_good_plc(tmp_path: Path) -> None:
    with plc() as port:
        found = ask(tmp_path, port)
    assert [(f.level, f.code) for f in found] == [("ok", "connection"), ("ok", "read")]
    assert "PDU 480" in found[0].text


def test_wrong_slot(tmp_path: Path) -> None:
    with plc(tsap=0x0202) as port:
        found = fault(ask(tmp_path, port), "slot")
        assert "slot 2 answers" in found.text
        assert found.fix == "set `slot: 2`"
        assert ask(tmp_path, port, slot=2)[-1].code == "read"


def test_wrong_tsap(tmp_path: Path) -> None:
    with plc(tsap=0x0200) as port:
        wrong = ask(tmp_path, port, tsap={"local": "10.00", "remote": "03.01"})
        assert "refuses TSAP 10.00 → 03.01" in fault(wrong, "tsap").text
        right = ask(tmp_path, port, tsap={"local": "10.00", "remote": "02.00"})
        assert right[-1].code == "read"


def test_no_slot_answers(tmp_path: Path) -> None:
    with plc(tsap=0x7777) as port:
        found = fault(ask(tmp_path, port), "slot")
    assert "other slots too" in found.text
    assert "connections" in found.fix


def test_put_get_off(tmp_path: Path) -> None:
    with plc(put_get=False) as port:
        found = fault(ask(tmp_path, port), "access_denied")
    assert "PUT/GET" in found.fix
    assert found.subject == "plc prensa-01 group db500"


def test_no_such_block_or_optimised(tmp_path: Path) -> None:
    with plc(db500_bytes=0) as port:
        found = fault(ask(tmp_path, port), "no_block")
    assert found.text == "DB500 does not exist in this PLC, or is optimised"
    assert "Optimized block access" in found.fix


@pytest.mark.parametrize("size_bytes", [2, 14, 40, 54])
def test_block_too_short(tmp_path: Path, size_bytes: int) -> None:
    with plc(db500_bytes=size_bytes) as port:
        found = fault(ask(tmp_path, port), "too_short")
    assert found.text == f"DB500 has {size_bytes} bytes, 56 are needed"
    assert "machines.count" in found.fix


def test_cpu_in_stop(tmp_path: Path) -> None:
    with plc(running=False) as port:
        found = fault(ask(tmp_path, port), "cpu_stop")
    assert "frozen" in found.text


def test_port_blocked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    found = fault(ask(tmp_path, port), "refused")
    assert "firewall" in found.fix


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    """A full backlog: the SYN is dropped, as by a PLC without power."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(full.getsockname())
            waiting.append(s)
        found = fault(ask(tmp_path, full.getsockname()[1]), "timeout")
        for s in waiting:
            s.close()
    assert "cable and power of the PLC" in found.fix


def test_something_that_is_no_plc(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        found = fault(ask(tmp_path, mute.getsockname()[1]), "no_s7")
    assert "is this address a PLC?" in found.fix


@pytest.mark.parametrize("how", ["disconnect", "setup", "close_setup"])
def test_all_connections_taken(tmp_path: Path, how: str) -> None:
    with FakePlc({500: bytearray(56)}) as fake:
        fake.max_connections, fake.when_full = 1, how
        taken = Session("127.0.0.1", fake.port, (0x0100, 0x0201))
        found = fault(ask(tmp_path, fake.port), "connections_full")
        assert "no S7 connection left" in found.text
        assert "TIA Portal (online)" in found.fix
        taken.close()
        until(lambda: fake.open_connections == 0, 5, "closed")
        assert ask(tmp_path, fake.port)[0].code == "connection"


def test_unknown_name(tmp_path: Path) -> None:
    found = fault(ask(tmp_path, 102, host="clp-da-prensa.invalid"), "dns")
    assert "IP address" in found.fix


@pytest.mark.parametrize(
    ("size_bytes", "more"), [(20, {}), (4_000, {"watchdog": {"offset": 30_000}})]
)
def test_mirror_target_too_short(tmp_path: Path, size_bytes: int, more: dict[str, Any]) -> None:
    with plc() as port, plc(db500_bytes=size_bytes) as target:
        data = config(tmp_path, port)
        data["plcs"][0]["groups"][0]["raw"] = True
        data["mirrors"] = [{
            "name": "copia", "source": {"plc": "prensa-01", "group": "db500"}, "enabled": True,
            "timeout": "500ms", "target": {"host": "127.0.0.1", "port": target, "db": 500}, **more,
        }]  # fmt: skip
        found = fault(findings(tmp_path, data), "too_short")
    assert (found.subject, found.level) == ("mirror copia", "error")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_the_command(tmp_path: Path) -> None:
    """Lines for people, JSON for programs, and the exit code."""
    with plc(put_get=False) as port:
        file = write(tmp_path, config(tmp_path, port))
        command = [*PLC_EDGE, "doctor", "-c", str(file)]
        said = run(command)
        assert said.returncode == 1, said.stderr
        assert "FAIL plc prensa-01 group db500: the CPU does not permit reading" in said.stdout
        assert "       fix: TIA Portal" in said.stdout
        told = run([*command, "--json"])
        document = json.loads(told.stdout)
        assert (told.returncode, document["ok"]) == (1, False)
        assert "access_denied" in [f["code"] for f in document["findings"]]
    with plc() as port:
        write(tmp_path, config(tmp_path, port))
        good = run(command)
        assert good.returncode == 0, good.stdout
        assert "0 failed" in good.stdout
