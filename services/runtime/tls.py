"""The one way in which this box checks a server's certificate."""

from __future__ import annotations

import ssl


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
