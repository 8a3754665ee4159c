"""E-mail to a real SMTP server: TLS, login, refusals, a server that goes away."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from services.alerts.receivers import Refused, receiver
from services.runtime.errors import Unavailable
from tests.kit.common import free_ports
from tests.kit.pki import Ca

NOTE = {"id": "planta-sp-0a-7", "ts": 1_764_000_000_000, "rule": "a-alto",
        "to": "disparando", "text": "Corrente de 85 A\nem prensa-01", "plc_id": "prensa-01",
        "machine": None}  # fmt: skip


class Inbox:
    """What the server took, and how it answers a recipient."""

    def __init__(self) -> None:
        self.taken: list[Envelope] = []
        self.answer = "250 OK"

    async def handle_RCPT(self, _s: Any, _n: Any, envelope: Envelope, to: str, _o: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            envelope.rcpt_tos.append(to)
        return self.answer

    async def handle_DATA(self, _s: Any, _n: Any, envelope: Envelope) -> str:  # noqa: N802
        self.taken.append(envelope)
        return "250 taken"


def login(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and data.password == b"segredo"
    return AuthResult(success=right, handled=False)


@contextmanager
def server(
    certificate: tuple[str, str] | None = None, **options: Any
) -> Iterator[tuple[Inbox, int]]:
    inbox = Inbox()
    (port,) = free_ports(1)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        options["tls_context"] = context
    controller = Controller(inbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield inbox, port
    finally:
        controller.stop()


def config(port: int, **more: Any) -> dict[str, Any]:
    return {"name": "turno", "type": "email", "host": "localhost", "port": port, "username": None,
            "password": None, "security": "none", "from": "caixa@planta.example", "ca": None,
            "to": ["ana@planta.example", "rui@planta.example"], "timeout": 2.0, **more}  # fmt: skip


def test_a_mail_says_what_has_happened() -> None:
    with server() as (inbox, port):
        receiver(config(port))(NOTE, b"")
    (mail,) = inbox.taken
    assert mail.rcpt_tos == ["ana@planta.example", "rui@planta.example"]
    assert isinstance(mail.content, bytes)
    text = mail.content.decode()
    assert "Subject: [DISPARANDO] Corrente de 85 A em prensa-01" in text
    assert "Message-ID: <planta-sp-0a-7@plc-edge>" in text
    assert "ts: 2025-11-24T16:00:00+00:00" in text
    assert "machine" not in text


@pytest.mark.parametrize("right", [True, False])
def test_starttls_and_login(tmp_path: Path, right: bool) -> None:
    authority = Ca(tmp_path)
    secret = tmp_path / "password"
    secret.write_text("segredo" if right else "errado")
    with server(authority.issue("localhost"), require_starttls=True, auth_required=True,
                authenticator=login) as (inbox, port):  # fmt: skip
        send = receiver(config(
            port, security="starttls", ca=str(authority.file), username="caixa",
            password={"file": str(secret)},
        ))  # fmt: skip
        if right:
            send(NOTE, b"")
        else:
            with pytest.raises(Unavailable, match="answers 535"):
                send(NOTE, b"")
        # Nobody vouches for it where the authority is not known.
        with pytest.raises(Unavailable, match="SSLCertVerificationError"):
            receiver(config(port, security="starttls"))(NOTE, b"")
    assert len(inbox.taken) == right


@pytest.mark.parametrize(
    ("answer", "kind"), [("550 no such user", Refused), ("450 busy", Unavailable)]
)
def test_refused_for_ever_or_for_now(answer: str, kind: type[Exception]) -> None:
    with server() as (inbox, port):
        inbox.answer = answer
        with pytest.raises(kind, match="refuses every address"):
            receiver(config(port))(NOTE, b"")


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        receiver(config(port))(NOTE, b"")
