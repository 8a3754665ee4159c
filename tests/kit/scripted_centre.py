"""A control plane, as far as a box speaks to it, that misbehaves as it is told.

HTTPS with client certificates of its own authority. Its parser is its own; what a box does wrong is
collected in ``complaints``.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kit import pki
from tests.kit.common import free_port

CODE = "7HK2M-0QZ4T-XVB19-3NDRC"
TENANT, SITE = "acme", "e2e"
DAY = datetime.timedelta(days=1)


def sha256(yaml: str, layouts: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([yaml, layouts], sort_keys=True).encode()).hexdigest()


class Authority:
    """Issues the boxes' certificates."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "box-ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"boxes {folder.name}")])
        own = self._sign(self._name, self._key.public_key(), (-1, 30), ca=True)
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, csr: str, days: tuple[float, float]) -> x509.Certificate:
        """For the key of a request, whatever name that has."""
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{TENANT}/{SITE}")])
        return self._sign(name, key, days, ca=False)

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        days: tuple[float, float],
        *,
        ca: bool,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


class ScriptedCentre:
    """Set ``target``, ``fault`` and the rest at any time.

    ``fault``: "" · "500" · "garbage" · "oversize" · "hang" · "drop" · "drip" · "wrong_sha" ·
    "redirect".
    """

    def __init__(self, folder: Path, name: str = "localhost") -> None:
        self.folder = folder
        self.ca = pki.Ca(folder, "server-ca")
        self.boxes = Authority(folder)
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.target: dict[str, Any] | None = None
        self.fault = ""
        self.codes = {CODE}
        self.days: tuple[float, float] = (-1.0, 90.0)
        """Of the certificates it issues: from, to."""
        self.renew_days = 60.0
        self.lose_claim_replies = 0
        self.revoked: set[int] = set()
        self.issued: list[x509.Certificate] = []
        self.claimed: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.polls: list[tuple[int, int]] = []
        self.requests = 0
        self.complaints: list[str] = []
        self._changed = threading.Condition()
        self._name = name
        self._server: ThreadingHTTPServer | None = None

    # -- what a test does -----------------------------------------------------------------

    def want(
        self,
        version: int,
        yaml: str,
        layouts: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        """The box's target from now on."""
        layouts = layouts or {}
        with self._changed:
            self.target = {
                "version": version, "sha256": sha256(yaml, layouts), "yaml": yaml,
                "layouts": layouts, "rollout": None, "overwrite": False, "watch_s": 0, **more,
            }  # fmt: skip
            self._changed.notify_all()

    def states(self) -> list[tuple[str, int | None]]:
        """(state, version) of the reports, each once where it was repeated."""
        found: list[tuple[str, int | None]] = []
        for report in list(self.reports):
            now = (report["state"], report["version"])
            if not found or found[-1] != now:
                found.append(now)
        return found

    def start(self) -> None:
        """Returns when it listens."""
        centre = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                centre._serve(self)

            def do_POST(self) -> None:
                centre._serve(self)

            def do_PUT(self) -> None:
                centre._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: Any, address: Any) -> None:
                # In the connection's thread: a client that says nothing holds up nobody else.
                with contextlib.suppress(OSError):
                    request.settimeout(90)
                    tls = context.wrap_socket(request, server_side=True)
                    with contextlib.closing(tls):
                        super().finish_request(tls, address)

            def handle_error(self, *_: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.ca.issue(self._name))
        context.load_verify_locations(self.boxes.file)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if kind is None:
            assert not self.complaints, self.complaints

    # -- what it answers ------------------------------------------------------------------

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        size = int(request.headers.get("content-length") or 0)
        body = json.loads(request.rfile.read(size)) if size else None
        if self._misbehaves(request):
            return
        address = urlsplit(request.path)
        status, answer = self._answer(request, address.path, parse_qs(address.query), body)
        if status == 0:
            request.close_connection = True
            return
        self._send(request, status, json.dumps(answer).encode() if answer is not None else b"")

    def _send(self, request: BaseHTTPRequestHandler, status: int, data: bytes) -> None:
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def _misbehaves(self, request: BaseHTTPRequestHandler) -> bool:
        fault = self.fault
        if fault == "500":
            self._send(request, 500, b'{"title": "out of order"}')
        elif fault == "garbage":
            self._send(request, 200, b"<html>router login</html>")
        elif fault == "oversize":
            request.send_response(200)
            request.send_header("content-length", str(2**33))
            request.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    request.wfile.write(b" " * 2**20)
        elif fault == "drip":
            request.send_response(200)
            request.send_header("content-length", "1000")
            request.end_headers()
            with contextlib.suppress(OSError):
                while self.fault == "drip":
                    request.wfile.write(b" ")
                    request.wfile.flush()
                    time.sleep(0.5)
            request.close_connection = True
        elif fault == "drop":
            request.close_connection = True
        elif fault == "redirect":
            request.send_response(307)
            request.send_header("location", "https://example.invalid/v1/claim")
            request.send_header("content-length", "0")
            request.end_headers()
        elif fault == "hang":
            while self.fault == "hang":
                time.sleep(0.05)
            request.close_connection = True
        else:
            return False
        return True

    def _answer(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: Any
    ) -> tuple[int, Any]:
        if path == "/v1/claim":
            return self._claim(body)
        der = request.connection.getpeercert(binary_form=True)
        if not der or x509.load_der_x509_certificate(der).serial_number in self.revoked:
            return 401, {"title": "Not known", "detail": "no certificate"}
        what = path.removeprefix(f"/v1/tenants/{TENANT}/sites/{SITE}/")
        if (request.command, what) == ("GET", "target"):
            return self._target(int(query["have"][0]), int(query["wait_s"][0]))
        if (request.command, what) == ("PUT", "report"):
            return self._report(body)
        if (request.command, what) == ("POST", "certificate"):
            return 201, self._issue(body["csr"])
        self.complaints.append(f"{request.command} {path}")
        return 404, {"title": "Not found"}

    def _claim(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.claimed.append(body)
        key = x509.load_pem_x509_csr(body["csr"].encode()).public_key()
        again = [c for c in self.issued if c.public_key() == key]
        if not again and body["code"] not in self.codes:
            return 403, {"title": "Claim refused", "detail": "the code is wrong or has ended"}
        self.codes.discard(body["code"])
        answer = self._issue(body["csr"], again[0] if again else None)
        if self.lose_claim_replies:
            self.lose_claim_replies -= 1
            return 0, None
        return 201, answer

    def _issue(self, csr: str, certificate: x509.Certificate | None = None) -> dict[str, Any]:
        if certificate is None:
            certificate = self.boxes.issue(csr, self.days)
            self.issued.append(certificate)
        now = datetime.datetime.now(datetime.UTC)
        return {
            "tenant": TENANT,
            "site": SITE,
            "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
            "ca": self.boxes.file.read_text(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
            "renew_after": (now + self.renew_days * DAY).isoformat(),
        }

    def _target(self, have: int, wait_s: int) -> tuple[int, Any]:
        self.polls.append((have, wait_s))
        deadline_s = time.monotonic() + wait_s

        def news() -> dict[str, Any] | None:
            target = self.target
            if target is None or (target["version"] == have and not target["overwrite"]):
                return None
            return target

        with self._changed:
            while (found := news()) is None and self._server is not None:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return 204, None
                self._changed.wait(min(left_s, 0.2))
        if found is not None and self.fault == "wrong_sha":
            found = {**found, "sha256": "0" * 64}
        return (200, found) if found else (204, None)

    def _report(self, body: dict[str, Any]) -> tuple[int, Any]:
        known = {
            "version", "sha256", "running", "state", "error", "problems", "software", "health",
            "rollout", "drift",
        }  # fmt: skip
        if set(body) != known:
            self.complaints.append(f"a report with {set(body) ^ known}")
        self.reports.append(body)
        target = self.target
        if target and (body["state"], body["version"]) == ("applied", target["version"]):
            target["overwrite"] = False
        return 200, {"points_per_min": 500, "poll_s": 55}
