"""``shifts:`` and ``oee:`` against each other and the layouts, and their plain form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from services.oee.core.calendar import Calendar
from services.runtime.alert_base import DAYS
from services.runtime.alert_layouts import near, some
from services.runtime.document import KeyPath
from services.runtime.errors import Problem
from services.runtime.measured import COUNTER_BITS
from services.runtime.oee_model import OeeCounter, OeeField, OeeMachine, ShiftEmail, Shifts
from services.runtime.plc_model import GroupBase, PlcBase
from services.runtime.site import Site

# A year without clock changes that matter: its weeks show which shifts overlap.
_WEEK = date(2026, 11, 30)


def check(site: Site) -> Iterator[Problem]:
    """Every mistake between keys."""
    config = site.config
    if config.shifts is not None:
        yield from _check_shifts(site, config.shifts)
    names = Counter(m.name for m in config.oee)
    for i, machine in enumerate(config.oee):
        if names[machine.name] > 1:
            yield site.problem(("oee", i, "name"), f"{machine.name!r} is there twice")
        yield from _check_machine(site, machine, ("oee", i))
    if config.oee and config.shifts is None:
        hint = "add `shifts: {week: [{name: dia, from: 06:00, to: 22:00}]}`"
        yield site.problem(("oee",), "needs `shifts:`: OEE is that of a shift", hint)
    if config.oee and config.history is None:
        hint = "add `history: {}`"
        yield site.problem(("oee",), "needs `history:`: it is computed from what is kept", hint)
    if config.shifts is not None and config.shifts.email is not None and not config.oee:
        yield site.problem(("shifts", "email"), "has nothing to report: there is no `oee:`")


def _check_shifts(site: Site, shifts: Shifts) -> Iterator[Problem]:
    names = [s.name for s in shifts.week]
    for i, name in enumerate(names):
        if name in names[:i]:
            message = f"{name!r} is there twice"
            hint = "other hours on other days are another shift: give it a name of its own"
            yield site.problem(("shifts", "week", i, "name"), message, hint)
    taken: dict[date, int] = {}
    for i, exception in enumerate(shifts.exceptions):
        for name in exception.shifts:
            if name not in names:
                where = ("shifts", "exceptions", i, "shifts")
                hint = near(name, names) or some(names)
                yield site.problem(where, f"no shift is named {name!r}", hint)
        for day in _days(exception):
            if day in taken:
                message = f"{day} is an exception already: number {taken[day] + 1}"
                yield site.problem(("shifts", "exceptions", i), message)
                break
            taken[day] = i
    calendar = Calendar.from_spec(shifts_spec(shifts), ZoneInfo("UTC"))
    days = {_WEEK + timedelta(days=n) for n in range(9)}
    days |= {d + timedelta(days=n) for d in taken for n in (-1, 0, 1)}
    found = [s for day in sorted(days) for s in calendar.of_day(day)]
    found.sort(key=lambda s: s.begin_ms)
    said = set()
    for a, b in pairwise(found):
        if a.end_ms > b.begin_ms and (a.name, b.name) not in said:
            said.add((a.name, b.name))
            message = f"{b.name!r} begins at {b.day} before {a.name!r} ends"
            yield site.problem(("shifts", "week"), message, "a moment is in one shift at most")


def _check_machine(site: Site, machine: OeeMachine, at: KeyPath) -> Iterator[Problem]:
    plcs = {p.id: p for p in site.config.plcs}
    plc = plcs.get(machine.plc)
    if plc is None:
        hint = near(machine.plc, plcs) or some(list(plcs))
        yield site.problem((*at, "plc"), f"no PLC is named {machine.plc!r}", hint)
        return
    groups = {g.name: g for g in plc.groups}
    if machine.group not in groups:
        hint = near(machine.group, groups) or some(list(groups))
        yield site.problem((*at, "group"), f"{plc.id} has no group {machine.group!r}", hint)
        return
    records = [m or "" for m, _ in groups[machine.group].records()]
    if machine.machine is not None and machine.machine not in records:
        message = f"{plc.id}/{machine.group} has no machine {machine.machine!r}"
        hint = near(machine.machine, records) or some(records)
        yield site.problem((*at, "machine"), message, hint)
    used: list[tuple[str, OeeField]] = [("running", machine.running), *machine.counters().items()]
    used += [("reason", field) for field in machine.reason]
    for key, field in used:
        group = groups.get(field.group or machine.group)
        if group is None:
            hint = near(str(field.group), groups) or some(list(groups))
            yield site.problem((*at, key), f"{plc.id} has no group {field.group!r}", hint)
            continue
        fields = {f.name: f for f in site.fields_of(plc, group)}
        if _plain(field.field) not in fields and field.field not in fields:
            message = f"no field of {plc.id}/{group.name} is named {field.field!r}"
            hint = near(field.field, fields) or some(list(fields))
            yield site.problem((*at, key), message, hint)


def _plain(name: str) -> str:
    """An array's name, of an element of it."""
    head, _, number = name.rpartition(".")
    return head if head and number.isdigit() else name


