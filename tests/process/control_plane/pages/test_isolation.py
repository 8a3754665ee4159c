"""Every page and every form, tried by everybody who has no business there: never data, no change.

Pages and forms are those of the program: one that is added is tried too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.control_plane.pages.actions import ACTIONS
from services.control_plane.pages.app import PAGES
from tests.kit.central_box import CentralBox
from tests.kit.centre import BOX_CONFIG, Centre
from tests.kit.common import until
from tests.kit.pages import Shown, Visitor

MARK = "so-da-vitima"
# What a form needs to be a good one.
FIELDS = {
    "id": "intruso", "name": "intruso", "plan": "pro", "site": "caixa-1", "kind": "api_key",
    "role": "box", "version": "1", "sites": "caixa-1", "stages": "50, 100", "timeout_min": "15",
}  # fmt: skip


class Victim:
    """A tenant with something of everything, and browsers of those who are not its own."""

    def __init__(self, centre: Centre) -> None:
        self.centre = centre
        self.own = centre.tenant("vitima")
        self.foreign = centre.tenant("outra")
        base = "/v1/tenants/vitima"
        for path in ("", "/sites/caixa-1", "/devices/clp-1"):
            centre.call("PATCH", base + path, {"name": MARK})
        made = centre.make(f"{base}/credentials", {"role": "reader", "name": MARK})
        text = BOX_CONFIG.format(site="caixa-1", tenant="vitima", plc="clp-1", scan="9s")
        centre.make(f"{base}/sites/caixa-1/configs", {"yaml": text, "comment": MARK})
        rollout = centre.make(f"{base}/rollouts", {"sites": ["caixa-1"], "comment": MARK})
        CentralBox(centre, "vitima", "caixa-1", self.own["box"]).report("applied", 1, software=MARK)
        path = f"{base}/rollouts/{rollout['id']}"
        until(lambda: centre.call("GET", path).body["state"] == "done", 20, "the roll-out")
        self.parameters = {
            "tenant": "vitima",
            "credential": made["id"],
            "box": "caixa-1",
            "rollout": rollout["id"],
        }

    def path(self, template: str) -> str:
        return template.format(**self.parameters)

    def head(self) -> int:
        """How many changes there were so far; signing in is none of these."""
        rows = self.centre.call("GET", "/v1/audit?limit=100").body["items"]
        return max(int(r["seq"]) for r in rows if not r["action"].startswith("session."))


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with Centre("sqlite") as centre:
        yield Victim(centre)


def browser(victim: Victim, key: str) -> tuple[Visitor, str]:
    """Somebody who is signed in, and the word of their forms."""
    visitor = Visitor(victim.centre)
    visitor.sign_in(key)
    assert visitor.token is not None
    return visitor, visitor.form("/admin/", "/admin/sign-out")["csrf"]


def try_all(victim: Victim, visitor: Visitor, csrf: str) -> Iterator[tuple[str, str, Shown]]:
    for template in PAGES:
        yield "GET", template, visitor.get(victim.path(template), follow=False)
    for action in ACTIONS:
        fields = {**FIELDS, "csrf": csrf, "once": f"{action.name}-{id(visitor)}"}
        shown = visitor.ask("POST", victim.path(action.page), fields, follow=False)
        yield "POST", action.page, shown


@pytest.mark.parametrize("cookie", [None, "", "A" * 43, "plce_0123456789abcdef_" + "A" * 43, "é"])
def test_without_a_session_there_is_nothing(victim: Victim, cookie: str | None) -> None:
    before = victim.head()
    visitor = Visitor(victim.centre)
    everything = [("GET", template) for template in PAGES]
    everything += [("POST", action.page) for action in ACTIONS]
    for method, template in everything:
        given = {} if cookie is None else {"cookie": f"__Host-plce-session={cookie}"}
        fields = FIELDS if method == "POST" else None
        shown = visitor.ask(method, victim.path(template), fields, given, follow=False)
        assert shown.status == 303, (template, shown)
        assert shown.headers["location"].startswith("/admin/sign-in")
        assert MARK not in shown.text
    assert victim.head() == before


@pytest.mark.parametrize("role", ["admin", "reader"])
def test_another_tenants_people_see_and_change_nothing(victim: Victim, role: str) -> None:
    before = victim.head()
    visitor, csrf = browser(victim, victim.foreign[role])
    for method, template, shown in try_all(victim, visitor, csrf):
        assert MARK not in shown.text, (method, template)
        assert shown.status < 500, (method, template)
        assert "vitima" not in shown.text.replace(victim.path(template), ""), (method, template)
        if "{tenant}" in template:
            assert shown.status == 404, (method, template, shown)
        elif method == "POST":
            assert shown.status == 403, (template, shown)
    assert victim.head() == before


def test_a_reader_changes_nothing_and_sees_no_button(victim: Victim) -> None:
    before = victim.head()
    visitor, csrf = browser(victim, victim.own["reader"])
    for method, template, shown in try_all(victim, visitor, csrf):
        if method == "POST":
            assert shown.status == 403, (template, shown)
        elif shown.status == 200:
            posts = shown.text.count('method="post"')
            assert posts == 2, (template, "language and signing out, and nothing else")
        else:
            assert shown.status in (303, 403), (template, shown)
    assert victim.head() == before


def test_a_tenants_administrator_has_no_right_of_the_platform(victim: Victim) -> None:
    before = victim.head()
    visitor, csrf = browser(victim, victim.own["admin"])
    for action in ACTIONS:
        platform = action.page.startswith("/admin/operators") or action.name.startswith("tenant_")
        if platform:
            fields = {**FIELDS, "csrf": csrf}
            shown = visitor.ask("POST", victim.path(action.page), fields, follow=False)
            assert shown.status == 403, (action.name, shown)
    assert visitor.get("/admin/operators").status == 403
    listed = visitor.get("/admin/tenants")
    assert "outra" not in listed.text
    assert victim.head() == before


@pytest.mark.parametrize("key", ["box", "none", "wrong"])
def test_a_boxs_key_and_no_key_open_no_session(victim: Victim, key: str) -> None:
    given = {"none": "", "wrong": "plce_0123456789abcdef_" + "A" * 43, **victim.own}[key]
    visitor = Visitor(victim.centre)
    shown = visitor.sign_in(given)
    assert shown.status == 403
    assert visitor.token is None
    if given:
        assert given not in shown.text, "what was pasted is not shown again"
