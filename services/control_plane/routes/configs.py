"""Configurations: versions of a box's config.yaml, each checked before it is taken."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field, field_validator
from sqlalchemy import delete, func, select
from sqlalchemy.orm import defer

from services.control_plane import quota
from services.control_plane.fields import (
    Cursor,
    Form,
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
from services.control_plane.identity import ADMIN, BOX, OPERATOR, READER
from services.control_plane.lanes import checking
from services.control_plane.problems import Refusal
from services.control_plane.routes import devices, plans, sites
from services.control_plane.tables import BoxConfig, Device, Report, RolloutBox, Target
from services.control_plane.unit import Answer, Reading, Unit, Writing, reads, writes
from services.runtime import line_diff
from services.runtime.clock import now_ms

router = APIRouter(prefix="/v1/tenants/{tenant_id}/sites/{site_id}/configs", tags=["configs"])
MAX_LAYOUTS = 100
MAX_CHARACTERS = 1_000_000
# Besides those that a target, a report or a roll-out names.
KEPT_VERSIONS = 200
MAX_DIFF_BYTES = 256 * 2**10
_LAYOUT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,5}")
# Those of a box and of a centre.
_NO_LAYOUT = ("config.yaml", "central.yaml")
Version = Annotated[int, Path(ge=1, le=2**31)]


class Draft(Form):
    """A configuration to be checked."""

    yaml: Text = Field(max_length=MAX_CHARACTERS, description="the text of config.yaml")
    layouts: dict[str, Annotated[Text, Field(max_length=MAX_CHARACTERS)]] = Field(
        {},
        max_length=MAX_LAYOUTS,
        description="layout files by their path relative to config.yaml, as `layout:` names them",
    )

    @field_validator("layouts")
    @classmethod
    def _inside(cls, value: dict[str, str]) -> dict[str, str]:
        folders = {str(parent) for name in value for parent in PurePosixPath(name).parents}
        for name in value:
            if len(name) > 200 or not _LAYOUT.fullmatch(name) or name in _NO_LAYOUT:
                raise ValueError("is no path of a layout file beside config.yaml")
            if name in folders:
                raise ValueError("names a file that is also a folder")
        return value


class NewConfig(Draft):
    """A configuration to be kept as the next version."""

    comment: Line = ""


class Checked(View):
    """What the box's own check says."""

    points_per_min: int = Field(description="every field at every scan")
    warnings: list[str]
    plan: list[dict[str, Any]] = Field(description="one row per PLC and group, as `check --json`")


class ConfigView(View):
    """One version, without its text."""

    tenant: str
    site: str
    version: int
    sha256: str
    comment: str
    points_per_min: int
    author: str = Field(description="the credential that sent it")
    created_at: datetime


class ConfigText(ConfigView):
    """One version with its text and what the check said."""

    yaml: str
    layouts: dict[str, str]
    check: Checked


class Diff(View):
    """What changes from one version to another."""

    old: int
    new: int
    diff: str = Field(
        description="unified diff, empty where nothing changes; what is beyond 256 KiB is left out,"
        " and its last line says so"
    )


def view(row: BoxConfig) -> ConfigView:
    """As the API lists it."""
    return ConfigView(
        tenant=row.tenant_id,
        site=row.site_id,
        version=row.version,
        sha256=row.sha256,
        comment=row.comment,
        points_per_min=row.points_per_min,
        author=row.author,
        created_at=moment(row.created_ms),
    )


def _full(row: BoxConfig) -> ConfigText:
    return ConfigText(
        **view(row).model_dump(), yaml=row.yaml, layouts=row.layouts, check=Checked(**row.check)
    )


def points_of_sites(unit: Unit) -> dict[str, int]:
    """Points a minute of each box's newest configuration, within the request's tenant."""
    newest = (
        select(BoxConfig.site_id, func.max(BoxConfig.version).label("version"))
        .group_by(BoxConfig.site_id)
        .subquery()
    )
    query = select(BoxConfig.site_id, BoxConfig.points_per_min).join(
        newest,
        (BoxConfig.site_id == newest.c.site_id) & (BoxConfig.version == newest.c.version),
    )
    return dict(unit.session.execute(query).tuples().all())


