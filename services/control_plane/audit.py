"""Who changed what, when, from what to what: a chain of rows in which no link can be exchanged.

Each row carries an HMAC over itself and the row before, under a key that lies outside the database
(``<state>/audit.key``): whoever can write the database can neither change a row, nor leave one out,
nor make up a new chain. What a chain cannot show is that the whole database was put back to an
older state; for that, note what `plc-edge central audit verify` prints and give it back with
`--since`.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.control_plane.tables import Audit, AuditHead
from services.runtime.clock import now_ms
from services.runtime.errors import ConfigError, Problem
from services.runtime.files import write_whole

KEY_BYTES = 32
HEAD_ID = 1
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Chain:
    """Writes and checks the audit, with its key."""

    key: bytes

    def append(
        self,
        session: Session,
        actor: str,
        role: str,
        tenant_id: str | None,
        action: str,
        resource: str,
        before: Any,
        after: Any,
    ) -> None:
        """One change, in the session's transaction."""
        # Held here: the session forgets what nobody holds, and would read it again for each row.
        head: AuditHead | None = session.info.get("audit_head")
        if head is None:
            head = session.info["audit_head"] = session.get_one(AuditHead, HEAD_ID)
        row = Audit(
            seq=head.seq + 1,
            ts_ms=now_ms(),
            actor=actor,
            role=role,
            tenant_id=tenant_id,
            action=action,
            resource=resource,
            before=_canonical(before),
            after=_canonical(after),
        )
        row.mac = self._mac(row, head.mac)
        session.add(row)
        head.seq = row.seq
        head.mac = row.mac
        session.flush()

    def _mac(self, row: Audit, previous: str) -> str:
        fields = (
            *(previous, row.seq, row.ts_ms, row.actor, row.role, row.tenant_id),
            *(row.action, row.resource, row.before, row.after),
        )
        text = json.dumps(fields, ensure_ascii=True, separators=(",", ":"))
        return hmac.digest(self.key, text.encode(), "sha256").hex()

    def _first(self) -> str:
        return hmac.digest(self.key, b"plc-edge audit", "sha256").hex()

    def begin(self, session: Session) -> None:
        """Makes the head of an empty chain."""
        session.add(AuditHead(id=HEAD_ID, seq=0, mac=self._first()))
        session.flush()

    def faults(self, session: Session, since: tuple[int, str] | None = None) -> Iterator[str]:
        """What is wrong with the chain, in words; nothing where it is whole.

        ``since``: (seq, mac) of a row that was noted before and must still be there.
        """
        head = session.get(AuditHead, HEAD_ID)
        if head is None:
            yield "the head of the chain is missing"
            return
        seq, mac = 0, self._first()
        noted = since is None or since == (seq, mac)
        while rows := session.scalars(
            select(Audit).where(Audit.seq > seq).order_by(Audit.seq).limit(_BATCH)
        ).all():
            for row in rows:
                if row.seq != seq + 1:
                    yield f"rows {seq + 1} to {row.seq - 1} are missing"
                if not hmac.compare_digest(self._mac(row, mac), row.mac):
                    yield f"row {row.seq} is not what was written after row {row.seq - 1}"
                seq, mac = row.seq, row.mac
                noted = noted or since == (seq, mac)
            session.expunge_all()
        if (seq, mac) != (head.seq, head.mac):
            yield f"the chain ends at row {seq}, and ended at row {head.seq}"
        if not noted and since is not None:
            yield f"row {since[0]} is not the one that was noted: an older database was put back"


def _canonical(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def make_key(state: Path) -> bytes:
    """The chain's key, made where there is none."""
    file = state / "audit.key"
    if not file.exists():
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, secrets.token_bytes(KEY_BYTES).hex().encode())
    return load_key(state)


def load_key(state: Path) -> bytes:
    """The chain's key; raises ConfigError where it is missing or damaged."""
    file = state / "audit.key"
    try:
        key = bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else "is not hex"
        hint = "restore it from the backup, or run `plc-edge central init` for a new database"
        raise ConfigError(
            [Problem(str(file), "", f"cannot be used: {reason}", hint=hint)]
        ) from None
    if len(key) != KEY_BYTES:
        raise ConfigError([Problem(str(file), "", f"has {len(key)} bytes, not {KEY_BYTES}")])
    return key
