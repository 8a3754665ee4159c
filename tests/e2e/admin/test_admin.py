"""The admin page in headless Chromium: both languages, both themes, a phone's width and a desk's.

Screenshots go to tests/artifacts/panel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from services.control_plane import metering
from services.control_plane.pages.app import PAGES
from services.runtime.clock import now_ms
from tests.kit.browser import DESKTOP, artefact, chromium, page
from tests.kit.central_box import CentralBox, Course
from tests.kit.central_box import good as good_course
from tests.kit.centre import BOX_CONFIG, Centre
from tests.kit.common import until
from tests.kit.oidc import IdentityProvider
from tests.kit.pages import Visitor

NARROW = (360, 780)
LOOKS = [("pt-BR", DESKTOP, False), ("pt-BR", NARROW, True), ("en-US", DESKTOP, True),
         ("en-US", NARROW, False)]  # fmt: skip
DRIFT = """\
--- config.yaml (applied)
+++ config.yaml
@@ -6,1 +6,1 @@
-  scan: 3s
+  scan: 1s
"""


class Site:
    """A centre with something to show, and the provider that it believes."""

    def __init__(self, centre: Centre, provider: IdentityProvider) -> None:
        self.centre = centre
        self.provider = provider
        self.keys = centre.tenant("acme")
        centre.tenant("beta", "free")
        centre.call("PATCH", "/v1/tenants/acme", {"name": "Acme Forjaria Ltda."})
        centre.make("/v1/tenants/beta/devices", {"id": "clp-2", "site": "caixa-1"})
        centre.make("/v1/tenants", {"id": "gama", "name": "Indústria Gama S.A."})
        centre.make("/v1/tenants/gama/suspend", None)
        text = BOX_CONFIG.format(site="caixa-1", tenant="acme", plc="clp-1", scan="2s")
        centre.make("/v1/tenants/acme/sites/caixa-1/configs", {"yaml": text})
        centre.make("/v1/tenants/acme/sites", {"id": "planta-sp", "name": "São Paulo, linha 2"})
        box = {"role": "box", "site": "planta-sp"}
        self.keys["planta-sp"] = centre.make("/v1/tenants/acme/credentials", box)["secret"]
        self.send("planta-sp", "4s", "primeira")
        self.send("planta-sp", "3s", "leitura mais lenta na linha 2")
        self.box("caixa-1").report("applied", 1, running=1, software="0.1.0")
        self.box("planta-sp").report(
            "drift",
            2,
            running=2,
            software="0.1.0",
            error="config.yaml differs from what was applied",
            drift=DRIFT,
            health={
                "plcs": {"clp-7": "online", "clp-8": "offline"},
                "outputs": {"central": "down"},
                "pending": 12_345,
            },
            problems=[{"file": "config.yaml", "line": 6, "key": "plcs[0].host", "message": "x"}],
        )
        self.rollout = centre.make(
            "/v1/tenants/acme/rollouts", {"sites": ["caixa-1"], "comment": "linha 1"}
        )["id"]
        box_1 = self.box("caixa-1")
        box_1.take_target(box_1.poll(5))
        gone = centre.make("/v1/tenants/acme/credentials", {"role": "reader", "name": "velha"})
        centre.make(f"/v1/tenants/acme/credentials/{gone['id']}/revoke", {})

    def send(self, box: str, scan: str, comment: str) -> None:
        """A version for a box of acme."""
        text = BOX_CONFIG.format(site=box, tenant="acme", plc=f"clp-{box}", scan=scan)
        path = f"/v1/tenants/acme/sites/{box}/configs"
        self.centre.make(path, {"yaml": text, "comment": comment})

    def box(self, box: str) -> CentralBox:
        """One of acme's, as it speaks."""
        key = self.keys["box" if box == "caixa-1" else box]
        return CentralBox(self.centre, "acme", box, key)

    def count(self, tenant: str, points: int) -> None:
        """What it sent in the last minute, and in this one, which soon is the last."""
        minute_s = now_ms() // 60_000 * 60
        counts = [
            metering.Count(tenant, "clp-1", at_s, points, 1, 1)
            for at_s in (minute_s - 60, minute_s)
        ]
        with self.centre.database.writing(None) as session:
            metering.add(session, counts)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    made: list[IdentityProvider] = []

    def section(folder: Path, url: str) -> dict[str, Any]:
        made.append(IdentityProvider(f"{url}/admin/oidc/callback"))
        return {"oidc": made[0].section(folder, url)}

    centre = Centre("sqlite", more=section)
    with made[0], centre:
        yield Site(centre, made[0])


