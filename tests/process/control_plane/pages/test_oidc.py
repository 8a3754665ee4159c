"""People sign in at a real OpenID Connect provider, through its own pages; and what can go wrong.

Every test on SQLite, the sessions themselves on PostgreSQL too.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from services.control_plane.pages import oidc
from tests.kit.centre import DATABASES, Centre
from tests.kit.oidc import (
    CLIENT_ID,
    CLIENT_SECRET,
    ROLES,
    IdentityProvider,
    new_keys,
    pass_forms,
)
from tests.kit.pages import Shown, Visitor

CALLBACK = "/admin/oidc/callback"


class House:
    """A centre and the provider that it believes."""

    def __init__(self, centre: Centre, provider: IdentityProvider) -> None:
        self.centre = centre
        self.provider = provider
        for tenant in ("acme", "beta"):
            centre.tenant(tenant)

    def go(self, name: str, visitor: Visitor | None = None) -> Shown:
        """Signs in as ``name``: what the browser shows in the end."""
        visitor = visitor or Visitor(self.centre)
        back = self.way_back(name, visitor)
        return visitor.get(back)

    def way_back(self, name: str, visitor: Visitor) -> str:
        """As far as the provider's word where to go on."""
        shown = visitor.get("/admin/oidc/start", follow=False)
        assert shown.status == 303, shown
        address = shown.headers["location"]
        asked = parse_qs(urlsplit(address).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert len(asked["state"][0]) >= 40
        assert len(asked["nonce"][0]) >= 40
        back = pass_forms(visitor, visitor.get(address, follow=False), name, self.centre.url)
        return back.headers["location"]


def _house(database: str) -> Iterator[House]:
    made: list[IdentityProvider] = []

    def section(folder: Path, url: str) -> dict[str, Any]:
        made.append(IdentityProvider(url + CALLBACK))
        return {"oidc": made[0].section(folder, url)}

    centre = Centre(database, more=section)
    with made[0], centre:
        yield House(centre, made[0])


@pytest.fixture(scope="module", params=DATABASES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    yield from _house(request.param)


@pytest.fixture
def own_house() -> Iterator[House]:
    """To break."""
    yield from _house("sqlite")


def test_a_group_becomes_a_role_in_a_tenant(house: House) -> None:
    visitor = Visitor(house.centre)
    shown = house.go("ana", visitor)
    assert shown.status == 200
    assert 'content="0;url=/admin/"' in shown.text, "a redirect would lose the Strict cookie"
    page = visitor.get("/admin/")
    assert page.url.endswith("/admin/tenants/acme")
    assert "ana" in page.text
    assert visitor.get("/admin/tenants/beta").status == 404
    assert visitor.get("/admin/operators").status == 403
    made = visitor.submit(page.url, "/admin/tenants/acme/sites", id="da-ana")
    assert "Box made." in made.text
    row = house.centre.call("GET", "/v1/audit?action=site.create&limit=1").body["items"][0]
    assert row["actor"].startswith("per_")
    assert row["role"] == "admin"
    signed = house.centre.call("GET", f"/v1/audit?action=session&actor={row['actor']}").body
    assert signed["items"][0]["after"] == {
        "name": "ana", "by": house.provider.issuer, "subject": "ana"
    }  # fmt: skip
    assert house.centre.faults() == []


def test_a_reader_and_an_operator(house: House) -> None:
    reader = Visitor(house.centre)
    house.go("lia", reader)
    page = reader.get("/admin/tenants/acme")
    assert page.status == 200
    assert page.text.count("<form") == page.text.count('"/admin/preferences"') + 1, "no buttons"
    operator = Visitor(house.centre)
    house.go("olga", operator)
    listed = operator.get("/admin/")
    assert listed.url.endswith("/admin/tenants")
    assert "beta" in listed.text


@pytest.mark.parametrize("name", ["zeca", "ninguem-conhece"])
def test_who_has_no_role_has_no_access(house: House, name: str) -> None:
    visitor = Visitor(house.centre)
    shown = house.go(name, visitor)
    assert shown.status == 403
    assert "nothing here has been given to you" in shown.text
    assert visitor.token is None
    assert visitor.get("/admin/tenants", follow=False).status == 303


def test_a_deleted_tenant_ends_its_peoples_sessions(own_house: House) -> None:
    visitor = Visitor(own_house.centre)
    own_house.go("beto", visitor)
    assert visitor.get("/admin/tenants/beta").status == 200
    own_house.centre.call("DELETE", "/v1/tenants/beta")
    assert visitor.get("/admin/tenants/beta").url.endswith("?ended=1")
    assert own_house.go("beto").status == 403


def test_a_way_back_is_good_once_and_in_one_browser(house: House) -> None:
    visitor = Visitor(house.centre)
    back = house.way_back("ana", visitor)
    other = Visitor(house.centre)
    assert other.get(back).status == 403
    assert other.token is None
    pending = dict(visitor.cookies[urlsplit(house.centre.url).netloc])
    assert visitor.get(back).status == 200
    assert visitor.token is not None
    # With everything that the first browser had: its cookie is stolen too.
    thief = Visitor(house.centre)
    thief.cookies[urlsplit(house.centre.url).netloc] = pending
    shown = thief.get(back)
    assert shown.status == 403
    assert "used before" in shown.text
    assert thief.token is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"state": "0" * 43}, "another window"),
        ({"code": "x" * 43}, "refused"),
        ({"iss": "http://localhost:1"}, "cannot be trusted"),
        ({"iss": None}, "cannot be trusted"),
        ({"error": "access_denied", "code": None}, "refused"),
    ],
)
def test_an_answer_that_was_changed_is_refused(
    house: House, change: dict[str, str | None], says: str
) -> None:
    visitor = Visitor(house.centre)
    url = urlsplit(house.way_back("ana", visitor))
    query = {k: v[0] for k, v in parse_qs(url.query).items()} | change
    text = "&".join(f"{k}={v}" for k, v in query.items() if v is not None)
    shown = visitor.get(url._replace(query=text).geturl())
    assert shown.status == 403
    assert says in shown.text
    assert visitor.token is None


