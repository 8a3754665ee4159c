"""A week in the browser: drawn from roll-ups, with the hole of an afternoon in it.

HISTORY_EVERY_MS=100 writes it at 10 Hz: 6,048,000 messages, some minutes. What is drawn is the
same, a point for each step, whatever the PLC's pace.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from services.historian.shapes import DAY_MS, HOUR_MS
from tests.e2e.panel.test_panel import accessible, fits
from tests.kit.browser import DESKTOP, PHONE, artefact, chromium, page
from tests.kit.common import free_ports
from tests.kit.history_fill import PARTS, RUNNING, TEMPERATURE, fill
from tests.kit.site import Site

EVERY_MS = int(os.environ.get("HISTORY_EVERY_MS", "20000"))
pytestmark = pytest.mark.timeout(180 if EVERY_MS > 1_000 else 3_600)
WEEK = 3
DRAWN_MS = 300
KEYS = "&".join(f"s=prensa-01/avulsos//{name}" for name in (TEMPERATURE, RUNNING, PARTS))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    gone, panel = free_ports(2)
    fields: list[dict[str, Any]] = [
        {"name": TEMPERATURE, "address": "DB500.DBD4:REAL", "unit": "°C"},
        {"name": RUNNING, "address": "DB500.DBX0.0"},
        {"name": PARTS, "address": "DB500.DBD8:DINT"},
    ]
    plc = {"id": "prensa-01", "host": "127.0.0.1", "port": gone, "timeout": "1s",
           "groups": [{"name": "avulsos", "scan": "1s", "fields": fields}]}  # fmt: skip
    site = Site({"site": "s1", "locatario": "acme", "plcs": [plc], "outputs": [], "history": {},
                 "metrics": {"port": panel}})  # fmt: skip
    begin_ms = round(time.time() * 1_000) - 7 * DAY_MS
    hole = begin_ms + 3 * DAY_MS
    fill(
        site.state / "history", "prensa-01", begin_ms, 7 * 24, EVERY_MS,
        lambda ts_ms: hole < ts_ms < hole + 5 * HOUR_MS,
    )  # fmt: skip
    with site:
        site.wait_running()
        yield f"http://127.0.0.1:{panel}/history?{KEYS}"


@pytest.mark.timing
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_week_is_drawn_at_once(browser: Browser, url: str, size: tuple[int, int]) -> None:
    with page(browser, size) as (tab, console):
        tab.goto(f"{url}&last=86400")
        plot, spans = tab.locator("#plot"), tab.locator("#spans button")
        took_ms = []
        for _ in range(7):
            for button in (WEEK - 1, WEEK):
                plot.evaluate("box => delete box.dataset.drawnMs")
                spans.nth(button).click()
                expect(plot).to_have_attribute("data-drawn-ms", re.compile(r"\d"))
            took_ms.append(float(plot.get_attribute("data-drawn-ms") or "nan"))
        print(f"{size[0]} px: {sorted(took_ms)} ms")
        assert statistics.median(took_ms) < DRAWN_MS
        assert console == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_week_and_the_hole_in_it(browser: Browser, url: str, size: tuple[int, int]) -> None:
    with page(browser, size) as (tab, console):
        tab.goto(f"{url}&last={7 * 86_400}")
        expect(tab.locator("#plot")).to_have_attribute("data-drawn-ms", re.compile(r"\d"))
        expect(tab.locator("#h-view")).to_contain_text("um ponto a cada")
        expect(tab.locator("#legend")).to_contain_text("não se sabe")
        box = tab.locator(".u-over").bounding_box()
        assert box is not None
        # In the middle of the hole nothing is known of anything; before it, everything.
        for part, quality in ((3.1 / 7, "não se sabe"), (2.5 / 7, "bom")):
            tab.mouse.move(box["x"] + box["width"] * part, box["y"] + 80)
            cells = tab.locator("#values td:last-child")
            expect(cells).to_have_text([quality] * 3)
        expect(tab.locator("#values tr").nth(2)).to_contain_text("+")
        fits(tab)
        accessible(tab)
        tab.screenshot(path=artefact(f"history-week-{size[0]}"), full_page=True)
        assert console == []