def sign_in(tab: Page, site: Site, key: str | None = None) -> None:
    tab.goto(f"{site.centre.url}/admin/")
    tab.locator("input[name=key]").fill(key or site.centre.key)
    tab.locator("form[action='/admin/sign-in'] button").click()
    tab.wait_for_url(re.compile("/admin/tenants"))


def good(tab: Page, console: list[str]) -> None:
    """Accessible, no wider than the screen, and nothing refused or failed."""
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab.url
    assert console == [], tab.url


@pytest.mark.parametrize(("language", "size", "dark"), LOOKS)
def test_every_page_looks_right(
    browser: Browser, site: Site, language: str, size: tuple[int, int], dark: bool
) -> None:
    site.count("acme", 4_300)
    site.count("beta", 620)
    name = f"admin-{language[:2]}-{size[0]}"
    with page(browser, size, language, dark) as (tab, console):
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{site.centre.url}/admin/sign-in")
        expect(tab.locator("html")).to_have_attribute("lang", language.replace("-US", ""))
        good(tab, console)
        tab.screenshot(path=artefact(f"{name}-sign-in"), full_page=True)
        sign_in(tab, site)
        for template in sorted(PAGES):
            path = template.format(tenant="acme", box="planta-sp", rollout=site.rollout)
            tab.goto(site.centre.url + path)
            # Everything that can be opened is: a closed form would not be looked at.
            for one in tab.locator("main details, .who-menu").all():
                one.evaluate("node => { node.open = true }")
            good(tab, console)
            label = re.sub(r"\W+", "-", template).strip("-")
            tab.screenshot(path=artefact(f"{name}-{label}"), full_page=True)
        tab.goto(f"{site.centre.url}/admin/tenants/acme/boxes/planta-sp?old=1&new=2")
        expect(tab.locator(".diff-text .plus").last).to_contain_text("scan: 3s")
        good(tab, console)
        tab.goto(f"{site.centre.url}/admin/nada")
        console.clear()  # the browser tells of the 404 itself
        good(tab, console)
        assert asked
        assert all(url.startswith(site.centre.url) for url in asked)


@pytest.mark.parametrize(("language", "size", "dark"), LOOKS)
def test_a_credential_is_made_shown_once_rotated_and_revoked(
    browser: Browser, site: Site, language: str, size: tuple[int, int], dark: bool
) -> None:
    words = {
        "pt-BR": ("Mostrado só desta vez", "revogada"),
        "en-US": ("Shown this once", "revoked"),
    }
    once, revoked = words[language]
    mine = f"painel-{language[:2]}-{size[0]}"
    with page(browser, size, language, dark) as (tab, console):
        sign_in(tab, site)
        tab.goto(f"{site.centre.url}/admin/tenants/acme")
        make = tab.locator("form[action='/admin/tenants/acme/credentials']")
        make.locator("xpath=..").locator("summary").click()
        make.locator("input[name=name]").fill(mine)
        make.locator("button").click()
        expect(tab.locator("h1")).to_have_text(once)
        secret = tab.locator("#secret").inner_text()
        assert site.centre.call("GET", "/v1/me", key=secret).body["role"] == "reader"
        good(tab, console)
        tab.screenshot(path=artefact(f"admin-{language[:2]}-{size[0]}-secret"), full_page=True)
        tab.locator("main .button").click()
        row = tab.locator(".key", has_text=mine)
        expect(row).to_be_visible()
        assert secret not in tab.content()

        row.locator("summary").first.click()
        row.locator("select[name=overlap_s]").select_option("0")
        row.locator("form[action$=rotate] button").click()
        second = tab.locator("#secret").inner_text()
        assert second != secret
        assert site.centre.call("GET", "/v1/me", key=secret).status == 401
        assert site.centre.call("GET", "/v1/me", key=second).status == 200
        # Nothing of it stays in the browser's own stores, and going back shows none either.
        kept = tab.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert second not in kept
        tab.locator("main .button").click()

        row.locator("summary").nth(1).click()
        row.locator("form[action$=revoke] button").click()
        expect(tab.locator("#notice")).to_be_focused()
        expect(tab.locator(".key", has_text=mine)).to_contain_text(revoked)
        assert site.centre.call("GET", "/v1/me", key=second).status == 401
        good(tab, console)


