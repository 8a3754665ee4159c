"""The ``opcua`` output: does it listen, may somebody connect, who was turned away?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from services.cli.doctor_finding import Failed, Finding
from services.cli.doctor_net import EXPIRES_SOON_DAYS, connect
from services.opcua import certificates
from services.opcua.certificates import TrustList
from services.runtime.config import OpcuaOutput
from services.runtime.site import Site

SHOWN_MAX = 5


def check(site: Site, output: OpcuaOutput, subject: str) -> Iterator[Finding]:
    """All findings about one server."""
    folder = site.config.paths.state.absolute() / "opcua_server" / output.name
    beside = site.config.file.parent
    trusted = (beside / output.trusted).absolute() if output.trusted else folder / "trusted"
    own = beside / output.certificate if output.certificate else folder / "own.der"
    yield from _own(own, subject)
    yield from _trust(TrustList(trusted, folder / "rejected"), output, subject)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(output.host, output.host)
    try:
        connect(subject, host, output.port, "the server").close()
    except Failed as e:
        fix = "does `plc-edge run` run? See the log of its publisher"
        yield Finding("error", subject, e.finding.code, e.finding.text, fix)
    else:
        yield Finding("ok", subject, "opcua", f"listens at opc.tcp://{output.host}:{output.port}")


def _own(path: Path, subject: str) -> Iterator[Finding]:
    if not path.exists():
        return  # made at the first start
    try:
        ends = certificates.load(path).not_valid_after_utc
    except ValueError as e:
        yield Finding("error", subject, "certificate", str(e), "give a certificate, DER or PEM")
        return
    days = (ends - datetime.now(UTC)).days
    if days < EXPIRES_SOON_DAYS:
        fix = "renew it; one that plc-edge made: remove it and its key, and restart"
        level: Literal["warning", "error"] = "error" if days < 0 else "warning"
        text = f"the server's certificate ends on {ends:%Y-%m-%d}"
        yield Finding(level, subject, "certificate_expires", text, fix)


def _trust(trust: TrustList, output: OpcuaOutput, subject: str) -> Iterator[Finding]:
    count = 0
    for file, certificate in trust.certificates():
        if certificate is None:
            text = f"{file} is no certificate"
            yield Finding("warning", subject, "trusted", text, "remove it, or put DER or PEM there")
        else:
            count += 1
            refusal = trust.refusal(certificates.der(certificate))
            if refusal:
                text = f"{file}: {refusal}"
                yield Finding("warning", subject, "trusted", text, "have its owner renew it")
    if not count and not output.insecure:
        text = f"no client's certificate lies in {trust.trusted}: nobody can connect"
        fix = "let the client try once, then do what this command says of it"
        yield Finding("warning", subject, "trusted", text, fix)
    known = {certificates.thumbprint(certificates.der(c)) for _, c in trust.certificates() if c}
    refused = [(f, f.read_bytes()) for f in trust.newest_rejected()]
    refused = [(f, data) for f, data in refused if certificates.thumbprint(data) not in known]
    for file, data in refused[:SHOWN_MAX]:
        text = f"refused {certificates.subject(data)}, SHA-256 {certificates.thumbprint(data)}"
        fix = f"where you know it: mv {file} {trust.trusted}/; else remove it"
        yield Finding("warning", subject, "client_refused", text, fix)
    if len(refused) > SHOWN_MAX:
        text = f"{len(refused) - SHOWN_MAX} more were refused before these"
        fix = f"look into {trust.rejected}, and remove what nobody knows"
        yield Finding("warning", subject, "client_refused", text, fix)
