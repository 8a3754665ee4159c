"""``plc-edge layout import`` as a person uses it; its output goes through ``plc-edge simulate``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.kit.common import ROOT, free_ports
from tests.kit.simulator import Simulator
from tests.kit.site import PLC_EDGE

SOURCES = ROOT / "tests" / "unit" / "importers" / "sources"


def layout_import(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLC_EDGE, "layout", "import", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=30, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def test_printed_layout_and_the_lines_to_add() -> None:
    done = layout_import(SOURCES / "motores.db", SOURCES / "motor.udt", SOURCES / "comando.udt")
    assert done.returncode == 0, done.stderr
    layout = yaml.safe_load(done.stdout)
    assert (layout["name"], layout["record"]) == ("motores", 12)
    assert layout["fields"][3] == {
        "name": "corrente", "type": "REAL", "offset": 2, "description": "A",
    }  # fmt: skip
    assert "machines: {count: 6, stride: 12, first: 0}" in done.stderr
    assert "db: …" in done.stderr  # the source has no number


def test_every_source_becomes_a_configuration_that_works(tmp_path: Path) -> None:
    together = [["motores.db", "motor.udt", "comando.udt"], ["silo.xml", "balanca.xml"]]
    together += [[n] for n in ("linha.db", "forno.scl", "bombas.awl", "snap7.csv", "snap7.json")]
    together += [[n] for n in ("tags_tia.xml", "tags.csv", "simbolos.sdf", "simbolos.asc")]
    groups: list[dict[str, Any]] = []
    for n, names in enumerate(together):
        out = tmp_path / f"out{n}"
        done = layout_import(*(SOURCES / x for x in names), "--out", out, "--json")
        assert done.returncode == 0, done.stderr
        for layout in json.loads(done.stdout):
            file = out / f"{layout['name']}.yaml"
            group: dict[str, Any] = {"name": f"g{len(groups):02d}", "scan": "1s"}
            if layout["record"] is None and layout["db"] is None:
                group["fields"] = yaml.safe_load(file.read_text())["fields"]
            else:
                group |= {"layout": str(file), "db": layout["db"] or 100 + n}
                if layout["machines"]:
                    group["machines"] = layout["machines"]
            groups.append(group)
    assert len(groups) >= 12
    plc = {"id": "prensa-01", "host": "127.0.0.1", "port": free_ports(1)[0], "groups": groups}
    config = {"site": "teste", "locatario": "acme", "plcs": [plc]}
    with Simulator(config) as simulator:
        read = subprocess.run(
            [*PLC_EDGE, "read", "prensa-01", "-c", str(simulator.file), "--json"],
            capture_output=True, text=True, check=False, timeout=30, cwd=ROOT,
        )  # fmt: skip
    assert read.returncode == 0, read.stderr
    assert {m["quality"] for m in json.loads(read.stdout)} == {"good"}


def test_one_file_or_a_folder(tmp_path: Path) -> None:
    one = tmp_path / "layouts" / "silo.yaml"
    config = tmp_path / "config.yaml"
    done = layout_import(SOURCES / "silo.xml", "--out", one, "-c", config)
    assert done.returncode == 0
    assert "layout: layouts/silo.yaml" in done.stderr  # as the configuration has to say it
    assert yaml.safe_load(one.read_text())["record"] == 58
    done = layout_import(SOURCES / "bombas.awl", "--out", tmp_path / "x.yaml")
    assert done.returncode == 2
    assert "need a folder" in done.stderr
    done = layout_import(SOURCES / "bombas.awl", "--block", "DB13", "--out", tmp_path / "x.yaml")
    assert done.returncode == 0
    assert yaml.safe_load((tmp_path / "x.yaml").read_text())["name"] == "db13"


def test_problems_with_file_line_and_fix(tmp_path: Path) -> None:
    done = layout_import(SOURCES / "otimizado.db", SOURCES / "motor.udt", "--out", tmp_path / "o")
    assert done.returncode == 2
    assert "otimizado.db:1" in done.stderr
    assert 'untick "Optimized block access"' in done.stderr
    assert "nothing written" in done.stderr
    assert not (tmp_path / "o").exists()
    assert "Traceback" not in done.stderr


def test_of_thousands_of_problems_the_first_are_told(tmp_path: Path) -> None:
    """41,000 of them took 2.5 s to print."""
    rows = "".join(f"a{i},1,{i},\n" for i in range(3_000))
    (tmp_path / "a.csv").write_text("tag,db,offset,type\n" + rows)
    done = layout_import(tmp_path / "a.csv")
    assert done.returncode == 2
    assert "a.csv:501:" in done.stderr
    assert "a.csv:502:" not in done.stderr
    assert "… and 2500 more\n3000 problems found" in done.stderr


def test_wrong_words(tmp_path: Path) -> None:
    done = layout_import()
    assert done.returncode == 2
    done = layout_import(tmp_path / "nada.db")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    done = layout_import(SOURCES / "bombas.awl", "--block", "DB99")
    assert done.returncode == 2
    assert "'DB12', 'DB13'" in done.stderr
    done = layout_import(SOURCES / "silo.xml", "--out", "/proc/nada")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
