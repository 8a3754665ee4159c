"""Who the caller is."""

from __future__ import annotations

from fastapi import APIRouter

from services.control_plane.fields import View
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.unit import Answer, Reading, reads

router = APIRouter(prefix="/v1/me", tags=["me"])


class Me(View):
    """The identity behind a key."""

    credential: str
    role: str
    tenant: str | None
    site: str | None


@router.get("", response_model=Me)
@reads(OPERATOR, ADMIN, READER)
def get_me(unit: Reading) -> Answer:
    """Role and tenant of the key in use."""
    actor = unit.actor
    return Answer(
        Me(credential=actor.id, role=actor.role, tenant=actor.tenant_id, site=actor.site_id)
    )