def points_of_tenants(unit: Unit, tenants: list[str]) -> dict[str, int]:
    """The same summed for each of these tenants."""
    newest = (
        select(BoxConfig.tenant_id, BoxConfig.site_id, func.max(BoxConfig.version).label("version"))
        .where(BoxConfig.tenant_id.in_(tenants))
        .group_by(BoxConfig.tenant_id, BoxConfig.site_id)
        .subquery()
    )
    query = (
        select(BoxConfig.tenant_id, func.sum(BoxConfig.points_per_min))
        .join(
            newest,
            (BoxConfig.tenant_id == newest.c.tenant_id)
            & (BoxConfig.site_id == newest.c.site_id)
            & (BoxConfig.version == newest.c.version),
        )
        .group_by(BoxConfig.tenant_id)
    )
    return {tenant: int(points) for tenant, points in unit.session.execute(query).tuples()}


def _check_first(unit: Unit, arguments: dict[str, Any]) -> Any:
    """The slow part, before anything is locked."""
    form: Draft = arguments["form"]
    return unit.core.checker.check(form.yaml, form.layouts)


def _judge(unit: Unit, tenant_id: str, site_id: str) -> Checked:
    """Refuses what the box or the plan would refuse."""
    found = unit.prepared
    problems = [*found["problems"], *_mismatches(found, tenant_id, site_id)]
    if problems:
        raise Refusal("invalid-config", count=len(problems), problems=problems)
    groups = quota.groups(found["plan"])
    points = sum(g.per_min for g in groups)
    others = {s: p for s, p in points_of_sites(unit).items() if s != site_id}
    plan = plans.of(unit, unit.tenant.plan_id)
    total = points + sum(others.values())
    if total > plan.points_per_min:
        raise Refusal(
            "quota-points",
            plan=plan.id,
            limit=plan.points_per_min,
            estimated=total,
            arithmetic=quota.arithmetic(groups, others),
            groups=[
                {"plc": g.plc, "group": g.group, "fields": g.fields, "scan_ms": g.scan_ms,
                 "points_per_min": g.per_min}
                for g in groups
            ],
            other_sites=others,
        )  # fmt: skip
    return Checked(points_per_min=points, warnings=found["warnings"], plan=found["plan"])


def _mismatches(found: dict[str, Any], tenant_id: str, site_id: str) -> Iterator[dict[str, Any]]:
    if found["problems"]:
        return
    if found["site"] != site_id:
        yield {
            "file": "config.yaml",
            "key": "site",
            "message": f"is {found['site']}, and this is box {site_id}",
            "hint": f"site: {site_id}",
        }
    for tenant in found["tenants"]:
        if tenant != tenant_id:
            yield {
                "file": "config.yaml",
                "key": "locatario",
                "message": f"names {tenant}, and this box belongs to {tenant_id}",
                "hint": f"locatario: {tenant_id}",
            }


def _register_devices(unit: Unit, tenant_id: str, site_id: str) -> None:
    """PLCs of a configuration that nobody has registered, within the plan."""
    ids = [plc["id"] for plc in unit.prepared["plcs"]]
    query = select(Device.id, Device.site_id).where(Device.id.in_(ids))
    known = dict(unit.session.execute(query).tuples().all())
    for plc in ids:
        if known.get(plc, site_id) != site_id:
            raise Refusal("device-elsewhere", id=plc, site=known[plc])
    if new := [plc for plc in ids if plc not in known]:
        devices.register(unit, tenant_id, new, site_id)


def _forget_old(unit: Unit, newest: BoxConfig) -> None:
    """Deletes the box's versions that are old and named nowhere."""
    named = (
        *(Target.version, Report.version, Report.running),
        *(RolloutBox.version, RolloutBox.previous),
    )
    old = delete(BoxConfig).where(
        BoxConfig.tenant_id == newest.tenant_id,
        BoxConfig.site_id == newest.site_id,
        BoxConfig.version <= newest.version - KEPT_VERSIONS,
    )
    for column in named:
        table = column.class_
        of_box = (table.tenant_id == newest.tenant_id) & (table.site_id == newest.site_id)
        old = old.where(BoxConfig.version.not_in(select(column).where(of_box, column.is_not(None))))
    unit.session.execute(old)


