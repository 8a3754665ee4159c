"""Alert rules against what there is: PLCs, groups, machines, fields, of one box or of several."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from services.runtime.alert_model import (
    AlertAbsence,
    AlertPercentage,
    AlertRateChange,
    AlertStateFor,
    AlertWhere,
)
from services.runtime.document import KeyPath
from services.runtime.patterns import matches
from services.runtime.site import Site
from services.s7.field import Field

HEARTBEAT = "heartbeat"
HEARTBEAT_FIELDS = (
    "status", "scan_ms", "latency_ms", "reads_ok", "reads_failed", "uptime_s", "pending",
    "interval_s", "failure",
)  # fmt: skip
"""Of CONTRACT §4; `failure` is its code, empty where there is none."""
# Of so many names the nearest is found in some ms.
NAMES_COMPARED = 2_000
_TEXT = ("STRING", "WSTRING", "CHAR", "WCHAR", "DATE", "TOD", "LTOD", "DT", "LDT", "DTL")


class Mistake(NamedTuple):
    """One broken rule, at a key below ``alerts``."""

    path: KeyPath
    message: str
    hint: str = ""


class AnyGroup(Protocol):
    """What a rule must know of a group: a model's, or one that the centre keeps."""

    @property
    def name(self) -> str:
        """As the rules spell it."""

    @property
    def scan(self) -> float:
        """s"""

    @property
    def publish(self) -> str:
        """``on_change``: a value that does not come may still hold."""

    @property
    def max_silence(self) -> float:
        """s"""


class Known(NamedTuple):
    """A group of a PLC, with its machines ("" alone where nothing repeats) and fields by name."""

    tenant: str
    plc: str
    group: AnyGroup
    machines: list[str]
    fields: dict[str, Field]