def _days(exception: Any) -> Iterator[date]:
    begin, end = exception.begin or exception.day, exception.end or exception.day
    day = begin
    while day is not None and end is not None and day <= end:
        yield day
        day += timedelta(days=1)


def email_spec(email: ShiftEmail) -> dict[str, Any]:
    """As services/runtime/mail.py takes it, but for the secret and the path."""
    return email.model_dump(mode="json", by_alias=True, exclude={"password_file", "password", "ca"})


# --- the plain form --------------------------------------------------------------------------


def spec(site: Site) -> dict[str, Any]:
    """Shifts and machines as services/historian/oee.py takes them; there are shifts."""
    assert site.config.shifts is not None
    return {"shifts": shifts_spec(site.config.shifts), "machines": machine_specs(site)}


def shifts_spec(shifts: Shifts) -> dict[str, Any]:
    """As services/oee/core/calendar.py reads it."""
    return {
        "timezone": shifts.timezone,
        "plans": [
            {
                "name": s.name,
                "days": [DAYS.index(d) for d in s.days],
                "begin_min": s.begin,
                "end_min": s.end,
                "breaks": [[b.name, b.begin, b.end] for b in s.breaks],
            }
            for s in shifts.week
        ],
        "exceptions": {
            day.isoformat(): exception.shifts
            for exception in shifts.exceptions
            for day in _days(exception)
        },
    }


def machine_specs(site: Site) -> list[dict[str, Any]]:
    """As services/oee reads them, one for each machine."""
    plcs = {p.id: p for p in site.config.plcs}
    out = []
    for machine in site.config.oee:
        plc = plcs[machine.plc]
        group = next(g for g in plc.groups if g.name == machine.group)
        records = [m or "" for m, _ in group.records()]
        wanted = [machine.machine] if machine.machine is not None else records
        out += [_spec(site, machine, plc, record) for record in wanted]
    return out


def _spec(site: Site, machine: OeeMachine, plc: PlcBase, record: str) -> dict[str, Any]:
    groups = {g.name: g for g in plc.groups}

    def series(field: OeeField) -> list[str]:
        group = groups[field.group or machine.group]
        records = [m or "" for m, _ in group.records()]
        own = record if record in records else records[0]
        return [site.config.tenant(plc), plc.id, group.name, own, field.field]

    each = machine.machine is None and bool(record)
    op, limit = machine.running.operator()
    return {
        "name": f"{machine.name}-{record}" if each else machine.name,
        "running": {
            "series": series(machine.running),
            "op": op,
            "limit": limit if op != "equal" or isinstance(limit, list) else [limit],
        },
        "counters": {
            name: {
                "series": series(counter),
                "counter": counter.counter or _kind(site, plc, groups, machine, counter),
            }
            for name, counter in machine.counters().items()
        },
        "ideal_ms": None if machine.ideal_cycle is None else machine.ideal_cycle * 1_000,
        "min_stop_ms": round(machine.min_stop * 1_000),
        "reasons": [series(field) for field in machine.reason],
        "words": machine.reasons,
        "planned": machine.planned,
    }


def _kind(
    site: Site, plc: PlcBase, groups: dict[str, GroupBase], machine: OeeMachine, counter: OeeCounter
) -> str:
    fields = {f.name: f for f in site.fields[plc.id, counter.group or machine.group]}
    field = fields.get(counter.field) or fields[_plain(counter.field)]
    base = field.type.partition("[")[0]
    return base if base in COUNTER_BITS and field.scale is None else "any"
