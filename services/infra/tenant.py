"""What one tenant has in InfluxDB and Grafana: every name, retention, token, task and data source.

The one source for both ways of making them: the scripts that ``plc-edge infra render`` writes, and
the control plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from services.runtime import assets
from services.runtime.rules import RAW_RETENTION_DAYS
from services.runtime.site import Site

DAY_S = 86_400
# Days kept in (raw, cleaned, one minute) per plan; one hour and platform are the same for all
# (docs/ESTRATEGIA_RETENCAO_DADOS.md). `check` compares store.max_age with the first.
RETENTION_DAYS = {
    plan: (raw, *rest)
    for (plan, raw), rest in zip(
        RAW_RETENTION_DAYS.items(), ((7, 30), (30, 180), (90, 365)), strict=True
    )
}
HOUR_DAYS, PLATFORM_DAYS = 365, 30
PLATFORM = "plataforma"
FOLDER = "plc-edge"
DATA_SOURCE_UID = "plc-edge-influx"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a tenant's organisation."""

    name: str
    days: int

    @property
    def condensed(self) -> bool:
        """Whether it holds what was made of points, and may be made of them again."""
        return self.name in ("processo_1m", "processo_1h")


def buckets(raw_days: int) -> list[Bucket]:
    """All of a tenant's, the finest first. A plan whose ``raw_days`` are nobody's usual ones keeps
    the coarser buckets as the largest usual plan below it does, and none shorter than a finer one.
    """
    usual = sorted(RETENTION_DAYS.values())
    _, clean, minute = max((t for t in usual if t[0] <= raw_days), default=usual[0])
    clean = max(clean, raw_days)
    return [
        Bucket("processo_raw", raw_days),
        Bucket("processo", clean),
        Bucket("processo_1m", max(minute, clean)),
        Bucket("processo_1h", max(HOUR_DAYS, clean)),
        Bucket("platform_metrics", PLATFORM_DAYS),
    ]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a tenant: for one writer, or for Grafana, which reads everything."""

    kind: str
    """In its file's name, ``<tenant>-<kind>``."""
    description: str
    bucket: str | None
    """The one that it writes; None reads all."""
    variable: str | None
    """In Telegraf's environment: ``INFLUX_TOKEN_<TENANT>_<variable>``."""

    def file(self, tenant: str) -> str:
        """Its name."""
        return f"{tenant}-{self.kind}"


WRITERS = tuple(
    Token(f"{name.lower()}-escrita", f"telegraf: {bucket}", bucket, name)
    for bucket, name in (
        ("processo_raw", "RAW"),
        ("processo", "PROCESSO"),
        ("platform_metrics", "PLATAFORMA"),
    )
)
READER = Token("leitura", "grafana", None, None)
TOKENS = (*WRITERS, READER)


def slug(name: str) -> str:
    """A name as part of a variable's name: ``planta-sp`` -> ``PLANTA_SP``."""
    return name.replace("-", "_").upper()


def bucket_source_uid(bucket: str) -> str:
    """Of the data source that reads one bucket of VictoriaMetrics."""
    return f"plc-edge-{bucket}"


def telegraf_variable(tenant: str, writer: Token) -> str:
    """In which Telegraf's configuration expects a writer's token."""
    return f"INFLUX_TOKEN_{slug(tenant)}_{writer.variable}"


# -- tasks -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kinds:
    """Names of fields by how they are condensed."""

    booleans: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    def conditions(self) -> tuple[list[str], list[str]]:
        """(booleans, counters) as the tasks name them. The same name elsewhere as something else
        is treated as a plain number.
        """
        booleans = self.booleans - self.counters - self.others
        return sorted(booleans), sorted(self.counters - self.booleans - self.others)


def kinds(site: Site) -> Kinds:
    """Of one box's configuration."""
    fields = [f for group in site.fields.values() for f in group]
    booleans = {f.name for f in fields if f.type == "BOOL"}
    counters = {f.name for f in fields if f.counts}
    others = {f.name for f in fields if f.type != "BOOL" and not f.counts}
    return Kinds(frozenset(booleans), frozenset(counters), frozenset(others))


def join(found: Iterable[Kinds]) -> Kinds:
    """Of several boxes."""
    parts = list(found)
    return Kinds(
        frozenset().union(*(p.booleans for p in parts)),
        frozenset().union(*(p.counters for p in parts)),
        frozenset().union(*(p.others for p in parts)),
    )


@dataclass(frozen=True, slots=True)
class Task:
    """One Flux task. ``name`` is what its ``option task`` says; ``file`` where the script reads it,
    which tells the two nightly ones of different plans apart.
    """

    name: str
    file: str
    flux: str


def templates() -> jinja2.Environment:
    """Of everything that is rendered."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets.path("infra/templates")),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters["slug"] = slug
    return env


def tasks(booleans: Sequence[str], counters: Sequence[str], raw_days: int) -> list[Task]:
    """All four of a tenant: minutes and hours as they come, and again every night."""
    env, found = templates(), []
    fields = {"booleans": booleans, "counters": counters}
    steps = (("1m", env.get_template("influxdb/minuto.flux.j2")),
             ("1h", env.get_template("influxdb/hora.flux.j2")))  # fmt: skip
    for step, template in steps:
        name = f"plc_edge_{step}"
        found.append(Task(name, name, template.render(fields)))
    for step, template in steps:
        name = f"plc_edge_{step}_recalculo"
        flux = template.render(fields, recompute_days=raw_days)
        found.append(Task(name, f"{name}_{raw_days}d", flux))
    return found


# -- Grafana ---------------------------------------------------------------------------------


def data_source(tenant: str, influx_url: str) -> dict[str, Any]:
    """A tenant's one data source, without its token: as Grafana's API takes it."""
    return {
        "name": f"InfluxDB {tenant}",
        "uid": DATA_SOURCE_UID,
        "type": "influxdb",
        "access": "proxy",
        "url": influx_url,
        "isDefault": True,
        "jsonData": {"version": "Flux", "organization": tenant, "defaultBucket": "processo"},
    }
