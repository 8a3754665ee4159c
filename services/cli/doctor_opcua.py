"""When the certificate ends that a person has confirmed for an OPC UA server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from cryptography import x509

from services.cli.doctor_finding import Finding
from services.protocols.opcua import security
from services.protocols.opcua.model import OpcuaPlc
from services.runtime.site import Site

SOON = datetime.timedelta(days=30)


def certificate(site: Site, plc: OpcuaPlc, subject: str) -> Iterator[Finding]:
    """A reader goes on with one that has ended: it is the one that was confirmed."""
    der = security.known(site.config.paths.state.absolute(), plc.id)
    if plc.security.policy == "none" or der is None:
        return
    end = x509.load_der_x509_certificate(der).not_valid_after_utc
    if end - datetime.datetime.now(datetime.UTC) < SOON:
        text = f"the server's certificate ends on {end:%Y-%m-%d}"
        fix = f"renew it in TIA Portal, then `plc-edge trust {plc.id}`"
        yield Finding("warning", subject, "certificate", text, fix)
