"""Headless Chromium (Debian's) through Playwright, with a record of what a console would show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.kit.common import BUSY_S

CHROMIUM = "/usr/bin/chromium"
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser for a test module."""
    expect.set_options(timeout=BUSY_S * 1_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page(
    browser: Browser,
    size: tuple[int, int] = DESKTOP,
    language: str = "pt-BR",
    dark: bool = False,
    **more: Any,
) -> Iterator[tuple[Page, list[str]]]:
    """A fresh page and the list of its console errors and warnings so far."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        locale=language,
        color_scheme="dark" if dark else "light",
        **more,
    )
    said: list[str] = []
    tab = context.new_page()
    tab.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda e: said.append(str(e)))
    try:
        yield tab, said
    finally:
        context.close()


def artefact(name: str) -> str:
    """Where a screenshot goes: tests/artifacts/panel, which git does not keep."""
    folder = Path(__file__).parents[1] / "artifacts" / "panel"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"{name}.png")
