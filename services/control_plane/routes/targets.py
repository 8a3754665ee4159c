"""Which version a box must have, and what it says of itself."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field
from sqlalchemy import Select, select
from starlette.responses import Response

from services.control_plane import identity, quota
from services.control_plane.fields import (
    Cursor,
    Form,
    Id,
    Limit,
    Line,
    Page,
    SiteId,
    TenantId,
    Text,
    View,
    moment,
    page,
)
from services.control_plane.fleet import store, views
from services.control_plane.fleet.shares import Points
from services.control_plane.fleet.views import BoxView
from services.control_plane.identity import ADMIN, BOX, OPERATOR, READER
from services.control_plane.problems import Refusal
from services.control_plane.routes import configs, plans, sites
from services.control_plane.tables import BoxConfig, Certificate, Report, Site, Target
from services.control_plane.unit import (
    ACTIVE,
    SUSPENDED,
    Answer,
    Reading,
    Unit,
    Writing,
    reads,
    writes,
)
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants/{tenant_id}/sites/{site_id}", tags=["boxes"])
boxes = APIRouter(prefix="/v1/tenants/{tenant_id}/boxes", tags=["boxes"])
MAX_WAIT_S = 55
# For so long a box watches what it has applied.
WATCH_S = 60
# How long the certificate before works beside one that has been used.
OVERLAP_MS = 3_600_000
MAX_ITEMS = 500
MAX_PROBLEM_TEXT = 1_000
Version = Annotated[int, Field(ge=1, le=2**31)]
RolloutId = Annotated[str, Field(pattern=r"^rol_[0-9a-f]{16}$")]


class NewTarget(Form):
    """The version that a box must have."""

    version: Version
    overwrite: bool = Field(False, description="also over files that were changed at the box")


class TargetSet(View):
    """What was asked of a box."""

    site: str
    version: int | None
    overwrite: bool
    rollout: str | None
    set_at: datetime
    author: str = Field(description="the credential, or that of the roll-out")


class TargetView(View):
    """The version that a box must have, with its text."""

    version: int
    sha256: str
    yaml: str
    layouts: dict[str, str]
    rollout: str | None
    overwrite: bool = Field(description="also over files that were changed at the box")
    watch_s: int = Field(description="how long to watch it before it counts as applied")
    word: str = Field(
        description="another one each time that the target was set: what failed once is tried anew"
    )


class Health(Form):
    """How a box is."""

    plcs: dict[Id, Literal["online", "degraded", "offline"]] = Field({}, max_length=MAX_ITEMS)
    outputs: dict[Id, Literal["up", "down"]] = Field({}, max_length=MAX_ITEMS)
    pending: int = Field(0, ge=0, le=2**53, description="messages that wait to be delivered")


def _cut(text: str) -> str:
    return text[:MAX_PROBLEM_TEXT]


# Cut, not refused: what a box says of itself is worth more than the end of a sentence.
Short = Annotated[Text, AfterValidator(_cut)]


class CheckProblem(View):
    """One mistake that the box's check found, each text's first 1,000 characters; what else is said
    of it is left out.
    """

    file: Short = ""
    line: int | None = Field(None, ge=0, le=2**31)
    key: Short = ""
    message: Short = ""
    hint: Short = ""


class ReportForm(Form):
    """What a box says of itself; ``version`` is the one that ``state`` speaks of."""

    state: Literal["applying", "watching", "applied", "refused", "rolled_back", "drift"]
    version: Version | None = None
    running: Version | None = Field(None, description="what runs now; null: none of the centre's")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    rollout: RolloutId | None = Field(None, description="as the target had it")
    error: Text | None = Field(None, max_length=4_000)
    problems: list[CheckProblem] = Field([], max_length=100)
    software: Annotated[Line, Field(max_length=100)] = ""
    health: Health | None = None
    drift: Text | None = Field(None, max_length=65_536, description="unified diff")


class ReportTaken(View):
    """What a box must know."""

    points_per_min: int = Field(
        description="what it may send: the plan's number, less what the configurations of the"
        " tenant's other boxes may send"
    )
    poll_s: int


class ReportView(View):
    """What a box said last."""

    site: str
    state: str = Field(description="as the box said; `silent` says whether it still speaks")
    silent: bool
    seen_at: datetime
    changed_at: datetime
    version: int | None
    running: int | None
    sha256: str | None
    rollout: str | None
    error: str | None
    problems: list[CheckProblem]
    software: str
    health: Health | None
    drift: str | None


# -- the target ------------------------------------------------------------------------------


def waits(
    route: Callable[..., Response],
) -> Callable[..., Coroutine[Any, Any, Response]]:
    """Answers 204 of a route only when ``wait_s`` is over: until then it is asked again whenever
    the box's target has changed. While it waits it costs a task, no thread and no connection to the
    database; and it is asked again only for who would be let in again.
    """

    @functools.wraps(route)
    async def run(**arguments: Any) -> Response:
        unit: Unit = arguments["unit"]
        waiters, loop = unit.core.fleet.waiters, asyncio.get_running_loop()
        until_s = loop.time() + arguments["wait_s"]

        def again() -> Response:
            if identity.again(unit.core.database, unit.actor) is None:
                raise Refusal("unauthenticated")
            return route(**arguments)

        look: Callable[[], Response] = functools.partial(route, **arguments)
        with waiters.waiting((arguments["tenant_id"], arguments["site_id"])) as waiter:
            while True:
                waiter.begin()
                answer = await anyio.to_thread.run_sync(look, limiter=waiters.looking)
                left_s = until_s - loop.time()
                if answer.status_code != 204 or left_s <= 0 or not await waiter.rung(left_s):
                    return answer
                if waiter.ended:
                    return answer
                look = again

    return run


def apart(route: Callable[..., Response]) -> Callable[..., Coroutine[Any, Any, Response]]:
    """Runs a route in threads that only boxes use."""

    @functools.wraps(route)
    async def run(**arguments: Any) -> Response:
        unit: Unit = arguments["unit"]
        limiter = unit.core.fleet.waiters.reporting
        return await anyio.to_thread.run_sync(
            functools.partial(route, **arguments), limiter=limiter
        )

    return run


@router.get(
    "/target",
    response_model=TargetView,
    responses={204: {"description": "nothing else than `have` is wanted"}},
)
@waits
@reads(OPERATOR, ADMIN, READER, BOX)
def get_target(
    unit: Reading,
    tenant_id: TenantId,
    site_id: SiteId,
    have: Annotated[int, Query(ge=0, le=2**31, description="the version dealt with last")] = 0,
    wait_s: Annotated[int, Query(ge=0, le=MAX_WAIT_S, description="for another one")] = 0,
    word: Annotated[
        str | None,
        Query(max_length=20, description="of the target dealt with last: `have` said anew counts"),
    ] = None,
) -> Answer:
    """The version that a box must have, as soon as it is another than ``have``."""
    query = (
        select(Site.id, Target)
        .outerjoin(Target, (Target.tenant_id == Site.tenant_id) & (Target.site_id == Site.id))
        .where(Site.tenant_id == tenant_id, Site.id == site_id)
    )
    found = unit.session.execute(query).one_or_none()
    if found is None:
        raise Refusal("not-found")
    target = found[1]
    if target is None or target.version is None:
        return Answer(None)
    said_anew = word is not None and word != str(target.seq)
    if target.version == have and not target.overwrite and not said_anew:
        return Answer(None)
    row = unit.session.get(BoxConfig, (tenant_id, site_id, target.version))
    if row is None:
        raise Refusal("not-found")
    view = TargetView(
        version=row.version,
        sha256=row.sha256,
        yaml=row.yaml,
        layouts=row.layouts,
        rollout=target.rollout_id,
        overwrite=target.overwrite,
        watch_s=WATCH_S,
        word=str(target.seq),
    )
    return Answer(view)


def _set(row: Target) -> TargetSet:
    return TargetSet(
        site=row.site_id,
        version=row.version,
        overwrite=row.overwrite,
        rollout=row.rollout_id,
        set_at=moment(row.set_ms),
        author=row.author,
    )


@router.post("/target", response_model=TargetSet)
@writes(OPERATOR, ADMIN)
def set_target(unit: Writing, tenant_id: TenantId, site_id: SiteId, form: NewTarget) -> Answer:
    """Sends a version to one box, outside of any roll-out."""
    sites.of(unit, tenant_id, site_id)
    session = unit.session
    if session.get(BoxConfig, (tenant_id, site_id, form.version)) is None:
        message = f"box {site_id} has no version {form.version}"
        raise Refusal("invalid-request", problems=[{"key": "version", "message": message}])
    if active := store.active_rollout(session, tenant_id, site_id):
        raise Refusal("rollout-active", site=site_id, rollout=active)
    old = session.get(Target, (tenant_id, site_id))
    before = _set(old) if old else None
    row = store.set_target(
        session,
        tenant_id,
        site_id,
        form.version,
        author=unit.actor.id,
        at_ms=now_ms(),
        overwrite=form.overwrite,
    )
    unit.record("target.set", f"tenants/{tenant_id}/sites/{site_id}/target", before, _set(row))
    unit.then(unit.core.fleet.waiters.wake)
    return Answer(_set(row))


# -- reports ---------------------------------------------------------------------------------


def _taken(unit: Unit, site_id: str) -> Answer:
    def look() -> Points:
        limit = plans.of(unit, unit.tenant.plan_id).points_per_min
        return Points(limit, configs.points_of_sites(unit))

    points = unit.core.fleet.shares.of(unit.tenant.id, look)
    others = (p for site, p in points.by_site.items() if site != site_id)
    share = quota.share(points.limit, points.by_site.get(site_id, 0), others)
    return Answer(ReportTaken(points_per_min=share, poll_s=MAX_WAIT_S))


def _said(form: ReportForm) -> dict[str, Any]:
    return form.model_dump(mode="json", exclude={"health"})


def _others(unit: Unit) -> Select[Certificate]:
    """Certificates of the caller, besides the one it shows, that have no end yet."""
    return select(Certificate).where(
        Certificate.credential_id == unit.actor.id,
        Certificate.serial != unit.actor.serial,
        Certificate.ends_ms.is_(None),
    )


def _end_older(unit: Unit, now: int) -> None:
    """Those that the one it shows has replaced: a box that uses the new one needs them no more."""
    own = unit.session.get_one(Certificate, unit.actor.serial)
    for row in unit.session.scalars(_others(unit)):
        if row.created_ms < own.created_ms:
            row.ends_ms = min(row.not_after_ms, now + OVERLAP_MS)


def _nothing_new(
    unit: Unit, tenant_id: str, site_id: str, form: ReportForm, **_: Any
) -> Answer | None:
    """A thousand boxes report every minute, nearly always the same: that is kept in memory, and
    written once a second for all of them.
    """
    query = select(Report.said, _others(unit).exists()).where(
        Report.tenant_id == tenant_id, Report.site_id == site_id
    )
    found = unit.session.execute(query).one_or_none()
    if found is None or found[0] != _said(form) or (unit.actor.serial is not None and found[1]):
        return None
    health = form.health.model_dump() if form.health else None
    unit.core.fleet.conductor.heard((tenant_id, site_id), now_ms(), health)
    return _taken(unit, site_id)


@router.put("/report", response_model=ReportTaken)
@apart
@writes(BOX, states=(ACTIVE, SUSPENDED), instead=_nothing_new)
def put_report(unit: Writing, tenant_id: TenantId, site_id: SiteId, form: ReportForm) -> Answer:
    """What a box says of itself: at every change, and once a minute."""
    sites.of(unit, tenant_id, site_id)
    session, now = unit.session, now_ms()
    row, said = session.get(Report, (tenant_id, site_id)), _said(form)
    if row is None:
        row = Report(tenant_id=tenant_id, site_id=site_id)
        session.add(row)
    if row.said != said:
        row.changed_ms = now
    row.seen_ms = now
    row.state, row.version, row.running = form.state, form.version, form.running
    row.rollout_id, row.software, row.said = form.rollout, form.software, said
    row.health = form.health.model_dump() if form.health else None
    target = session.get(Target, (tenant_id, site_id))
    if (
        target is not None
        and target.overwrite
        and (form.state, form.version) == ("applied", target.version)
    ):
        target.overwrite = False
    if unit.actor.serial is not None:
        _end_older(unit, now)
    unit.unrecorded()
    unit.then(unit.core.fleet.conductor.wake)
    return _taken(unit, site_id)


@router.get("/report", response_model=ReportView)
@reads(OPERATOR, ADMIN, READER, BOX)
def get_report(unit: Reading, tenant_id: TenantId, site_id: SiteId) -> Answer:
    """What a box said last; 404 where it never did."""
    sites.of(unit, tenant_id, site_id)
    row = unit.session.get(Report, (tenant_id, site_id))
    if row is None:
        raise Refusal("not-found")
    view = ReportView(
        **row.said,
        site=site_id,
        silent=views.is_silent(row.seen_ms, now_ms()),
        seen_at=moment(row.seen_ms),
        changed_at=moment(row.changed_ms),
        health=Health(**row.health) if row.health else None,
    )
    return Answer(view)


# -- all boxes -------------------------------------------------------------------------------


@boxes.get("", response_model=Page[BoxView])
@reads(OPERATOR, ADMIN, READER)
def list_boxes(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """Every box with its state: what it must have, what it runs, when it was heard."""
    names = page(unit.session, select(Site), [Site.id], cursor, limit, sites.view)
    shown = views.boxes(unit.session, now_ms(), [(s.tenant, s.id) for s in names.items])
    return Answer(Page(items=shown, next=names.next))
