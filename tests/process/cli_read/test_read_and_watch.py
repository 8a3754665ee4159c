"""``plc-edge read`` and ``watch`` against simulated PLCs, and what they say when there is none."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.common import BUSY_S, ROOT, free_ports, until
from tests.kit.simulator import Simulator
from tests.kit.site import PLC_EDGE

LAYOUT = """\
name: maquina
record: 8
fields:
  - {name: rodando, type: BOOL, offset: 0.0}
  - {name: corrente, type: REAL, offset: 2, unit: A}
  - {name: ciclos, type: INT, offset: 6}
"""


def site(folder: Path, port: int) -> dict[str, Any]:
    (folder / "maquina.yaml").write_text(LAYOUT)
    machines = {"count": 3, "stride": 8}
    loose = [
        {"name": "temperatura", "address": "DB1.DBD0:REAL", "unit": "°C"},
        {"name": "bomba_ligada", "address": "M10.3"},
        {"name": "espera", "address": "T5"},
    ]
    groups = [
        {"name": "linha", "db": 500, "scan": "100ms", "layout": "maquina.yaml",
         "machines": machines},
        {"name": "avulsos", "scan": "200ms", "fields": loose},
    ]  # fmt: skip
    plc = {"id": "prensa-01", "host": "127.0.0.1", "port": port, "timeout": "1s", "groups": groups}
    return {"site": "teste", "locatario": "acme", "plcs": [plc]}


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    (port,) = free_ports(1)
    folder = Path(str(tmp_path))
    with Simulator(site(folder, port), "--tick-ms", "50", folder=folder) as running:
        yield running


def run(verb: str, simulator: Simulator | Path, *words: str) -> subprocess.CompletedProcess[str]:
    file = simulator if isinstance(simulator, Path) else simulator.file
    return subprocess.run(
        [*PLC_EDGE, verb, "-c", str(file), *words],
        capture_output=True, text=True, check=False, timeout=30, cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


def test_read_as_messages(simulator: Simulator) -> None:
    done = run("read", simulator, "prensa-01", "--json")
    assert done.returncode == 0, done.stderr
    messages = json.loads(done.stdout)
    assert [(m["group"], m.get("machine"), m.get("db")) for m in messages] == [
        ("linha", "m00", 500),
        ("linha", "m01", 500),
        ("linha", "m02", 500),
        ("avulsos", None, None),
    ]
    first = messages[0]
    assert set(first["values"]) == {"rodando", "corrente", "ciclos"}
    assert isinstance(first["values"]["rodando"], bool)
    assert first["quality"] == "good"
    assert "bad" not in first
    assert abs(first["ts"] - time.time() * 1_000) < 60_000
    assert messages[0]["values"] != messages[1]["values"]


def test_read_as_a_table(simulator: Simulator) -> None:
    done = run("read", simulator, "prensa-01", "m01.corrente", "temperatura")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["GROUP", "MACHINE", "FIELD", "VALUE", "UNIT", "ADDRESS", "QUALITY"]
    assert lines[1].split()[:3] == ["linha", "m01", "corrente"]
    assert lines[1].split()[4:] == ["A", "DB500.DBD10:REAL", "good"]
    assert lines[2].split()[0] == "avulsos"
    assert len(lines) == 3


def test_tags_name_fields_patterns_and_addresses(simulator: Simulator) -> None:
    def read(*tags: str) -> dict[str, Any]:
        done = run("read", simulator, "prensa-01", *tags, "--json")
        assert done.returncode == 0, done.stderr
        return {
            f"{m['group']}.{m.get('machine', '')}.{k}": v
            for m in json.loads(done.stdout)
            for k, v in m["values"].items()
        }

    assert set(read("ciclos")) == {f"linha.m0{n}.ciclos" for n in range(3)}
    assert set(read("linha.m02.*")) == {f"linha.m02.{f}" for f in ("rodando", "corrente", "ciclos")}
    found = read("DB500.DBX0.0", "m00.rodando", "DB500.DBW6:INT")
    assert found["-..DB500.DBX0.0"] == found["linha.m00.rodando"]
    assert isinstance(found["-..DB500.DBW6:INT"], int)


def test_a_bad_address_costs_only_itself(simulator: Simulator) -> None:
    done = run("read", simulator, "prensa-01", "DB500.DBW6:INT", "DB500.DBW9000:INT",
               "DB77.DBD0:REAL", "--json")  # fmt: skip
    assert done.returncode == 0
    (message,) = json.loads(done.stdout)
    assert list(message["values"]) == ["DB500.DBW6:INT"]
    assert message["quality"] == "bad"
    assert message["bad"] == {
        "DB500.DBW9000:INT": "address_out_of_range",
        "DB77.DBD0:REAL": "object_does_not_exist",
    }
    done = run("read", simulator, "prensa-01", "DB77.DBD0:REAL")
    assert done.returncode == 1
    assert "object_does_not_exist" in done.stdout


def test_neighbours_of_a_bad_field_are_read(simulator: Simulator) -> None:
    # DB1 ends at byte 3: DBD0 and DBW2 are there, DBW4 is not, and all three merge into one item.
    done = run("read", simulator, "prensa-01", "DB1.DBD0:REAL", "DB1.DBW2:WORD", "DB1.DBW4:WORD",
               "--json")  # fmt: skip
    (message,) = json.loads(done.stdout)
    assert set(message["values"]) == {"DB1.DBD0:REAL", "DB1.DBW2:WORD"}
    assert message["bad"] == {"DB1.DBW4:WORD": "address_out_of_range"}


def test_a_stopped_cpu_is_uncertain(simulator: Simulator) -> None:
    simulator.tell("stop prensa-01")
    done = run("read", simulator, "prensa-01", "temperatura", "--json")
    (message,) = json.loads(done.stdout)
    assert message["quality"] == "uncertain"
    assert message["bad"] == {"*": "cpu_stop"}
    assert "STOP" in run("read", simulator, "prensa-01", "temperatura").stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["prensa-02"], 2, "no PLC 'prensa-02' in the configuration; did you mean prensa-01?"),
        (["prensa-01", "temperaturra"], 2, "did you mean temperatura"),
        (["prensa-01", "DB1.DBD0:REEL"], 2, "did you mean REAL?"),
        (["prensa-01", "DB1.DBX0.9"], 2, "bits are 0 to 7"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_words(simulator: Simulator, words: list[str], code: int, said: str) -> None:
    done = run("read", simulator, *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["read", "watch"])
def test_an_absent_plc_is_said_with_what_to_do(simulator: Simulator, verb: str) -> None:
    simulator.tell("down prensa-01")
    options = ["--seconds", "0.5"] if verb == "watch" else []
    done = run(verb, simulator, "prensa-01", *options)
    assert done.returncode == 1
    assert "prensa-01: 127.0.0.1" in done.stderr
    assert "nothing listens there" in done.stderr
    assert "plc-edge probe 127.0.0.1" in done.stderr


def test_put_get_not_permitted_is_said(simulator: Simulator) -> None:
    simulator.tell("refuse prensa-01")
    done = run("read", simulator, "prensa-01", "temperatura", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)[0]["bad"] == {"temperatura": "access_denied"}


def test_a_peer_that_is_no_plc(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"220 mail.example.com ESMTP\r\n")
                peer.recv(100)

        thread = threading.Thread(target=greet)
        thread.start()
        config = site(tmp_path, server.getsockname()[1])
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps({**config, "paths": {"runtime": str(tmp_path / "r")}}))
        done = run("read", file, "prensa-01")
        thread.join()
    assert done.returncode == 1
    assert "not a TPKT" in done.stderr
    assert "Traceback" not in done.stderr


def test_watch_in_a_pipe_writes_json_lines(simulator: Simulator) -> None:
    done = run("watch", simulator, "prensa-01", "m00.corrente", "temperatura", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    times = [m["ts"] for m in lines if m["group"] == "linha"]
    # 100 and 200 ms each; a busy machine leaves scans out.
    assert 3 <= len(times) <= 12
    assert 2 <= sum(m["group"] == "avulsos" for m in lines) <= 6
    assert times == sorted(times)


def test_watch_survives_a_plc_that_goes_and_comes(simulator: Simulator) -> None:
    command = [*PLC_EDGE, "watch", "prensa-01", "temperatura", "-c", str(simulator.file)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["values"]
        simulator.tell("down prensa-01")
        began_ms = time.time() * 1_000
        simulator.tell("up prensa-01")
        while json.loads(process.stdout.readline())["ts"] < began_ms + 500:
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=BUSY_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert "127.0.0.1" in errors  # it said what had happened
    finally:
        process.kill()
        process.wait()


def test_watch_on_a_terminal_is_a_table(simulator: Simulator) -> None:
    ours, theirs = pty.openpty()
    command = [*PLC_EDGE, "watch", "prensa-01", "-c", str(simulator.file)]
    process = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=theirs, cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def pump() -> None:
        while True:
            try:
                seen.extend(os.read(ours, 4_096))
            except OSError:
                return

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        until(lambda: b"temperatura" in seen and b"PDU 480" in seen, 15, "the table")
        simulator.tell("down prensa-01")
        until(lambda: b"127.0.0.1:" in seen and b"refused" in seen, 15, f"trouble: {seen!r}")
        process.send_signal(signal.SIGINT)
        assert process.wait(BUSY_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
