"""What the pages are made of: words, templates, addresses, and what an ID token must be."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from services.control_plane.pages import sessions
from services.control_plane.pages.actions import ACTIONS
from services.control_plane.pages.oidc import NotSignedIn, Provider, ProviderAway, groups
from services.control_plane.pages.web import HOME, changes, ours
from services.control_plane.pages.words import LANGUAGES, all_words
from tests.kit.common import ROOT

PAGES = ROOT / "services" / "control_plane" / "pages"
# Keys that are put together: their beginnings.
MADE = ("state_", "action_", "done_", "role_", "kind_", "theme_", "provider_")


def test_every_word_is_there_in_both_languages_with_the_same_holes() -> None:
    for key, texts in all_words().items():
        assert set(texts) == set(LANGUAGES), key
        holes = [{hole for _, hole, _, _ in Formatter().parse(t) if hole} for t in texts.values()]
        assert holes[0] == holes[1], key
        assert all(texts.values()), key


def test_every_word_is_used_and_every_used_word_is_there() -> None:
    text = "".join(f.read_text() for f in PAGES.rglob("*.html"))
    code = "".join(f.read_text() for f in PAGES.glob("*.py"))
    used = set(re.findall(r"""\bt\(["'](\w+)["'][,)]""", text))
    missing = used - set(all_words())
    assert not missing, missing
    for key in all_words():
        quoted = any(f"{q}{key}{q}" in text + code for q in "\"'")
        part = any(key.endswith(end) and key[: -len(end)] in code for end in ("_title", "_text"))
        assert quoted or part or key.startswith(MADE), f"nobody says {key}"
    for action in ACTIONS:
        assert action.secret or f"done_{action.name}" in all_words(), action


def test_the_vendored_file_is_the_published_one() -> None:
    """npm htmx.org 2.0.11, dist/htmx.min.js (0BSD)."""
    file = PAGES / "static" / "vendor" / "htmx-2.0.11.min.js"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest == "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"


@given(st.text(max_size=40))
def test_a_way_back_never_leads_elsewhere(text: str) -> None:
    assert ours(text) == HOME or text.startswith("/admin")
    assert ours(f"/admin{text}").startswith("/admin")
    for evil in (f"//{text}", f"https:{text}", f"/\\{text}", f"/admin\\{text}", f"\t/admin{text}"):
        assert ours(evil) == HOME


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5)),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5)),
)
def test_before_and_after_name_every_member(before: dict[str, Any], after: dict[str, Any]) -> None:
    rows = changes(before, after)
    assert [key for key, _, _ in rows] == list({**before, **after})
    for key, old, new in rows:
        if key in before and isinstance(before[key], str):
            assert old == before[key]
        if key not in after:
            assert new == "–"


# -- what somebody is granted ------------------------------------------------------------------


def test_the_first_entry_that_fits_counts() -> None:
    roles = {
        "a": {"role": "admin", "tenant": "acme"},
        "b": {"role": "operator", "tenant": None},
    }
    assert sessions.grant(["b", "a"], roles) == sessions.Granted("admin", "acme")
    assert sessions.grant(["b"], roles) == sessions.Granted("operator", None)
    assert sessions.grant(["c"], roles) is None
    assert sessions.grant([], roles) is None
    assert sessions.grant(["a"], {}) is None


@pytest.mark.parametrize(
    ("claims", "claim", "found"),
    [
        ({"groups": ["a", "b"]}, "groups", ["a", "b"]),
        ({"groups": "a"}, "groups", ["a"]),
        ({"groups": ["a", 1, None, {"x": 1}]}, "groups", ["a"]),
        ({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ["a"]),
        ({"https://x.example/roles": ["a"]}, "https://x.example/roles", ["a"]),
        ({"a": "text"}, "a.b", []),
        ({}, "groups", []),
        ({"email": "x@y.z", "email_verified": True}, "email", ["x@y.z"]),
        ({"email": "x@y.z", "email_verified": "true"}, "email", []),
        ({"email": "x@y.z"}, "email", []),
    ],
)
def test_values_of_a_claim(claims: dict[str, Any], claim: str, found: list[str]) -> None:
    assert groups(claims, claim) == found


# -- ID tokens ---------------------------------------------------------------------------------

KEY = RSAKey.generate_key(2048, {"use": "sig"}, auto_kid=True)
OTHER = RSAKey.generate_key(2048, {"use": "sig"}, auto_kid=True)
SECRET = "segredo-do-cliente-com-tamanho-bastante"


class _Published(BaseHTTPRequestHandler):
    """Discovery document and keys."""

    def do_GET(self) -> None:
        issuer = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
        body: dict[str, Any] = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/keys",
            "authorization_endpoint": f"{issuer}/auth",
            "token_endpoint": f"{issuer}/token",
        }
        if self.path == "/keys":
            body = {"keys": [KEY.as_dict(private=False)]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Published)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config: dict[str, Any] = {
        "issuer": f"http://127.0.0.1:{server.server_port}",
        "redirect": "http://127.0.0.1/admin/oidc/callback",
        "client_id": "plc-edge",
        "client_secret": None,
        "ca": None,
        "scope": "openid",
        "claim": "groups",
        "roles": {},
    }
    yield Provider(config)
    server.shutdown()
    server.server_close()


