"""``plc-edge trust PLC``: a person confirms the certificate of an OPC UA server, once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509

from services.cli.common import ConfigOption, fail, load_site
from services.cli.direct import find_plc
from services.protocols.opcua import security
from services.runtime import render
from services.runtime.errors import EXIT_FAILURE, EXIT_USAGE


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Confirm an OPC UA server's certificate; write this box's own.")(trust)


def trust(
    plc: Annotated[str | None, typer.Argument(help="Its id.")] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", help="Confirm this one without a question (SHA-256)."),
    ] = None,
    own: Annotated[
        Path | None,
        typer.Option("--own", help="Write this box's certificate (DER), for the server to trust."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Shows what the server shows; the technician compares it with TIA Portal and says yes."""
    site = load_site(config)
    state = site.config.paths.state.absolute()
    if own is not None:
        certificate, _ = security.own(state, site.config.site)
        try:
            own.write_bytes(certificate)
        except OSError as e:
            fail(f"{own}: cannot be written: {e.strerror}")
        _say(f"{own}: this box's certificate, SHA-256 {security.fingerprint(certificate)}")
    if plc is None:
        if own is None:
            fail("which PLC? `plc-edge trust PLC`, or --own FILE", EXIT_USAGE)
        return
    chosen = find_plc(site, plc)
    if chosen.protocol != "opcua":
        fail(f"{plc} is read by {chosen.protocol}, which shows no certificate", EXIT_USAGE)
    shown = _shown(render.render(site)[f"reader-{plc}"]["plc"], chosen.all_hosts[0])
    if fingerprint is not None and not security.is_same(fingerprint, shown):
        _describe(shown)
        fail(f"this is not {fingerprint}: nothing is trusted anew")
    known = security.known(state, plc)
    if known == shown:
        _say(f"{plc}: this certificate is trusted already")
        return
    _describe(shown)
    if known is not None:
        _say(f"CHANGED: until now {security.fingerprint(known)} was trusted")
    question = "Is this the fingerprint that TIA Portal shows?"
    if fingerprint is None and not typer.confirm(question, default=False):
        raise typer.Exit(EXIT_FAILURE)
    security.trust(state, plc, shown)
    _say(f"{plc}: trusted; its reader connects with its next attempt")


def _shown(plc: dict[str, Any], host: str) -> bytes:
    # asyncua is for those who have such PLCs: 60 MB and 0.5 s.
    from services.protocols.opcua import connect

    offered = asyncio.run(connect.endpoints(plc, host))
    shown = connect.leaf(connect.choose(offered, plc).ServerCertificate)
    if not shown:
        fail("the server shows no certificate: with `security: {policy: none}` none is needed")
    return shown


def _describe(der: bytes) -> None:
    certificate = x509.load_der_x509_certificate(der)
    _say(f"subject      {certificate.subject.rfc4514_string()}")
    _say(f"issuer       {certificate.issuer.rfc4514_string()}")
    _say(f"valid until  {certificate.not_valid_after_utc:%Y-%m-%d}")
    _say(f"SHA-256      {security.fingerprint(der)}")
    _say(f"SHA-1        {security.fingerprint(der, 'sha1')}")


def _say(text: str) -> None:
    typer.echo(text)
