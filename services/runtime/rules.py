"""What one key alone cannot tell: names that stand twice, references, retention.

Every rule judges what it can, and leaves out what depends on a value that is wrong itself
(Unknown, services/runtime/judged.py).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from bus import topology
from services.protocols.s7.model import S7Group, S7Plc
from services.runtime import alert_rules, mirror_rules, oee_rules
from services.runtime.config import BrokerOutput, OpcuaOutput, Output, SparkplugOutput
from services.runtime.consumers import reserved
from services.runtime.document import KeyPath, dotted
from services.runtime.errors import Problem
from services.runtime.judged import Unknown
from services.runtime.plc_model import GroupBase
from services.runtime.site import Site
from services.s7.address import AddressError, parse_address
from services.s7.field import Field
from services.s7.layout import BLOCK_BYTES

# Raw retention of each plan in days (docs/ESTRATEGIA_RETENCAO_DADOS.md): what is replayed later
# than that, Telegraf drops.
RAW_RETENTION_DAYS = {"free": 3, "pro": 7, "enterprise": 30}
# Values of one scan; a block holds 32,768 words, or 524,288 bits.
GROUP_VALUES = 100_000
# Of 500 names the nearest one is found in a ms.
NAMES_COMPARED, NAMES_SHOWN = 500, 50
PLAIN_MQTT_PORT, TLS_MQTT_PORT = 1883, 8883


def broken(site: Site) -> Iterator[Problem]:
    """Every broken rule between keys; of groups and their fields, the two below."""
    for check in (
        _duplicates, _alive, _sources, mirror_rules.check, _tenants, alert_rules.check, _retention,
        _paths, _edge_nodes, oee_rules.check,
    ):  # fmt: skip
        with suppress(Unknown):
            yield from check(site)


def known(items: Sequence[Any], key: str) -> list[Any]:
    """A key of each item, None where it is not known."""
    return [getattr(item, key, None) for item in items]


def _duplicates(site: Site) -> Iterator[Problem]:
    config = site.config
    for key, items in (("plcs", "id"), ("outputs", "name"), ("mirrors", "name")):
        with suppress(Unknown):
            yield from _twice(site, (key,), items, getattr(config, key))
    for i, plc in enumerate(config.plcs):
        with suppress(Unknown):
            yield from _twice(site, ("plcs", i, "groups"), "name", plc.groups)
    for i, name in enumerate(known(config.outputs, "name")):
        if name in reserved():
            message = f"{name!r} is the name of a process that takes messages itself"
            yield site.problem(("outputs", i, "name"), message, "rename it")


def _twice(site: Site, at: KeyPath, key: str, items: Sequence[Any]) -> Iterator[Problem]:
    names = known(items, key)
    for name, times in Counter(n for n in names if n is not None).items():
        if times > 1:
            last = len(names) - 1 - names[::-1].index(name)
            message = f"{name!r} stands {times} times in `{dotted(at)}`"
            yield site.problem((*at, last, key), message, "rename one")


def _alive(site: Site) -> Iterator[Problem]:
    for i, plc in enumerate(site.config.plcs):
        with suppress(Unknown):
            if isinstance(plc, S7Plc) and plc.alive is not None:
                try:
                    parse_address(plc.alive.address)
                except AddressError as e:
                    yield site.problem(("plcs", i, "alive", "address"), str(e), e.hint)


def named_fields(
    site: Site, at: KeyPath, group: GroupBase, fields: Sequence[Field], names: set[str]
) -> Iterator[Problem]:
    """Keys of a group that name a field, one that there is none of, or of the wrong type.

    ``fields`` are those that are right, ``names`` those of all.
    """
    with suppress(Unknown):
        wanted = group.timestamp if isinstance(group, S7Group) else None
        stamp = next((f for f in fields if f.name == wanted), None)
        if stamp is not None and stamp.type not in ("DTL", "DT", "LDT"):
            hint = "use a field of type DTL, DT or LDT"
            yield site.problem((*at, "timestamp"), f"{stamp.name} is {stamp.type}", hint)
        if wanted is not None and wanted not in names:
            hint = near(wanted, names) or "name a field of this group"
            yield site.problem((*at, "timestamp"), f"no field is named {wanted!r}", hint)
    with suppress(Unknown):
        for i, name in enumerate(group.trend):
            if name not in names:
                hint = near(name, names) or "name a field"
                yield site.problem((*at, "trend", i), f"no field is named {name!r}", hint)


def extent(site: Site, at: KeyPath, group: GroupBase, fields: Sequence[Field]) -> Iterator[Problem]:
    """What is wrong with the extent of a group; ``fields`` are those that are right."""
    if isinstance(group, S7Group):
        yield from _bytes(site, at, group, fields)
    with suppress(Unknown):
        count = len(fields) * len(group.bases())
        if count > GROUP_VALUES:
            hint = f"at most {GROUP_VALUES:,} a group: read arrays, or make two groups"
            yield site.problem((*at, _source_key(group)), f"has {count:,} values", hint)


def _source_key(group: GroupBase) -> str:
    """What the number of a group's values and bytes comes from."""
    repeats = isinstance(group, S7Group) and group.machines
    return "machines" if repeats else "layout" if group.layout else "fields"


