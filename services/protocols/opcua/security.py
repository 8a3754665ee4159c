"""Who we are to an OPC UA server, and which server we trust.

Our application certificate is made once per box; its key never leaves ``<state>/secrets``. A server
is trusted when a person has compared its fingerprint (`plc-edge trust PLC`); from then on that
certificate and no other is accepted. Both lie in the state folder, in no rendered file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.opcua.certificates import KEY_BITS, self_signed
from services.runtime.errors import PlcUnavailable


def application_uri(site: str) -> str:
    """What the certificate and the session must agree on (OPC 10000-4 §5.6.2)."""
    return f"urn:plc-edge:{site}"


def uri_of(certificate: bytes) -> str:
    """The application URI in a certificate (DER): a box that got another name keeps its own, and a
    plant may put a certificate of its own in the place of ours. Empty where there is none."""
    names = x509.load_der_x509_certificate(certificate).extensions
    try:
        found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return next(iter(found.get_values_for_type(x509.UniformResourceIdentifier)), "")


def own_file(state: Path) -> Path:
    """Certificate and key of this box, PEM."""
    return state / "secrets" / "opcua-own.pem"


def own(state: Path, site: str) -> tuple[bytes, bytes]:
    """(certificate, private key) of this box, DER; made at the first call.

    Several readers may call at once: the file appears whole, and the first one counts.
    """
    file = own_file(state)
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=file.parent)  # for its owner only
        with os.fdopen(fd, "wb") as f:
            f.write(_make(site))
            f.flush()
            os.fsync(f.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
        os.unlink(temporary)
    pem = file.read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    key = serialization.load_pem_private_key(pem, None)
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.DER), der


def _make(site: str) -> bytes:
    key = rsa.generate_private_key(65_537, KEY_BITS)
    certificate = self_signed(key, application_uri(site), [socket.gethostname()])
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def fingerprint(certificate: bytes, algorithm: str = "sha256") -> str:
    """A certificate's (DER), as TIA Portal and browsers show it: ``AB:CD:…``."""
    return hashlib.new(algorithm, certificate).digest().hex(":").upper()


def is_same(given: str, certificate: bytes) -> bool:
    """Whether a person's text is the SHA-256 of a certificate; colons, spaces and case are free."""
    digits = "".join(c for c in given.upper() if c not in ": -")
    return digits == fingerprint(certificate).replace(":", "")


def trusted_file(state: Path, plc: str) -> Path:
    """The certificate that a person has confirmed for a PLC, DER."""
    return state / "opcua" / f"{plc}.der"


def trust(state: Path, plc: str, certificate: bytes) -> None:
    """From now on this certificate, and no other, is the PLC's."""
    file = trusted_file(state, plc)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(certificate)
    temporary.rename(file)


def known(state: Path, plc: str) -> bytes | None:
    """The certificate (DER) that was confirmed for a PLC; None where none was."""
    try:
        return trusted_file(state, plc).read_bytes()
    except FileNotFoundError:
        return None


def check_trusted(state: Path, plc: str, shown: bytes) -> None:
    """Raises PlcUnavailable unless the server shows the certificate that was confirmed."""
    confirmed = known(state, plc)
    if confirmed == shown:
        return
    command = f"run `plc-edge trust {plc}`"
    if confirmed is None:
        text = f"nobody has confirmed this server's certificate yet ({fingerprint(shown)})"
        fix = f"compare it with the one in TIA Portal, then {command}"
        raise PlcUnavailable("opcua_not_trusted", f"{text}: {fix}", fix=fix)
    text = f"the server shows another certificate ({fingerprint(shown)}) than the one that was"
    text += f" confirmed ({fingerprint(confirmed)}): nothing is read"
    fix = f"if it was renewed, compare it with the one in TIA Portal and {command}; else somebody"
    fix += " is between"
    raise PlcUnavailable("opcua_certificate_changed", f"{text}; {fix}", fix=fix)
