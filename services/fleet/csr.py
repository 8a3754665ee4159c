"""``python -P -m services.fleet.csr KEY_FILE``: a request, of a key that is made if need be."""

from __future__ import annotations

import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.fleet.files import write


def make(key_file: Path) -> str:
    """PEM of a request. The centre takes only the public key from it; it gives the name."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
    except (FileNotFoundError, ValueError, TypeError, AssertionError):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write(key_file, pem.decode())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plc-edge")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


if __name__ == "__main__":
    sys.stdout.write(make(Path(sys.argv[1])))
