"""A redundant PLC (``hosts:``) on the command line: read, probe, doctor, simulate."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.common import ROOT, free_port
from tests.kit.fake_plc import FakePlc
from tests.kit.simulator import Simulator
from tests.kit.site import PLC_EDGE

A, B = "127.0.0.1", "127.0.0.2"
Pair = tuple[FakePlc, FakePlc, Path]


def config(port: int, hosts: list[str]) -> dict[str, Any]:
    group = {"name": "g1", "db": 7, "fields": [{"name": "cpu", "address": "DB7.DBD0:DINT"}]}
    plc = {"id": "forno-h", "hosts": hosts, "port": port, "timeout": "500ms", "groups": [group]}
    return {"site": "teste", "locatario": "acme", "plcs": [plc]}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two CPUs, each with its own number in DB7, and a configuration that knows both."""
    port = free_port()
    file = tmp_path / "config.yaml"
    paths = {"paths": {"state": str(tmp_path / "s"), "runtime": str(tmp_path / "r")}}
    file.write_text(yaml.safe_dump({**config(port, [A, B]), **paths}))
    blocks = [{7: bytearray(struct.pack(">i", n))} for n in (1, 2)]
    with FakePlc(blocks[0], host=A, port=port) as a, FakePlc(blocks[1], host=B, port=port) as b:
        yield a, b, file


def run(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PLC_EDGE, *words, "-c", str(file)],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def read(file: Path) -> tuple[str, int, str]:
    """(address, CPU, quality) of one direct read."""
    done = run(file, "read", "forno-h", "--json")
    assert done.returncode == 0, done.stderr
    (message,) = json.loads(done.stdout)
    return message["ip"], message["values"]["cpu"], message["quality"]


def test_read_takes_the_one_that_is_there_and_runs(pair: Pair) -> None:
    a, b, file = pair
    assert read(file) == (A, 1, "good")
    a.cpu.running = False
    assert read(file) == (B, 2, "good")
    b.cpu.running = False
    assert read(file) == (A, 1, "uncertain")
    a.down()
    assert read(file) == (B, 2, "uncertain")
    b.down()
    done = run(file, "read", "forno-h")
    assert done.returncode == 1
    assert "nothing listens there" in done.stderr


def test_probe_and_doctor_look_at_each(pair: Pair) -> None:
    a, b, file = pair
    done = run(file, "probe", "forno-h", "--json")
    assert done.returncode == 0, done.stdout
    assert [(r["host"], r["usable"]) for r in json.loads(done.stdout)] == [(A, True), (B, True)]
    assert json.loads(run(file, "probe", B, "--json").stdout)["host"] == B
    b.down()
    done = run(file, "probe", "forno-h")
    assert done.returncode == 1  # redundancy is lost
    assert f"{A}:{a.port}: OP, rack 0, slot 1" in done.stdout
    assert f"{B}:{b.port}: no S7 connection" in done.stdout
    findings = json.loads(run(file, "doctor", "--json").stdout)["findings"]
    found = {(f["subject"], f["code"]) for f in findings if f["subject"].startswith("plc ")}
    assert (f"plc forno-h at {A}", "connection") in found
    assert (f"plc forno-h at {B}", "refused") in found


def test_the_simulator_stands_at_the_first() -> None:
    port = free_port()
    with Simulator(config(port, [A, B])) as simulator:
        assert simulator.ports == {"forno-h": port}
        assert read(simulator.file)[0] == A
    with Simulator(config(102, ["192.168.0.10", "192.168.0.11"]), "--port-base",
                   str(free_port())) as simulator:  # fmt: skip
        assert "PLC_EDGE__PLCS__FORNO_H__HOSTS=[127.0.0.1]" in simulator.errors()
