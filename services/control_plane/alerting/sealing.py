"""Secrets of receivers, as the database keeps them: sealed (AES-GCM) under a key that lies in a
file beside it. The database alone opens none, and no route shows one again.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.runtime.files import write_whole

KEY_BYTES = 32
_NONCE_BYTES = 12


class Lost(Exception):
    """The key file is another one than when it was sealed."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Closes and opens."""

    key: bytes = field(repr=False)

    @classmethod
    def load(cls, state: Path) -> Seal:
        """With the key of ``<state>/receivers.key``, made where there is none."""
        file = state / "receivers.key"
        if not file.exists():
            write_whole(file, secrets.token_bytes(KEY_BYTES).hex().encode())
        return cls(bytes.fromhex(file.read_text().strip()))

    def close(self, tenant: str, receiver: str, content: dict[str, str]) -> bytes:
        """Nobody else's row opens it, nor another receiver's."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = json.dumps(content).encode()
        return nonce + AESGCM(self.key).encrypt(nonce, text, f"{tenant}/{receiver}".encode())

    def open(self, tenant: str, receiver: str, sealed: bytes) -> dict[str, str]:
        """What ``close`` was given. Raises Lost."""
        nonce, body = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            text = AESGCM(self.key).decrypt(nonce, body, f"{tenant}/{receiver}".encode())
        except InvalidTag:
            raise Lost(f"the secrets of receiver {receiver} cannot be opened") from None
        content: dict[str, str] = json.loads(text)
        return content
