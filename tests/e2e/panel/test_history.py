"""The history page of a running box: real historian, simulated PLCs, a PLC that was away, an alarm.
Screenshots go to tests/artifacts/panel.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.panel.test_panel import accessible, fits, open_group
from tests.kit.browser import DESKTOP, PHONE, artefact, chromium, page
from tests.kit.history_site import KEY, HistorySite, history_site

pytestmark = pytest.mark.timeout(120)
OTHERS = ("prensa-01/avulsos//ligada", "forno-02/avulsos//pressao")
THREE = "&".join(f"s={k}" for k in (KEY, *OTHERS))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def box() -> Iterator[HistorySite]:
    with history_site() as box:
        box.wait_recorded()
        yield box


def drawn(tab: Page) -> None:
    expect(tab.locator("#plot")).to_have_attribute("data-drawn-ms", re.compile(r"\d+"))


def again(tab: Page, act: Any) -> None:
    """Does it, and waits for what is drawn then."""
    tab.locator("#plot").evaluate("box => delete box.dataset.drawnMs")
    act()
    drawn(tab)


def shown(tab: Page) -> tuple[float, float]:
    """The range in the page's address, ms."""
    query = parse_qs(urlsplit(tab.url).query)
    return float(query["from"][0]), float(query["to"][0])


SAYS = {
    "pt-BR": {"away": "CLP sem conexão", "alarm": "disparado há", "raw": "todos os valores",
              "event": "CLP prensa-01 respondendo", "step": "um ponto a cada",
              "hole": "não se sabe"},
    "en-US": {"away": "PLC offline", "alarm": "rings, for", "raw": "every value",
              "event": "PLC prensa-01 answers", "step": "one point per", "hole": "not known"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "size", "dark"), [("pt-BR", DESKTOP, False), ("en-US", PHONE, True)]
)
def test_values_gaps_alarms_and_events_on_one_axis(
    browser: Browser, box: HistorySite, language: str, size: tuple[int, int], dark: bool
) -> None:
    says, name = SAYS[language], f"history-{language[:2]}-{size[0]}"
    box.down(1.5)
    with page(browser, size, language, dark) as (tab, console):
        tab.goto(f"{box.url}/history?{THREE}&last=60")
        drawn(tab)
        expect(tab.locator("#h-view")).to_contain_text(says["raw"])
        expect(tab.locator("#values tr")).to_have_count(3)
        expect(tab.locator("#values tr").first).to_contain_text("°C")
        expect(tab.locator("#legend")).to_contain_text(says["hole"])
        happened = tab.locator("#happened")
        expect(happened).to_contain_text(says["alarm"])
        expect(happened).to_contain_text(says["event"])
        # Red of the hatch stands in the lanes: what is not known is drawn as such.
        red = "[179, 38, 30]" if not dark else "[255, 149, 140]"
        assert (
            tab.evaluate(
                f"""() => {{ const c = document.querySelector(".lanes"), red = {red};
              const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0;
              for (let i = 0; i < d.length; i += 4)
                n += red.every((v, k) => Math.abs(d[i + k] - v) < 12) && d[i + 3] > 200;
              return n; }}"""
            )
            > 200
        )
        fits(tab)
        level, who = (happened.locator(c).first.bounding_box() for c in (".pill", ".by"))
        assert level is not None
        assert who is not None
        assert level["x"] + level["width"] <= who["x"], "the level covers who says it"
        accessible(tab)
        tab.screenshot(path=artefact(name), full_page=True)

        # The cursor, by keyboard: back to a moment of which nothing is known.
        tab.locator("#plot").focus()
        first = tab.locator("#values tr").first
        for _ in range(300):  # a minute of values
            tab.keyboard.press("ArrowLeft")
            if says["away"] in first.inner_text():
                break
        expect(first).to_contain_text(says["away"])
        expect(first.locator("td").first).to_have_text("–")
        expect(tab.locator("#at")).to_contain_text(says["away"])

        again(tab, lambda: tab.locator("#spans button").nth(1).click())
        expect(tab.locator("#h-view")).to_contain_text(says["step"])
        accessible(tab)
        tab.screenshot(path=artefact(f"{name}-8h"), full_page=True)
        assert console == []


def test_a_value_of_the_panel_leads_to_its_days(browser: Browser, box: HistorySite) -> None:
    with page(browser) as (tab, console):
        tab.goto(box.url)
        group = open_group(tab, "prensa-01", "avulsos")
        link = group.locator('[data-field="temperatura"] a.val')
        expect(link).to_have_attribute("href", re.compile("history"))
        accessible(tab)
        link.click()
        drawn(tab)
        expect(tab.locator("#chosen")).to_contain_text("temperatura · prensa-01 / avulsos")
        tab.locator("#add").click()
        tab.locator("#find").fill("forno press")
        expect(tab.locator("#found button")).to_have_count(1)
        again(tab, lambda: tab.locator("#found button").click())
        expect(tab.locator("#values tr")).to_have_count(2)
        again(tab, lambda: tab.locator("#chosen .drop").first.click())
        expect(tab.locator("#values tr")).to_have_count(1)
        again(tab, tab.go_back)
        expect(tab.locator("#values tr")).to_have_count(2)
        assert console == []


