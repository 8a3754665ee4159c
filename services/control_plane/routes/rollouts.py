"""Roll-outs: a version for each of many boxes, in stages, and back where one has trouble."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import Field, field_validator
from sqlalchemy import func, select

from services.control_plane.fields import Cursor, Form, Id, Limit, Line, Page, TenantId, View, page
from services.control_plane.fleet import rollout, store, views
from services.control_plane.fleet.rollout import Box, Rollout, Targets
from services.control_plane.fleet.store import Stored
from services.control_plane.fleet.views import RolloutDetail, RolloutView
from services.control_plane.identity import ADMIN, OPERATOR, READER, new_id
from services.control_plane.problems import Refusal
from services.control_plane.tables import (
    BoxConfig,
    Report,
    RolloutBox,
    RolloutRow,
    Site,
    Target,
)
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants/{tenant_id}/rollouts", tags=["rollouts"])
RolloutId = Annotated[str, Path(pattern=r"^rol_[0-9a-f]{16}$")]
MAX_BOXES = 10_000
PERCENT = [10, 50, 100]


class NewRollout(Form):
    """Which boxes get which version, and in which order."""

    sites: Literal["all"] | Annotated[list[Id], Field(min_length=1, max_length=MAX_BOXES)]
    versions: (
        Literal["newest"] | Annotated[dict[Id, Annotated[int, Field(ge=1, le=2**31)]], Field()]
    ) = Field("newest", description="of each box: its newest, or this one")
    stages: (
        Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1, max_length=100)]
        | Annotated[list[list[Id]], Field(min_length=1, max_length=100)]
    ) = Field(
        PERCENT, description="percentages that rise to 100, or the boxes of each stage by name"
    )
    comment: Line = ""
    timeout_s: int = Field(
        900, ge=30, le=86_400, description="in which each box must have applied its version"
    )

    @field_validator("stages")
    @classmethod
    def _to_the_end(cls, value: list[int] | list[list[str]]) -> list[int] | list[list[str]]:
        numbers = [v for v in value if isinstance(v, int)]
        if numbers and (numbers != sorted(set(numbers)) or numbers[-1] != 100):
            raise ValueError("percentages rise from stage to stage, and the last is 100")
        return value


class Name(View):
    """A roll-out, before its boxes are counted."""

    id: str


def _wrong(key: str, message: str) -> Refusal:
    return Refusal("invalid-request", problems=[{"key": key, "message": message}])


def _of(unit: Unit, rollout_id: str) -> RolloutRow:
    row = unit.session.get(RolloutRow, rollout_id)
    if row is None:
        raise Refusal("not-found")
    return row


def _sites(unit: Unit, form: NewRollout) -> list[str]:
    there = list(unit.session.scalars(select(Site.id).order_by(Site.id)))
    if form.sites == "all":
        if not there:
            raise _wrong("sites", "there is no box yet")
        return there
    if unknown := sorted(set(form.sites) - set(there)):
        raise _wrong("sites", f"there is no box {unknown[0]}")
    if len(set(form.sites)) != len(form.sites):
        raise _wrong("sites", "names a box twice")
    return form.sites


def _stages(form: NewRollout, sites: list[str]) -> list[list[str]]:
    numbers = [s for s in form.stages if isinstance(s, int)]
    if numbers:
        return rollout.plan(sites, numbers)
    stages = [stage for stage in form.stages if isinstance(stage, list) and stage]
    named = Counter(site for stage in stages for site in stage)
    for site in sites:
        if named[site] != 1:
            raise _wrong("stages", f"box {site} must be in one stage, and is in {named[site]}")
    if extra := sorted(set(named) - set(sites)):
        raise _wrong("stages", f"box {extra[0]} is not among `sites`")
    return stages


def _versions(unit: Unit, form: NewRollout, sites: list[str]) -> dict[str, int]:
    if form.versions == "newest":
        query = select(BoxConfig.site_id, func.max(BoxConfig.version)).group_by(BoxConfig.site_id)
        versions = dict(unit.session.execute(query).tuples().all())
    else:
        known = select(BoxConfig.site_id, BoxConfig.version)
        there = set(unit.session.execute(known).tuples().all())
        for site, version in form.versions.items():
            if (site, version) not in there:
                raise _wrong("versions", f"box {site} has no version {version}")
        versions = form.versions
    for site in sites:
        if site not in versions:
            raise _wrong("versions", f"box {site} has no version to be sent")
    return versions


def _previous(unit: Unit) -> dict[str, int]:
    """What each box has: as it says, else what it was told to have."""
    told = select(Target.site_id, Target.version).where(Target.version.is_not(None))
    says = select(Report.site_id, Report.running).where(Report.running.is_not(None))
    found: dict[str, int] = {}
    for query in (told, says):
        found.update({s: v for s, v in unit.session.execute(query).tuples() if v is not None})
    return found


def _active(unit: Unit) -> dict[str, str]:
    """The roll-out of each box that is in one that has not ended."""
    query = (
        select(RolloutBox.site_id, RolloutRow.id)
        .join(RolloutRow, RolloutBox.rollout_id == RolloutRow.id)
        .where(RolloutRow.state.in_(rollout.ACTIVE))
    )
    return dict(unit.session.execute(query).tuples().all())


@router.post("", status_code=201, response_model=RolloutDetail)
@writes(OPERATOR, ADMIN)
def create_rollout(unit: Writing, tenant_id: TenantId, form: NewRollout) -> Answer:
    """Begins a roll-out: its first stage is sent at once."""
    session, now = unit.session, now_ms()
    sites = _sites(unit, form)
    stages, versions, previous = _stages(form, sites), _versions(unit, form, sites), _previous(unit)
    active = _active(unit)
    for site in sites:
        if site in active:
            raise Refusal("rollout-active", site=site, rollout=active[site])
    row = RolloutRow(
        id=new_id("rol"),
        tenant_id=tenant_id,
        state=rollout.RUNNING,
        stage=-1,
        timeout_ms=form.timeout_s * 1_000,
        comment=form.comment,
        author=unit.actor.id,
        reason="",
        version=0,
        created_ms=now,
        updated_ms=now,
    )
    session.add(row)
    session.flush()
    boxes = [
        Box(site, number, versions[site], previous.get(site))
        for number, stage in enumerate(stages)
        for site in stage
    ]
    for box in boxes:
        session.add(
            RolloutBox(
                rollout_id=row.id,
                tenant_id=tenant_id,
                site_id=box.site,
                stage=box.stage,
                version=box.version,
                previous=box.previous,
                state=box.state,
                asked_ms=0,
                why="",
            )
        )
    session.flush()
    stored = store.load(session, row)
    step = rollout.step(stored.now, store.heard(session, tenant_id, row.id), now)
    return _become(unit, stored, *step, "create", 201)


def _become(
    unit: Unit, stored: Stored, new: Rollout, targets: Targets, verb: str, status: int = 200
) -> Answer:
    """Keeps what a person has made of a roll-out, and shows it."""
    row, before = stored.row, stored.now
    if new != before:
        store.keep(unit.session, stored, new, targets, now_ms())
        path = f"tenants/{row.tenant_id}/rollouts/{row.id}"
        old = None if verb == "create" else views.Summary(**store.summary(before))
        unit.record(f"rollout.{verb}", path, old, views.Summary(**store.summary(new)))
        unit.then(unit.core.fleet.waiters.wake)
        unit.then(unit.core.fleet.conductor.wake)
    shown = views.rollout(unit.session, row)
    path = f"/v1/tenants/{row.tenant_id}/rollouts/{row.id}"
    return Answer(shown, status, row.version, path)


@router.get("", response_model=Page[RolloutView])
@reads(OPERATOR, ADMIN, READER)
def list_rollouts(
    unit: Reading, tenant_id: TenantId, cursor: Cursor = None, limit: Limit = 100
) -> Answer:
    """Every roll-out, the newest first."""
    return Answer(listed(unit, cursor, limit))


def listed(unit: Unit, cursor: str | None, limit: int) -> Page[RolloutView]:
    """Those that this request may see, the newest first."""
    keys, rows = [RolloutRow.created_ms, RolloutRow.id], []

    def name(row: RolloutRow) -> Name:
        rows.append(row)
        return Name(id=row.id)

    query = select(RolloutRow)
    names = page(unit.session, query, keys, cursor, limit, name, newest_first=True)
    # Counted together: one by one a hundred of them took 60 ms.
    return Page(items=views.rollouts(unit.session, rows), next=names.next)


@router.get("/{rollout_id}", response_model=RolloutDetail)
@reads(OPERATOR, ADMIN, READER)
def get_rollout(unit: Reading, tenant_id: TenantId, rollout_id: RolloutId) -> Answer:
    """One roll-out with each of its boxes."""
    row = _of(unit, rollout_id)
    return Answer(views.rollout(unit.session, row), version=row.version)


def _by_hand(unit: Unit, rollout_id: str, verb: str, needs: tuple[str, ...]) -> Stored:
    row = _of(unit, rollout_id)
    unit.match(row)
    if row.state not in needs:
        names = ", ".join(needs)
        raise Refusal("rollout-state", rollout=row.id, state=row.state, needs=names)
    return store.load(unit.session, row)


@router.post("/{rollout_id}/halt", response_model=RolloutDetail)
@writes(OPERATOR, ADMIN)
def halt_rollout(unit: Writing, tenant_id: TenantId, rollout_id: RolloutId) -> Answer:
    """Begins no other stage. What has been sent stays, and is watched."""
    stored = _by_hand(unit, rollout_id, "halt", (rollout.RUNNING, rollout.HALTED))
    return _become(unit, stored, replace(stored.now, state=rollout.HALTED), {}, "halt")


@router.post("/{rollout_id}/resume", response_model=RolloutDetail)
@writes(OPERATOR, ADMIN)
def resume_rollout(unit: Writing, tenant_id: TenantId, rollout_id: RolloutId) -> Answer:
    """Goes on where it was halted."""
    stored = _by_hand(unit, rollout_id, "resume", (rollout.RUNNING, rollout.HALTED))
    return _become(unit, stored, replace(stored.now, state=rollout.RUNNING), {}, "resume")


@router.post("/{rollout_id}/rollback", response_model=RolloutDetail)
@writes(OPERATOR, ADMIN)
def roll_back_rollout(unit: Writing, tenant_id: TenantId, rollout_id: RolloutId) -> Answer:
    """Sends every box back to the version it had. Of one that is done, those whose target no other
    has changed since; refused while one of its boxes is in another that has not ended.
    """
    needs = (rollout.RUNNING, rollout.HALTED, rollout.DONE, rollout.ROLLING_BACK)
    stored = _by_hand(unit, rollout_id, "rollback", (*needs, rollout.ROLLED_BACK))
    if stored.now.state in (rollout.ROLLING_BACK, rollout.ROLLED_BACK):
        return _become(unit, stored, stored.now, {}, "rollback")
    active = _active(unit)
    for box in stored.now.boxes:
        if (other := active.get(box.site, rollout_id)) != rollout_id:
            raise Refusal("rollout-active", site=box.site, rollout=other)
    ours = set(unit.session.scalars(select(Target.site_id).where(Target.rollout_id == rollout_id)))
    step = rollout.send_back(stored.now, rollout.BY_HAND, now_ms(), ours)
    return _become(unit, stored, *step, "rollback")