def test_keys_that_the_provider_has_changed_are_fetched(own_house: House) -> None:
    assert own_house.go("ana").status == 200
    own_house.provider.keys = new_keys()
    own_house.provider.restart()
    assert own_house.go("ana").status == 200


def test_an_expired_token_is_refused(own_house: House) -> None:
    own_house.provider.clock_s = -2 * 3_600
    own_house.provider.restart()
    shown = own_house.go("ana")
    assert shown.status == 403
    assert "cannot be trusted" in shown.text
    assert own_house.centre.service is not None
    own_house.centre.service.wait_said("expired")


def test_another_issuer_is_refused(own_house: House) -> None:
    # The discovery document is of another one.
    own_house.provider.restart(issuer=f"http://127.0.0.1:{own_house.provider.port}")
    shown = Visitor(own_house.centre).get("/admin/oidc/start", follow=False)
    assert shown.status == 403
    # It was the right one when somebody left; another one answers the centre.
    own_house.provider.restart()
    visitor = Visitor(own_house.centre)
    back = own_house.way_back("ana", visitor)
    own_house.provider.restart(issuer=f"http://127.0.0.1:{own_house.provider.port}")
    shown = visitor.get(back)
    assert shown.status == 403
    assert visitor.token is None


def test_a_provider_that_is_down_says_so_and_keys_still_work(own_house: House) -> None:
    own_house.provider.stop()
    visitor = Visitor(own_house.centre)
    shown = visitor.get("/admin/oidc/start")
    assert shown.status == 503
    assert "does not answer" in shown.text
    assert visitor.sign_in(own_house.centre.key).url.endswith("/admin/tenants")
    own_house.provider.start()
    away = Visitor(own_house.centre)
    back = own_house.way_back("ana", away)
    own_house.provider.stop()
    assert away.get(back).status == 503
    assert away.token is None


def test_a_provider_that_is_slow_is_asked_once_for_all_and_holds_up_no_request() -> None:
    """Its socket takes connections and says nothing."""
    with socket.create_server(("localhost", 0)) as silent:
        issuer = f"http://localhost:{silent.getsockname()[1]}"

        def section(folder: Path, url: str) -> dict[str, Any]:
            (folder / "oidc.secret").write_text(CLIENT_SECRET)
            return {
                "oidc": {
                    "issuer": issuer,
                    "url": url,
                    "client_id": CLIENT_ID,
                    "client_secret_file": "oidc.secret",
                    "roles": ROLES,
                }
            }

        with Centre(more=section) as centre:
            found: list[int] = []

            def sign_in() -> None:
                found.append(Visitor(centre).get("/admin/oidc/start").status)

            people = [threading.Thread(target=sign_in) for _ in range(45)]
            for thread in people:
                thread.start()
            slowest_s = 0.0
            while any(thread.is_alive() for thread in people):
                begun_s = time.monotonic()
                assert centre.call("GET", "/v1/me").status == 200
                slowest_s = max(slowest_s, time.monotonic() - begun_s)
                time.sleep(0.02)
            assert slowest_s < 0.6 * oidc.DISCOVERY_S, "they have waited, too"
            assert found == [503] * 45
            # Once for all of them.
            silent.settimeout(1)
            silent.accept()[0].close()
            with pytest.raises(TimeoutError):
                silent.accept()


def test_a_role_that_is_taken_back_ends_the_session(own_house: House) -> None:
    visitor = Visitor(own_house.centre)
    own_house.go("ana", visitor)
    centre = own_house.centre
    assert visitor.get("/admin/tenants/acme").status == 200
    content = yaml.safe_load(centre.file.read_text())
    del content["oidc"]["roles"]["acme-adm"]
    centre.file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert centre.service is not None
    centre.service.end()
    centre.reload()
    centre.start()
    assert visitor.get("/admin/tenants/acme").url.endswith("/admin/sign-in?ended=1")


def test_the_secret_is_nowhere(house: House) -> None:
    house.go("ana")
    assert house.centre.service is not None
    assert CLIENT_SECRET not in house.centre.service.stderr()
