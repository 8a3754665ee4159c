"""Connections and their failures in words; blocking, so called through ``Background`` only."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

from services.runtime import tls_faults
from services.runtime.errors import Unavailable
from services.runtime.tls import EncryptedKey, client_context, load_certificate

# TCP, and then TLS, get this long. Every fault must be over within 10 s of the line's recovery:
# an attempt that began just before it, the pause after it, and the next attempt.
DIAL_TIMEOUT_S = 3.0


def tls_context(tls: dict[str, Any]) -> ssl.SSLContext:
    """TLS 1.2 or newer, the peer's name verified; files are read each time: they get renewed.

    Raises Unavailable when a file cannot be used.
    """
    try:
        context = client_context(tls["ca"])
        if tls["cert"]:
            load_certificate(context, tls["cert"], tls["key"])
    except EncryptedKey as e:
        raise Unavailable("tls", str(e)) from None
    except (OSError, ssl.SSLError) as e:
        files = ", ".join(str(f) for f in tls.values() if f)
        raise Unavailable("tls", f"a certificate file cannot be used ({files}): {e}") from None
    return context


def dial(host: str, port: int, tls: dict[str, Any] | None) -> socket.socket:
    """A connected, non-blocking socket, under TLS where ``tls`` is given; raises Unavailable."""
    context = tls_context(tls) if tls is not None else None
    where = f"{host}:{port}"
    try:
        peer = socket.create_connection((host, port), DIAL_TIMEOUT_S)
    except OSError as e:
        raise explain(e, where) from None
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        try:
            peer = context.wrap_socket(peer, server_hostname=host)
        except (OSError, ValueError) as e:
            peer.close()
            raise unavailable(tls_faults.explain(e, where)) from None
    peer.setblocking(False)
    return peer


def unavailable(fault: tls_faults.Fault) -> Unavailable:
    """The same as what outputs raise."""
    return Unavailable(fault.code, str(fault))


def explain(error: BaseException, where: str, http: bool = False) -> Unavailable:
    """What a failed connection means and what to look at. ``http``: of an HTTP output."""
    if isinstance(error, Unavailable):
        return error
    if isinstance(error, socket.gaierror):
        return Unavailable("dns", f"the name in {where} is not known: check it, and DNS")
    if isinstance(error, ssl.SSLError):
        return unavailable(tls_faults.explain(error, where, http))
    if isinstance(error, TimeoutError):
        return Unavailable("timeout", f"no answer from {where}: check cable, address, firewalls")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable("refused", f"{where} refuses the connection: does it run there?")
    if isinstance(error, OSError) and error.errno in (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
    ):
        return Unavailable("unreachable", f"no way to {where}: {error.strerror}")
    words = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
    return Unavailable("lost", f"connection to {where} lost: {words}")
