"""The centre's own authority for the certificates of boxes, and what it issues.

Only the public key of a request is used: whose certificate it is, the centre knows better than the
one who asks. The authority's key lies beside the audit's, in ``<state>/box-ca.key``.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.control_plane.problems import Refusal
from services.runtime.errors import ConfigError, Problem
from services.runtime.files import write_whole

VALID = datetime.timedelta(days=90)
RENEW_AFTER = VALID * 2 / 3
# A box whose clock is late must be able to use what it has just got.
CLOCK_SLACK = datetime.timedelta(hours=1)
_CA_VALID = datetime.timedelta(days=30 * 365)
_RSA_BITS = range(2_048, 8_193)
_CN_MAX = 64  # RFC 5280, ub-common-name

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that nobody has yet."""

    serial: str
    """32 hex digits, as `openssl x509 -serial` prints it."""
    pem: str
    sha256: str
    """Of its DER: how it is recognised again."""
    not_after: datetime.datetime


class BoxCa:
    """The authority."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, tenant: str, site: str, key: PublicKey, now_ms: int) -> Issued:
        """A client certificate of a box."""
        now = datetime.datetime.fromtimestamp(now_ms // 1_000, datetime.UTC)
        # Positive, and of full length, so that a serial is written one way only.
        serial = secrets.randbits(126) | 1 << 126
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{tenant}/{site}"[:_CN_MAX])])
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(now - CLOCK_SLACK)
            .not_valid_after(now + VALID)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            f"{serial:032x}",
            certificate.public_bytes(serialization.Encoding.PEM).decode(),
            certificate.fingerprint(hashes.SHA256()).hex(),
            now + VALID,
        )


def public_key(csr: str) -> PublicKey:
    """The key of a request, which proves by its signature that the asker holds the other half."""
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refusal("csr-refused", why="it is no PEM certificate request") from None
    if isinstance(key, ec.EllipticCurvePublicKey):
        good = isinstance(key.curve, ec.SECP256R1)
    else:
        good = isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS
    if not good or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Refusal("csr-refused", why="its key is neither EC P-256 nor RSA of 2048 bits or more")
    if not signed:
        raise Refusal("csr-refused", why="it is not signed with its own key")
    return key


def key_sha256(key: PublicKey) -> str:
    """By which the same key is known again."""
    digest = hashes.Hash(hashes.SHA256())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest.update(key.public_bytes(serialization.Encoding.DER, form))
    return digest.finalize().hex()


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Of a box (``signs``), or of the authority."""
    return x509.KeyUsage(
        digital_signature=signs,
        key_cert_sign=not signs,
        crl_sign=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# -- its files -------------------------------------------------------------------------------


def certificate_file(state: Path) -> Path:
    """What the listener trusts."""
    return state / "box-ca.pem"


def make(state: Path) -> BoxCa:
    """The authority, made where there is none. Stopped between its two files, it goes on."""
    key_file, file = state / "box-ca.key", certificate_file(state)
    if not key_file.exists():
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_whole(key_file, pem)
    if not file.exists():
        write_whole(
            file, _self_signed(_load_key(key_file)).public_bytes(serialization.Encoding.PEM)
        )
    return load(state)


def load(state: Path) -> BoxCa:
    """The authority; raises ConfigError where a file of it is missing or damaged."""
    key, file = _load_key(state / "box-ca.key"), certificate_file(state)
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as e:
        raise _unusable(file, e) from None
    if certificate.public_key() != key.public_key():
        raise _unusable(file, ValueError("is not of box-ca.key"))
    return BoxCa(key, certificate)


def _load_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as e:
        raise _unusable(file, e) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _unusable(file, ValueError("is no EC key"))
    return key


def _unusable(file: Path, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    hint = (
        "run `plc-edge central init` if it was never made; else restore it from the backup (with a"
        " new authority every box needs a new claim)"
    )
    return ConfigError([Problem(str(file), "", f"cannot be used: {reason}", hint=hint)])


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    # Two centres must not have authorities of one name: a box would offer the wrong certificate.
    text = f"plc-edge boxes {secrets.token_hex(4)}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + _CA_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
