"""Application certificates and the list of those that are trusted.

OPC UA knows an application by its certificate (OPC 10000-4, 6.1): self-signed as a rule, trusted
because a person put it on the other side's list. Here a list is a folder of files, one certificate
each (DER or PEM); a certificate is trusted when its very bytes lie there. No authority is asked: a
plant that has one puts the certificates themselves on the list.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.runtime import files

KEY_BITS = 2048
"""The least that Basic256Sha256 and Aes256_Sha256_RsaPss take (OPC 10000-7), and what all know."""
LIFE = timedelta(days=3650)
REJECTED_MAX = 50
"""Files of refused certificates that are kept, the newest: who knocks must not fill a disk."""


@dataclass(frozen=True, slots=True)
class Own:
    """An application's certificate and its key, PEM or DER files."""

    cert: Path
    key: Path


def application_uri(site: str, name: str) -> str:
    """How one OPC UA application of a box is called for ever; stands in its certificate."""
    return f"urn:plc-edge:{site}:{name}"


def own(folder: Path, uri: str, hosts: Iterable[str]) -> Own:
    """What lies in ``folder``; made there, self-signed, where nothing does. Raises OSError.

    ``hosts``: names and addresses under which the application is reached.
    """
    found = Own(folder / "own.der", folder / "own-key.pem")
    if found.cert.exists() and found.key.exists():
        return found
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = rsa.generate_private_key(65537, KEY_BITS)
    cert = self_signed(key, uri, hosts)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # The certificate last: who finds it finds its key.
    files.write_whole(found.key, pem, 0o600)
    files.write_whole(found.cert, cert.public_bytes(serialization.Encoding.DER), 0o644)
    return found


def self_signed(key: rsa.RSAPrivateKey, uri: str, hosts: Iterable[str]) -> x509.Certificate:
    """An application's certificate (OPC 10000-6, 6.2.2), of clients and servers alike."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri.removeprefix("urn:")[:64])])
    others = [x509.UniformResourceIdentifier(uri), *map(_general_name, dict.fromkeys(hosts))]
    now, public = datetime.now(UTC), key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True,
        data_encipherment=True, key_agreement=False, key_cert_sign=True, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    extended = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A box whose clock is behind must not refuse what another made a moment ago.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(extended, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.encode("idna").decode())


def thumbprint(der: bytes) -> str:
    """SHA-256 of a certificate, in hex."""
    return hashlib.sha256(der).hexdigest()


def load(file: Path) -> x509.Certificate:
    """A certificate, DER or PEM. Raises ValueError that says what is wrong with the file."""
    try:
        data = files.read(file, files.PEM_MAX_BYTES)
    except files.Unreadable as e:
        raise ValueError(f"{file} cannot be read: it {e}") from None
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except ValueError:
        raise ValueError(f"{file} is no certificate (DER or PEM)") from None


def der(certificate: x509.Certificate) -> bytes:
    """Its bytes."""
    return certificate.public_bytes(serialization.Encoding.DER)


def out_of_time(certificate: x509.Certificate, now: datetime | None = None) -> str:
    """Why it does not count now, in words; "" where it does."""
    now = now or datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        return f"it is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only"
    if now > certificate.not_valid_after_utc:
        return f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


class TrustList:
    """A folder of trusted certificates, looked at anew each time: what is put there counts at once.

    ``rejected`` beside it takes what was refused, for a person to look at and move over.
    """

    def __init__(self, trusted: Path, rejected: Path) -> None:
        self.trusted = trusted
        self.rejected = rejected

    def make(self) -> None:
        """The folders. Raises OSError."""
        for folder in (self.trusted, self.rejected):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def certificates(self) -> Iterator[tuple[Path, x509.Certificate | None]]:
        """Every file, and its certificate where it is one."""
        if not self.trusted.is_dir():
            return
        for file in sorted(self.trusted.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                try:
                    yield file, load(file)
                except ValueError:
                    yield file, None

    def refusal(self, certificate: bytes, now: datetime | None = None) -> str:
        """Why a peer's certificate (DER) is not taken, in words; "" where it is."""
        try:
            cert = x509.load_der_x509_certificate(certificate)
        except ValueError:
            return "it is no certificate"
        wanted = thumbprint(der(cert))
        if not any(c and thumbprint(der(c)) == wanted for _, c in self.certificates()):
            return "it is not on the list"
        return out_of_time(cert, now)

    def keep_rejected(self, certificate: bytes) -> Path | None:
        """Puts a refused one where a person finds it, in the place of the oldest where there are
        that many: strangers must not keep out the one that is looked for. None without room.
        """
        file = self.rejected / f"{thumbprint(certificate)[:40]}.der"
        try:
            if file.exists():
                os.utime(file)
                return file
            for old in self.newest_rejected()[REJECTED_MAX - 1 :]:
                old.unlink()
            # Not synced: it need not outlive a power cut, and flash wears.
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as out:
                out.write(certificate)
        except OSError:
            return None
        return file

    def newest_rejected(self) -> list[Path]:
        """The files of those that were refused, the last one first."""
        if not self.rejected.is_dir():
            return []
        return sorted(self.rejected.glob("*.der"), key=lambda f: f.stat().st_mtime_ns, reverse=True)


def subject(certificate: bytes) -> str:
    """Whose it says that it is, for a log line; printable and short."""
    try:
        name = x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except ValueError:
        return "no certificate"
    return "".join(c if c.isprintable() else "?" for c in name)[:120]
