"""A real OpenID Connect provider on this machine: npm's certified oidc-provider."""

from __future__ import annotations

import html
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

from joserfc.jwk import RSAKey

from tests.kit.common import ROOT, free_port, until
from tests.kit.node import package
from tests.kit.pages import Shown, Visitor

PACKAGE = ("oidc-provider", "9.13.3")
CLIENT_ID, CLIENT_SECRET = "plc-edge", "um-segredo-de-teste"
ACCOUNTS = {
    "olga": {"groups": ["plataforma"], "email": "olga@example.com"},
    "ana": {"groups": ["outros", "acme-adm"]},
    "lia": {"groups": ["acme-leitura"]},
    "zeca": {"groups": ["ninguem"]},
    "beto": {"groups": ["beta-adm"]},
}
ROLES = {
    "plataforma": {"role": "operator"},
    "acme-adm": {"role": "admin", "tenant": "acme"},
    "acme-leitura": {"role": "reader", "tenant": "acme"},
    "beta-adm": {"role": "admin", "tenant": "beta"},
}


def new_keys() -> list[dict[str, Any]]:
    """A signing key of its own, as a provider has after a rotation."""
    key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
    return [dict(key.as_dict(private=True))]


class IdentityProvider:
    """One provider; on ``localhost``, which is another site than the centre's 127.0.0.1."""

    def __init__(self, redirect: str) -> None:
        self.port = free_port()
        self.issuer = f"http://localhost:{self.port}"
        self.redirect = redirect
        self.keys = new_keys()
        self.clock_s = 0
        """How far ahead its clock is."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkstemp(prefix="oidc", suffix=".log")[1])

    def start(self, *, issuer: str | None = None) -> None:
        """Returns when it serves."""
        node, folder = package(*PACKAGE)
        client = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "redirect_uris": [self.redirect],
        }
        config = {
            "issuer": issuer or self.issuer,
            "host": "localhost",
            "port": self.port,
            "client": client,
            "keys": self.keys,
            "accounts": ACCOUNTS,
            "clock_s": self.clock_s,
        }
        script = ROOT / "tests" / "kit" / "oidc_provider.mjs"
        with self._log.open("ab") as log:
            at = log.tell()
            command = [node, str(script), str(folder), json.dumps(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: b"READY" in self._log.read_bytes()[at:], 20, self._log.read_text)

    def stop(self) -> None:
        """It is down."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def restart(self, *, issuer: str | None = None) -> None:
        """With what was changed meanwhile; nobody is signed in there any more."""
        self.stop()
        self.start(issuer=issuer)

    def section(self, folder: Path, url: str, **more: Any) -> dict[str, Any]:
        """``oidc`` of central.yaml, its secret put into ``folder``."""
        (folder / "oidc.secret").write_text(CLIENT_SECRET)
        return {
            "issuer": self.issuer,
            "url": url,
            "client_id": CLIENT_ID,
            "client_secret_file": "oidc.secret",
            "scopes": ["openid", "profile", "email", "groups"],
            "roles": ROLES,
            **more,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.unlink()


_ACTION = re.compile(r'<form[^>]* action="([^"]+)"')


def pass_forms(visitor: Visitor, shown: Shown, name: str, callback: str) -> Shown:
    """Through the provider's own pages, as ``name``, until it leads back: that redirect."""
    for _ in range(12):
        location = shown.headers.get("location")
        if location is not None:
            if location.startswith(callback):
                return shown
            shown = visitor.get(urljoin(shown.url, location), follow=False)
            continue
        action = _ACTION.search(shown.text)
        assert action is not None, shown
        login = 'name="login"' in shown.text
        fields = {"prompt": "login", "login": name, "password": "x"}
        url = urljoin(shown.url, html.unescape(action[1]))
        shown = visitor.ask("POST", url, fields if login else {"prompt": "consent"}, follow=False)
    raise AssertionError(f"the provider never leads back: {shown}")
