"""The one way in which this box checks a server's certificate and takes up its own."""

from __future__ import annotations

import ssl
from pathlib import Path


def client_context(ca: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; the chain (to ``ca``, or the system's authorities) and the name verified.

    Raises OSError (of which ssl.SSLError is one) where ``ca`` is no readable PEM file.
    """
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # On from Python 3.13: refuses certificates without an Authority Key Identifier, which many a
    # plant's own authority issues. What is accepted must not hang on the version of Python.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class EncryptedKey(OSError):
    """A private key that wants a passphrase: nobody is there to give one."""

    def __init__(self, file: str | Path) -> None:
        super().__init__(f"{file} is encrypted: nobody is there to type its passphrase")
        self.hint = f"openssl pkey -in {file} -out NEW, without a passphrase; mode 0600"

    def __str__(self) -> str:
        return f"{self.args[0]}; {self.hint}"


def load_certificate(context: ssl.SSLContext, cert: str | Path, key: str | Path) -> None:
    """Gives ``context`` our certificate and its private key, PEM files.

    Raises OSError (of which ssl.SSLError is one) where they do not work, EncryptedKey where the key
    is encrypted: OpenSSL itself would ask for the passphrase on the terminal, and wait.
    """

    def refuse() -> str:
        raise EncryptedKey(key)

    context.load_cert_chain(cert, key, password=refuse)


def refuse_encrypted(cert: str | Path, key: str | Path) -> None:
    """Raises EncryptedKey; of all else that may be wrong with the two files it says nothing."""
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert, key)
    except EncryptedKey:
        raise
    except OSError:
        pass
