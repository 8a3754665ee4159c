"""A group's own fields, given as in a layout: what ``check`` takes, ``simulate`` serves, ``read``
reads and the reader publishes.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from services.runtime import loader, render
from tests.kit.common import ROOT, free_ports
from tests.kit.reader_rig import ReaderRig
from tests.kit.simulator import Simulator
from tests.kit.site import PLC_EDGE

FIELDS: list[dict[str, Any]] = [
    {"name": "rodando", "type": "BOOL", "offset": 0.0},
    {"name": "corrente", "type": "REAL", "offset": 2, "unit": "A"},
    {"name": "ciclos", "type": "INT", "offset": 6},
]
LOOSE = {"name": "bomba", "address": "M10.3"}


def plc(port: int) -> dict[str, Any]:
    groups = [
        {"name": "linha", "db": 500, "scan": "100ms", "fields": FIELDS, "raw": True,
         "machines": {"count": 3, "stride": 8}},
        {"name": "mista", "db": 1, "scan": "100ms", "publish": "always", "fields": [
            {"name": "aa", "type": "INT", "offset": 0}, LOOSE]},
    ]  # fmt: skip
    return {"id": "prensa-01", "host": "127.0.0.1", "port": port, "groups": groups}


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLC_EDGE, *words], capture_output=True, text=True, check=False, timeout=30, cwd=ROOT,
        env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


def test_every_verb_takes_them(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = {"site": "teste", "locatario": "acme", "plcs": [plc(port)]}
    with Simulator(config, "--tick-ms", "50", folder=tmp_path) as simulator:
        checked = command("check", "-c", str(simulator.file), "--json")
        assert (checked.returncode, checked.stderr) == (0, "")
        plan = {row["group"]: (row["fields"], row["bytes"]) for row in json.loads(checked.stdout)}
        assert plan == {"linha": (9, 24), "mista": (2, 3)}

        read = command("read", "-c", str(simulator.file), "prensa-01", "--json")
        assert read.returncode == 0, read.stderr
        messages = json.loads(read.stdout)
        assert [(m["group"], m.get("machine"), m.get("db")) for m in messages] == [
            ("linha", "m00", 500), ("linha", "m01", 500), ("linha", "m02", 500), ("mista", None, 1),
        ]  # fmt: skip
        assert set(messages[1]["values"]) == {"rodando", "corrente", "ciclos"}
        assert set(messages[3]["values"]) == {"aa", "bomba"}

        with ReaderRig(plc(port)) as rig:
            rig.wait(lambda: {m["group"] for m in rig.messages} == {"linha", "mista"})
        linha = [m for m in rig.messages if m["group"] == "linha" and m["values"]]
        assert {m["machine"] for m in linha} == {"m00", "m01", "m02"}
        assert all(m["quality"] == "good" and "bad" not in m for m in linha)


def test_they_are_placed_as_by_a_layout_file(tmp_path: Path) -> None:
    """The JSON that a reader gets is the same for both."""
    (tmp_path / "linha.yaml").write_text(yaml.safe_dump({"name": "linha", "fields": FIELDS}))
    inline = plc(102)
    from_file = {**inline, "groups": [{**inline["groups"][0], "layout": "linha.yaml"}]}
    del from_file["groups"][0]["fields"]

    rendered = []
    for name, one in (("a", inline), ("b", from_file)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"site": "teste", "locatario": "acme", "plcs": [one]}))
        rendered.append(render.render(loader.load(file))["reader-prensa-01"]["groups"][0])
    assert rendered[0] == rendered[1]
