"""What VictoriaMetrics holds: which process keeps which bucket, and who may write and read it.

A single node has one retention and no tenants. So there is one process (a store) for each number of
days that a bucket of anybody's is kept, and vmauth before them: an account of it is one bucket of
one tenant, in one direction. vmauth adds the labels ``locatario_id`` and ``bucket`` to each request
of an account as ``extra_label``. VictoriaMetrics puts them over those of each point that is
written, and narrows every selector of a query by them, whatever filters the query brings: of a
request's own ``extra_filters`` any one would do, so those are not used to separate anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.infra.model import Fleet
from services.infra.tenant import (
    PLATFORM,
    PLATFORM_DAYS,
    READER,
    WRITERS,
    Bucket,
    buckets,
    slug,
)

# Condensed points come again when late data did; the newest of each minute holds (condense.py).
MINUTE = "1m"
WRITE = ("/write",)
# What Grafana's Prometheus data source asks. No export, no deletion, nothing about the process.
READ = (
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/[^/]+/values",
)


@dataclass(frozen=True, slots=True, order=True)
class Store:
    """One VictoriaMetrics: every bucket, of any tenant, that is kept as long."""

    days: int
    condensed: bool

    @property
    def name(self) -> str:
        """Of its process, folder and file."""
        return f"vm-resumo-{self.days}d" if self.condensed else f"vm-{self.days}d"

    @property
    def variable(self) -> str:
        """Which holds its URL, for vmauth and the condenser."""
        return f"{slug(self.name)}_URL"

    @property
    def settings(self) -> dict[str, str]:
        """Its flags, as ``-envflag.enable`` reads them."""
        return {
            "retentionPeriod": f"{self.days}d",
            # A message that came twice is one point.
            "dedup_minScrapeInterval": MINUTE if self.condensed else "1ms",
            "influxMeasurementFieldSeparator": ":",
            # A message may have a tag `db`: the PLC's data block.
            "influxDBLabel": "bucket",
            # Points are whole when they come; the default hides the newest 30 s.
            "search_latencyOffset": "0s",
        }


@dataclass(frozen=True, slots=True)
class Account:
    """One user of vmauth. ``file`` holds its password, ``variable`` brings it to who uses it."""

    name: str
    file: str
    variable: str
    paths: tuple[str, ...]
    store: Store
    labels: tuple[tuple[str, str], ...]


def store(bucket: Bucket) -> Store:
    """Which keeps it."""
    return Store(bucket.days, bucket.condensed)


def tenants(fleet: Fleet) -> dict[str, list[Bucket]]:
    """Every tenant's buckets, and the operator's own."""
    own = [Bucket("platform_metrics", PLATFORM_DAYS)]
    return {**{t.id: buckets(t.raw_days) for t in fleet.tenants}, PLATFORM: own}


def stores(fleet: Fleet) -> list[Store]:
    """All that are needed."""
    return sorted({store(b) for found in tenants(fleet).values() for b in found})


def password_variable(tenant: str, kind: str) -> str:
    """In the environment of whoever uses an account."""
    return f"VM_PASSWORD_{slug(tenant)}_{kind}"


def reader(tenant: str, bucket: str) -> str:
    """The account that reads a bucket."""
    return f"{tenant}-{bucket}-{READER.kind}"


def accounts(fleet: Fleet) -> Iterator[Account]:
    """Every one."""
    for tenant, found in tenants(fleet).items():
        for bucket in found:
            labels = (("locatario_id", tenant), ("bucket", bucket.name))
            for writer in WRITERS:
                if writer.bucket == bucket.name:
                    file = writer.file(tenant) if tenant != PLATFORM else f"{PLATFORM}-escrita"
                    variable = password_variable(tenant, writer.variable or "")
                    yield Account(file, file, variable, WRITE, store(bucket), labels)
            # One secret reads all of a tenant's buckets, as one token does in InfluxDB.
            variable = password_variable(tenant, "LEITURA")
            name = reader(tenant, bucket.name)
            yield Account(name, READER.file(tenant), variable, READ, store(bucket), labels)


def secrets(fleet: Fleet) -> list[tuple[str, str, bool]]:
    """(file, variable, whether Telegraf needs it) of every password."""
    found = {(a.file, a.variable, a.paths is WRITE) for a in accounts(fleet)}
    return sorted(found)


def condenser(fleet: Fleet) -> dict[str, Any]:
    """What the condenser is told (services/infra/condense.py)."""
    return {
        "stores": {s.name: s.variable for s in stores(fleet)},
        "tenants": [
            {
                "id": t.id,
                "raw_days": t.raw_days,
                "buckets": {b.name: store(b).name for b in t.buckets if b.name.startswith("proc")},
            }
            for t in fleet.tenants
        ],
        "booleans": fleet.booleans,
        "counters": fleet.counters,
    }
