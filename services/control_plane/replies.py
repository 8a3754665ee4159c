"""Answers kept for who repeats a request with the same Idempotency-Key.

An answer may hold a key that is shown once, and of that only the hash may stay. So it is kept
sealed (AES-GCM) with a key made of the caller's own API key and the Idempotency-Key: whoever
repeats the request can open it, the database alone cannot.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete
from sqlalchemy.orm import Session
from starlette.responses import Response

from services.control_plane.identity import Actor
from services.control_plane.problems import Refusal
from services.control_plane.tables import Reply
from services.runtime.clock import now_ms

KEPT_MS = 24 * 3_600 * 1_000
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may be repeated: whose, under which key, and a digest of all of it."""

    actor: Actor
    key: str
    digest: str

    @property
    def id(self) -> tuple[str, str]:
        """The primary key of its reply."""
        return self.actor.id, hashlib.sha256(self.key.encode()).hexdigest()

    def seal_key(self) -> bytes:
        """Known to the caller only."""
        return hmac.digest(self.actor.key.encode(), b"reply\0" + self.key.encode(), "sha256")


def find(session: Session, request: Request) -> Response | None:
    """The answer that was given before. Raises Refusal where the request was another one, or came
    with another key of the same credential: nobody but the first can open it.
    """
    reply = session.get(Reply, request.id)
    if reply is None or reply.created_ms < now_ms() - KEPT_MS:
        return None
    if reply.request != request.digest:
        raise Refusal("idempotency-reused")
    nonce, sealed = reply.body[:_NONCE_BYTES], reply.body[_NONCE_BYTES:]
    try:
        body = AESGCM(request.seal_key()).decrypt(nonce, sealed, request.digest.encode())
    except InvalidTag:
        raise Refusal("idempotency-reused") from None
    return Response(body, reply.status, {**reply.headers, "idempotency-replayed": "true"})


def keep(session: Session, request: Request, response: Response) -> None:
    """Keeps an answer in the transaction that it tells of; forgets those of yesterday."""
    session.execute(delete(Reply).where(Reply.created_ms < now_ms() - KEPT_MS))
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(request.seal_key()).encrypt(
        nonce, bytes(response.body), request.digest.encode()
    )
    actor, key = request.id
    session.add(
        Reply(
            actor=actor,
            key=key,
            request=request.digest,
            status=response.status_code,
            headers=dict(response.headers),
            body=nonce + sealed,
            created_ms=now_ms(),
        )
    )
