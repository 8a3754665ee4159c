"""The page of shifts and OEE, with a real store and historian behind it, in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from services.infra import oee as grafana
from tests.kit.browser import DESKTOP, PHONE, artefact, chromium, page
from tests.kit.common import free_port, until
from tests.kit.procs import Service
from tests.kit.shift_rig import ShiftWorld, shift_world

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[ShiftWorld, str]]:
    """A box whose shift has ended, and its panel's address."""
    port = free_port()
    with shift_world(port=port) as world, world.historian():
        panel = Service(world.rendered["metrics"])
        try:
            panel.wait_ready()
            world.tell()
            url = f"http://127.0.0.1:{port}/"
            until(lambda: whole(url), 30, panel.stderr)
            yield world, url
        finally:
            panel.end()


def whole(url: str) -> bool:
    """Whether all of the story is in the history."""
    found = urllib3.request("GET", f"{url}api/oee?shift=last").json()
    return bool(found["machines"][0]["parts_ms"]["unknown"] < 1_200_000)


SAYS = {
    "pt-BR": ("Turnos e OEE", "90,0 %", "setup <M12> (planejada)", "Não se sabe 20 min"),
    "en-US": ("Shifts and OEE", "90.0 %", "setup <M12> (planned)", "Not known 20 min"),
}


@pytest.mark.parametrize(
    ("language", "size", "dark"), [("pt-BR", DESKTOP, False), ("en-US", PHONE, True)]
)
def test_the_shift_that_has_ended(
    browser: Browser,
    world: tuple[ShiftWorld, str],
    language: str,
    size: tuple[int, int],
    dark: bool,
) -> None:
    box, url = world
    title, availability, setup, unknown = SAYS[language]
    with page(browser, size, language, dark) as (tab, said):
        tab.goto(url)
        link = tab.get_by_role("link", name=title)
        expect(link).to_be_visible()
        link.click()
        expect(tab.get_by_role("heading", level=1)).to_have_text(title)
        row = tab.locator("#indices tr")
        expect(row).to_contain_text(availability)
        expect(row.locator("td").nth(4)).to_have_text("700")
        expect(tab.locator(".parts")).to_contain_text(unknown)
        expect(tab.locator(".tables")).to_contain_text(setup)
        expect(tab.locator("#shift")).to_have_value(box.shift)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        found = Axe().run(tab)
        assert found.violations_count == 0, found.generate_report()
        tab.screenshot(path=artefact(f"oee-{language[:2]}-{size[0]}"), full_page=True)
        # The shift before: nothing is known of it, and that is no zero.
        tab.get_by_role("button").first.click()
        expect(row.locator("td").nth(0)).to_have_text("–")
        expect(row.locator("td").nth(4)).to_have_text("–")
        tab.go_back()
        expect(row).to_contain_text(availability)
        tab.goto(f"{url}oee?shift=2020-01-01/noite")
        expect(tab.locator("#fault")).to_be_visible()
        assert [s for s in said if "422" not in s] == []


def test_it_prints(browser: Browser, world: tuple[ShiftWorld, str]) -> None:
    """The printed page is the report: without what is to be clicked, on one sheet."""
    _, url = world
    with page(browser, DESKTOP, "pt-BR", dark=True) as (tab, _said):
        tab.goto(f"{url}oee?shift=last")
        expect(tab.locator("#indices tr")).to_contain_text("90,0 %")
        tab.emulate_media(media="print")
        expect(tab.locator(".bar")).to_be_hidden()
        expect(tab.locator(".top")).to_be_hidden()
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        pdf = tab.pdf(prefer_css_page_size=True)
        Path(artefact("oee-impresso")).with_suffix(".pdf").write_bytes(pdf)
        assert pdf.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("api/oee?shift=ontem", 422, "is no shift"),
        ("api/oee?from=now&to=-1h", 400, "before `to`"),
        ("api/oee?from=manhana", 400, "a time is"),
        ("api/oee?shift=last&machine=torno", 422, "no machine 'torno'"),
        ("api/shifts?from=2000-01-01", 422, "400 days"),
    ],
)
def test_what_is_asked_wrongly(
    world: tuple[ShiftWorld, str], path: str, status: int, said: str
) -> None:
    answer = urllib3.request("GET", world[1] + path, retries=False)
    assert (answer.status, said in answer.json()["text"]) == (status, True), answer.data


def test_rows_for_dashboards_say_the_same(world: tuple[ShiftWorld, str]) -> None:
    box, url = world
    whole_shift = urllib3.request("GET", f"{url}api/oee?shift={box.shift}").json()["machines"][0]
    query = f"from={box.begin_ms}&to={box.end_ms}"
    (row,) = urllib3.request("GET", f"{url}api/oee/rows?{query}").json()["rows"]
    assert row["shift"] == box.shift
    for key in ("availability", "performance", "quality", "oee"):
        assert row[key] == whole_shift[key]
    assert row["good"] == 700
    assert row["unknown_s"] * 1_000 == whole_shift["parts_ms"]["unknown"]
    stops = urllib3.request("GET", f"{url}api/oee/rows?{query}&stops").json()["rows"]
    assert [(s["reason"], s["planned"]) for s in stops] == [
        ("setup <M12>", True), ("falta [b] de material", False)
    ]  # fmt: skip


def test_grafana_asks_for_the_same_numbers(world: tuple[ShiftWorld, str]) -> None:
    """As the Infinity data source asks: variables put in, the root and the columns picked."""
    box, url = world
    board = grafana.board()
    (machines,) = (v for v in board["templating"]["list"] if v["name"] == "maquina")
    asked = machines["query"]["infinityQuery"]
    assert [r["value"] for r in picked(url, asked, box, "")] == ["", "prensa"]
    whole_shift = urllib3.request("GET", f"{url}api/oee?shift={box.shift}").json()["machines"][0]
    seen = {p["title"]: picked(url, p["targets"][0], box, "prensa") for p in board["panels"]}
    (row,) = seen["Turnos"]
    for key in ("oee", "availability", "performance", "quality"):
        assert row[key] == whole_shift[key]
    (times,) = seen["Para onde foi o tempo"]
    assert sum(v for k, v in times.items() if k.endswith("_s")) == 8 * 3_600
    assert [r["oee"] for r in seen["OEE por turno"]] == [whole_shift["oee"]]
    assert [r["seconds"] for r in seen["Paradas"]] == [30 * 60, 43 * 60]


def picked(url: str, target: dict[str, Any], box: ShiftWorld, machine: str) -> list[dict[str, Any]]:
    """The rows of an answer, with the columns that a panel asks for."""
    path = target["url"]
    for name, value in (
        ("${__from}", str(box.begin_ms)), ("${__to}", str(box.end_ms)), ("${maquina}", machine)
    ):  # fmt: skip
        path = path.replace(name, value)
    assert "$" not in path
    rows = urllib3.request("GET", url.rstrip("/") + path).json()[target["root_selector"]]
    return [{c["selector"]: row[c["selector"]] for c in target["columns"]} for row in rows]
