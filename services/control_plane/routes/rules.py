"""A tenant's alert rules, and who is told: rules, receivers and routes, as `alerts:` of config.yaml
has them, each under its name.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field, RootModel
from sqlalchemy import func, select

from services.control_plane.alerting import document
from services.control_plane.alerting.document import RECEIVER, ROUTE, RULE, Judged, Spec
from services.control_plane.fields import (
    ID_PATTERN,
    Cursor,
    Form,
    Limit,
    Page,
    TenantId,
    View,
    moment,
    page,
)
from services.control_plane.identity import ADMIN, OPERATOR, READER
from services.control_plane.problems import Refusal
from services.control_plane.tables import AlertPart
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime.clock import now_ms

rules = APIRouter(prefix="/v1/tenants/{tenant_id}/rules", tags=["rules"])
receivers = APIRouter(prefix="/v1/tenants/{tenant_id}/receivers", tags=["rules"])
routes = APIRouter(prefix="/v1/tenants/{tenant_id}/routes", tags=["rules"])
Name = Annotated[str, Path(pattern=ID_PATTERN)]
# Of one tenant; receivers: as in a configuration.
MOST = {RULE: 2_000, RECEIVER: 100, ROUTE: 100}


class PartForm(RootModel[dict[str, Any]]):
    """A rule, a receiver or a route, as config.yaml has it; its name is the one in the path."""


class RulesToCheck(Form):
    """Rules to be checked."""

    rules: list[dict[str, Any]] = Field(max_length=2_000, description="as `alerts.rules`")


class PartView(View):
    """A rule, a receiver or a route."""

    tenant: str
    name: str
    spec: dict[str, Any] = Field(description="as config.yaml has it, without secrets")
    secrets: list[str] = Field(description="which secrets are kept of it; none is shown again")
    created_at: datetime
    updated_at: datetime


class PartPut(PartView):
    """The same, with what is to be said of it."""

    warnings: list[str]


class RulesChecked(View):
    """What the check says of rules that it does not refuse."""

    warnings: list[str]


def _view(unit: Unit, row: AlertPart) -> PartView:
    hidden: list[str] = []
    if row.sealed is not None:
        hidden = sorted(unit.core.seal.open(row.tenant_id, row.name, row.sealed))
    return PartView(
        tenant=row.tenant_id,
        name=row.name,
        spec=row.spec,
        secrets=hidden,
        created_at=moment(row.created_ms),
        updated_at=moment(row.updated_ms),
    )


def _of(unit: Unit, tenant_id: str, kind: str, name: str) -> AlertPart:
    row = unit.session.get(AlertPart, (tenant_id, kind, name))
    if row is None:
        raise Refusal("not-found")
    return row


def _list(unit: Unit, kind: str, cursor: str | None, limit: int) -> Answer:
    query = select(AlertPart).where(AlertPart.kind == kind)
    keys = [AlertPart.name]
    return Answer(page(unit.session, query, keys, cursor, limit, lambda row: _view(unit, row)))


def _get(unit: Unit, tenant_id: str, kind: str, name: str) -> Answer:
    row = _of(unit, tenant_id, kind, name)
    return Answer(_view(unit, row), version=row.version)


def _given(form: PartForm, name: str) -> Spec:
    spec = dict(form.root)
    if spec.pop("name", name) != name:
        _refuse([{"key": "name", "message": f"is not {name}, as in the path", "hint": ""}])
    if why := document.unstorable(spec):
        _refuse([{"key": "", "message": why, "hint": ""}])
    return spec


def _refuse(problems: document.Wrong) -> None:
    if problems:
        raise Refusal("invalid-alert", count=len(problems), problems=problems)


def _put(unit: Unit, tenant_id: str, kind: str, name: str, spec: Spec, judged: Judged) -> Answer:
    problems = [{**p, "key": p["key"].removeprefix("[0]").lstrip(".")} for p in judged.problems]
    _refuse(problems)
    sealed = None
    if kind == RECEIVER:
        spec, hidden = document.without_secrets(spec)
        if hidden:
            sealed = unit.core.seal.close(tenant_id, name, hidden)
    row, before, now = unit.session.get(AlertPart, (tenant_id, kind, name)), None, now_ms()
    if row is None:
        if unit.has_condition:
            raise Refusal("version-conflict", etag="none")
        of_kind = select(func.count()).select_from(AlertPart).where(AlertPart.kind == kind)
        if (unit.session.scalar(of_kind) or 0) >= MOST[kind]:
            raise Refusal("too-many-parts", resource=f"{kind}s", limit=MOST[kind])
        row = AlertPart(
            tenant_id=tenant_id,
            kind=kind,
            name=name,
            spec=spec,
            sealed=sealed,
            version=1,
            created_ms=now,
            updated_ms=now,
        )
        unit.session.add(row)
    else:
        unit.match(row)
        before = _view(unit, row)
        row.spec, row.sealed = spec, sealed
        unit.touch(row)
    after = _view(unit, row)
    path = f"tenants/{tenant_id}/{kind}s/{name}"
    unit.record(f"{kind}.put", path, before, after)
    body = PartPut(**after.model_dump(), warnings=judged.warnings)
    return Answer(body, 200 if before else 201, row.version, f"/v1/{path}")


def _delete(unit: Unit, tenant_id: str, kind: str, name: str) -> Answer:
    row = _of(unit, tenant_id, kind, name)
    unit.match(row)
    if used := _users(unit, kind, name):
        raise Refusal("in-use", resource=kind, id=name, by=", ".join(used[:10]))
    before = _view(unit, row)
    unit.session.delete(row)
    unit.record(f"{kind}.delete", f"tenants/{tenant_id}/{kind}s/{name}", before, None)
    return Answer(None)


def _users(unit: Unit, kind: str, name: str) -> list[str]:
    """What names it."""
    if kind == RULE:
        return []
    by_rules = [
        f"rule {row.name}"
        for row in document.parts(unit.session, RULE)
        if row.spec.get("route") == name
    ]
    if kind == ROUTE:
        return by_rules
    routes = document.parts(unit.session, ROUTE)
    # A rule may name a receiver where no route has that name.
    by_rules = [] if any(row.name == name for row in routes) else by_rules
    return [f"route {row.name}" for row in routes if name in document.told(row.spec)] + by_rules


# -- rules -----------------------------------------------------------------------------------


@rules.get("", response_model=Page[PartView])
@reads(OPERATOR, ADMIN, READER)
def list_rules(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """The tenant's rules, by name."""
    return _list(unit, RULE, cursor, limit)


