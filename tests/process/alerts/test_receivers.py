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

from services.alerts.receivers import receiver
from services.runtime.errors import Refused, Unavailable
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


def test_a_mail_of_many_lists_some_and_counts_all() -> None:
    alerts = [{**NOTE, "machine": f"m{n}", "began": NOTE["ts"]} for n in range(3)]
    storm = {"id": "planta-sp-0a-m9", "kind": "group", "ts": 1_764_000_010_000, "count": 5_000,
             "rules": {"a-alto": [4_999, 1]}, "text": "5000: a-alto +4999/-1",
             "alerts": alerts}  # fmt: skip
    with server() as (inbox, port):
        receiver(config(port))(storm, b"")
    (mail,) = inbox.taken
    assert isinstance(mail.content, bytes)
    text = mail.content.decode().replace("\r\n", "\n")
    assert "Subject: [5000 ALARMES] a-alto +4999/-1" in text
    assert "Message-ID: <planta-sp-0a-m9@plc-edge>" in text
    assert [f"machine: m{n}\n" in text for n in range(3)] == [True] * 3
    assert "... 4997 more\na-alto: 4999 begun, 1 ended\n" in text


def test_a_mail_of_an_escalation_says_so() -> None:
    with server() as (inbox, port):
        receiver(config(port))({**NOTE, "id": "x-7-e2", "escalation": 2}, b"")
    assert isinstance(inbox.taken[0].content, bytes)
    assert "Subject: [DISPARANDO 2] Corrente" in inbox.taken[0].content.decode()


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
