"""A box as the centre sees it: the fleet protocol over real HTTP, without anything of a box behind.

box = CentralBox(centre, "acme", "caixa-1")
box.claim(code)          # from here on it shows its certificate
target = box.poll(55)
box.report("applied", version=target["version"], running=target["version"])

``live`` does so by itself, in a thread, as a box that takes every version, or one that does not.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.kit.centre import Centre, Reply

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
HEALTHY = {"plcs": {"clp-1": "online"}, "outputs": {"central": "up"}, "pending": 0}
# The states that a box passes through with a version.
Course = Callable[[int], list[str]]


def csr(key: PrivateKey, name: str = "whatever") -> str:
    """A certificate request, PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def good(_version: int) -> list[str]:
    """Takes every version."""
    return ["applying", "watching", "applied"]


class CentralBox:
    """One box. Without TLS at the centre it needs an API key of role box."""

    def __init__(self, centre: Centre, tenant: str, site: str, key: str | None = None) -> None:
        self.centre, self.tenant, self.site = centre, tenant, site
        self.path = f"/v1/tenants/{tenant}/sites/{site}"
        self._key = key
        self._pool = centre.pool()
        self._files = 0
        self.private: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        self.running: int | None = None
        self.have = 0
        self.rollout: str | None = None

    # -- its identity --------------------------------------------------------------------

    def claim(self, code: str) -> Reply:
        """With a code; where it works, what follows goes with the certificate."""
        form = {"code": code, "csr": csr(self.private), "version": "1.2.3"}
        reply = self.call("POST", "/v1/claim", form)
        if reply.status in (200, 201):
            self.take(reply.body)
        return reply

    def renew(self) -> Reply:
        """A new key and certificate, not in use before ``take``."""
        self.private = ec.generate_private_key(ec.SECP256R1())
        return self.call("POST", f"{self.path}/certificate", {"csr": csr(self.private)})

    def take(self, issued: Any) -> tuple[str, str]:
        """Shows this certificate from now on, on new connections; its files."""
        self._files += 1
        stem = self.centre.folder / f"{self.tenant}-{self.site}-{self._files}"
        cert, key = Path(f"{stem}.pem"), Path(f"{stem}.key")
        cert.write_text(issued["certificate"])
        key.write_bytes(
            self.private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self._pool = self.centre.pool(str(cert), str(key))
        return str(cert), str(key)

    # -- what it says and asks -----------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """One request, with what it has to show."""
        headers = {"content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        content = None if body is None else json.dumps(body)
        response = self._pool.request(method, self.centre.url + path, body=content, headers=headers)
        document = json.loads(response.data) if response.data else None
        return Reply(response.status, document, response.headers)

    def poll(self, wait_s: int = 0) -> Any:
        """The target, or None."""
        reply = self.call("GET", f"{self.path}/target?have={self.have}&wait_s={wait_s}")
        assert reply.status in (200, 204), reply
        return reply.body

    def report(self, state: str, version: int | None = None, **more: Any) -> Reply:
        """What it says of itself."""
        own = {"running": self.running, "rollout": self.rollout, "health": HEALTHY}
        form = {"state": state, "version": version, **own, **more}
        return self.call("PUT", f"{self.path}/report", form)

    def take_target(self, target: Any, course: Course = good) -> None:
        """Applies it, or whatever else ``course`` says, and reports every step."""
        version, before = target["version"], self.running
        self.have, self.rollout = version, target["rollout"]
        for state in course(version):
            if state in ("watching", "applied"):
                self.running = version
            elif state == "rolled_back":
                self.running = before
            assert self.report(state, version).status == 200

    @contextmanager
    def live(self, course: Course = good, wait_s: int = 55) -> Iterator[None]:
        """Polls and applies in a thread."""
        ending = threading.Event()

        def run() -> None:
            while not ending.is_set():
                try:
                    if target := self.poll(wait_s):
                        self.take_target(target, course)
                except urllib3.exceptions.HTTPError:  # the centre is away: it tries again
                    ending.wait(0.05)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            # A poll that waits is not waited for: the centre ends it, or the process.