def _bytes(site: Site, at: KeyPath, group: S7Group, fields: Sequence[Field]) -> Iterator[Problem]:
    begin = min((f.byte for f in fields), default=0)
    end = max((f.byte + f.size_bytes for f in fields), default=1)
    with suppress(Unknown):
        key = _source_key(group)
        if group.machines and group.machines.count > 1 and group.machines.stride < end - begin:
            message = f"machines overlap: one record is {end - begin} bytes, the stride is"
            hint = f"set `stride: {end - begin + (end - begin) % 2}` or more"
            yield site.problem((*at, key), f"{message} {group.machines.stride}", hint)
        last = group.bases()[-1] + end
        if last > BLOCK_BYTES:
            hint = f"a block ends at byte {BLOCK_BYTES - 1}"
            yield site.problem((*at, key), f"reaches byte {last - 1}", hint)
    with suppress(Unknown):
        inside = [f for f in fields if (f.area, f.db) == ("DB", group.db)]
        if group.raw is True and group.db is not None and fields and not inside:
            hint = "give the range: raw: {start: 0, length: 400}"
            yield site.problem((*at, "raw"), f"no field lies in DB{group.db}", hint)


def near(wanted: str, names: Any) -> str:
    """The hint that names what is nearest; empty where nothing is near."""
    found = difflib.get_close_matches(wanted, list(names)[:NAMES_COMPARED], n=1)
    return f"did you mean `{found[0]}`?" if found else ""


def _sources(site: Site) -> Iterator[Problem]:
    """Mirrors of nobody."""
    plcs = site.config.plcs
    for i, mirror in enumerate(site.config.mirrors):
        with suppress(Unknown):
            key = "plc"
            names, wanted = known(plcs, "id"), mirror.source.plc
            if wanted in names:
                key = "group"
                names = known(plcs[names.index(wanted)].groups, "name")
                wanted = mirror.source.group
            if wanted not in names and None not in names:
                others = list(dict.fromkeys(names))[:NAMES_SHOWN]
                hint = near(wanted, others) or f"one of: {', '.join(others)}"
                message = f"no {key} is named {wanted!r}"
                yield site.problem(("mirrors", i, "source", key), message, hint)


def _users_tenants(site: Site, i: int, output: Output, tenants: list[str]) -> Iterator[Problem]:
    for u, user in enumerate(output.users if isinstance(output, OpcuaOutput) else []):
        for tenant in user.locatarios or []:
            shown = tenants if output.locatarios is None else output.locatarios
            if tenant not in shown:
                message = f"this output shows nothing of {tenant!r}"
                hint = f"one of: {', '.join(shown[:NAMES_SHOWN])}"
                yield site.problem(("outputs", i, "users", u, "locatarios"), message, hint)


