"""People sign in with OpenID Connect: authorization code flow with PKCE (RFC 7636).

What the provider must be asked for comes from its discovery document; the ID token is taken from
its token endpoint and verified (signature, issuer, audience, times, nonce). Only the ID token is
believed. A person who is on the way to the provider is remembered by the browser alone, in a
cookie sealed with a key of this process: whoever is not signed in writes nothing into the database.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.runtime import secrets as references

TIMEOUT_S = 10.0
# What a person needs for a password and a second factor.
PENDING_S = 600
# What it publishes is fetched anew for a sign-in, so that one that is down is noticed here; but not
# for each of a flood of them.
DISCOVERY_S = 5.0
# Between its clock and ours.
LEEWAY_S = 60
# Signatures with a key pair: with one of HMAC, who knows the client's secret could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
              "EdDSA", "Ed25519")  # fmt: skip
_NONCE_BYTES = 12


class ProviderAway(Exception):
    """It does not answer, or not with what it must; later, perhaps."""


class NotSignedIn(Exception):
    """``code``: why, one of the words of the page: state, refused, token."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code}: {reason}")


@dataclass(frozen=True, slots=True)
class Pending:
    """Somebody who is at the provider."""

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    until_s: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the provider vouches for."""

    subject: str
    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the provider has published."""

    document: dict[str, Any]
    keys: KeySet
    at_s: float


