"""An OPC UA server, layer by layer: TCP, endpoint, certificate, session, every node."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509

from services.cli.doctor_finding import Failed, Finding
from services.cli.doctor_net import connect as connect_tcp
from services.protocols.opcua import security
from services.protocols.opcua.model import OpcuaPlc
from services.runtime import render
from services.runtime.errors import ConfigError, PlcUnavailable
from services.runtime.site import Site

SOON = datetime.timedelta(days=30)
FEW = 5
FIXES = {
    "opcua_not_trusted": "compare the fingerprint with TIA Portal's, then `plc-edge trust {plc}`",
    "opcua_certificate_changed": "find out who renewed it, then `plc-edge trust {plc}`",
    "opcua_refuses_us": "`plc-edge trust --own box.der`, and import that file into its trusted"
    " clients",
    "opcua_no_endpoint": "set `security:` to one that it offers",
    "opcua_user_refused": "set `username:` and `password_file:`, or `user_certificate:`",
    "opcua_full": "close another client, or allow more sessions in TIA Portal",
    "timeout": "check the address, the switch, and the load of the CPU",
}


def check(site: Site, plc: OpcuaPlc, host: str) -> Iterator[Finding]:
    """All findings about one server at one of its addresses."""
    subject = f"plc {plc.id}" + (f" at {host}" if plc.hosts else "")
    try:
        connect_tcp(subject, host, plc.port, "the OPC UA server", plc.timeout).close()
    except Failed as e:
        yield e.finding
        return
    config = render.render(site)[f"reader-{plc.id}"]
    if plc.security.policy != "none":
        yield from _certificate(subject, security.known(Path(config["state"]), plc.id))
    try:
        groups = asyncio.run(_read(config, host))
    except (PlcUnavailable, ConfigError) as e:
        code = e.code if isinstance(e, PlcUnavailable) else "secret"
        fix = FIXES.get(code, "see the server's own log").format(plc=plc.id)
        yield Finding("error", subject, code, str(e), fix)
        return
    yield Finding("ok", subject, "connection", f"{host}:{plc.port}, {plc.security.policy}")
    for group, (values, bad) in zip(plc.groups, groups, strict=True):
        where = f"{subject} group {group.name}"
        if bad:
            few = ", ".join(f"{name} ({why})" for name, why in list(bad.items())[:FEW])
            more = f" and {len(bad) - FEW} more" if len(bad) > FEW else ""
            fix = f"compare them with what `plc-edge browse {plc.id}` shows"
            yield Finding("error", where, "fields", f"cannot be read: {few}{more}", fix)
        else:
            yield Finding("ok", where, "read", f"{len(values)} fields read")


async def _read(config: dict[str, Any], host: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    # asyncua is for those who have such PLCs.
    from services.protocols.opcua.connect import connect, refusal
    from services.protocols.opcua.nodes import Nodes

    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    client = await connect(config, host)
    try:
        nodes = Nodes(config["groups"])
        await nodes.resolve(client)
        return [(await nodes.read(client, n))[:2] for n in range(len(nodes.groups))]
    except Exception as e:
        raise refusal(e, config["plc"]) from e
    finally:
        with contextlib.suppress(Exception):
            await client.disconnect()


def _certificate(subject: str, der: bytes | None) -> Iterator[Finding]:
    """Whether the trusted certificate is valid; servers often refuse clients by date, few users
    look at the server's."""
    if der is None:
        return
    end = x509.load_der_x509_certificate(der).not_valid_after_utc
    left = end - datetime.datetime.now(datetime.UTC)
    text = f"the server's certificate ends on {end:%Y-%m-%d}"
    if left < datetime.timedelta(0):
        fix = "renew it in TIA Portal, then `plc-edge trust`"
        yield Finding("error", subject, "certificate", text, fix)
    elif left < SOON:
        yield Finding("warning", subject, "certificate", text, "renew it in TIA Portal soon")