@router.post("", status_code=201, response_model=ConfigText)
@checking
@writes(OPERATOR, ADMIN, before=_check_first)
def create_config(unit: Writing, tenant_id: TenantId, site_id: SiteId, form: NewConfig) -> Answer:
    """Checks a configuration and keeps it as the box's next version. PLCs in it that are not
    registered yet are. The same text as the newest version makes no new one. Beyond the newest 200,
    versions that no target, report or roll-out names are deleted.
    """
    sites.of(unit, tenant_id, site_id)
    checked = _judge(unit, tenant_id, site_id)
    _register_devices(unit, tenant_id, site_id)
    newest = unit.session.scalars(
        select(BoxConfig)
        .where(BoxConfig.site_id == site_id)
        .order_by(BoxConfig.version.desc())
        .limit(1)
    ).first()
    text = json.dumps([form.yaml, form.layouts], sort_keys=True)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    path = f"tenants/{tenant_id}/sites/{site_id}/configs"
    if newest is not None and newest.sha256 == sha256:
        return Answer(_full(newest), 200, newest.version, f"/v1/{path}/{newest.version}")
    row = BoxConfig(
        tenant_id=tenant_id,
        site_id=site_id,
        version=newest.version + 1 if newest else 1,
        yaml=form.yaml,
        layouts=form.layouts,
        sha256=sha256,
        comment=form.comment,
        points_per_min=checked.points_per_min,
        check={**checked.model_dump(), "series": unit.prepared["series"]},
        author=unit.actor.id,
        created_ms=now_ms(),
    )
    unit.session.add(row)
    _forget_old(unit, row)
    before = view(newest) if newest else None
    unit.record("config.create", f"{path}/{row.version}", before, view(row))
    return Answer(_full(row), 201, row.version, f"/v1/{path}/{row.version}")


@router.post("/check", response_model=Checked)
@checking
@reads(OPERATOR, ADMIN, before=_check_first)
def check_config(unit: Reading, tenant_id: TenantId, site_id: SiteId, form: Draft) -> Answer:
    """What would be said of a configuration; nothing is kept."""
    sites.of(unit, tenant_id, site_id)
    return Answer(_judge(unit, tenant_id, site_id))


@router.get("", response_model=Page[ConfigView])
@reads(OPERATOR, ADMIN, READER, BOX)
def list_configs(
    unit: Reading,
    tenant_id: TenantId,
    site_id: SiteId,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Answer:
    """Every version that is kept, the newest first."""
    sites.of(unit, tenant_id, site_id)
    # Not their texts: a hundred versions of 50 PLCs would be megabytes.
    without = [
        defer(c, raiseload=True) for c in (BoxConfig.yaml, BoxConfig.layouts, BoxConfig.check)
    ]
    query = select(BoxConfig).where(BoxConfig.site_id == site_id).options(*without)
    keys = [BoxConfig.version]
    return Answer(page(unit.session, query, keys, cursor, limit, view, newest_first=True))


@router.get("/diff", response_model=Diff)
@reads(OPERATOR, ADMIN, READER)
def diff_configs(
    unit: Reading,
    tenant_id: TenantId,
    site_id: SiteId,
    old: Annotated[int, Query(ge=0, le=2**31, description="0: nothing")],
    new: Annotated[int, Query(ge=1, le=2**31)],
) -> Answer:
    """What changes from one version to another, layouts included."""
    before = _files(_of(unit, tenant_id, site_id, old)) if old else {}
    after = _files(_of(unit, tenant_id, site_id, new))
    lines = line_diff.unified(before, after, f"version {old}", f"version {new}")
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return Answer(Diff(old=old, new=new, diff=line_diff.cut(text, MAX_DIFF_BYTES)))


@router.get("/{version}", response_model=ConfigText)
@reads(OPERATOR, ADMIN, READER, BOX)
def get_config(unit: Reading, tenant_id: TenantId, site_id: SiteId, version: Version) -> Answer:
    """One version with its text."""
    row = _of(unit, tenant_id, site_id, version)
    return Answer(_full(row), version=row.version)


def _of(unit: Unit, tenant_id: str, site_id: str, version: int) -> BoxConfig:
    row = unit.session.get(BoxConfig, (tenant_id, site_id, version))
    if row is None:
        raise Refusal("not-found")
    return row


def _files(row: BoxConfig) -> dict[str, list[str]]:
    """Their lines, with the ends."""
    files = {"config.yaml": row.yaml, **dict(sorted(row.layouts.items()))}
    return {name: text.splitlines(keepends=True) for name, text in files.items()}