def test_a_tenant_is_made_filled_moved_suspended_and_resumed(browser: Browser, site: Site) -> None:
    with page(browser) as (tab, console):
        sign_in(tab, site)
        tab.locator(".make summary").click()
        form = tab.locator("form[action='/admin/tenants']")
        form.locator("input[name=id]").fill("delta")
        form.locator("input[name=name]").fill("Delta & Filhos")
        form.locator("button").click()
        expect(tab.locator("h1")).to_contain_text("Delta & Filhos")
        for what, fields in (
            ("sites", {"id": "planta-1"}), ("devices", {"id": "clp-1"}),
            ("devices", {"id": "clp-2"}), ("devices", {"id": "clp-3"}),
        ):  # fmt: skip
            form = tab.locator(f"form[action='/admin/tenants/delta/{what}']")
            form.locator("xpath=..").locator("summary").click()
            for key, value in fields.items():
                form.locator(f"input[name={key}]").fill(value)
            form.locator("button").click()
        # A free plan has two.
        expect(tab.locator("#notice")).to_contain_text("Plano cheio")
        expect(tab.locator("#limits")).to_contain_text("2 de 2")
        assert len(console) == 1, "the browser tells of the 409 itself"
        console.clear()

        tab.locator(".top-acts summary", has_text="Plano").click()
        tab.locator(".top-acts select[name=plan]").select_option("pro")
        tab.locator(".top-acts form[action$=change] button").click()
        expect(tab.locator("#limits")).to_contain_text("2 de 20")

        tab.locator(".top-acts summary", has_text="Suspender").click()
        tab.locator(".top-acts button.danger").click()
        expect(tab.locator(".head .pill")).to_have_text("suspenso")
        assert site.centre.call("GET", "/v1/tenants/delta").body["state"] == "suspended"
        expect(tab.locator("form[action$=sites]")).to_have_count(0)
        tab.locator(".top-acts summary", has_text="Reativar").click()
        tab.locator(".top-acts form[action$=resume] button").click()
        expect(tab.locator(".head .pill")).to_have_text("ativo")
        good(tab, console)


def test_bars_move_by_themselves(browser: Browser, site: Site) -> None:
    with page(browser) as (tab, console):
        tab.clock.install()
        sign_in(tab, site)
        row = tab.locator(".tenant", has_text="gama")
        expect(row.locator("meter").first).to_have_attribute("value", "0")
        site.count("gama", 450)
        tab.clock.run_for(16_000)
        expect(row.locator("meter").first).to_have_attribute("value", "450")
        expect(row).to_contain_text("perto do limite")
        assert console == []


def test_the_audit_is_filtered_while_typing_and_paged(browser: Browser, site: Site) -> None:
    for i in range(60):
        site.centre.call("PATCH", "/v1/tenants/beta/sites/caixa-1", {"name": f"nome {i}"})
    with page(browser) as (tab, console):
        sign_in(tab, site)
        tab.goto(f"{site.centre.url}/admin/audit")
        expect(tab.locator(".change")).to_have_count(50)
        tab.locator("input[name=action]").fill("site.change")
        expect(tab).to_have_url(re.compile("action=site.change"))
        expect(tab.locator(".change").first).to_contain_text("caixa alterada")
        tab.locator("input[name=tenant]").fill("beta")
        expect(tab).to_have_url(re.compile("tenant=beta"))
        newest = tab.locator(".change").first
        newest.locator("summary").click()
        expect(newest.locator(".changed").first).to_contain_text("nome 58")
        expect(newest.locator(".changed").first).to_contain_text("nome 59")
        tab.locator("a.more").click()
        expect(tab.locator(".change")).to_have_count(10)
        expect(tab.locator(".change").last).to_contain_text("caixa alterada")
        tab.locator("input[name=resource]").fill("tenants/nada")
        expect(tab.locator(".changes")).to_contain_text("Nenhuma alteração corresponde")
        good(tab, console)


