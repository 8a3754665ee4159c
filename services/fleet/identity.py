"""Who this box is to the centre: a key of its own that never leaves it, and a certificate.

Both stand in one file, ``box.pem`` (0600), so that they change in one step. ``next.key`` is the key
of a request that has not been answered: asked again with it, the centre gives the same certificate.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.fleet.files import read_json, write
from services.runtime.errors import PlcEdgeError

MAKE_S = 30.0


class BadCertificate(PlcEdgeError):
    """What the centre gave is of no use."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As the centre has given it; times in Unix s."""

    tenant: str
    site: str
    url: str
    not_after_s: float
    renew_after_s: float
    code: str = ""
    """A digest of the code it was claimed with: that one is not tried again."""

    def path(self, what: str) -> str:
        """The API's address of something of this box."""
        return f"tenants/{self.tenant}/sites/{self.site}/{what}"


def load(folder: Path) -> Identity | None:
    """None while the box has not been claimed."""
    data = read_json(folder / "identity.json")
    try:
        return Identity(**data) if data and (folder / "box.pem").exists() else None
    except TypeError:
        return None


def request(folder: Path) -> str:
    """A certificate request (PEM) of a key that is made for it.

    In a process of its own: ``cryptography`` costs 17 MB, and is needed once in 60 days.
    """
    command = [sys.executable, "-P", "-m", "services.fleet.csr", str(folder / "next.key")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAKE_S)
    except subprocess.TimeoutExpired:
        raise PlcEdgeError(f"no key could be made within {MAKE_S:.0f} s") from None
    if done.returncode:
        raise PlcEdgeError(f"no key could be made: {done.stderr.strip()[-300:]}")
    return done.stdout


def store(
    folder: Path, answer: Any, url: str, asked: Identity | None = None, code: str = ""
) -> Identity:
    """Takes up what the centre answered to the request. Raises BadCertificate.

    ``asked``: who the box is already, when it renews.
    """
    try:
        certificate = str(answer["certificate"])
        identity = Identity(
            str(answer["tenant"]) if asked is None else asked.tenant,
            str(answer["site"]) if asked is None else asked.site,
            url,
            _time_s(answer["not_after"]),
            _time_s(answer["renew_after"]),
            code if asked is None else asked.code,
        )
    except (KeyError, TypeError, ValueError) as e:
        raise BadCertificate(f"the centre's answer holds no certificate ({e!r})") from None
    key = (folder / "next.key").read_text()
    _must_match(folder, key, certificate)
    write(folder / "box.pem", key + certificate)
    write(folder / "identity.json", json.dumps(asdict(identity)))
    (folder / "next.key").unlink(missing_ok=True)
    return identity


def _time_s(text: Any) -> float:
    moment = datetime.fromisoformat(str(text))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _must_match(folder: Path, key: str, certificate: str) -> None:
    import ssl

    trial = folder / f".trial.{os.getpid()}.pem"
    try:
        write(trial, key + certificate)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(trial)
    except (OSError, ValueError):
        raise BadCertificate("the certificate that the centre gave is not of our key") from None
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()
