"""Name, TCP and TLS: the part that all network checks of ``doctor`` share."""

from __future__ import annotations

import datetime
import errno
import socket
import ssl
from pathlib import Path

from cryptography import x509

from services.cli.doctor_finding import Failed, Finding
from services.runtime import tls_faults
from services.runtime.config import Tls
from services.runtime.tls import EncryptedKey, client_context, load_certificate

TIMEOUT_S = 4.0
EXPIRES_SOON_DAYS = 21


def connect(
    subject: str, host: str, port: int, what: str, timeout_s: float = TIMEOUT_S
) -> socket.socket:
    """A TCP connection to ``host``; raises Failed with the layer that is at fault.

    ``what`` names the peer in words ("the PLC", "the broker").
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as e:
        raise Failed(
            subject,
            "dns",
            f"the name {host} is not known ({e.strerror})",
            "write the IP address instead, or mend DNS (/etc/resolv.conf, /etc/hosts)",
        ) from None
    family, kind, protocol, _, address = addresses[0]
    tcp = socket.socket(family, kind, protocol)
    tcp.settimeout(timeout_s)
    try:
        tcp.connect(address)
    except OSError as e:
        tcp.close()
        raise _refused(subject, f"{host}:{port}", what, e, timeout_s) from None
    return tcp


def _refused(subject: str, where: str, what: str, error: OSError, timeout_s: float) -> Failed:
    if isinstance(error, TimeoutError):
        return Failed(
            subject,
            "timeout",
            f"no answer from {where} within {timeout_s:g} s",
            f"check cable and power of {what}, its address, and firewalls on the way",
        )
    if isinstance(error, ConnectionRefusedError):
        return Failed(
            subject,
            "refused",
            f"{where} refuses the connection",
            f"{what} does not listen on this port: check the port, that it runs, and firewalls",
        )
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        return Failed(
            subject,
            "unreachable",
            f"there is no way to {where} ({error.strerror})",
            "check this box's network cable, address, netmask and gateway (`ip addr`, `ip route`)",
        )
    return Failed(subject, "network", f"{where}: {error.strerror or error}", "check the network")


def tls_context(subject: str, tls: Tls, folder: Path) -> ssl.SSLContext:
    """The context that the output uses; raises Failed where a file does not work.

    ``folder`` is where relative paths begin.
    """
    if tls.ca is not None:
        _readable(subject, "tls.ca", folder / tls.ca)
    try:
        context = client_context(str(folder / tls.ca) if tls.ca else None)
    except (ssl.SSLError, OSError) as e:
        raise Failed(
            subject,
            "ca_file",
            f"{folder / str(tls.ca)} is no CA certificate ({e})",
            "put the broker's CA certificate there, PEM",
        ) from None
    if tls.cert is not None and tls.key is not None:
        for key, file in (("tls.cert", tls.cert), ("tls.key", tls.key)):
            _readable(subject, key, folder / file)
        try:
            load_certificate(context, folder / tls.cert, folder / tls.key)
        except EncryptedKey as e:
            raise Failed(subject, "encrypted_key", f"tls.key: {e.args[0]}", e.hint) from None
        except (ssl.SSLError, OSError) as e:
            raise Failed(
                subject,
                "client_certificate",
                f"{folder / tls.cert} and {folder / tls.key} do not belong together ({e})",
                "put the box's certificate and its unencrypted key there, PEM",
            ) from None
    return context


def _readable(subject: str, key: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as e:
        raise Failed(
            subject,
            "file",
            f"{key}: {file} cannot be read ({e.strerror})",
            "put it there, readable by the user that runs plc-edge",
        ) from None


def handshake(
    subject: str, tcp: socket.socket, context: ssl.SSLContext, where: str, http: bool = False
) -> tuple[ssl.SSLSocket, Finding]:
    """The connection to ``where`` (host:port) under TLS and what there is to say of the peer's
    certificate. ``http``: of an HTTP output.
    """
    host = where.rpartition(":")[0]
    try:
        secure = context.wrap_socket(tcp, server_hostname=host)
    except OSError as e:
        tcp.close()
        fault = tls_faults.explain(e, where, http)
        raise Failed(subject, fault.code, fault.text, fault.fix) from None
    raw = secure.getpeercert(binary_form=True)
    return secure, expiry(
        subject, f"certificate of {host}", x509.load_der_x509_certificate(raw or b"")
    )


def expiry(subject: str, what: str, certificate: x509.Certificate) -> Finding:
    """How long a certificate is still good."""
    now = datetime.datetime.now(datetime.UTC)
    end = certificate.not_valid_after_utc
    days = (end - now).days
    if end <= now:
        return Finding(
            "error",
            subject,
            "certificate_expired",
            f"{what} expired on {end:%Y-%m-%d}",
            "renew it; if it is new, check this box's clock (`date`)",
        )
    if certificate.not_valid_before_utc > now:
        return Finding(
            "error",
            subject,
            "certificate_not_yet",
            f"{what} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
            "this box's clock is most likely behind: check `date`, set up NTP",
        )
    if days < EXPIRES_SOON_DAYS:
        return Finding(
            "warning",
            subject,
            "certificate_expiring",
            f"{what} ends in {days} days",
            "renew it in time",
        )
    return Finding("ok", subject, "certificate", f"{what} is valid for {days} more days")


def file_expiry(subject: str, what: str, file: Path) -> Finding:
    """``expiry`` of the (first) certificate in a PEM file."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as e:
        return Finding(
            "error",
            subject,
            "certificate_file",
            f"{what} {file}: {e}",
            "put a PEM certificate there, readable by the user that runs plc-edge",
        )
    return expiry(subject, what, certificate)