@rules.post("/check", response_model=RulesChecked)
@reads(OPERATOR, ADMIN)
def check_rules(unit: Reading, tenant_id: TenantId, form: RulesToCheck) -> Answer:
    """What would be said of rules, beside the receivers and routes that are kept, and against the
    newest configurations of the tenant's boxes; nothing is kept.
    """
    if why := next(filter(None, map(document.unstorable, form.rules)), ""):
        _refuse([{"key": "rules", "message": why, "hint": ""}])
    judged = document.judge_rules(unit.session, tenant_id, form.rules)
    _refuse([{**p, "key": f"rules{p['key']}"} for p in judged.problems])
    return Answer(RulesChecked(warnings=judged.warnings))


@rules.get("/{name}", response_model=PartView)
@reads(OPERATOR, ADMIN, READER)
def get_rule(unit: Reading, tenant_id: TenantId, name: Name) -> Answer:
    """One rule."""
    return _get(unit, tenant_id, RULE, name)


@rules.put("/{name}", response_model=PartPut)
@writes(OPERATOR, ADMIN)
def put_rule(unit: Writing, tenant_id: TenantId, name: Name, form: PartForm) -> Answer:
    """Makes a rule, or replaces it. What is known of the tenant's boxes refuses a field, PLC or
    machine that is not there; of boxes whose configuration is not kept here it only warns.
    """
    spec = _given(form, name)
    judged = document.judge_rules(unit.session, tenant_id, [{**spec, "name": name}])
    return _put(unit, tenant_id, RULE, name, spec, judged)


@rules.delete("/{name}", status_code=204, response_model=None)
@writes(OPERATOR, ADMIN)
def delete_rule(unit: Writing, tenant_id: TenantId, name: Name) -> Answer:
    """Removes a rule; what rings under it is closed."""
    return _delete(unit, tenant_id, RULE, name)


# -- receivers -------------------------------------------------------------------------------


@receivers.get("", response_model=Page[PartView])
@reads(OPERATOR, ADMIN)
def list_receivers(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """Who can be told, without secrets."""
    return _list(unit, RECEIVER, cursor, limit)


@receivers.get("/{name}", response_model=PartView)
@reads(OPERATOR, ADMIN)
def get_receiver(unit: Reading, tenant_id: TenantId, name: Name) -> Answer:
    """One receiver."""
    return _get(unit, tenant_id, RECEIVER, name)


@receivers.put("/{name}", response_model=PartPut)
@writes(OPERATOR, ADMIN)
def put_receiver(unit: Writing, tenant_id: TenantId, name: Name, form: PartForm) -> Answer:
    """Makes a receiver, or replaces it whole, secrets included: they are given anew, so that none
    can be sent to another address by who does not know it.
    """
    spec = _given(form, name)
    judged = document.judge_receiver(name, spec, any_address=unit.core.any_receiver)
    return _put(unit, tenant_id, RECEIVER, name, spec, judged)


@receivers.delete("/{name}", status_code=204, response_model=None)
@writes(OPERATOR, ADMIN)
def delete_receiver(unit: Writing, tenant_id: TenantId, name: Name) -> Answer:
    """Removes a receiver that no route and no rule names."""
    return _delete(unit, tenant_id, RECEIVER, name)


# -- routes ----------------------------------------------------------------------------------


@routes.get("", response_model=Page[PartView])
@reads(OPERATOR, ADMIN, READER)
def list_routes(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """The routes: which receivers are told."""
    return _list(unit, ROUTE, cursor, limit)


@routes.get("/{name}", response_model=PartView)
@reads(OPERATOR, ADMIN, READER)
def get_route(unit: Reading, tenant_id: TenantId, name: Name) -> Answer:
    """One route."""
    return _get(unit, tenant_id, ROUTE, name)


@routes.put("/{name}", response_model=PartPut)
@writes(OPERATOR, ADMIN)
def put_route(unit: Writing, tenant_id: TenantId, name: Name, form: PartForm) -> Answer:
    """Makes a route, or replaces it: `{"receivers": [names]}`, and `group`, `escalate`, `quiet`."""
    spec = _given(form, name)
    return _put(unit, tenant_id, ROUTE, name, spec, document.judge_route(unit.session, name, spec))


@routes.delete("/{name}", status_code=204, response_model=None)
@writes(OPERATOR, ADMIN)
def delete_route(unit: Writing, tenant_id: TenantId, name: Name) -> Answer:
    """Removes a route that no rule names."""
    return _delete(unit, tenant_id, ROUTE, name)
