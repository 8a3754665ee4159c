"""A PLC, layer by layer: name, TCP, ISO connection, S7 setup, CPU state, every group's bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services.cli import doctor_opcua
from services.cli.doctor_finding import Failed, Finding
from services.cli.doctor_net import connect
from services.cli.once import read_once
from services.protocols.opcua.model import OpcuaPlc
from services.protocols.s7.model import Endpoint, S7Group, S7Plc
from services.protocols.source import Reading
from services.runtime import mirror_rules
from services.runtime.config import Mirror
from services.runtime.errors import ConfigError, PlcUnavailable
from services.runtime.plc_model import PlcBase
from services.runtime.site import Site, raw_range
from services.s7.handshake import FULL
from services.s7.plan import Extent, make_plan
from services.s7.session import Session
from services.s7.telegram import GOOD, Item, item_error

# Where CPUs sit: 1 in S7-1200/1500, 2 in S7-300, 3 and 0 in some S7-400 and soft PLCs.
USUAL_SLOTS = (1, 2, 0, 3)
BLOCK_BYTES = 65_536
STOP = 4


def check(site: Site, plc: PlcBase) -> Iterator[Finding]:
    """All findings about one PLC, at each of its addresses."""
    if not isinstance(plc, S7Plc):
        for host in plc.all_hosts:
            yield from _check_tags(site, plc, host)
        return
    for host in plc.all_hosts:
        yield from _check_host(site, plc, host)


def _check_tags(site: Site, plc: PlcBase, host: str) -> Iterator[Finding]:
    """As its reader does: all groups once."""
    subject = f"plc {plc.id}" + (f" at {host}" if plc.hosts else "")
    try:
        # By itself first: what is wrong below is said by the layer that knows.
        connect(subject, host, plc.port, "the PLC", plc.timeout).close()
        once = read_once(site, plc, host)
    except Failed as e:
        yield e.finding
        return
    except PlcUnavailable as e:
        probe = f"`plc-edge probe {host}` shows which ways of reading it offers"
        fix = str(e.fields.get("fix", probe))
        yield Finding("error", subject, e.code, e.message, fix)
        return
    except ConfigError as e:
        yield Finding("error", subject, "configuration", str(e), "mend the file that is named")
        return
    yield Finding("ok", subject, "connection", f"{host}:{plc.port} {plc.protocol}, {once.text}")
    if once.frozen == "cpu_stop":
        yield _stopped(subject)
    elif once.frozen:
        fix = "look at the server's own diagnostics"
        yield Finding("error", subject, once.frozen, "its data may be frozen", fix)
    if isinstance(plc, OpcuaPlc):
        yield from doctor_opcua.certificate(site, plc, subject)
    for level, code, text in once.events:
        if level != "info" and code != once.frozen:
            yield Finding("warning", subject, code, text)
    for n, group in enumerate(plc.groups):
        yield from _tags_of(f"{subject} group {group.name}", once.readings[n])


def _tags_of(subject: str, reading: Reading) -> Iterator[Finding]:
    if reading.failed is not None:
        code, text = reading.failed
        yield Finding("error", subject, code, text, "give the account the right to read")
        return
    ((_, values, bad),) = reading.records
    if bad:
        few = list(bad.items())[:5]
        text = f"{len(bad)} of {len(bad) + len(values)} fields have no value: "
        text += "; ".join(f"{name} ({why})" for name, why in few)
        fix = "`plc-edge browse` shows what there is, and makes the layout anew"
        yield Finding("error", subject, "fields_refused", text, fix)
    else:
        yield Finding("ok", subject, "read", f"{len(values)} fields read")


def _check_host(site: Site, plc: S7Plc, host: str) -> Iterator[Finding]:
    subject = f"plc {plc.id}" + (f" at {host}" if plc.hosts else "")
    try:
        session = _connect(subject, plc, host, plc.timeout, plc.pdu)
    except Failed as e:
        yield e.finding
        return
    try:
        yield Finding(
            "ok",
            subject,
            "connection",
            f"{host}:{plc.port} grants PDU {session.pdu_bytes}, {session.jobs} parallel jobs",
        )
        yield from _state(subject, session)
        for group in plc.groups:
            fields = site.fields[plc.id, group.name]
            extents = {
                Extent(f.area, f.db, f.byte + (base if f.area == "DB" else 0), f.size_bytes)
                for _, base in group.records()
                for f in fields
            }
            yield from _read(f"{subject} group {group.name}", session, extents)
    except PlcUnavailable as e:
        yield Finding(
            "error",
            subject,
            e.code,
            e.message,
            "it answers, then stops answering: check cable, switch and the load of the CPU",
        )
    finally:
        session.close()


def check_mirror(site: Site, mirror: Mirror) -> Iterator[Finding]:
    """Whether the target of a mirror can be reached and is long enough; it is only read."""
    subject = f"mirror {mirror.name}"
    plc = next(p for p in site.config.plcs if p.id == mirror.source.plc)
    group = next(g for g in plc.groups if g.name == mirror.source.group)
    assert isinstance(group, S7Group)
    target = mirror.target
    # Markers and watchdog too: whatever will be written must be there.
    written = mirror_rules.extents(mirror, raw_range(site, plc, group))
    try:
        session = _connect(subject, target, target.host, mirror.timeout, 960)
    except Failed as e:
        yield e.finding
        return
    try:
        extents = {Extent("DB", target.db, a, b - a) for a, b in written}
        yield from _read(subject, session, extents)
    except PlcUnavailable as e:
        yield Finding("error", subject, e.code, e.message, "check the target's cable and switch")
    finally:
        session.close()


def _connect(
    subject: str, station: Endpoint, host: str, timeout_s: float, pdu_bytes: int
) -> Session:
    """An S7 connection; raises Failed with the layer that refuses."""
    # By itself first: what is wrong below S7 is said by the layer that knows.
    connect(subject, host, station.port, "the PLC", timeout_s).close()
    local, remote = station.tsaps()
    try:
        return Session(
            host, station.port, (local, remote), pdu_bytes=pdu_bytes, timeout_s=timeout_s
        )
    except PlcUnavailable as e:
        if e.code in ("no_s7", "protocol"):
            text = f"{host}:{station.port} accepts the connection but does not answer S7"
            if e.code == "protocol":
                text = e.message
            raise Failed(
                subject,
                "no_s7",
                text,
                "is this address a PLC? Check host and port (102), or restart its network module",
            ) from None
        if e.code == "connections_full":
            text = f"{host}:{station.port} has no S7 connection left"
            raise Failed(subject, e.code, text, FULL) from None
        if e.code != "refused_by_cpu":
            raise Failed(subject, e.code, e.message, "check the PLC's cable and switch") from None
        raise _wrong_address(subject, station, host, timeout_s) from None


def _wrong_address(subject: str, station: Endpoint, host: str, timeout_s: float) -> Failed:
    """Refused at the ISO connection: which slot would answer?"""
    local, remote = station.tsaps()
    where = f"{host} refuses TSAP {local >> 8:02X}.{local & 255:02X} →"
    where += f" {remote >> 8:02X}.{remote & 255:02X}"
    for slot in USUAL_SLOTS:
        tried = (remote & 0xFF00) | station.rack << 5 | slot
        if tried == remote and station.tsap is None:
            continue
        try:
            Session(host, station.port, (0x0100, tried), timeout_s=timeout_s).close()
        except PlcUnavailable:
            continue
        if station.tsap is None:
            return Failed(
                subject,
                "slot",
                f"{where} (rack {station.rack}, slot {station.slot}); slot {slot} answers",
                f"set `slot: {slot}`",
            )
        return Failed(
            subject,
            "tsap",
            f"{where}; rack {station.rack}, slot {slot} answers",
            f"remove `tsap:` and set `slot: {slot}`, or correct the TSAPs",
        )
    if station.tsap is not None:
        return Failed(
            subject,
            "tsap",
            where,
            "set the TSAPs that stand in the PLC's project (LOGO!: connection properties)",
        )
    return Failed(
        subject,
        "slot",
        f"{where} (rack {station.rack}, slot {station.slot}), and other slots too",
        f"check rack and slot in the hardware configuration; if they are right, {FULL}",
    )


def _stopped(subject: str) -> Finding:
    return Finding(
        "error",
        subject,
        "cpu_stop",
        "the CPU is in STOP: its values are frozen",
        "see its diagnostic buffer in TIA Portal, then switch it to RUN",
    )


def _state(subject: str, session: Session) -> Iterator[Finding]:
    """Whether the CPU runs: in STOP it answers with frozen values."""
    if session.read_state() == STOP:
        yield _stopped(subject)


def _read(subject: str, session: Session, extents: set[Extent]) -> Iterator[Finding]:
    """Reads everything once; one finding per block that refuses."""
    plan = make_plan(extents, session.pdu_bytes)
    answer = session.read(plan.telegrams, plan.image_bytes)
    if answer.failed is not None:
        if answer.failed.code in ("function_refused", "access_denied"):
            yield _no_access(subject)
        else:
            yield Finding(
                "error",
                subject,
                answer.failed.code,
                answer.failed.message,
                "see the CPU's diagnostic buffer",
            )
        return
    refused: dict[tuple[str, int, int], list[Item]] = {}
    for telegram, codes in answer.codes:
        for item, code in zip(telegram.items, codes, strict=True):
            if code != GOOD:
                refused.setdefault((item.area, item.db, code), []).append(item)
    needed = {key: max(e.end for e in extents if (e.area, e.db) == key[:2]) for key in refused}
    for (area, db, code), items in sorted(refused.items()):
        block = f"DB{db}" if area == "DB" else f"area {area}"
        yield _judge(subject, session, block, items[0], code, needed[area, db, code])
    if not refused:
        count, size = len(plan.telegrams), plan.data_bytes
        yield Finding("ok", subject, "read", f"{size} bytes read in {count} request(s)")


def _no_access(subject: str) -> Finding:
    return Finding(
        "error",
        subject,
        "access_denied",
        "the CPU does not permit reading",
        'TIA Portal: CPU properties, Protection & Security, Connection mechanisms: tick "Permit'
        ' access with PUT/GET communication from remote partner", then download the hardware',
    )


def _judge(
    subject: str, session: Session, block: str, item: Item, code: int, needed_bytes: int
) -> Finding:
    word = item_error(code)
    if word == "access_denied":
        return _no_access(subject)
    if word == "object_does_not_exist":
        return Finding(
            "error",
            subject,
            "no_block",
            f"{block} does not exist in this PLC, or is optimised",
            "TIA Portal: check the number; in the block's properties, Attributes, untick"
            ' "Optimized block access", compile and download',
        )
    if word == "address_out_of_range":
        size_bytes = _size(lambda at: _byte_reads(session, item, at), needed_bytes)
        return Finding(
            "error",
            subject,
            "too_short",
            f"{block} has {size_bytes} bytes, {needed_bytes} are needed",
            "the layout and the block differ: import the block again (`plc-edge layout import`),"
            " or correct offsets, machines.count and machines.stride",
        )
    return Finding(
        "error",
        subject,
        word,
        f"{block} cannot be read ({word})",
        "see the CPU's diagnostic buffer",
    )


def _byte_reads(session: Session, item: Item, at: int) -> bool:
    """Whether one byte (one timer, one counter) of the item's area can be read."""
    length = 2 if item.area in ("T", "C") else 1
    plan = make_plan({Extent(item.area, item.db, at, length)}, session.pdu_bytes)
    answer = session.read(plan.telegrams, plan.image_bytes)
    return answer.failed is None and not answer.codes


def _size(reads: Callable[[int], bool], needed_bytes: int) -> int:
    """Bytes that can be read from the start, found by halving; at most 16 questions."""
    low, high = 0, min(needed_bytes, BLOCK_BYTES)
    while low < high:
        middle = (low + high) // 2
        if reads(middle):
            low = middle + 1
        else:
            high = middle
    return low