def test_a_bad_version_is_seen_to_go_back(browser: Browser, site: Site) -> None:
    """A roll-out over two boxes, begun, halted, resumed; then one that its first box refuses."""
    path = f"/v1/tenants/acme/rollouts/{site.rollout}"
    until(lambda: site.centre.call("GET", path).body["state"] == "done", 10, "the one before")
    site.box("planta-sp").report("applied", 2, running=2)
    for name in ("caixa-1", "planta-sp"):
        site.send(name, "5s", "boa")
    with page(browser) as (tab, console):
        sign_in(tab, site)
        begin(tab, site, "para a linha toda")
        expect(tab.locator("h1")).to_have_text("para a linha toda")
        tab.locator(".top-acts summary", has_text="Parar").click()
        tab.locator("form[action$=halt] button").click()
        expect(tab.locator(".head .pill")).to_have_text("parada")
        take(site, "caixa-1", 1)
        tab.locator(".top-acts summary", has_text="Prosseguir").click()
        tab.locator("form[action$=resume] button").click()
        row = tab.locator("tr", has_text="caixa-1")
        # The page looks again by itself.
        expect(row.locator(".pill")).to_have_text("aplicada")
        take(site, "planta-sp", 2)
        expect(tab.locator(".head .pill")).to_have_text("concluída")
        good(tab, console)

        site.send("caixa-1", "9s", "ruim")
        begin(tab, site, "uma ruim")
        bad = take(site, "caixa-1", 2, lambda _: ["applying", "rolled_back"])
        expect(tab.locator(".notice.bad")).to_contain_text("caixa-1")
        take(site, "caixa-1", 2, have=bad)
        expect(tab.locator(".head .pill")).to_have_text("revertida")
        tab.goto(f"{site.centre.url}/admin/rollouts")
        expect(tab.locator(".roll", has_text="uma ruim")).to_contain_text("revertida")
        good(tab, console)


def take(site: Site, name: str, running: int, course: Course = good_course, have: int = 0) -> int:
    """A box deals with its target; that version. On a new connection each time: the centre closes
    one that was idle.
    """
    box = site.box(name)
    box.running, box.have = running, have
    target = box.poll(20)
    box.take_target(target, course)
    return int(target["version"])


def begin(tab: Page, site: Site, comment: str) -> None:
    """A roll-out to all boxes of acme, one after the other."""
    tab.goto(f"{site.centre.url}/admin/tenants/acme")
    form = tab.locator("form[action='/admin/tenants/acme/rollouts']")
    form.locator("xpath=..").locator("summary").click()
    form.locator("input[name=stages]").fill("50, 100")
    form.locator("input[name=comment]").fill(comment)
    form.locator("button").click()


def test_a_box_is_sent_a_version_and_a_claim_code(browser: Browser, site: Site) -> None:
    site.centre.make("/v1/tenants/acme/sites", {"id": "avulsa", "name": "Sala de testes"})
    site.send("avulsa", "5s", "a dela")
    box = {"role": "box", "site": "avulsa"}
    site.keys["avulsa"] = site.centre.make("/v1/tenants/acme/credentials", box)["secret"]
    site.box("avulsa").report("drift", 1, running=1, drift=DRIFT)
    with page(browser, NARROW, "en-US") as (tab, console):
        sign_in(tab, site)
        tab.goto(f"{site.centre.url}/admin/boxes")
        tab.locator("a", has_text="avulsa").first.click()
        expect(tab.locator("#box")).to_contain_text("Sala de testes")
        tab.locator(".top-acts summary", has_text="Claim code").click()
        tab.locator("form[action$=claims] button").click()
        code = tab.locator("#secret").inner_text()
        assert re.fullmatch(r"[0-9A-Z]{5}(-[0-9A-Z]{5}){3}", code)
        good(tab, console)
        tab.locator("main .button").click()
        tab.locator(".top-acts summary", has_text="Send a version").click()
        tab.locator("form[action$=target] select").select_option("1")
        tab.locator("input[name=overwrite]").check()
        tab.locator("form[action$=target] button").click()
        expect(tab.locator("#notice")).to_contain_text("Sent;")
        expect(tab.locator("#box")).to_contain_text("Wanted")
        target = site.centre.call("GET", "/v1/tenants/acme/sites/avulsa/target").body
        assert (target["version"], target["overwrite"]) == (1, True)
        good(tab, console)


