"""Signing in and out, what ends a session, and what a form must carry."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from services.control_plane.pages.sessions import IDLE_MS, LONGEST_MS, SEEN_EVERY_MS
from services.control_plane.tables import WebSession
from services.runtime.clock import now_ms
from tests.kit.centre import DATABASES, Centre
from tests.kit.pages import Visitor


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as centre:
        centre.tenant("acme")
        yield centre


@pytest.fixture
def visitor(centre: Centre) -> Visitor:
    visitor = Visitor(centre)
    visitor.sign_in(centre.key)
    return visitor


def is_in(visitor: Visitor) -> bool:
    return visitor.get("/admin/tenants", follow=False).status == 200


def alter(centre: Centre, **values: int) -> None:
    """Of every session."""
    with centre.database.writing(None) as session:
        session.execute(update(WebSession).values(**values))


def sessions(centre: Centre) -> list[WebSession]:
    with centre.database.reading(None) as session:
        return list(session.scalars(select(WebSession)))


def test_the_cookie_is_a_sessions_and_neither_it_nor_the_key_is_kept(centre: Centre) -> None:
    visitor = Visitor(centre)
    shown = visitor.ask("POST", "/admin/sign-in", {"key": centre.key}, follow=False)
    assert shown.status == 303
    cookie = shown.headers["set-cookie"]
    assert cookie.startswith("__Host-plce-session=")
    for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert visitor.token is not None
    assert centre.key not in cookie
    with centre.database.engine.connect() as connection:
        kept = str(connection.exec_driver_sql("SELECT * FROM sessions").all())
        told = str(connection.exec_driver_sql("SELECT * FROM audit").all())
    assert visitor.token not in kept + told
    assert centre.key not in kept + told
    assert centre.service is not None
    assert centre.key not in centre.service.stderr()
    assert is_in(visitor)


def test_signing_out_ends_the_session_and_not_just_the_cookie(
    centre: Centre, visitor: Visitor
) -> None:
    kept = {host: dict(jar) for host, jar in visitor.cookies.items()}
    shown = visitor.submit("/admin/tenants", "/admin/sign-out")
    assert "You are signed out." in shown.text
    assert visitor.token is None
    visitor.cookies = kept
    assert not is_in(visitor)
    assert [row["action"] for row in centre.call("GET", "/v1/audit?limit=2").body["items"]] == [
        "session.end", "session.begin"
    ]  # fmt: skip
    assert centre.faults() == []


def test_nobody_there_for_half_an_hour_ends_it(centre: Centre, visitor: Visitor) -> None:
    alter(centre, seen_ms=now_ms() - IDLE_MS + 5_000)
    assert is_in(visitor), "and this is somebody"
    alter(centre, seen_ms=now_ms() - IDLE_MS)
    assert not is_in(visitor)


def test_a_page_that_looks_again_by_itself_is_nobody(centre: Centre, visitor: Visitor) -> None:
    long_ago = now_ms() - SEEN_EVERY_MS - 1_000
    alter(centre, seen_ms=long_ago)
    polled = visitor.ask("GET", "/admin/tenants", headers={"x-poll": "1", "hx-request": "true"})
    assert polled.status == 200
    assert {row.seen_ms for row in sessions(centre)} == {long_ago}
    assert is_in(visitor)
    assert any(row.seen_ms > long_ago for row in sessions(centre))
    alter(centre, ends_ms=now_ms())
    polled = visitor.ask("GET", "/admin/tenants", headers={"x-poll": "1", "hx-request": "true"})
    assert (polled.status, polled.headers["hx-redirect"]) == (401, "/admin/sign-in?ended=1")


def test_eight_hours_end_it_whoever_is_there(centre: Centre, visitor: Visitor) -> None:
    (newest,) = [row for row in sessions(centre) if row.ends_ms > now_ms()]
    assert abs(newest.ends_ms - newest.created_ms - LONGEST_MS) < 1_000
    alter(centre, ends_ms=now_ms())
    assert not is_in(visitor)
    Visitor(centre).sign_in(centre.key)
    assert len(sessions(centre)) == 1, "ended ones are cleared away"


@pytest.mark.parametrize("end", ["revoke", "rotate", "suspend", "delete"])
def test_a_session_lives_no_longer_than_its_key(centre: Centre, end: str) -> None:
    tenant = f"t-{end}"
    centre.make("/v1/tenants", {"id": tenant})
    base = f"/v1/tenants/{tenant}"
    made = centre.make(f"{base}/credentials", {"role": "admin"})
    visitor = Visitor(centre)
    visitor.sign_in(made["secret"])
    assert visitor.get(f"/admin/tenants/{tenant}").status == 200
    if end == "suspend":
        centre.make(f"{base}/suspend", None)
        shown = visitor.get(f"/admin/tenants/{tenant}")
        assert (shown.status, f"{base}/sites" in shown.text) == (200, False)
        return
    if end == "delete":
        centre.call("DELETE", base)
    elif end == "revoke":
        centre.make(f"{base}/credentials/{made['id']}/revoke", {})
    else:
        centre.make(f"{base}/credentials/{made['id']}/rotate", {"overlap_s": 0})
    shown = visitor.get(f"/admin/tenants/{tenant}")
    assert shown.url.endswith("/admin/sign-in?ended=1")
    if end == "delete":
        assert centre.call("POST", f"{base}/purge").status == 204
        assert tenant not in {row.tenant_id for row in sessions(centre)}


def test_a_form_of_somebody_else_does_nothing(centre: Centre, visitor: Visitor) -> None:
    other = Visitor(centre)
    other.sign_in(centre.key)
    action = "/admin/tenants/acme/sites"
    good = visitor.form("/admin/tenants/acme", action)
    foreign = other.form("/admin/tenants/acme", action)
    evil = {"origin": "https://evil.example"}
    for fields, headers in (
        ({}, {}),
        ({"csrf": "x"}, {}),
        ({"csrf": foreign["csrf"]}, {}),
        ({**good}, evil),
        ({**good}, {"origin": "null"}),
        ({**good}, {"sec-fetch-site": "cross-site"}),
        ({**good}, {"sec-fetch-site": "same-site"}),
        ({**good, "name": "x" * 70_000}, {}),
    ):
        shown = visitor.ask("POST", action, {"id": "roubada", **fields}, headers)
        assert shown.status == 403, (fields, headers)
        assert "Form refused" in shown.text
    assert centre.call("GET", "/v1/tenants/acme/sites/roubada").status == 404
    # Nor can somebody be signed in as somebody else.
    assert Visitor(centre).ask("POST", "/admin/sign-in", {"key": centre.key}, evil).status == 403
    own = {"origin": centre.url, "sec-fetch-site": "same-origin"}
    done = visitor.ask("POST", action, {"id": "nossa", **good}, own)
    assert "Box made." in done.text


def test_a_form_that_is_sent_twice_does_one_thing(centre: Centre, visitor: Visitor) -> None:
    action = "/admin/tenants/acme/credentials"
    fields = {
        **visitor.form("/admin/tenants/acme", action),
        "role": "reader", "kind": "api_key", "name": "duas-vezes",
    }  # fmt: skip
    first, second = (visitor.ask("POST", action, fields) for _ in range(2))
    secret = re.compile(r'id="secret">([^<]+)<')
    found = secret.findall(first.text)
    assert found == secret.findall(second.text)
    assert len(found) == 1
    assert centre.call("GET", "/v1/me", key=found[0]).body["tenant"] == "acme"
    listed = centre.call("GET", "/v1/tenants/acme/credentials").body["items"]
    assert [key["name"] for key in listed].count("duas-vezes") == 1
    assert found[0] not in visitor.get("/admin/tenants/acme").text


def test_a_page_that_is_old_changes_nothing(centre: Centre, visitor: Visitor) -> None:
    action = "/admin/tenants/acme/change"
    old = visitor.form("/admin/tenants/acme", action)
    centre.call("PATCH", "/v1/tenants/acme", {"name": "Outro nome"})
    shown = visitor.ask("POST", action, {**old, "plan": "free", "name": "Velho"})
    assert shown.status == 412
    assert "Changed meanwhile" in shown.text
    assert centre.call("GET", "/v1/tenants/acme").body["name"] == "Outro nome"


def test_a_refusal_is_said_on_the_page_in_its_language(centre: Centre) -> None:
    visitor = Visitor(centre, "pt-BR")
    visitor.sign_in(centre.key)
    shown = visitor.submit(
        "/admin/tenants", "/admin/tenants", id="acme", name="De novo", plan="pro"
    )
    assert shown.status == 409
    assert "Já existe" in shown.text
    assert 'value="De novo"' in shown.text, "what was typed is still there"
    bad = visitor.submit("/admin/tenants", "/admin/tenants", id="<b>", plan="pro")
    assert bad.status == 422
    assert "<b>" not in bad.text.split('id="notice"')[1].split("</div>")[0].replace("<b>Pedido", "")
    assert 'value="&lt;b&gt;"' in bad.text
    for path in ("/admin/nada", "/admin/tenants/nada", "/admin/tenants/%00", "/admin/static/x"):
        assert visitor.get(path).status in (404, 422)


def test_headers_of_every_answer(centre: Centre, visitor: Visitor) -> None:
    for path in ("/admin/tenants", "/admin/nada", "/admin/static/admin.js", "/admin/sign-in"):
        shown = visitor.get(path, follow=path != "/admin/sign-in")
        if shown.status == 303:
            continue
        policy = shown.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert shown.headers["x-content-type-options"] == "nosniff"
    page = visitor.get("/admin/tenants")
    assert page.headers["cache-control"] == "no-store"
    outside = re.compile(r'(?:src|href|action)="(?:https?:)?//')
    assert not outside.search(page.text)
    assert not re.search(r"<script(?![^>]* src=)|<style| style=|\son[a-z]+=", page.text)


def test_language_and_theme_are_chosen_and_lead_back(visitor: Visitor) -> None:
    fields = {"language": "pt", "theme": "dark"}
    page = "/admin/audit?action=tenant"
    shown = visitor.submit(page, "/admin/preferences", language="pt", theme="dark")
    assert shown.url.endswith("/admin/audit?action=tenant")
    assert '<html lang="pt-BR" data-theme="dark">' in shown.text
    evil = {**visitor.form("/admin/", "/admin/preferences"), "back": "//evil.example/admin"}
    sent = visitor.ask("POST", "/admin/preferences", {**evil, **fields}, follow=False)
    assert sent.headers["location"] == "/admin/"
