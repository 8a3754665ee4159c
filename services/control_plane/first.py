"""`plc-edge central init`: the schema, the usual plans, the first operator's key."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select

from services.control_plane.audit import Chain
from services.control_plane.db import Database
from services.control_plane.identity import API_KEY, OPERATOR, new_id, new_key
from services.control_plane.tables import AuditHead, Credential, Plan, Secret
from services.runtime.clock import now_ms

# Devices, points a minute, days of raw values (docs/ESTRATEGIA_RETENCAO_DADOS.md). A start: every
# plan can be changed by the API.
PLANS = {"free": (2, 500, 3), "pro": (20, 5_000, 7), "enterprise": (100, 50_000, 30)}
WHO = "plc-edge central init"


@dataclass(frozen=True, slots=True)
class Made:
    """What `init` has done."""

    migrated: bool
    api_key: str | None = field(repr=False)
    """None where there is an operator already, and no other was asked for."""


def prepare(database: Database, chain: Chain, *, another_key: bool) -> Made:
    """Everything that a database needs before the first request; changes nothing where it is there.

    Interrupted anywhere and repeated, it ends the same: each step is one transaction.
    """
    migrated = database.migrate()
    with database.writing(None) as session:
        now = now_ms()
        if session.get(AuditHead, 1) is None:
            chain.begin(session)
            for name, (devices, points, days) in PLANS.items():
                session.add(
                    Plan(
                        id=name,
                        max_devices=devices,
                        points_per_min=points,
                        raw_days=days,
                        created_ms=now,
                        updated_ms=now,
                    )
                )
        operators = select(Credential).where(
            Credential.role == OPERATOR, Credential.revoked_ms.is_(None)
        )
        if session.scalars(operators.limit(1)).first() is not None and not another_key:
            return Made(migrated, None)
        key = new_key()
        credential = Credential(
            id=new_id("crd"),
            kind=API_KEY,
            name=WHO,
            role=OPERATOR,
            created_ms=now,
            updated_ms=now,
        )
        session.add(credential)
        session.flush()
        session.add(Secret(id=key.id, credential_id=credential.id, hash=key.hash, created_ms=now))
        chain.append(
            session,
            WHO,
            OPERATOR,
            None,
            "credential.create",
            f"credentials/{credential.id}",
            None,
            {"id": credential.id, "kind": API_KEY, "role": OPERATOR, "name": WHO},
        )
    return Made(migrated, key.text)
