"""A PLC of ``protocol: s7plus``, as ``doctor`` looks at it: session, trust, state, every tag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from services.cli.doctor_finding import Finding
from services.protocols.s7plus import words
from services.protocols.s7plus.model import S7PlusPlc
from services.runtime import render
from services.runtime.errors import ConfigError, PlcUnavailable
from services.runtime.site import Site

if TYPE_CHECKING:  # s7commplus is loaded where such a PLC is
    from services.protocols.s7plus.cpu import Cpu

_SHOWN = 5


def check(site: Site, plc: S7PlusPlc, host: str) -> Iterator[Finding]:
    """All findings at one of its addresses."""
    from services.protocols.s7plus.access import access
    from services.protocols.s7plus.cpu import Cpu

    subject = f"plc {plc.id}" + (f" at {host}" if plc.hosts else "")
    try:
        config = access(render.render(site)[f"reader-{plc.id}"]["plc"])
        cpu = Cpu(host, plc.port, config, plc.timeout)
    except ConfigError as e:
        problem = e.problems[0]
        yield Finding("error", subject, "password", problem.message, problem.hint)
        return
    except PlcUnavailable as e:
        yield _error(subject, e)
        return
    try:
        yield Finding("ok", subject, "connection", f"{host}:{plc.port}: {cpu.description}")
        yield from _trust(subject, plc, cpu)
        if cpu.state() == "STOP":
            yield Finding("warning", subject, "cpu_stop", "the CPU is in STOP: its data is frozen",
                          "switch it to RUN")  # fmt: skip
        yield from _tags(site, plc, subject, cpu)
    except PlcUnavailable as e:
        yield _error(subject, e)
    finally:
        cpu.close()


def _error(subject: str, e: PlcUnavailable) -> Finding:
    """What is the CPU's to change is in the message."""
    fix = "check `host:` and `port:`, the cable, and the PLC's power"
    return Finding("error", subject, e.code, e.message, "" if "TIA Portal" in e.message else fix)


def _trust(subject: str, plc: S7PlusPlc, cpu: Cpu) -> Iterator[Finding]:
    if not cpu.has_tls:
        fix = f"{words.ENCRYPT}, then `tls: required`"
        yield Finding("warning", subject, "not_encrypted", words.NOT_ENCRYPTED, fix)
    elif plc.fingerprint is None and plc.ca is None:
        text = f"anybody may be at the other end: the certificate {cpu.fingerprint} is not pinned"
        fix = "compare it with the CPU's (docs/s7plus.md), then give it as `fingerprint:`"
        yield Finding("warning", subject, "not_pinned", text, fix)
    else:
        yield Finding("ok", subject, "pinned", "the certificate is the one that is trusted")


def _tags(site: Site, plc: S7PlusPlc, subject: str, cpu: Cpu) -> Iterator[Finding]:
    from services.protocols.s7plus.plan import Tag, make_plan, values_of
    from services.protocols.s7plus.values import Refused

    tree = cpu.tree()
    for group in plc.groups:
        fields = site.fields[plc.id, group.name]
        tags = [Tag(f.name, (f.tag or {})["symbol"], f.s7_type) for f in fields]
        plan = make_plan(tree, tags, cpu.qualifier_version)
        where = f"{subject} group {group.name}"
        try:
            _, bad = values_of(plan, cpu.read(plan))
        except Refused as e:
            text = words.read_refused(cpu.host, str(e))
            yield Finding("error", where, "access_denied", text)
            continue
        if not bad:
            requests = len(plan.requests)
            text = f"{len(tags)} tags are read with {requests} requests"
            yield Finding("ok", where, "read", text)
            continue
        looked_up = {tags[n].name: str(e) for n, e in plan.refused.items()}
        told = [looked_up.get(name, f"{name}: {why}") for name, why in bad.items()]
        text = f"{len(bad)} of {len(tags)} tags have no value: {'; '.join(told[:_SHOWN])}"
        fix = f"look up their symbols: `plc-edge browse {plc.id}`"
        yield Finding("error", where, "tags_refused", text, fix)
