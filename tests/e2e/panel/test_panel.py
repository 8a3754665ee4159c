"""What the page says when things break, in headless Chromium, in both languages and both sizes.

Screenshots go to tests/artifacts/panel. The live wire is fed by tests/kit/frames_feeder.py; the
processes are real ones under a real supervisord.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.kit.browser import DESKTOP, PHONE, artefact, chromium, page
from tests.kit.common import until
from tests.kit.metrics_rig import Rig


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig(machines=4) as rig:
        until(lambda: rig.get("/readyz").status == 200, 10, "ready")
        yield rig


def accessible(tab: Page) -> None:
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()


def fits(tab: Page) -> None:
    """Nothing hangs over the side: a phone would scroll the whole page sideways."""
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def open_group(tab: Page, plc: str, group: str) -> Any:
    tab.locator(f'[data-plc="{plc}"] > button').click()
    tab.locator(f'[data-group="{plc}/{group}"] > button').click()
    return tab.locator(f'[data-group="{plc}/{group}"]')


SAYS = {
    "pt-BR": {
        "ok": "Tudo funcionando", "error": "Há falhas",
        "plc": "Sem resposta do CLP em 192.168.0.11", "plc_fix": "Verifique o cabo de rede",
        "output": "mqtts://broker.acme.local:8883 recusa a conexão",
        "bad": "Campos que não podem ser lidos: 5 (corrente)",
        "reason": "endereço além do fim do bloco",
        "killed": "mirror-copia-db500 terminou e foi reiniciado", "value": "78,",
    },
    "en-US": {
        "ok": "Everything works", "error": "There are faults",
        "plc": "No answer from the PLC at 192.168.0.11", "plc_fix": "Check the network cable",
        "output": "mqtts://broker.acme.local:8883 refuses the connection",
        "bad": "Fields that cannot be read: 5 (corrente)",
        "reason": "address beyond the end of the block",
        "killed": "mirror-copia-db500 ended and was started again", "value": "78.",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "size", "dark"),
    [("pt-BR", DESKTOP, False), ("pt-BR", PHONE, True), ("en-US", DESKTOP, True),
     ("en-US", PHONE, False)],
)  # fmt: skip
def test_faults_are_said_in_words(
    browser: Browser, rig: Rig, language: str, size: tuple[int, int], dark: bool
) -> None:
    says = SAYS[language]
    name = f"{language[:2]}-{size[0]}-{'dark' if dark else 'light'}"
    with page(browser, size, language, dark) as (tab, console):
        tab.goto(rig.url)
        expect(tab.locator("h1")).to_have_text(says["ok"])
        expect(tab.locator("html")).to_have_attribute("lang", language.replace("-US", ""))
        fits(tab)
        tab.screenshot(path=artefact(f"{name}-ok"))

        group = open_group(tab, "prensa-01", "db500")
        cells = group.locator('[data-field="velocidade"] td')
        expect(cells).to_have_count(4)
        expect(cells.first).to_contain_text("rpm")
        group.locator('[data-field="temperatura"] button').click()
        expect(group.locator(".trend canvas")).to_be_visible()
        fits(tab)
        accessible(tab)
        tab.screenshot(path=artefact(f"{name}-values"), full_page=True)

        rig.tell(
            plc="forno-02",
            status="offline",
            failure={
                "code": "timeout",
                "message": "no answer in 2 s",
                "attempts": 9,
                "since": int(time.time() * 1_000) - 42_000,
            },
        )
        rig.tell(plc="prensa-01", bad={"corrente": "address_out_of_range"})
        rig.tell(
            output="central",
            status="down",
            pending=1_840,
            oldest_s=96,
            fields={
                "target": "mqtts://broker.acme.local:8883",
                "code": "refused",
                "message": "connection refused",
            },
        )
        os.kill(rig.pid("mirror-copia-db500"), signal.SIGKILL)
        problems = tab.locator("#problems")
        expect(tab.locator("h1")).to_have_text(says["error"])
        for key in ("plc", "plc_fix", "output", "bad"):
            expect(problems).to_contain_text(says[key])
        # The same where the thing itself stands.
        expect(tab.locator('[data-plc="forno-02"]')).to_contain_text(says["plc"])
        expect(tab.locator('[data-output="central"]')).to_contain_text(says["output"])
        expect(group.locator('[data-field="corrente"]')).to_contain_text(says["reason"])
        expect(tab.locator("#event-rows")).to_contain_text(says["killed"])
        fits(tab)
        accessible(tab)
        tab.screenshot(path=artefact(f"{name}-faults"), full_page=True)

        rig.tell(plc="forno-02", status="online")
        rig.tell(plc="prensa-01", bad={})
        rig.tell(output="central", status="ok", pending=0, oldest_s=0, fields={})
        expect(tab.locator("h1")).to_have_text(says["ok"])
        assert console == []


def test_survives_the_loss_of_the_service(browser: Browser, rig: Rig) -> None:
    with page(browser) as (tab, _console):
        tab.goto(rig.url)
        expect(tab.locator("#contact")).to_have_text("ao vivo")
        group = open_group(tab, "prensa-01", "db501")
        value = group.locator('[data-field="contador_bom"] td')
        expect(value).not_to_have_text("")
        pid = rig.pid("metrics")
        os.kill(pid, signal.SIGSTOP)
        try:
            expect(tab.locator("#lost")).to_be_visible()
            expect(tab.locator("#lost")).to_contain_text("Sem contato com a caixa")
            # No green word may stand over data that nobody vouches for.
            expect(tab.locator("h1")).to_have_text("Sem contato")
            tab.screenshot(path=artefact("pt-no-contact"))
            accessible(tab)
        finally:
            os.kill(pid, signal.SIGKILL)
        until(lambda: rig.pid("metrics") not in (0, pid), 15, "back")
        expect(tab.locator("#lost")).to_be_hidden()
        expect(tab.locator("#contact")).to_have_text("ao vivo")
        expect(tab.locator("h1")).not_to_have_text("Sem contato")
        before = value.inner_text()
        expect(value).not_to_have_text(before)


def test_the_choice_of_language_and_colours_stays(browser: Browser, rig: Rig) -> None:
    with page(browser, language="fr-FR") as (tab, console):
        tab.goto(rig.url)
        expect(tab.locator("h1")).to_have_text("Everything works")
        tab.locator("#language").select_option("pt")
        tab.locator("#theme").select_option("dark")
        expect(tab.locator("h1")).to_have_text("Tudo funcionando")
        tab.reload()
        expect(tab.locator("h1")).to_have_text("Tudo funcionando")
        expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
        assert console == []


def test_by_keyboard_alone(browser: Browser, rig: Rig) -> None:
    with page(browser) as (tab, console):
        tab.goto(rig.url)
        expect(tab.locator("h1")).to_have_text("Tudo funcionando")
        row = tab.locator('[data-plc="prensa-01"] > button')
        row.focus()
        tab.keyboard.press("Enter")
        expect(row).to_have_attribute("aria-expanded", "true")
        tab.locator('[data-group="prensa-01/db501"] > button').wait_for()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Space")
        expect(tab.locator('[data-group="prensa-01/db501"] table')).to_be_visible()
        assert console == []


def test_a_value_never_becomes_code(browser: Browser, rig: Rig) -> None:
    evil = "<img src=x onerror=alert(1)>"
    rig.tell(event=["store_forward", "warning", "x", evil])
    rig.tell(
        plc="forno-02",
        status="offline",
        failure={"code": evil, "message": evil, "since": 1, "attempts": 1},
    )
    with page(browser) as (tab, console):
        tab.goto(rig.url)
        expect(tab.locator("#event-rows")).to_contain_text(evil)
        assert tab.locator("img").count() == 0
        assert console == []


@pytest.mark.timing
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_smooth_with_50_plcs_of_1000_values(browser: Browser, size: tuple[int, int]) -> None:
    with Rig(plcs=50, groups=1, machines=10, fields=100) as rig:
        until(lambda: rig.get("/readyz").status == 200, 30, "all read")
        with page(browser, size) as (tab, console):
            tab.goto(rig.url)
            expect(tab.locator("[data-plc]")).to_have_count(50)
            group = open_group(tab, "prensa-01", "db500")
            expect(group.locator("tbody tr")).to_have_count(100)
            # Long tasks (> 50 ms) are what a person feels; software rendering on two busy cores.
            blocked_ms = tab.evaluate(
                """async () => {
                  let sum = 0;
                  const watch = new PerformanceObserver((l) => {
                    for (const e of l.getEntries()) sum += e.duration - 50;
                  });
                  watch.observe({ type: "longtask" });
                  await new Promise((done) => setTimeout(done, 5000));
                  watch.disconnect();
                  return sum;
                }"""
            )
            tab.screenshot(path=artefact(f"pt-{size[0]}-50-plcs"))
            assert blocked_ms < 1_000
            tab.locator("#find-plc").fill("maquina-4")
            expect(tab.locator("[data-plc]:visible")).to_have_count(10)
            assert console == []
