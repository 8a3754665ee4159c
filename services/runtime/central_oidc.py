"""The section ``oidc`` of ``central.yaml``: people who sign in with OpenID Connect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from services.runtime.config import Model, Name
from services.runtime.document import KeyPath
from services.runtime.judged import rule
from services.runtime.loopback import is_loopback

CALLBACK = "/admin/oidc/callback"


def _address(value: str) -> str:
    """An HTTPS address without a query, or HTTP on this machine."""
    try:
        url = urlsplit(value)
        host, _ = url.hostname or "", url.port
    except ValueError:
        host, url = "", urlsplit("")
    if not host or url.query or url.fragment or "@" in url.netloc:
        raise ValueError("is no address such as `https://login.example.com/realms/fabrica`")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise ValueError("must begin with https:// (http:// to this machine's loopback only)")
    return value


class OidcRole(Model):
    """What people of one group may do."""

    role: Literal["operator", "admin", "reader"]
    tenant: Name | None = Field(None, description="whose; not with `operator`")

    @rule
    def _of_a_tenant(self) -> str | None:
        if (self.role == "operator") == (self.tenant is None):
            return None
        return "`tenant:` goes with `admin` and `reader`, and `operator` has none"


class Oidc(Model):
    """An OpenID Connect provider that says who people are. Programs use API keys."""

    issuer: str = Field(description="as its discovery document says it, letter by letter")
    url: str = Field(
        description="the centre's address as browsers see it, `https://centre.example.com`; the"
        f" provider must allow `<url>{CALLBACK}`"
    )
    client_id: str = Field(min_length=1, max_length=200)
    client_secret_file: Path | None = Field(
        None, description="without it the client is a public one, with PKCE alone"
    )
    ca: Path | None = Field(None, description="of the provider's certificate; else the system's")
    scopes: list[str] = Field(
        ["openid", "profile", "email"], description="what is asked for; `openid` is always"
    )
    claim: str = Field("groups", description="of the ID token, a text or a list; `a.b` goes inside")
    roles: dict[str, OidcRole] = Field(
        description="value of the claim -> `{role: …, tenant: …}`; the first that fits counts, and"
        " who has none has no access",
        min_length=1,
    )

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        return _address(value)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return _address(value).rstrip("/")


def broken(oidc: Oidc, base: Path) -> Iterator[tuple[KeyPath, str, str]]:
    """Files that cannot be read."""
    for name in ("client_secret_file", "ca"):
        file = getattr(oidc, name)
        if file is not None and not os.access(base / file, os.R_OK):
            hint = "create it, readable by the user that runs plc-edge (chmod 640)"
            yield ("oidc", name), f"{base / file} cannot be read", hint


def rendered(oidc: Oidc | None, base: Path) -> dict[str, Any] | None:
    """As the process reads it: a secret only as a reference."""
    if oidc is None:
        return None
    secret = oidc.client_secret_file
    return {
        "issuer": oidc.issuer,
        "redirect": oidc.url + CALLBACK,
        "client_id": oidc.client_id,
        "client_secret": {"file": str(base / secret)} if secret else None,
        "ca": str(base / oidc.ca) if oidc.ca else None,
        "scope": " ".join(dict.fromkeys(["openid", *oidc.scopes])),
        "claim": oidc.claim,
        "roles": {value: {"role": r.role, "tenant": r.tenant} for value, r in oidc.roles.items()},
    }
