"""Why TLS does not come to be with a server, and which key of the configuration mends it: the same
words from the publisher, the panel and ``plc-edge doctor``.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass

# A TLS handshake met by what is no TLS: text, another protocol, or a closed connection.
_NO_TLS = frozenset(
    (
        "WRONG_VERSION_NUMBER",
        "UNEXPECTED_EOF_WHILE_READING",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "HTTP_REQUEST",
    )
)
# X509_V_ERR_*: openssl/x509_vfy.h
_EXPIRED, _NOT_YET, _OTHER_NAMES = 10, 9, (62, 64)
PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``code`` is one stable word (``output_<code>`` in services/metrics/static/words.json)."""

    code: str
    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text}: {self.fix}"


def no_tls(where: str, http: bool) -> Fault:
    """The server answers, but not in TLS. ``http``: of an HTTP output, else of an MQTT one."""
    mqtt_fix = "set `port:` to the broker's TLS port (usually 8883), or `tls: false`"
    http_fix = "correct the port in `url:`, or write http:// there"
    fix = f"{http_fix if http else mqtt_fix} where nothing need be encrypted"
    return Fault("no_tls", f"{where} does not speak TLS", fix)


def wants_tls(where: str, http: bool) -> Fault:
    """The server speaks TLS only, and the output does not."""
    mqtt_fix = "remove `tls: false` (and give `tls: {ca: …}`), or correct `port:`"
    fix = "write https:// in `url:`" if http else mqtt_fix
    return Fault("wants_tls", f"{where} speaks TLS, this output does not", fix)


def explain(error: OSError | ValueError, where: str, http: bool = False) -> Fault:
    """A handshake with ``where`` (host:port) that failed, or a connection that TLS ended."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(error, where, "`url:`" if http else "`host:`")
    if not isinstance(error, ssl.SSLError):
        # Silent, closed, reset: what a server does with bytes that it does not understand.
        return no_tls(where, http)
    reason = error.reason or str(error)
    if reason in _NO_TLS:
        return no_tls(where, http)
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        text = f"{where} does not accept our certificate ({reason})"
        fix = "set `tls.cert` and `tls.key` to one that the server's CA issued for this box"
        return Fault("client_certificate", text, fix)
    if "PROTOCOL" in reason or "HANDSHAKE_FAILURE" in reason or "NO_SHARED_CIPHER" in reason:
        text = f"no TLS with {where} ({reason})"
        return Fault("tls", text, "the server must offer TLS 1.2 or newer: update it")
    return Fault("tls", f"no TLS with {where} ({reason})", "check port and certificates")


def _distrusted(error: ssl.SSLCertVerificationError, where: str, key: str) -> Fault:
    host = where.rpartition(":")[0] or where
    if error.verify_code == _EXPIRED:
        return Fault(
            "certificate_expired",
            f"the certificate of {where} has expired",
            "renew it on the server; if it is new, check this box's clock (`date`)",
        )
    if error.verify_code == _NOT_YET:
        return Fault(
            "certificate_not_yet",
            f"the certificate of {where} is not valid yet",
            "this box's clock is most likely behind: check `date`, set up NTP",
        )
    if error.verify_code in _OTHER_NAMES:
        return Fault(
            "certificate_name",
            f"the certificate of {where} is not for the name {host}",
            f"set {key} to a name that stands in the certificate, or have it issued for this one",
        )
    return Fault(
        "ca",
        f"the certificate of {where} is not from a CA we trust ({error.verify_message})",
        "set `tls.ca` to the certificate of the CA that signed the server's",
    )


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server of any certificate listens there; it is sent nothing. Blocks for a few
    seconds at most.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError):
        peer = socket.create_connection((host, port), PROBE_TIMEOUT_S)
        with contextlib.closing(peer):
            try:
                context.wrap_socket(peer, server_hostname=host).close()
            except ssl.SSLError as e:
                # An alert is TLS, too: it asks for a newer version, or for a name.
                return "ALERT" in (e.reason or "")
            return True
    return False
