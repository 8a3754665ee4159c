"""What a configuration says of its series, as far as rules on them must know it: plain data, so
that the centre, which keeps the configurations of a tenant's boxes, can hold rules against them
without reading any again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.runtime.alert_layouts import Known, Layouts
from services.runtime.alert_rules import SLACK_S
from services.runtime.site import Site
from services.s7.field import Field

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Series:
    """A group of a PLC."""

    plc: str
    name: str
    """Of the group."""
    scan: float
    """s"""
    publish: str
    max_silence: float
    """s"""
    machines: list[str]
    """[""] where nothing repeats."""
    fields: list[Field]


def of_site(site: Site) -> list[Plain]:
    """What ``unpack`` takes, for JSON."""
    return [
        {
            "plc": plc.id,
            "group": group.name,
            "scan_s": group.scan,
            "publish": group.publish,
            "max_silence_s": group.max_silence,
            "machines": [m or "" for m, _ in group.records()],
            "fields": [
                {"name": f.name, "type": f.type, **({"unit": f.unit} if f.unit else {})}
                for f in site.fields[plc.id, group.name]
            ],
        }
        for plc in site.config.plcs
        for group in plc.groups
    ]


def unpack(packed: Iterable[Plain]) -> list[Series]:
    """The series of one box."""
    return [
        Series(
            s["plc"],
            s["group"],
            s["scan_s"],
            s["publish"],
            s["max_silence_s"],
            s["machines"],
            [Field.from_dict(f) for f in s["fields"]],
        )
        for s in packed
    ]


def layouts(tenant: str, sites: Sequence[str], series: Iterable[Series]) -> Layouts:
    """To hold rules of one tenant against."""
    groups = [Known(tenant, s.plc, s, s.machines, {f.name: f for f in s.fields}) for s in series]
    return Layouts([tenant], list(sites), groups)


def holds_ms(series: Iterable[Series]) -> list[tuple[str, str, int]]:
    """(PLC, group, how long a value counts as held)."""
    return [(s.plc, s.name, round((s.max_silence + s.scan + SLACK_S) * 1_000)) for s in series]


def streams(series: Iterable[Series], plc: str) -> list[tuple[str, str, list[str]]]:
    """(group, machine, fields) of one PLC: what ought to speak."""
    return [
        (s.name, machine, [f.name for f in s.fields])
        for s in series
        if s.plc == plc
        for machine in s.machines
    ]
