"""``plc-edge browse`` of a CPU by S7CommPlus: what is shown, and a layout that can be read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.common import ROOT, free_port
from tests.kit.reader_rig import ReaderRig
from tests.kit.s7plus_cpu import SymbolCpu, Var
from tests.kit.site import PLC_EDGE

BLOCKS = {
    "Prensa 1": [
        Var("ciclos", "DINT"),
        Var("eixo", members=[Var("posição mm", "LREAL"), Var("em", "DTL")], dims=((1, 2),)),
        Var("a.b", "BOOL"),
    ],
    "Vazio": [],
}


@pytest.fixture
def port() -> int:
    plc = SymbolCpu(BLOCKS, tags=[Var("Nível", "WORD")])
    found = free_port()
    plc.set("Prensa 1.eixo[2].em", bytes.fromhex("07e4031803162c172af99640"))
    plc.set("Prensa 1.eixo[1].em", bytes.fromhex("07e4031803162c172af99640"))
    plc.start("127.0.0.1", found)
    return found


def site(folder: Path, port: int, **group: Any) -> Path:
    group = group or {"fields": [{"name": "x", "symbol": "Prensa.x", "type": "INT"}]}
    plc = {"id": "prensa-01", "protocol": "s7plus", "host": "127.0.0.1", "port": port,
           "groups": [{"name": "tudo", **group}]}  # fmt: skip
    file = folder / "config.yaml"
    paths = {"state": str(folder / "s"), "runtime": str(folder / "r")}
    file.write_text(
        yaml.safe_dump({"site": "planta", "locatario": "acme", "plcs": [plc], "paths": paths})
    )
    return file


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [*PLC_EDGE, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_layout_of_what_is_found_is_read(tmp_path: Path, port: int) -> None:
    file, layout = site(tmp_path, port), tmp_path / "prensa.yaml"
    done = run("browse", "prensa-01", "-c", str(file), "--out", str(layout))
    assert done.returncode == 0, done.stderr
    group = {"layout": str(layout), "scan": "50ms", "publish": "always"}
    whole = site(tmp_path, port, **group)
    checked = run("check", "-c", str(whole))
    assert checked.returncode == 0, checked.stderr
    assert "s7plus is experimental" in " ".join(checked.stderr.split())
    with ReaderRig(yaml.safe_load(whole.read_text())["plcs"][0]) as rig:
        rig.wait(lambda: rig.messages, 10)
        message = rig.messages[0]
    assert "bad" not in message
    assert len(message["values"]) == 7
    assert message["values"]["Prensa_1.eixo_2_.em"] == "2020-03-24T22:44:23.721"


def test_a_part_of_it(tmp_path: Path, port: int) -> None:
    file = site(tmp_path, port)
    done = run("browse", "prensa-01", "Prensa 1.eixo[2]", "-c", str(file), "--json")
    symbols = [one["tag"]["symbol"] for one in json.loads(done.stdout)]
    assert symbols == ['"Prensa 1".eixo[2]."posição mm"', '"Prensa 1".eixo[2].em']
    none = run("browse", "prensa-01", "--filter", "nada", "-c", str(file))
    assert none.returncode == 1
    assert "nothing found" in none.stderr
    assert "Traceback" not in none.stderr


def test_nobody_there(tmp_path: Path) -> None:
    done = run("browse", "prensa-01", "-c", str(site(tmp_path, free_port())))
    assert done.returncode == 1
    assert "nobody listens there" in done.stderr
    assert "Traceback" not in done.stderr