def test_zoom_and_pan_by_mouse_buttons_and_keys(browser: Browser, box: HistorySite) -> None:
    with page(browser) as (tab, console):
        tab.goto(f"{box.url}/history?s={KEY}&last=3600")
        drawn(tab)
        over = tab.locator(".u-over").bounding_box()
        assert over is not None

        def drag() -> None:
            tab.mouse.move(over["x"] + over["width"] * 0.5, over["y"] + 50)
            tab.mouse.down()
            tab.mouse.move(over["x"] + over["width"] * 0.75, over["y"] + 60, steps=5)
            tab.mouse.up()

        again(tab, drag)
        begin, end = shown(tab)
        assert 0.22 * 3.6e6 < end - begin < 0.28 * 3.6e6
        again(tab, lambda: tab.locator("#moves button").nth(0).click())
        assert shown(tab)[0] == pytest.approx(begin - (end - begin) / 2, abs=5)
        tab.locator("#plot").focus()
        again(tab, lambda: tab.keyboard.press("Shift+ArrowRight"))
        assert shown(tab)[0] == pytest.approx(begin, abs=10)
        again(tab, lambda: tab.keyboard.press("+"))
        assert shown(tab)[1] - shown(tab)[0] == pytest.approx((end - begin) / 2, abs=10)
        tab.mouse.move(over["x"] + over["width"] * 0.5, over["y"] + 50)
        tab.keyboard.down("Control")
        again(tab, lambda: tab.mouse.wheel(0, 120))
        tab.keyboard.up("Control")
        assert shown(tab)[1] - shown(tab)[0] > 1.2 * (end - begin) / 2
        assert console == []


def test_one_finger_pans_and_two_zoom(browser: Browser, box: HistorySite) -> None:
    with page(browser, PHONE, has_touch=True, is_mobile=True) as (tab, console):
        tab.goto(f"{box.url}/history?s={KEY}&last=3600")
        drawn(tab)
        tab.locator(".u-over").scroll_into_view_if_needed()
        over = tab.locator(".u-over").bounding_box()
        assert over is not None
        x, y, wide = over["x"], over["y"] + 60, over["width"]
        hand = tab.context.new_cdp_session(tab)

        def touch(kind: str, *at: float) -> None:
            points = [{"x": x + wide * a, "y": y, "id": n} for n, a in enumerate(at)]
            hand.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

        def swipe() -> None:
            touch("Start", 0.3)
            for a in (0.4, 0.5, 0.6, 0.8):
                touch("Move", a)
            touch("End")

        again(tab, swipe)
        begin, end = shown(tab)
        assert end - begin == pytest.approx(3.6e6, abs=10)
        moved = tab.evaluate("Date.now()") - end
        assert 0.4 * 3.6e6 < moved < 0.6 * 3.6e6

        def spread() -> None:
            touch("Start", 0.4, 0.6)
            for a in (0.35, 0.3, 0.2):
                touch("Move", a, 1 - a)
            touch("End")

        again(tab, spread)
        first, last = shown(tab)
        assert (last - first) / (end - begin) == pytest.approx(1 / 3, rel=0.1)
        assert (first + last) / 2 == pytest.approx((begin + end) / 2, abs=0.02 * 3.6e6)
        assert console == []


def test_csv_and_png_hold_what_is_shown(browser: Browser, box: HistorySite, tmp_path: Path) -> None:
    with page(browser, accept_downloads=True) as (tab, console):
        tab.goto(f"{box.url}/history?{THREE}&last=300")
        drawn(tab)
        with tab.expect_download() as saved:
            tab.locator("#csv").click()
        saved.value.save_as(tmp_path / "a.csv")
        text = (tmp_path / "a.csv").read_text("utf-8-sig")
        head, *rows = csv.reader(text.splitlines(), delimiter=";")
        assert head[0] == "Hora"
        assert head[1].endswith("[°C]")
        assert len(rows) > 10
        assert all(len(row) == len(head) == 7 for row in rows)
        wanted = box.get(f"/api/history?series={KEY}&from=-5m&step=raw").json()["series"][0]
        there = {row[1].replace(",", ".") for row in rows if row[2] == "bom"}
        known = [v for v, q in zip(wanted["values"], wanted["quality"], strict=True) if q == 0]
        assert {f"{v:g}" for v in known[5:20]} <= {f"{float(v):g}" for v in there}
        assert "CLP sem conexão" in text
        formula = tab.evaluate(
            """async () => (await import("/static/history-data.js")).csv({ step_ms: 60000, series:
            [{ name: "+a", ts: [0], y: ['=HYPERLINK("http://x")'], part: () => 1 }] })"""
        )
        assert '"\'+a"' in formula, "a name is no formula"
        assert '"\'=HYPERLINK(""http://x"")"' in formula, "nor is a text of the PLC"
        with tab.expect_download() as saved:
            tab.locator("#png").click()
        saved.value.save_as(artefact("history-png"))
        content = Path(artefact("history-png")).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000
        assert console == []


def test_without_an_answer_the_page_says_why(browser: Browser, box: HistorySite) -> None:
    with page(browser) as (tab, _console):
        tab.goto(f"{box.url}/history?s=prensa-01/avulsos//nada&last=300")
        expect(tab.locator("#fault")).to_have_text(
            "Não foi possível mostrar o histórico: um valor deste endereço nunca foi gravado:"
            " escolha outro"
        )
        accessible(tab)