def token(provider: Provider, key: Any = KEY, alg: str = "RS256", **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": provider.issuer, "sub": "ana", "aud": "plc-edge", "iat": now, "exp": now + 600,
        "nonce": "n-1", **changed,
    }  # fmt: skip
    header = {"alg": alg, **({"kid": key.kid} if key.kid else {})}
    claims = {k: v for k, v in claims.items() if v is not None}
    return {"id_token": jwt.encode(header, claims, key, algorithms=[alg]), "access_token": "at"}


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def verify(provider: Provider, answer: dict[str, Any]) -> Any:
    return provider._verified(provider._discover(), answer, "n-1")


def test_a_good_token_is_believed(provider: Provider) -> None:
    assert verify(provider, token(provider))["sub"] == "ana"
    assert verify(provider, token(provider, aud=["plc-edge"]))["sub"] == "ana"
    two = token(provider, aud=["plc-edge", "outro"], azp="plc-edge")
    assert verify(provider, two)["sub"] == "ana"


def test_keys_that_were_changed_are_fetched_again(provider: Provider) -> None:
    old = dataclasses.replace(provider._discover(), keys=KeySet([OTHER]))
    assert provider._verified(old, token(provider), "n-1")["sub"] == "ana"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "outro"},
        {"aud": ["outro"]},
        {"aud": None},
        {"aud": ["plc-edge", "outro"], "azp": "outro"},
        {"sub": None},
        {"sub": 7},
        {"exp": 1_700_000_000},
        {"exp": None},
        {"exp": "never"},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"nonce": "n-2"},
        {"nonce": None},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    ],
    ids=str,
)
def test_a_token_of_other_claims_is_not(provider: Provider, changed: dict[str, Any]) -> None:
    with pytest.raises(NotSignedIn):
        verify(provider, token(provider, **changed))


def test_a_token_that_others_signed_is_not(provider: Provider) -> None:
    forged = {
        "another key": token(provider, OTHER),
        "another key under a known name": token(
            provider, RSAKey.import_key({**OTHER.as_dict(private=True), "kid": str(KEY.kid)})
        ),
        "the client's secret": token(provider, OctKey.import_key(SECRET), "HS256"),
    }
    good = token(provider)["id_token"]
    head, body, mac = good.split(".")
    forged["no signature"] = {"id_token": f"eyJhbGciOiJub25lIn0.{body}."}
    header = base64url(b'{"alg":"HS256"}')
    start = f"{header}.{body}"
    public = hmac.digest(KEY.as_pem(private=False), start.encode(), "sha256")
    forged["the public key as a secret"] = {"id_token": f"{start}.{base64url(public)}"}
    forged["cut"] = {"id_token": f"{head}.{body}.{mac[:-8]}"}
    forged["no token"] = {"id_token": "x"}
    forged["empty"] = {"id_token": ""}
    for name, answer in forged.items():
        with pytest.raises(NotSignedIn):
            verify(provider, answer)
        assert name


@given(st.text(max_size=200) | st.binary(max_size=100).map(bytes.hex))
def test_a_cookie_that_is_none_of_ours_is_refused(cookie: str) -> None:
    config: dict[str, Any] = {"issuer": "https://x.example", "roles": {}}
    with pytest.raises(NotSignedIn):
        Provider(config).finish(cookie, {"state": "x", "code": "y"})


def test_nobody_answers(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "issuer": "http://127.0.0.1:1", "redirect": "", "client_id": "x", "client_secret": None,
        "ca": None, "scope": "openid", "claim": "groups", "roles": {},
    }  # fmt: skip
    with pytest.raises(ProviderAway):
        Provider(config).begin()
