"""What a configuration will do: telegrams, time and messages of each scan. `plc-edge check` prints
it; the centre judges a configuration by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from services.protocols.s7.model import S7Group, S7Plc
from services.runtime.errors import Problem
from services.runtime.judged import Unknown
from services.runtime.plc_model import GroupBase, PlcBase
from services.runtime.site import Site, raw_range
from services.s7.field import Field
from services.s7.plan import Extent, Plan, make_plan

# What a box was measured to deliver through one output, messages per second (docs/sizing.md).
DRAIN_PER_S = 5_000


def rows(site: Site, rtt_s: float, jobs: int) -> list[dict[str, Any]]:
    """One row per PLC and group: the read plan, and the time a scan takes at that round trip."""
    return [row for plc in site.config.plcs for row in _plc_rows(site, plc, rtt_s, jobs)]


def torn(site: Site) -> Iterator[Problem]:
    """Groups that are to come in one telegram and do not fit."""
    for at, plc, group in site.groups():
        with suppress(Unknown):
            if not isinstance(plc, S7Plc) or not isinstance(group, S7Group):
                continue
            if group.consistent and (n := len(group_plan(site, plc, group, plc.pdu).telegrams)) > 1:
                message = f"needs {n} telegrams at PDU {plc.pdu}"
                hint = "read fewer bytes or remove `consistent:`"
                yield site.problem((*at, "consistent"), message, hint)


def group_plan(site: Site, plc: S7Plc, group: S7Group, pdu_bytes: int) -> Plan:
    """The plan of one group at a PDU. Raises Unknown where one of its fields is wrong."""
    fields = site.fields_of(plc, group)
    extents = {_extent(f, base) for base in group.bases() for f in fields}
    if group.raw is not False:
        start, length = raw_range(site, plc, group)
        extents.add(Extent("DB", group.db or 0, start, length))
    return make_plan(extents, pdu_bytes)


def _extent(f: Field, base: int) -> Extent:
    return Extent(f.area, f.db, f.byte + base, f.size_bytes)


def _plc_rows(site: Site, plc: PlcBase, rtt_s: float, jobs: int) -> list[dict[str, Any]]:
    if not isinstance(plc, S7Plc):
        return [_row(site, plc, group) for group in plc.groups]
    rows = []
    parallel = jobs if plc.parallel_jobs == "auto" else plc.parallel_jobs
    for group in plc.groups:
        plan = group_plan(site, plc, group, plc.pdu)
        small = group_plan(site, plc, group, 240)
        scan_s = plan.scan_s(rtt_s, parallel)
        rows.append(
            _row(site, plc, group)
            | {
                "requests": len(plan.telegrams),
                "requests_pdu_240": len(small.telegrams),
                "bytes": plan.data_bytes,
                "estimated_ms": round(scan_s * 1_000, 1),
                "slow": scan_s > group.scan,
            }
        )
    return rows


def _row(site: Site, plc: PlcBase, group: GroupBase) -> dict[str, Any]:
    """What is known of a group whatever it is read by: where its fields are tags, the PLC decides
    on the requests, and nothing is estimated.
    """
    return {
        "plc": plc.id,
        "group": group.name,
        "scan_ms": round(group.scan * 1_000),
        "fields": len(site.fields[plc.id, group.name]) * len(group.bases()),
        "messages": len(group.bases()),
        "requests": None,
        "requests_pdu_240": None,
        "bytes": None,
        "estimated_ms": None,
        "slow": False,
    }


def warnings(site: Site, rows: list[dict[str, Any]]) -> list[str]:
    """What is allowed and will hurt."""
    found = [
        f"{r['plc']}/{r['group']}: a scan is estimated at {r['estimated_ms']} ms, longer than its"
        f" {r['scan_ms']} ms: it will overrun"
        for r in rows
        if r["slow"]
    ]
    per_s = sum(r["messages"] * 1_000 / r["scan_ms"] for r in rows)
    if per_s * 2 > DRAIN_PER_S:
        found.append(
            f"up to {per_s:.0f} messages/s come in, {DRAIN_PER_S} go out: after an outage the"
            " backlog shrinks slowly or not at all; scan slower or publish on_change"
        )
    maximum = site.config.store.replay.max_rate
    if maximum is not None and maximum <= per_s:
        found.append(
            f"store.replay.max_rate is {maximum}/s, {per_s:.0f} messages/s come in: a backlog"
            " never shrinks"
        )
    return found
