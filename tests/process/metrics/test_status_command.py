"""``plc-edge status``: the same document as /api/status, and what is left when that is down."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.common import ROOT, until
from tests.kit.metrics_rig import Rig
from tests.kit.pki import Ca
from tests.kit.site import PLC_EDGE
from tests.process.doctor.kit import config, write


def status(rig: Rig, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    data = config(folder)
    data["paths"]["runtime"] = str(rig.folder)
    command = [*PLC_EDGE, "status", "-c", str(write(folder, data)), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig(plcs=2) as rig:
        until(lambda: rig.get("/readyz").status == 200, 10, "ready")
        yield rig


def test_tables_json_and_exit_codes(rig: Rig, tmp_path: Path) -> None:
    said = status(rig, tmp_path)
    assert said.returncode == 0, said.stderr
    assert "planta-sp: everything works" in said.stdout
    for word in ("prensa-01", "192.168.0.10", "mqtts://broker.acme.local:8883", "store_forward"):
        assert word in said.stdout
    assert "\x1b" not in said.stdout
    told = json.loads(status(rig, tmp_path, "--json").stdout)
    assert told.keys() == rig.status().keys()
    assert [p["id"] for p in told["plcs"]] == ["prensa-01", "forno-02"]
    rig.tell(plc="forno-02", status="offline", failure={
        "code": "timeout", "message": "no answer in 2 s", "since": 1, "attempts": 3})  # fmt: skip
    until(lambda: rig.problem("plc_timeout"), 10, "told")
    said = status(rig, tmp_path)
    assert said.returncode == 1
    assert "forno-02: No answer from the PLC at 192.168.0.11" in said.stdout
    assert "fix: Check the network cable and the power of the PLC" in said.stdout


def test_without_metrics_supervisord_is_asked(rig: Rig, tmp_path: Path) -> None:
    saved = rig.file.read_text()
    rig.file.write_text(saved.replace(f'"port": {rig.port}', '"port": 1'))
    said = status(rig, tmp_path)
    assert said.returncode == 1
    assert "The metrics service is down" in said.stdout
    assert "nobody listens there" in said.stdout
    assert "reader-prensa-01" in said.stdout
    told = json.loads(status(rig, tmp_path, "--json").stdout)
    assert [p["up"] for p in told["processes"]] == [True] * 7


def test_nothing_runs(tmp_path: Path) -> None:
    data = config(tmp_path)
    command = [*PLC_EDGE, "status", "-c", str(write(tmp_path, data))]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert said.returncode == 1
    assert "plc-edge does not run" in said.stdout
    assert "systemctl start plc-edge" in said.stdout


def test_with_password_and_tls(tmp_path: Path) -> None:
    cert, key = Ca(tmp_path).issue("painel.local")
    password = tmp_path / "pw"
    password.write_text("segredo\n")
    reference = {"file": str(password), "digest": "x"}
    tls = {"cert": cert, "key": key}
    with Rig(plcs=1, username="operador", password=reference, tls=tls) as rig:
        until(lambda: status(rig, tmp_path).returncode == 0, 20, "ready")
        # Another certificate in its place is not trusted.
        config = json.loads(rig.file.read_text())
        config["metrics"]["tls"]["cert"] = Ca(tmp_path, "other").issue("painel.local", -59)[0]
        rig.file.write_text(json.dumps(config))
        assert "The metrics service is down" in status(rig, tmp_path).stdout
