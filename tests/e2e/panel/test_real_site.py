"""The panel of a whole running site: simulated PLCs, Mosquitto, every service under supervisord,
and real faults. What the page says, in Portuguese, with screenshots in tests/artifacts/panel.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.panel.test_panel import accessible, open_group
from tests.kit.browser import PHONE, artefact, chromium, page
from tests.kit.common import free_port, free_ports
from tests.kit.simulator import Simulator
from tests.kit.site import Site

FIELDS = [
    {"name": "ligada", "address": "DB500.DBX0.0"},
    {"name": "temperatura", "address": "DB500.DBD2:REAL", "unit": "°C"},
    {"name": "contador", "address": "DB500.DBW6:INT"},
]
# Beyond the end of what the simulated PLC has.
MISSING = {"name": "vazao", "address": "DB500.DBD400:REAL", "unit": "l/min"}


class Broker:
    """Mosquitto that can be pulled and put back."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        self._file.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; the publisher finds it by itself."""
        self._process = subprocess.Popen(
            ["mosquitto", "-c", str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def test_real_faults_on_the_page(browser: Browser, broker: Broker) -> None:
    ports = free_ports(2)
    plcs: list[dict[str, Any]] = [
        {"id": name, "host": "127.0.0.1", "port": port, "timeout": "1s",
         "groups": [{"name": "db500", "scan": "500ms", "fields": FIELDS}]}
        for name, port in zip(("prensa-01", "forno-02"), ports, strict=True)
    ]  # fmt: skip
    base = {"site": "planta-sp", "locatario": "acme"}
    simulated = {**base, "plcs": plcs}
    # The second PLC's configuration asks for a field that it does not have.
    wrong = {**plcs[1], "groups": [{**plcs[1]["groups"][0], "fields": [*FIELDS, MISSING]}]}
    metrics_port = free_port()
    config = {
        **base,
        "plcs": [plcs[0], wrong],
        "outputs": [{"name": "central", "type": "mqtt", "host": "127.0.0.1", "tls": False,
                     "port": broker.port, "from": "oldest"}],
        "metrics": {"port": metrics_port},
    }  # fmt: skip
    with Simulator(simulated) as simulator, Site(config) as site:
        site.wait_running()
        with page(browser) as (tab, console):
            tab.goto(f"http://127.0.0.1:{metrics_port}/")
            problems = tab.locator("#problems")

            # A bad field: named, with its reason, and nothing else is hurt.
            bad = "Campos que não podem ser lidos: 1 (vazao)"
            expect(problems).to_contain_text(bad)
            expect(tab.locator("h1")).to_have_text("Precisa de atenção")
            group = open_group(tab, "forno-02", "db500")
            expect(group.locator('[data-field="vazao"]')).to_contain_text("fim do bloco")
            expect(group.locator('[data-field="temperatura"] td')).to_contain_text("°C")
            expect(tab.locator("#problems > li")).to_have_count(1)
            accessible(tab)
            tab.screenshot(path=artefact("real-bad-field"), full_page=True)

            # The PLC is pulled.
            simulator.tell("down prensa-01")
            said = tab.locator('[data-plc="prensa-01"]')
            expect(said).to_contain_text("sem conexão")
            expect(problems).to_contain_text("em 127.0.0.1")
            expect(tab.locator("h1")).to_have_text("Há falhas")
            tab.screenshot(path=artefact("real-plc-pulled"), full_page=True)
            simulator.tell("up prensa-01")
            expect(said).to_contain_text("conectado", timeout=30_000)

            # The broker is stopped: data waits, the page says where and how much.
            broker.stop()
            output = tab.locator('[data-output="central"]')
            expect(output).to_contain_text("recusa a conexão", timeout=20_000)
            expect(problems).to_contain_text("Os dados ficam guardados aqui")
            tab.screenshot(path=artefact("real-broker-stopped"), full_page=True)
            broker.start()
            expect(output).to_contain_text("em dia", timeout=30_000)

            # A process is killed: counted, told, and back.
            os.kill(site.pid("store_forward"), signal.SIGKILL)
            events = tab.locator("#event-rows")
            expect(events).to_contain_text("store_forward terminou e foi reiniciado")
            row = tab.locator('[data-process="store_forward"]')
            expect(row.locator("td").nth(2)).to_have_text("1")
            tab.screenshot(path=artefact("real-process-killed"), full_page=True)

            # In the end only the bad field is left.
            expect(tab.locator("#problems > li")).to_have_count(1, timeout=30_000)
            assert console == []
        with page(browser, PHONE, "en-US", dark=True) as (tab, console):
            tab.goto(f"http://127.0.0.1:{metrics_port}/")
            expect(tab.locator("h1")).to_have_text("Needs attention")
            tab.screenshot(path=artefact("real-phone"), full_page=True)
            assert console == []
        told = site.run("status")
        assert told.returncode == 0, told.stdout + told.stderr
        assert "Fields that cannot be read: 1 (vazao)" in told.stdout
        started_s = time.monotonic()
        simulator.tell("down prensa-01")
        while site.run("status").returncode == 0:
            assert time.monotonic() - started_s < 20
