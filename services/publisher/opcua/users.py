"""Who a session is of."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asyncua.crypto import uacrypto
from asyncua.crypto.permission_rules import User, UserRole
from cryptography import x509

from services.opcua import certificates

Say = Callable[[str, str, str], None]
"""(level, code, text): a line for people."""


NOBODY = User(role=UserRole.Anonymous)


@dataclass
class Person(User):
    """Who a session is of. ``tenants``: whose values it sees; None: all."""

    tenants: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One entry of ``users:``."""

    name: str
    password: str | None
    certificate: str | None
    """Thumbprint of the certificate that stands for him."""
    tenants: frozenset[str] | None


class Users:
    """Answers asyncua's question who that is."""

    def __init__(self, accounts: Iterable[Account], anonymous: bool, say: Say) -> None:
        self._accounts = list(accounts)
        self._anonymous = anonymous
        self._say = say

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Person | None:
        """``certificate``: of the user's token, else that of his application; he has proved either
        way that he holds the key.
        """
        if username is not None:
            for account in self._accounts:
                if account.name == username and account.password is not None:
                    given, right = str(password).encode(), account.password.encode()
                    if hmac.compare_digest(given, right):
                        return Person(UserRole.User, account.name, account.tenants)
            who = "".join(c if c.isprintable() else "?" for c in username)[:60]
            self._say("warning", "login_refused", f"user {who!r}: name or password is wrong")
            return None
        mark = certificates.thumbprint(certificate) if certificate else None
        for account in self._accounts:
            if mark is not None and account.certificate == mark:
                ended = certificates.out_of_time(x509.load_der_x509_certificate(certificate or b""))
                if not ended:
                    return Person(UserRole.User, account.name, account.tenants)
                text = f"user {account.name!r}: of his certificate: {ended}"
                self._say("warning", "login_refused", text)
                return None
        if self._anonymous:
            return Person(UserRole.Anonymous, None, None)
        self._say("warning", "login_refused", "neither user nor a user's certificate was given")
        return None


def accounts(users: Iterable[Mapping[str, Any]], secret: Callable[[Any], str]) -> list[Account]:
    """As rendered. Raises ConfigError (a secret), ValueError (a certificate)."""
    found = []
    for user in users:
        mark = None
        if user["certificate"]:
            certificate = certificates.load(Path(user["certificate"]))
            mark = certificates.thumbprint(uacrypto.der_from_x509(certificate))
        tenants = user["locatarios"]
        found.append(
            Account(
                user["username"],
                secret(user["password"]) if user["password"] else None,
                mark,
                frozenset(tenants) if tenants is not None else None,
            )
        )
    return found
