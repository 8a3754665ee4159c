"""A reader is small and starts fast, also when its PLC is absent."""

from __future__ import annotations

import compileall
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from services.runtime import loader, render
from tests.kit.box import plc
from tests.kit.common import ROOT, free_ports
from tests.kit.site import Site

STARTS = 7


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """As installed: bytecode stands beside the sources."""
    for folder in ("bus", "services"):
        compileall.compile_dir(ROOT / folder, quiet=1)


@pytest.mark.timing
def test_from_interpreter_to_ready() -> None:
    ports = free_ports(2)
    config = {"site": "e2e", "locatario": "acme", "plcs": [plc("prensa-01", ports[0])],
              "metrics": {"port": ports[1]}}  # fmt: skip
    site = Site(config)
    rendered = render.render(loader.load(site.file))
    render.write(rendered, "test")
    took_s = []
    for _ in range(STARTS):
        begin_s = time.monotonic()
        command = [sys.executable, "-P", "-m", "services.reader", "--config"]
        process = subprocess.Popen(
            [*command, str(site.runtime / "conf" / "reader-prensa-01.json")],
            stderr=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            took_s.append(time.monotonic() - begin_s)
            assert orjson.loads(line)["msg"] == "READY"
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            assert process.wait(10) == 0
            assert process.stderr is not None
            process.stderr.close()
    rss_kib = int(status.split("VmRSS:")[1].split()[0])
    print(f"READY after {min(took_s) * 1e3:.0f} to {max(took_s) * 1e3:.0f} ms, RSS {rss_kib} KiB")
    # The fastest start is what the program needs; the others are what the machine adds.
    assert min(took_s) < 0.2
    assert rss_kib * 1_024 < 25e6