class Layouts:
    """What there is, of one box or of several, and which of it a rule means."""

    def __init__(self, tenants: list[str], sites: list[str], groups: list[Known]) -> None:
        self._tenants, self._sites, self._groups = tenants, sites, groups

    @classmethod
    def of(cls, site: Site) -> Layouts:
        """Of one box. Raises Unknown where that is not known."""
        config = site.config
        groups = [
            Known(
                config.tenant(plc),
                plc.id,
                group,
                [m or "" for m, _ in group.records()],
                {f.name: f for f in site.fields_of(plc, group)},
            )
            for plc in config.plcs
            for group in plc.groups
        ]
        return cls(config.tenants(), [config.site], groups)

    def check(self, c: Any, where: AlertWhere, at: KeyPath, unit: str | None) -> Iterator[Mistake]:
        """The first mistake at each key of one condition."""
        said: dict[KeyPath, Mistake] = {}
        for mistake in self._check(c, where, at, unit):
            said.setdefault(mistake.path, mistake)
        yield from said.values()

    def _check(self, c: Any, where: AlertWhere, at: KeyPath, unit: str | None) -> Iterator[Mistake]:
        kind = c.what(where) if isinstance(c, AlertAbsence) else ""
        known: list[tuple[str, Iterable[str]]] = [
            ("tenant", self._tenants),
            ("site", self._sites),
        ]
        for key, names in known:
            if mistake := _unknown(where, key, names, at):
                yield mistake
                return
        if kind in ("box", "link"):
            return
        groups = [g for g in self._groups if matches(where.tenant or "*", g.tenant)]
        if mistake := _unknown(where, "plc", dict.fromkeys(g.plc for g in groups), at):
            yield mistake
            return
        groups = [g for g in groups if matches(where.plc or "*", g.plc)]
        if kind in ("plc", "heartbeat"):
            return
        if where.group == HEARTBEAT:
            if mistake := _unknown(where, "field", HEARTBEAT_FIELDS, at):
                yield mistake
            return
        if mistake := _unknown(where, "group", dict.fromkeys(g.group.name for g in groups), at):
            yield mistake
            return
        groups = [g for g in groups if matches(where.group or "*", g.group.name)]
        machines = dict.fromkeys(m for g in groups for m in g.machines)
        if mistake := _unknown(where, "machine", machines, at):
            yield mistake
            return
        groups = [
            g for g in groups if any(matches(where.machine or "*", name) for name in g.machines)
        ]
        fields = dict.fromkeys(name for g in groups for name in g.fields)
        if mistake := _unknown(where, "field", fields, at):
            yield mistake
            return
        if where.field is None and not kind:
            return  # said already
        pattern = where.field or "*"
        for _, plc, group, _, found in groups:
            if "*" in pattern:
                mine = [f for name, f in found.items() if matches(pattern, name)]
            else:
                mine = [found[pattern]] if pattern in found else []
            if mine:
                yield from self._group(c, kind, plc, group, mine, found, at, unit)

    def _group(
        self,
        c: Any,
        kind: str,
        plc: str,
        group: AnyGroup,
        fields: list[Field],
        all_fields: dict[str, Field],
        at: KeyPath,
        unit: str | None,
    ) -> Iterator[Mistake]:
        place = f"{plc}/{group.name}"
        if kind == "value":
            if group.publish == "on_change" and c.for_s < group.max_silence + group.scan:
                message = (
                    f"is shorter than values of {place} may be silent: {group.max_silence:g} s"
                )
                yield Mistake((*at, "for"), message, "lengthen it, or shorten `max_silence:`")
            return
        if 0 < c.for_s < group.scan:
            message = f"is shorter than the scan of {place}: {group.scan:g} s"
            yield Mistake((*at, "for"), message, "lengthen it, or scan faster")
        numeric = not isinstance(c, AlertStateFor) and c.operator()[0] != "equal"
        for f in fields:
            base = f.type.partition("[")[0]
            if numeric and (base in _TEXT or f.s7_type.dims):
                message = f"{f.name} of {place} is {f.type}: no number to compare"
                yield Mistake((*at, "where", "field"), message, "compare with `equal:`")
            if unit is not None and f.unit != unit and not isinstance(c, AlertRateChange):
                message = f"is not {f.name}'s unit in {place}: {f.unit or 'none'}"
                yield Mistake((at[0], at[1], "unit"), message, "correct it, or remove `unit:`")
            counter = getattr(c, "counter", None) or getattr(
                getattr(c, "of", None), "counter", None
            )
            if isinstance(counter, str) and counter not in ("any", base):
                at_counter = "of" if isinstance(c, AlertPercentage) else ""
                path = (*at, *filter(None, (at_counter,)), "counter")
                yield Mistake(
                    path, f"is not {f.name}'s type in {place}", f"write `counter: {base}`"
                )
        if isinstance(c, AlertPercentage):
            for key, other in (("field", c.of.field), ("with", c.of.with_field)):
                if other is not None and other not in all_fields:
                    message = f"no field of {place} is named {other!r}"
                    yield Mistake((*at, "of", key), message, near(other, all_fields))


def _unknown(where: AlertWhere, key: str, names: Iterable[str], at: KeyPath) -> Mistake | None:
    """A mistake where no name is meant."""
    pattern = getattr(where, key)
    names = list(names)
    if pattern is None or any(matches(pattern, name) for name in names):
        return None
    key = spelt(key)
    path = (*at, "where", key)
    if "*" in pattern:
        return Mistake(path, f"matches no {key}", some(names))
    return Mistake(path, f"no {key} is named {pattern!r}", near(pattern, names) or some(names))


def spelt(key: str) -> str:
    """A key of ``where`` as a file spells it."""
    return AlertWhere.model_fields[key].alias or key


def near(name: str, names: Iterable[str]) -> str:
    """The hint that names what is nearest; empty where nothing is near."""
    found = difflib.get_close_matches(name, list(names)[:NAMES_COMPARED], n=1)
    return f"did you mean `{found[0]}`?" if found else ""


def some(names: list[str]) -> str:
    """The hint that names what there is."""
    shown = [n for n in names if n]
    return f"one of: {', '.join(shown[:10])}" + (", …" if len(shown) > 10 else "") if shown else ""