def _tenants(site: Site) -> Iterator[Problem]:
    tenants = site.config.tenants()
    for i, output in enumerate(site.config.outputs):
        with suppress(Unknown):
            for tenant in output.locatarios or []:
                if tenant not in tenants:
                    message = f"no PLC belongs to {tenant!r}"
                    hint = f"one of: {', '.join(tenants[:NAMES_SHOWN])}"
                    yield site.problem(("outputs", i, "locatarios"), message, hint)
        with suppress(Unknown):
            yield from _users_tenants(site, i, output, tenants)
    for tenant in site.config.quotas:
        if tenant not in tenants:
            hint = near(tenant, tenants) or f"one of: {', '.join(tenants[:NAMES_SHOWN])}"
            yield site.problem(("quotas", tenant), f"no PLC belongs to {tenant!r}", hint)


def _retention(site: Site) -> Iterator[Problem]:
    for tenant, plan in site.config.infra.plan.items():
        days = RAW_RETENTION_DAYS[plan]
        if site.config.store.max_age > days * 86_400:
            message = (
                f"is longer than the {days} d that plan {plan!r} of {tenant!r} keeps raw values:"
                " Telegraf would drop what is replayed later"
            )
            hint = f"set `max_age: {days}d` or a larger plan"
            yield site.problem(("store", "max_age"), message, hint)


def _paths(site: Site) -> Iterator[Problem]:
    """ipc paths that are too long for a socket."""
    config = site.config
    for wire in topology.WIRES.values():
        with suppress(Unknown):
            items = [""]
            if wire.per:
                plcs = wire.per == "plc"
                consumers = [*known(config.outputs, "name"), *reserved()]
                items = known(config.plcs, "id") if plcs else consumers
            for item in items:
                try:
                    if item is not None:
                        topology.endpoint(config.paths.runtime, wire.name, item)
                except ValueError as e:
                    yield site.problem(("paths", "runtime"), str(e))
                    return


def _edge_nodes(site: Site) -> Iterator[Problem]:
    """Two Sparkplug outputs at one broker would be the same edge node twice."""
    used: dict[tuple[str, int, str], str] = {}
    for i, output in enumerate(site.config.outputs):
        with suppress(Unknown):
            if not isinstance(output, SparkplugOutput):
                continue
            tenants = output.locatarios or site.config.tenants()
            places = [
                (host, output.port, tenant) for host in output.all_hosts for tenant in tenants
            ]
            twin = next((used[place] for place in places if place in used), None)
            if twin is not None:
                message = f"{twin!r} is the same edge node at the same broker"
                hint = "leave one of them, or give each other `locatarios:`"
                yield site.problem(("outputs", i), message, hint)
            used |= dict.fromkeys(places, output.name)


def unwise(site: Site) -> Iterator[Problem]:
    """What is allowed, and most probably not meant, or better known. The site is whole."""
    for i, plc in enumerate(site.config.plcs):
        message, hint = plc.caution
        if message:
            yield site.problem(("plcs", i, "protocol"), message, hint)
    for i, output in enumerate(site.config.outputs):
        if not isinstance(output, BrokerOutput):
            continue
        if output.port == PLAIN_MQTT_PORT and output.tls:
            message = f"{output.port} is a broker's port without TLS, and TLS is on by default"
            hint = f"`tls: false`, or the broker's TLS port (`port: {TLS_MQTT_PORT}`)"
            yield site.problem(("outputs", i, "port"), message, hint)
        if isinstance(output, SparkplugOutput) and output.primary_host is None:
            message = "no `primary_host`: what the broker takes while the host is away is lost"
            hint = "`primary_host:` with the host application's id (docs/sparkplug.md)"
            yield site.problem(("outputs", i), message, hint)