class Provider:
    """One OpenID Connect provider. Every method may take ``TIMEOUT_S``: not for the event loop."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` as services/runtime/central_oidc.py renders it."""
        self.issuer: str = config["issuer"]
        self.roles: dict[str, Any] = config["roles"]
        self._config = config
        self._seal = AESGCM(AESGCM.generate_key(256))
        self._known: _Known | None = None
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._failed: tuple[float, ProviderAway | NotSignedIn] | None = None

    # -- out ---------------------------------------------------------------------------------

    def begin(self) -> tuple[str, str]:
        """(where to send the browser, the cookie to give it)."""
        known = self._discover()
        pending = Pending(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            until_s=int(time.time()) + PENDING_S,
        )
        with self._session(known) as session:
            url, _ = session.create_authorization_url(
                known.document["authorization_endpoint"],
                state=pending.state,
                nonce=pending.nonce,
                code_verifier=pending.verifier,
            )
        return url, self._sealed(pending)

    def _session(self, known: _Known) -> OAuth2Session:
        secret = self._config["client_secret"]
        methods = known.document.get("token_endpoint_auth_methods_supported")
        basic = methods is None or "client_secret_basic" in methods
        method = "client_secret_basic" if basic else "client_secret_post"
        session = OAuth2Session(
            self._config["client_id"],
            references.resolve(secret) if secret else None,
            token_endpoint_auth_method=method if secret else "none",
            scope=self._config["scope"],
            redirect_uri=self._config["redirect"],
            code_challenge_method="S256",
            default_timeout=TIMEOUT_S,
        )
        session.verify = self._config["ca"] or True
        return session

    def _sealed(self, pending: Pending) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = json.dumps(asdict(pending)).encode()
        return (nonce + self._seal.encrypt(nonce, text, None)).hex()

    def _opened(self, cookie: str) -> Pending:
        try:
            content = bytes.fromhex(cookie)
            text = self._seal.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], None)
        except (ValueError, InvalidTag):
            raise NotSignedIn("state", "no cookie of this process") from None
        return Pending(**json.loads(text))

    # -- and back ----------------------------------------------------------------------------

    def finish(self, cookie: str, query: Mapping[str, str]) -> Identity:
        """Who came back with ``query``; raises NotSignedIn or ProviderAway."""
        pending = self._opened(cookie)
        self._use(pending, query.get("state", ""))
        if "error" in query:
            raise NotSignedIn("refused", query["error"][:100])
        known = self._known or self._discover()
        # RFC 9207: the answer of another provider must not be taken for this one's.
        said = query.get("iss")
        needed = known.document.get("authorization_response_iss_parameter_supported")
        if (said is not None or needed) and said != self.issuer:
            raise NotSignedIn("token", f"the answer is of {str(said)[:200]}")
        token = self._redeem(known, pending, query.get("code", ""))
        claims = self._verified(known, token, pending.nonce)
        return Identity(claims["sub"], _name(claims), tuple(groups(claims, self._config["claim"])))

    def _use(self, pending: Pending, state: str) -> None:
        """Once only."""
        if not hmac.compare_digest(pending.state.encode(), state.encode("utf-8", "replace")):
            raise NotSignedIn("state", "the state is not the one that was given")
        now = int(time.time())
        if pending.until_s < now:
            raise NotSignedIn("state", f"took longer than {PENDING_S} s")
        with self._lock:
            self._used = {s: until for s, until in self._used.items() if until >= now}
            if state in self._used:
                raise NotSignedIn("state", "the state was used before")
            self._used[state] = pending.until_s

    def _redeem(self, known: _Known, pending: Pending, code: str) -> dict[str, Any]:
        try:
            with self._session(known) as session:
                token: dict[str, Any] = session.fetch_token(
                    known.document["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=pending.verifier,
                    redirect_uri=self._config["redirect"],
                )
        except OAuthError as e:
            raise NotSignedIn("refused", f"token endpoint: {e.error}") from None
        except (requests.RequestException, ValueError) as e:
            raise ProviderAway(f"token endpoint: {e}") from None
        if not isinstance(token.get("id_token"), str):
            raise NotSignedIn("token", "the answer has no ID token")
        return token

    def _verified(self, known: _Known, token: dict[str, Any], nonce: str) -> CodeIDToken:
        client = self._config["client_id"]
        try:
            try:
                found = jwt.decode(token["id_token"], known.keys, algorithms=ALGORITHMS)
            except (JoseError, ValueError):
                # It may have changed its keys since they were fetched.
                known = self._discover(other_than=known)
                found = jwt.decode(token["id_token"], known.keys, algorithms=ALGORITHMS)
            claims = CodeIDToken(
                found.claims,
                found.header,
                {
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": client},
                    "sub": {"essential": True},
                    "exp": {"essential": True},
                },
                {"nonce": nonce, "client_id": client, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=LEEWAY_S)
        except (JoseError, ValueError) as e:
            raise NotSignedIn("token", f"the ID token is not good: {e}") from None
        if not isinstance(claims["sub"], str):
            raise NotSignedIn("token", "the ID token's subject is no text")
        return claims

    # -- what it publishes -------------------------------------------------------------------

    def _discover(self, *, other_than: _Known | None = None) -> _Known:
        """Discovery document and keys: it is asked once for all who want them at a time, and they
        share how that ends.
        """
        came_s = time.monotonic()
        with self._asking:
            known = self._known
            if known not in (None, other_than) and time.monotonic() - known.at_s <= DISCOVERY_S:
                return known
            if self._failed is not None and self._failed[0] >= came_s:
                raise self._failed[1]
            try:
                self._known = known = self._published()
            except (ProviderAway, NotSignedIn) as e:
                self._failed = time.monotonic(), e
                raise
            return known

    def _published(self) -> _Known:
        document = self._fetch(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.issuer:
            said = str(document.get("issuer"))[:200]
            raise NotSignedIn("token", f"it calls itself {said}, and not {self.issuer}")
        try:
            keys = KeySet.import_key_set(self._fetch(document["jwks_uri"]))  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError) as e:
            raise ProviderAway(f"its keys are not usable: {e!r}") from None
        missing = {"authorization_endpoint", "token_endpoint"} - document.keys()
        if missing:
            raise ProviderAway(f"its discovery document lacks {', '.join(sorted(missing))}")
        return _Known(document, keys, time.monotonic())

    def _fetch(self, url: str) -> dict[str, Any]:
        try:
            answer = requests.get(url, timeout=TIMEOUT_S, verify=self._config["ca"] or True)
            answer.raise_for_status()
            document = answer.json()
        except (requests.RequestException, ValueError) as e:
            raise ProviderAway(f"{url}: {e}") from None
        if not isinstance(document, dict):
            raise ProviderAway(f"{url}: is no JSON object")
        return document


def groups(claims: Mapping[str, Any], claim: str) -> list[str]:
    """The texts of a claim: of its name, or of ``a.b`` inside of it. An e-mail address counts only
    where the provider has verified it: anybody may claim to have any.
    """
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if claim == "email" and claims.get("email_verified") is not True:
        return []
    values = found if isinstance(found, list) else [found]
    return [value for value in values if isinstance(value, str)]


def _name(claims: Mapping[str, Any]) -> str:
    """How people know this person."""
    for key in ("preferred_username", "email", "name", "sub"):
        if isinstance(claims.get(key), str) and claims[key]:
            return "".join(c for c in claims[key] if c.isprintable())[:200]
    return ""
