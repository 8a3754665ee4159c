"""The panel's alarms, with the real engine and store behind it, in headless Chromium."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
import urllib3
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.kit.alerts_rig import HIGH, World, world
from tests.kit.browser import DESKTOP, PHONE, artefact, chromium, page
from tests.kit.common import free_port, until
from tests.kit.procs import Service

RULES = HIGH + (
    "    - {name: b-baixo, type: threshold, where: {plc: p2, field: a}, below: -5, severity: aviso,"
    ' message: "{field} em {value}, <b>baixo demais</b>"}\n'
)
LOGIN = {"username": "turno", "password": "segredo"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"turno:segredo").decode()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def panel(login: bool = True) -> Iterator[tuple[World, str, Service]]:
    """Store, engine and panel of one box; two alarms ring."""
    port = free_port()
    account = ", username: turno, password: segredo" if login else ""
    metrics = f"metrics: {{host: 127.0.0.1, port: {port}{account}}}"
    with world(rules=RULES, outputs=metrics) as w, w.alerts() as alerts:
        alerts.wait_ready()
        running = Service(w.rendered["metrics"])
        try:
            running.wait_ready()
            w.feed("p1", 90)
            w.feed("p2", -7)
            w.drain()
            until(lambda: len(w.history()) == 2, 10, alerts.stderr)
            yield w, f"http://127.0.0.1:{port}/", alerts
        finally:
            running.end()


def accessible(tab: Page) -> None:
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()


def fits(tab: Page) -> None:
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


SAYS = {
    "pt-BR": ("Confirmar", "Silenciar …", "Silenciar", "confirmado por turno", "silenciado até",
              "Encerrar silêncio", "crítica"),
    "en-US": ("Acknowledge", "Silence …", "Silence", "acknowledged by turno", "silenced until",
              "End silence", "critical"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "size", "dark"), [("pt-BR", DESKTOP, False), ("en-US", PHONE, True)]
)
def test_acknowledge_and_silence(
    browser: Browser, language: str, size: tuple[int, int], dark: bool
) -> None:
    ack, open_silence, silence, acked, silenced, unsilence, critical = SAYS[language]
    name = f"alarms-{language[:2]}-{size[0]}"
    with (
        panel() as (w, url, _),
        page(browser, size, language, dark, http_credentials=LOGIN) as (tab, console),
    ):
        tab.goto(url)
        rows = tab.locator("#alarm-rows .alarm")
        expect(rows).to_have_count(2)
        high, low = rows.nth(0), rows.nth(1)  # the worst first
        expect(high).to_contain_text(critical)
        expect(low).to_contain_text("<b>baixo demais</b>")  # text, not markup
        fits(tab)
        accessible(tab)
        tab.screenshot(path=artefact(f"{name}-ringing"), full_page=True)

        high.get_by_role("button", name=ack).click()
        expect(high).to_contain_text(acked)
        expect(high.get_by_role("button", name=ack)).to_have_count(0)
        low.get_by_role("button", name=open_silence).click()
        accessible(tab)
        low.locator("input").fill("troca do sensor")
        tab.screenshot(path=artefact(f"{name}-silencing"), full_page=True)
        low.get_by_role("button", name=silence, exact=True).click()
        expect(low).to_contain_text(silenced)
        expect(low).to_contain_text("troca do sensor (turno)")
        fits(tab)
        accessible(tab)
        tab.screenshot(path=artefact(f"{name}-cared-for"), full_page=True)

        w.feed("p2", 0)
        w.feed("p2", -9)  # again, while it is silenced: nobody is told
        w.drain()
        until(lambda: w.history()[-1]["value"] == -9, 10, lambda: f"{w.history()}")
        assert w.history()[-1]["reason"] == "silenced"
        low.get_by_role("button", name=unsilence).click()
        expect(low.get_by_role("button", name=open_silence)).to_be_visible()
        until(lambda: w.history()[-1]["reason"] == "still_firing", 10, lambda: f"{w.history()}")
        w.feed("p1", 0)
        w.feed("p2", 0)
        expect(rows).to_have_count(0)
        assert console == []


def test_a_new_alarm_sounds_only_where_that_was_asked_for(browser: Browser) -> None:
    with panel() as (w, url, alerts), page(browser, http_credentials=LOGIN) as (tab, console):
        tab.goto(url)
        rows, section = tab.locator("#alarm-rows .alarm"), tab.locator("#alarms")
        expect(rows).to_have_count(2)
        w.feed("p2", 99)
        expect(tab.locator('[data-rule="a-alto"]')).to_have_count(2)
        expect(section).not_to_have_attribute("data-beeps", "1")
        tab.get_by_label("Som para alarmes novos").check()
        expect(section).to_have_attribute("data-beeps", "1")  # so it is known how it sounds
        w.feed("p2", -8)
        expect(section).to_have_attribute("data-beeps", "2")
        alerts.kill()
        expect(tab.locator("#alarm-say")).to_contain_text("O motor de alertas não responde")
        assert [said for said in console if "503" not in said] == []


def test_without_a_login_nothing_can_be_done(browser: Browser) -> None:
    with panel(login=False) as (w, url, _), page(browser) as (tab, console):
        tab.goto(url)
        expect(tab.locator("#alarm-rows .alarm")).to_have_count(2)
        expect(tab.locator("#alarm-login")).to_contain_text("o painel precisa de login")
        expect(tab.locator("#alarms button:visible")).to_have_count(0)
        accessible(tab)
        assert console == []
        answer = post(url, "ack", {"rule": "a-alto"}, {})
        assert (answer.status, answer.json()["error"]) == (403, "no_login")
        assert w.history()[-1]["to"] == "disparando"


def post(
    url: str, verb: str, body: object, headers: dict[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Content-Type": "application/json", **BASIC, **({} if headers is None else headers)}
    return urllib3.request("POST", f"{url}api/alarms/{verb}", body=raw, headers=headers)


def test_only_the_panel_itself_may_ask() -> None:
    with panel() as (_, url, alerts):
        own = {"Origin": url.rstrip("/")}
        assert post(url, "ack", {"rule": "a-alto"}, {"Authorization": "Basic eDp5"}).status == 401
        foreign = post(url, "ack", {"rule": "a-alto"}, {"Origin": "https://evil.example"})
        assert (foreign.status, foreign.json()["error"]) == (403, "foreign")
        # What a form of another page can send without the browser asking first.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert post(url, "ack", {"rule": "a-alto"}, {"Content-Type": kind}).status == 415
        bad = [(b"{", 400), (b"[]", 400), ({"rule": 5}, 400), (b"x" * 5_000, 413),
               ({"rule": "a-alto", "plc": 7}, 400), ({"rule": "nirgends"}, 409)]  # fmt: skip
        for body, status in bad:
            assert post(url, "ack", body, own).status == status, body
        for change in ({"for_s": -1}, {"for_s": True}, {"for_s": 10**9}, {"why": " "},
                       {"why": "x" * 201}, {"why": None}):  # fmt: skip
            said = {"rule": "a-alto", "for_s": 60, "why": "teste", **change}
            assert post(url, "silence", said, own).status == 400, change
        listed = urllib3.request("GET", f"{url}api/alarms", headers=BASIC).json()
        assert [a["confirmado"] for a in listed["alarms"]] == [None, None]
        done = post(url, "ack", {"rule": "a-alto", "plc": "p1"}, own)
        assert done.status == 200
        assert done.json()["alarms"][0]["confirmado"][0] == "turno"
        alerts.kill()
        away = post(url, "ack", {"rule": "a-alto"}, own)
        assert (away.status, away.json()["error"]) == (503, "silent")
