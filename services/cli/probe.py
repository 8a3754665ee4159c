"""``plc-edge probe HOST``: how to reach a PLC, what it grants, what to change in TIA Portal.

Connects as a client does, reads a byte, asks for states; never writes. What the CPU is (order
number, names) is asked for only with ``--identify``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any

import typer

from services.cli.common import ConfigOption, JsonOption, console, fail, load_site
from services.cli.probe_offers import OPC_UA_PORT, Offer, opc_ua, recommend, s7plus
from services.cli.probe_tsaps import Way, tsap_text, ways
from services.protocols.s7.model import S7Plc
from services.runtime.errors import EXIT_FAILURE, EXIT_USAGE, PlcUnavailable
from services.s7.handshake import FULL
from services.s7.plan import Extent, make_plan
from services.s7.session import Session
from services.s7.telegram import RUNNING, item_error

PUT_GET = (
    "the CPU refuses reads: in TIA Portal open the CPU's Properties > Protection & Security >"
    ' Connection mechanisms, tick "Permit access with PUT/GET communication from remote partner",'
    ' set the access level to "Full access" (or "Read access"), compile and download the hardware'
)
OPTIMIZED = (
    "DB{db} exists, but its bytes cannot be addressed: in TIA Portal open the block's Properties >"
    ' Attributes, untick "Optimized block access", compile and download. (An empty block answers'
    " the same.)"
)
MISSING = "DB{db} does not exist in this CPU: check its number, and that the program was downloaded"
NO_CONNECTION = (
    "port {port} answers, but no rack and slot does: the CP may need a TSAP of its own (`tsap:` in"
    " the configuration), or "
)
STOPPED = "the CPU is in STOP: its data are frozen until it is switched to RUN"
CLOCK = "the PLC's clock differs from this PC's by {s:.0f} s: set it, or synchronise it by NTP"
# A PLC's clock that differs by more misplaces values that take their time from it.
CLOCK_MAX_S = 5.0
_STATES = {**dict.fromkeys(RUNNING, "run"), 4: "stop", 3: "stop"}
_BLOCK_BYTES = 65_536


@dataclass(slots=True)
class Block:
    """What reading one data block showed."""

    db: int
    readable: bool
    bytes: int | None = None
    """Its length, where it can be read."""
    reason: str | None = None


@dataclass(slots=True)
class Report:
    """All that was found out."""

    host: str
    port: int
    connection: str | None = None
    config: str | None = None
    local_tsap: str | None = None
    remote_tsap: str | None = None
    connect_ms: float | None = None
    read_ms: float | None = None
    pdu: int | None = None
    parallel_jobs: int | None = None
    cpu_state: str | None = None
    put_get: bool | None = None
    blocks: list[Block] = field(default_factory=list)
    clock: str | None = None
    identity: dict[str, str] | None = None
    advice: list[str] = field(default_factory=list)
    is_there: bool = False
    """The port answers, though not as classic S7 does."""
    ways: list[Offer] = field(default_factory=list)
    """The other ways of reading it."""
    recommended: str | None = None
    """The `protocol:` for the configuration."""
    reason: str | None = None

    @property
    def classic(self) -> Offer:
        """What classic S7 offers."""
        if self.connection is None:
            return Offer("s7", "not_offered", "no S7 connection")
        if not self.put_get:
            return Offer("s7", "answers", "PUT/GET is not permitted")
        closed = [f"DB{b.db}" for b in self.blocks if not b.readable]
        if closed:
            return Offer("s7", "answers", f"{', '.join(closed)} cannot be read")
        return Offer("s7", "readable", f"PDU {self.pdu}")

    @property
    def usable(self) -> bool:
        """Whether a reader could work with it as it is."""
        return any(o.state == "readable" for o in (self.classic, *self.ways))


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Find out how to reach a PLC and what it permits.")(probe)


def probe(
    host: Annotated[
        str,
        typer.Argument(help="Address or name; with --config also a PLC's id."),
    ],
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65_535, help="Default 102.")
    ] = None,
    db: Annotated[list[int] | None, typer.Option("--db", help="Block to try; repeatable.")] = None,
    identify: Annotated[
        bool, typer.Option("--identify", help="Also ask for order number and names.")
    ] = False,
    opcua_port: Annotated[
        int, typer.Option("--opcua-port", min=1, max=65_535, help="Of the CPU's OPC UA server.")
    ] = OPC_UA_PORT,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds per attempt.")] = 2.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Exit 1 when the PLC cannot be reached, refuses reads, or a block cannot be read."""
    if not host.strip() or " " in host or "://" in host:
        fail(f"{host!r} is no host: give an address (192.168.0.10) or a name", EXIT_USAGE)
    if host.count(":") == 1:
        name, _, number = host.partition(":")
        fail(f"{host!r} is no host\n    fix: plc-edge probe {name} --port {number}", EXIT_USAGE)
    for block in db or ():
        if not 1 <= block <= 65_535:
            fail(f"--db {block}: block numbers are 1 to 65535", EXIT_USAGE)
    blocks, hosts = db or [], [host]
    if config is not None:
        plcs = load_site(config).config.plcs
        plc = next((p for p in plcs if host in (p.id, *p.all_hosts)), None)
        if plc is not None:
            hosts, port = plc.all_hosts if host == plc.id else hosts, port or plc.port
            if not isinstance(plc, S7Plc):
                text = f"{plc.id} speaks `protocol: {plc.protocol}`; this probes S7"
                hint = f"its port by hand: plc-edge probe {hosts[0]} --port 102, without --config"
                fail(f"{text}\n    fix: {hint}", EXIT_USAGE)
            blocks = blocks or sorted({g.db for g in plc.groups if g.db is not None})
    reports = [Report(each, port or 102) for each in hosts]
    progress: Callable[[str], None] = lambda _: None  # noqa: E731
    with contextlib.ExitStack() as stack:
        if not as_json and console.is_terminal:
            status = stack.enter_context(console.status(""))
            progress = status.update
        for report in reports:
            examine(report, blocks, identify, timeout, progress)
            progress("S7CommPlus and OPC UA")
            look_further(report, opcua_port, timeout, identify=identify)
    if as_json:
        documents = [{**asdict(r), "usable": r.usable} for r in reports]
        json.dump(documents if len(documents) > 1 else documents[0], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        for line in (line for report in reports for line in words(report)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not all(report.usable for report in reports):
        raise typer.Exit(EXIT_FAILURE)


def examine(
    report: Report,
    dbs: list[int],
    identify: bool,
    timeout_s: float,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Fills the report."""
    session, way = _connect(report, timeout_s, progress)
    if session is None or way is None:
        return
    try:
        progress("reading")
        _put_get(report, session, way)
        for db in dbs:
            if report.put_get:
                progress(f"DB{db}")
                report.blocks.append(_block(session, db))
                _block_advice(report, report.blocks[-1])
        # Last: a CPU that leaves it unanswered costs the connection.
        with contextlib.suppress(PlcUnavailable):
            _state(report, session)
    except PlcUnavailable as e:
        report.advice.append(e.message)
    finally:
        session.close()
    progress("clock")
    _with_snap7(report, way, identify)


def look_further(report: Report, opcua_port: int, timeout_s: float, *, identify: bool) -> None:
    """The other ways of reading it, and the best of all."""
    if report.connection is not None or report.is_there:
        offer = s7plus(report.host, report.port, timeout_s)
        report.ways.append(offer if identify else replace(offer, identity=""))
    report.ways.append(opc_ua(report.host, timeout_s, opcua_port))
    recommended, reason = recommend(report.classic, report.ways)
    report.recommended, report.reason = recommended or None, reason or None


def _connect(
    report: Report, timeout_s: float, progress: Callable[[str], None]
) -> tuple[Session | None, Way | None]:
    """The first way that works. What the network refuses is refused for every way."""
    for way in ways():
        progress(way.label)
        began_s = time.monotonic()
        try:
            session = Session(
                report.host, report.port, (way.local_tsap, way.remote_tsap), timeout_s=timeout_s
            )
        except PlcUnavailable as e:
            if e.code == "refused_by_cpu":
                continue
            report.advice.append(e.message)
            report.is_there = e.code in ("connections_full", "no_s7", "protocol")
            return None, None
        report.connect_ms = round((time.monotonic() - began_s) * 1_000, 1)
        report.connection, report.config = way.label, way.config
        report.local_tsap, report.remote_tsap = (
            tsap_text(way.local_tsap),
            tsap_text(way.remote_tsap),
        )
        report.pdu, report.parallel_jobs = session.pdu_bytes, session.jobs
        return session, way
    report.is_there = True
    report.advice.append(NO_CONNECTION.format(port=report.port) + FULL)
    return None, None


def _state(report: Report, session: Session) -> None:
    state = session.read_state()
    report.cpu_state = _STATES.get(state, f"0x{state:x}") if state is not None else None
    if report.cpu_state == "stop":
        report.advice.append(STOPPED)


def _read(session: Session, area: str, db: int, start: int, length: int) -> str:
    """Empty when these bytes can be read, else the reason in a word. Raises PlcUnavailable."""
    plan = make_plan([Extent(area, db, start, length)], session.pdu_bytes)
    answer = session.read(plan.telegrams, plan.image_bytes)
    if answer.failed is not None:
        return answer.failed.code
    return item_error(answer.codes[0][1][0]) if answer.codes else ""


def _put_get(report: Report, session: Session, way: Way) -> None:
    """Any CPU has a flag byte 0: who refuses it refuses all reads. But a LOGO! or an S7-200 may
    give V memory only.
    """
    began_s = time.monotonic()
    refusals = ("function_refused", "access_denied", "request_refused")
    report.put_get = _read(session, "M", 0, 0, 1) not in refusals
    report.read_ms = round((time.monotonic() - began_s) * 1_000, 1)
    if not report.put_get and way.v_memory:
        report.put_get = not _read(session, "DB", 1, 0, 1)
    if not report.put_get:
        report.advice.append(PUT_GET)


def _block(session: Session, db: int) -> Block:
    """Whether a block can be read, and its length: by halving, at most 17 reads of a byte."""
    reason = _read(session, "DB", db, 0, 1)
    if reason:
        return Block(db, False, None, reason)
    low, high = 1, 1
    while high < _BLOCK_BYTES and not _read(session, "DB", db, high, 1):
        low, high = high + 1, min(high * 2, _BLOCK_BYTES)
    while low < high:  # bytes below low are there, the one at high is not
        middle = (low + high) // 2
        if _read(session, "DB", db, middle, 1):
            high = middle
        else:
            low = middle + 1
    return Block(db, True, low)


def _block_advice(report: Report, block: Block) -> None:
    if block.reason == "address_out_of_range":
        report.advice.append(OPTIMIZED.format(db=block.db))
    elif block.reason == "object_does_not_exist":
        report.advice.append(MISSING.format(db=block.db))
    elif block.reason == "access_denied":
        report.advice.append(f"DB{block.db}: access denied by its protection or the CPU's")
    elif block.reason:
        report.advice.append(f"DB{block.db}: {block.reason}")


def _with_snap7(report: Report, way: Way, identify: bool) -> None:
    """Clock and identity, by python-snap7. S7-1200 and 1500 refuse some of it: no advice then."""
    from snap7 import Client
    from snap7.error import S7Error

    # It logs each refusal, which is no news here.
    logging.getLogger("snap7").setLevel(logging.CRITICAL)
    client = Client()
    client.local_tsap = way.local_tsap
    client.connection_type = way.remote_tsap >> 8
    try:
        client.connect(
            report.host, way.remote_tsap >> 5 & 7, way.remote_tsap & 0x1F, tcp_port=report.port
        )
        with contextlib.suppress(S7Error, RuntimeError, OSError, ValueError):
            clock = client.get_plc_datetime()
            report.clock = clock.isoformat(sep=" ", timespec="seconds")
            drift_s = (clock - datetime.now()).total_seconds()
            if abs(drift_s) > CLOCK_MAX_S:
                report.advice.append(CLOCK.format(s=drift_s))
        if identify:
            report.identity = _identity(client)
    except (S7Error, RuntimeError, OSError, ValueError):
        # The reader's own connection worked; what is only nice to know must not fail the probe.
        report.identity = {} if identify else None
    finally:
        client.disconnect()


def _identity(client: Any) -> dict[str, str]:
    from snap7.error import S7Error

    found: dict[str, str] = {}
    with contextlib.suppress(S7Error, RuntimeError, OSError, ValueError):
        order = client.get_order_code()
        found["order_code"] = _text(order.OrderCode)
        found["firmware"] = f"V{order.V1}.{order.V2}.{order.V3}"
    with contextlib.suppress(S7Error, RuntimeError, OSError, ValueError):
        info = client.get_cpu_info()
        found["module_type"] = _text(info.ModuleTypeName)
        found["module_name"] = _text(info.ModuleName)
        found["station"] = _text(info.ASName)
        found["serial"] = _text(info.SerialNumber)
    return {k: v for k, v in found.items() if v}


def _text(raw: bytes) -> str:
    return bytes(raw).split(b"\0")[0].decode("latin-1").strip()


def words(report: Report) -> Iterator[str]:
    """The report for a person."""
    if report.connection is None:
        yield f"{report.host}:{report.port}: no S7 connection"
    else:
        took = f"connected in {report.connect_ms} ms"
        yield f"{report.host}:{report.port}: {report.connection}, {took}"
        yield f"  configuration   host: {report.host}, {report.config}"
        yield f"  TSAPs           local {report.local_tsap}, remote {report.remote_tsap}"
        yield f"  granted         PDU {report.pdu}, {report.parallel_jobs} parallel jobs"
        yield f"  CPU state       {(report.cpu_state or 'not told').upper()}"
        permitted = {True: "yes", False: "NO", None: "not known"}[report.put_get]
        took = f", a read takes {report.read_ms} ms" if report.put_get else ""
        yield f"  reads permitted {permitted}{took}"
        for b in report.blocks:
            what = f"readable, {b.bytes} bytes" if b.readable else f"NOT readable: {b.reason}"
            yield f"  DB{b.db:<13} {what}"
        if report.clock:
            yield f"  clock           {report.clock}"
        for key, value in (report.identity or {}).items():
            yield f"  {key.replace('_', ' '):<15} {value}"
    for offer in report.ways:
        name = {"s7plus": "S7CommPlus", "opcua": "OPC UA"}[offer.protocol]
        yield f"  {name:<15} {offer.detail if offer.state != 'not_offered' else 'no'}"
        if offer.identity:
            yield f"  {'module':<15} {offer.identity}"
        if offer.fingerprint:
            yield f"  {'fingerprint':<15} {offer.fingerprint}"
    for line in report.advice:
        yield f"-> {line}"
    if report.recommended:
        yield f"-> best here: `protocol: {report.recommended}`. {report.reason}"
    if report.classic.state == "readable" and not report.advice:
        yield "ready to be read" + ("" if report.blocks else "; try a block with --db N")
