"""What rings under a tenant's rules at the centre, what has rung, and taking care of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from services.control_plane.alerting.asking import Engines
from services.control_plane.alerting.document import RULE
from services.control_plane.fields import Form, Id, Limit, Line, Page, TenantId, View
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.lanes import asking
from services.control_plane.problems import Refusal
from services.control_plane.tables import AlertPart
from services.control_plane.unit import Answer, Reading, Then, Unit, Writing, reads, writes

router = APIRouter(prefix="/v1/tenants/{tenant_id}/alerts", tags=["alerts"])
MAX_SILENCE_S = 90 * 86_400
# Everything that rings comes in one answer, up to here.
MAX_ALARMS = 5_000


class Alarm(View):
    """One alarm that is not `ok`."""

    rule: str
    severity: str
    site: str | None
    plc: str | None
    group: str | None
    machine: str | None
    field: str | None
    state: str
    since: int | None = Field(description="Unix ms")
    value: Any
    text: str
    confirmado: Any = Field(description="[who, Unix ms], or null")
    silenciado: Any = Field(description="[until, why], or null")
    sem_medida: bool


class Alarms(View):
    """What rings or cools down, what needs somebody first."""

    count: int = Field(description=f"of all; at most {MAX_ALARMS} are listed")
    items: list[Alarm]


class Change(View):
    """One transition."""

    id: str
    ts: int = Field(description="Unix ms: when it happened, not when it was learnt")
    rule: str
    severity: str
    site: str | None
    plc_id: str | None
    group: str | None
    machine: str | None
    field: str | None
    from_: str = Field(alias="from", serialization_alias="from")
    to: str
    value: Any
    notify: bool
    reason: str
    text: str


class Ack(Form):
    """Which alarms somebody takes care of."""

    rule: Id
    plc: Id | None = None
    group: Line | None = None
    machine: Line | None = None
    field: Line | None = None
    by: Line = Field("", description="who; default: the credential")


class Silence(Ack):
    """Which alarms nobody is told of, and for how long."""

    for_s: int = Field(ge=0, le=MAX_SILENCE_S, description="0 ends it")
    why: Line = Field(min_length=1)


class Wish(View):
    """What somebody wants done, as the audit keeps it."""

    rule: str
    plc: str | None
    group: str | None
    machine: str | None
    field: str | None
    by: str
    for_s: int | None = None
    why: str | None = None


class Touched(Wish):
    """What was done."""

    alarms: int = Field(description="how many it was done to")


def _engines(unit: Unit) -> Engines:
    if unit.core.engines is None:
        raise Refusal("no-alerts")
    return unit.core.engines


def _has_rules(unit: Unit) -> bool:
    return unit.session.query(AlertPart.name).where(AlertPart.kind == RULE).first() is not None


@router.get("", response_model=Alarms)
@asking
@reads(OPERATOR, ADMIN, READER)
def list_alarms(unit: Reading, tenant_id: TenantId) -> Answer:
    """What rings or cools down."""
    engines = _engines(unit)
    if not _has_rules(unit):
        return Answer(Alarms(count=0, items=[]))
    found = engines.ask(tenant_id, "list", limit=MAX_ALARMS)
    return Answer(Alarms(count=found["count"], items=[Alarm(**a) for a in found["alarms"]]))


@router.get("/history", response_model=Page[Change])
@asking
@reads(OPERATOR, ADMIN, READER)
def list_history(
    unit: Reading,
    tenant_id: TenantId,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next` of the part before")
    ] = None,
    limit: Limit = 100,
    rule: Id | None = None,
    plc: Id | None = None,
) -> Answer:
    """Every change of an alarm, the newest first; why nobody was told stands in `reason`. Of all,
    of one rule, of one PLC.
    """
    engines = _engines(unit)
    if not _has_rules(unit):
        return Answer(Page[Change](items=[], next=None))
    before = None if cursor is None else int(cursor)
    of = {"rule": rule or "", "plc": plc or ""}
    rows = engines.ask(tenant_id, "history", count=limit, before=before, **of)
    items = [Change(**row) for row in rows]
    # An id ends in its number.
    following = items[-1].id.rpartition("-")[2] if len(items) == limit else None
    return Answer(Page[Change](items=items, next=following))


def _tell(verb: str) -> Then:
    """Asks the engine for what the audit says by now, while others may write."""

    def tell(unit: Unit, arguments: dict[str, Any], wish: Answer) -> Answer:
        form: Ack = arguments["form"]
        place = form.model_dump(include={"plc", "group", "machine", "field"}, exclude_none=True)
        if isinstance(form, Silence):
            how: dict[str, Any] = {"for_ms": form.for_s * 1_000, "why": form.why}
        else:
            how = {"who": form.by or unit.actor.id}
        engines = _engines(unit)
        found = engines.ask(arguments["tenant_id"], verb, rule=form.rule, **place, **how)
        assert isinstance(wish.body, Wish)
        return Answer(Touched(**wish.body.model_dump(), alarms=len(found)))

    return tell


@router.post("/ack", response_model=Touched)
@asking
@writes(OPERATOR, ADMIN, then=_tell("ack"))
def acknowledge(unit: Writing, tenant_id: TenantId, form: Ack) -> Answer:
    """Says that somebody takes care of what rings under a rule. 503: what the audit has is the
    wish; ask again.
    """
    return _record(unit, tenant_id, "ack", form)


@router.post("/silence", response_model=Touched)
@asking
@writes(OPERATOR, ADMIN, then=_tell("silence"))
def silence(unit: Writing, tenant_id: TenantId, form: Silence) -> Answer:
    """Tells nobody of a rule's alarms for a while; they still stand in the list. 503: what the
    audit has is the wish; ask again.
    """
    return _record(unit, tenant_id, "silence", form)


def _record(unit: Unit, tenant_id: str, verb: str, form: Ack) -> Answer:
    """The wish, before the engine is asked: nothing is ever done that the audit does not know."""
    _engines(unit)
    if unit.session.get(AlertPart, (tenant_id, RULE, form.rule)) is None:
        raise Refusal("not-found")
    wish = Wish(**form.model_dump(exclude={"by"}), by=form.by or unit.actor.id)
    unit.record(f"alert.{verb}", f"tenants/{tenant_id}/alerts/{form.rule}", None, wish)
    return Answer(wish)
