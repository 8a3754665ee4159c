"""``plc-edge central demo``: the whole pipeline with what this machine has; what may go wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from services.cli.demo_broker import is_free
from tests.kit.common import free_port, until
from tests.kit.demo import folder_of, of_demo, read_until, start
from tests.kit.site import PLC_EDGE

ROWS = (
    r"prensa-01: what the PLC holds is what the broker hands to leitor-acme +yes",
    r"prensa-01: every value of every message is in the database.* +yes +([\d,]+) of \1 values",
    r"forno-02: every value of every message is in the database.* +yes +([\d,]+) of \1 values",
    r"prensa-01: each point says whose it is +yes +site=planta-sp, locatario_id=acme",
    r"forno-02: each point says whose it is +yes .*machine=m00 \(and 4 more machines\)",
    r"acme: retention of raw values +yes +plan pro, 7 d: of points of 5 and 8 days ago it has 5",
    r"beta: retention of raw values +yes +plan free, 3 d: of points of 2 and 5 days ago it has 2",
    r"acme: downsampling to minutes .*yes .*last 30, max 60, mean 35, min 10",
    r"broker: leitor-beta sees beta alone +yes",
    r"broker: box planta-sp may not write plc/beta/forno-02 +yes +Not authorized",
    r"database: beta's credentials read nothing of acme +yes +\d+ series of beta, 0 of acme",
    r"broker: leitor-acme with another password is not let in +yes +Not authorized",
    r"Prometheus reads both boxes and has the alert rules +yes",
)


def run(*words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PLC_EDGE, "central", "demo", *words], capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, **(environment or {})},
    )  # fmt: skip


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[str, Path]]:
    """One whole run: what it said, and the folder that it left."""
    begin_s = time.monotonic()
    done = run("--keep", "--seconds", "3")
    print(f"the whole pipeline in {time.monotonic() - begin_s:.0f} s")
    folder = folder_of(done.stdout)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout, folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("row", ROWS)
def test_it_shows(kept: tuple[str, Path], row: str) -> None:
    assert re.search(row, kept[0]), kept[0]


def test_nothing_it_asserts_fails(kept: tuple[str, Path]) -> None:
    assert not re.search(r" NO ", kept[0]), kept[0]


def test_it_says_what_did_not_run(kept: tuple[str, Path]) -> None:
    assert re.search(r"dashboards +did not run", kept[0])
    without = shutil.which("telegraf") is None
    assert (
        bool(re.search(r"broker's ingestion +did not run +no `telegraf` on PATH", kept[0]))
        == without
    )


def test_rendered_files_are_used_as_they_are(kept: tuple[str, Path], tmp_path: Path) -> None:
    """What ran is what `infra render` writes, to the byte."""
    fleet = str(kept[1] / "boxes")
    command = [*PLC_EDGE, "infra", "render", "--fleet", fleet, "--out", str(tmp_path)]
    command += ["--database", "victoriametrics"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert len(files) > 20
    for file in files:
        assert (kept[1] / "infra" / file.relative_to(tmp_path)).read_bytes() == file.read_bytes()


def test_it_ends_clean(kept: tuple[str, Path]) -> None:
    assert of_demo(kept[1]) == []
    for file in kept[1].glob("boxes/*/config.yaml"):
        config = yaml.safe_load(file.read_text())
        broker = config["infra"]["broker"]
        ports = [config["plcs"][0]["port"], config["metrics"]["port"]]
        ports += [broker[key] for key in ("port", "websocket_port", "certificate_port")]
        assert all(is_free(port) for port in ports)


def test_ctrl_c_midway_leaves_nothing() -> None:
    process = start("central", "demo", "--seconds", "60")
    try:
        read_until(process, "messages flow")
        (folder,) = {folder_of(" ".join(p.cmdline())) for p in _children(process.pid)}
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 130
        until(lambda: not of_demo(folder), 15, "every process gone")
        assert not folder.exists()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_port_that_is_taken() -> None:
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        done = run("--port-base", str(port))
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("there", "package"), [((), "openssl"), (("openssl",), "victoria-metrics")]
)
def test_a_program_that_is_missing(tmp_path: Path, there: tuple[str, ...], package: str) -> None:
    for name in there:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = run(environment={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert f"apt-get install {package}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_is_another(tmp_path: Path) -> None:
    (tmp_path / "openssl").symlink_to("/bin/true")
    done = run(environment={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert "openssl does not say its version: is it openssl?" in done.stderr


def _children(pid: int) -> list[psutil.Process]:
    return [
        p
        for p in psutil.Process(pid).children(recursive=True)
        if "/tmp/plc-edge-" in " ".join(p.cmdline())
    ]
