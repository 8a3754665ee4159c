"""`plc-edge trust`, `browse` and `doctor` against a server that is not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from services.protocols.opcua import security
from tests.kit.common import ROOT, free_port
from tests.kit.opcua import EVERY_TYPE, NodeServer, opcua_plc, reading
from tests.kit.site import PLC_EDGE, Site


@pytest.fixture
def site(node_server: NodeServer) -> Iterator[Site]:
    plc = opcua_plc(node_server.port, {"Int16": "INT"})
    box = Site({"site": "rig", "locatario": "acme", "plcs": [plc]})
    yield box
    shutil.rmtree(box.folder)


def plc_edge(site: Site, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLC_EDGE, *words, "-c", str(site.file)], cwd=ROOT, input=answer,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_person_confirms_the_certificate(site: Site, tmp_path: Path) -> None:
    doctor = json.loads(plc_edge(site, "doctor", "--json").stdout)
    (refused,) = [f for f in doctor["findings"] if f["code"] == "opcua_not_trusted"]
    assert "plc-edge trust forno-01" in refused["fix"]

    assert plc_edge(site, "browse", "forno-01").returncode == 1
    done = plc_edge(site, "trust", "forno-01", answer="n\n")
    assert done.returncode == 1
    assert security.known(site.state, "forno-01") is None

    assert plc_edge(site, "trust", "forno-01", "--fingerprint", "AB:CD").returncode == 1
    assert security.known(site.state, "forno-01") is None

    done = plc_edge(site, "trust", "forno-01", answer="y\n")
    assert done.returncode == 0, done.stderr
    known = security.known(site.state, "forno-01")
    assert known is not None
    assert security.fingerprint(known) in done.stdout
    assert security.fingerprint(known) in refused["text"]
    assert "trusted already" in plc_edge(site, "trust", "forno-01").stdout
    other = plc_edge(site, "trust", "forno-01", "--fingerprint", "AB:CD")
    assert (other.returncode, "this is not AB:CD" in other.stderr) == (1, True), other.stdout

    doctor = json.loads(plc_edge(site, "doctor", "--json").stdout)
    ours = {f["code"]: f["level"] for f in doctor["findings"] if f["subject"].startswith("plc")}
    assert ours == {"connection": "ok", "read": "ok"}

    own = tmp_path / "own.der"
    assert plc_edge(site, "trust", "--own", str(own)).returncode == 0
    assert own.read_bytes() == security.own(site.state, "rig")[0]


def test_what_is_browsed_is_read(site: Site, node_server: NodeServer) -> None:
    plc_edge(site, "trust", "forno-01", answer="y\n")
    done = plc_edge(site, "browse", "forno-01", "Plant", "--filter", "tanque", "--json")
    (level,) = json.loads(done.stdout)
    assert level["path"] == "level"
    assert (level["type"], level["unit"], level["comment"]) == ("LREAL", "°C", "Nível do tanque")

    layout = site.folder / "planta.yaml"
    done = plc_edge(site, "browse", "forno-01", "Plant", "--out", str(layout))
    assert done.returncode == 0, done.stderr
    fields = {f["name"]: f for f in yaml.safe_load(layout.read_text())["fields"]}
    for name, (kind, _) in EVERY_TYPE.items():
        assert fields[name]["type"] == kind
    assert fields["drive.started"]["member"] == "started"

    plc = opcua_plc(node_server.port, {})
    plc["groups"][0] = {"name": "planta", "layout": str(layout)}
    site.configure({**site.config, "plcs": [plc]})
    check = plc_edge(site, "check")
    assert check.returncode == 0, check.stderr
    with reading(plc) as rig:
        values = rig.messages[-1]["values"]
        wanted = {name: value for name, (_, value) in EVERY_TYPE.items()}
        assert {name: values.get(name) for name in wanted} == wanted
        assert set(rig.messages[-1]["bad"]) == {"nan", "infinite"}


def test_what_cannot_be_found_is_said(site: Site) -> None:
    plc_edge(site, "trust", "forno-01", answer="y\n")
    done = plc_edge(site, "browse", "forno-01", "Planta")
    assert done.returncode == 1
    assert "there is no 'Planta'; there are:" in done.stderr
    assert "Traceback" not in done.stderr
    done = plc_edge(site, "browse", "forno-01", "--filter", "não existe")
    assert (done.returncode, done.stderr.strip()) == (1, "nothing found that contains 'não existe'")


@pytest.mark.parametrize("verb", ["trust", "browse", "read"])
def test_a_plc_that_nobody_configured_is_told(site: Site, verb: str) -> None:
    done = plc_edge(site, verb, "forno-1")
    text = "no PLC 'forno-1' in the configuration; did you mean forno-01?"
    assert (done.returncode, done.stderr.strip()) == (2, text)


def test_typical_slips_are_told_with_what_to_do(site: Site, node_server: NodeServer) -> None:
    """A path as the table shows it; a port at which nobody is; a host with its port."""
    plc_edge(site, "trust", "forno-01", answer="y\n")
    done = plc_edge(site, "browse", "forno-01", "Plant.Float")
    assert "steps are parted by `/`" in done.stderr
    done = plc_edge(site, "probe", f"127.0.0.1:{node_server.port}")
    assert f"fix: plc-edge probe 127.0.0.1 --port {node_server.port}" in done.stderr
    site.configure({**site.config, "plcs": [opcua_plc(free_port(), {"a": "INT"})]})
    done = plc_edge(site, "read", "forno-01")
    port = site.config["plcs"][0]["port"]
    assert f"port {port} refuses the connection" in done.stderr
    assert "plc-edge doctor" in done.stderr


def test_a_wrong_node_is_told_with_its_line(site: Site) -> None:
    plc = opcua_plc(4840, {})
    plc["groups"][0]["fields"] = [{"name": "a", "node": "ns=3;s=a", "type": "INT"}]
    site.configure({**site.config, "plcs": [plc]})
    done = plc_edge(site, "check")
    assert done.returncode == 2
    assert "counts the namespace" in done.stderr
    assert "nsu=URI" in done.stderr


def test_files_that_are_not_there_are_told(site: Site) -> None:
    user = {"user_certificate": "operador.der", "user_key": "operador.key"}
    site.configure({**site.config, "plcs": [opcua_plc(4840, {"a": "INT"}, **user)]})
    done = plc_edge(site, "check")
    assert done.returncode == 2
    assert "user_certificate" in done.stderr
    assert "user_key" in done.stderr
    account = {"username": "edge", "password_file": "senha"}
    site.configure({**site.config, "plcs": [opcua_plc(4840, {"a": "INT"}, **account)]})
    done = plc_edge(site, "check")
    assert done.returncode == 2
    assert "plcs[0].password_file" in done.stderr