def test_without_a_script_everything_works(browser: Browser, site: Site) -> None:
    with page(browser, java_script_enabled=False) as (tab, _):
        sign_in(tab, site)
        tab.goto(f"{site.centre.url}/admin/audit")
        tab.locator("input[name=action]").fill("tenant.suspend")
        tab.locator(".filter button").click()
        expect(tab.locator(".change").first).to_contain_text("locatário suspenso")
        tab.locator(".prefer select[name=language]").select_option("en")
        tab.locator(".prefer button").click()
        expect(tab.locator(".change").first).to_contain_text("tenant suspended")
        assert "action=tenant.suspend" in tab.url
        tab.locator(".who-menu summary").click()
        tab.locator("form[action='/admin/sign-out'] button").click()
        expect(tab.locator("main")).to_contain_text("You are signed out.")


@pytest.mark.parametrize("language", ["pt-BR", "en-US"])
def test_somebody_signs_in_at_the_provider(browser: Browser, site: Site, language: str) -> None:
    """Another site than ours: localhost, and here is 127.0.0.1. The Strict cookie must be there."""
    with page(browser, language=language) as (tab, console):
        tab.goto(f"{site.centre.url}/admin/")
        tab.locator("a[href='/admin/oidc/start']").click()
        tab.locator("input[name=login]").fill("ana")
        tab.locator("input[name=password]").fill("qualquer")
        tab.locator("button[type=submit]").click()
        tab.locator("button[type=submit]").click()
        tab.wait_for_url(f"{site.centre.url}/admin/tenants/acme")
        console.clear()  # the provider's page asks for fonts of elsewhere
        expect(tab.locator(".who-menu")).to_contain_text("ana")
        good(tab, console)
        cookies = {c["name"]: c for c in tab.context.cookies(site.centre.url)}
        assert cookies["__Host-plce-session"]["sameSite"] == "Strict"
        assert cookies["__Host-plce-session"]["httpOnly"]
        assert "__Secure-plce-sign-in" not in cookies
        tab.locator(".who-menu summary").click()
        tab.locator("form[action='/admin/sign-out'] button").click()
        tab.goto(f"{site.centre.url}/admin/tenants/acme")
        expect(tab.locator("input[name=key]")).to_be_visible()


@pytest.mark.parametrize(("name", "away"), [("zeca", False), ("ana", True)])
def test_who_gets_no_access_is_told_why(
    browser: Browser, site: Site, name: str, away: bool
) -> None:
    with page(browser, NARROW, "en-US") as (tab, console):
        tab.goto(f"{site.centre.url}/admin/")
        if away:
            site.provider.stop()
            asked = Visitor(site.centre)
            until(lambda: asked.get("/admin/oidc/start", follow=False).status == 503, 20, "away")
        tab.locator("a[href='/admin/oidc/start']").click()
        if not away:
            tab.locator("input[name=login]").fill(name)
            tab.locator("input[name=password]").fill("qualquer")
            tab.locator("button[type=submit]").click()
            tab.locator("button[type=submit]").click()
        says = "does not answer" if away else "nothing here has been given to you"
        expect(tab.locator("#notice")).to_contain_text(says)
        if away:
            site.provider.start()
        console.clear()  # the browser tells of the 403 itself
        good(tab, console)
        tab.screenshot(path=artefact(f"admin-refused-{name}"), full_page=True)
