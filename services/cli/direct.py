"""Reading a PLC directly: the reader's own session, plan and decoding, without its process."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from services.cli.common import fail, load_site
from services.cli.once import read_once
from services.protocols.s7.model import S7Plc
from services.runtime.clock import now_ms
from services.runtime.errors import EXIT_USAGE, PlcUnavailable
from services.runtime.plc_model import PlcBase
from services.runtime.site import Site
from services.s7.address import AddressError, parse_address
from services.s7.decode import Record
from services.s7.field import Field
from services.s7.plan import Extent, Plan, make_plan
from services.s7.session import JOBS_ASKED, Session
from services.s7.telegram import GOOD, RUNNING, item_error

# Under which group addresses given on the command line appear.
AD_HOC = "-"


class UnknownTag(Exception):
    """No field of that name, and no address; the text says what is near."""


@dataclass(slots=True)
class Row:
    """One value to read, and what came of it."""

    group: str
    machine: str | None
    field: Field
    """Its place in the PLC (the machine's first byte added)."""
    value: Any = None
    bad: str = "not_read"
    """Empty when ``value`` is good."""

    @property
    def names(self) -> tuple[str, ...]:
        """What a person may call it, shortest first."""
        name = self.field.name
        if self.machine is None:
            return name, f"{self.group}.{name}"
        return name, f"{self.machine}.{name}", f"{self.group}.{self.machine}.{name}"

    @property
    def address(self) -> str:
        """Where it lies, as in the configuration."""
        f = self.field
        if f.tag is not None:
            return " ".join(f.tag.values())
        if f.area in ("T", "C"):
            return f"{f.area}{f.byte // 2}"
        where = f"DB{f.db}.DB" if f.area == "DB" else f.area
        if f.type == "BOOL":
            return f"{where}{'X' if f.area == 'DB' else ''}{f.byte}.{f.bit}"
        width = {1: "B", 2: "W", 4: "D"}.get(f.s7_type.element_bytes, "B")
        return f"{where}{width}{f.byte}:{f.type}"


@dataclass(slots=True)
class Batch:
    """Rows that are read together, with their plan once connected."""

    name: str
    rows: list[Row]
    db: int | None = None
    measurement: str = ""
    scan_s: float = 1.0
    ts_ms: int = 0
    latency_ms: float = 0.0
    _plan: Plan | None = None
    _record: Record | None = None

    def prepare(self, pdu_bytes: int) -> None:
        """Makes the telegrams for a granted PDU."""
        self._plan = make_plan({_extent(r.field) for r in self.rows}, pdu_bytes)
        self._record = _record(self.rows, self._plan)

    def read(self, session: Session) -> None:
        """One scan. Raises PlcUnavailable; a refused item costs only its own fields."""
        assert self._plan is not None
        assert self._record is not None
        began_s = time.monotonic()
        answer = session.read(self._plan.telegrams, self._plan.image_bytes)
        self.latency_ms = (time.monotonic() - began_s) * 1_000
        self.ts_ms = now_ms() - round(self.latency_ms / 2)
        if answer.failed is not None:
            raise PlcUnavailable(answer.failed.code, answer.failed.message)
        refused = [
            (place, place + item.length)
            for telegram, codes in answer.codes
            for item, place, code in zip(telegram.items, telegram.places, codes, strict=True)
            if code != GOOD
        ]
        suspects = _fill(self.rows, self._record, self._plan, bytes(answer.image), refused)
        if suspects:
            self._one_by_one(session, suspects)

    def _one_by_one(self, session: Session, rows: list[Row]) -> None:
        """A refused item names no field: reads each of its fields in an item of its own."""
        extents = {_extent(r.field) for r in rows}
        plan = make_plan(extents, session.pdu_bytes, apart=frozenset(extents))
        answer = session.read(plan.telegrams, plan.image_bytes)
        refused: dict[int, str] = {}
        for telegram, codes in answer.codes:
            for place, code in zip(telegram.places, codes, strict=True):
                if code != GOOD:
                    refused[place] = item_error(code)
        good = [r for r in rows if _place(plan, r.field) not in refused]
        for row in rows:
            row.value, row.bad = None, refused.get(_place(plan, row.field), "")
        if good:
            _fill(good, _record(good, plan), plan, bytes(answer.image), [])

    def messages(self, direct: Direct | Seen, tenant: str, site: str) -> list[dict[str, Any]]:
        """What was read, in the shape of CONTRACT §4's messages: one per machine."""
        by_machine: dict[str | None, list[Row]] = {}
        for row in self.rows:
            by_machine.setdefault(row.machine, []).append(row)
        out = []
        for machine, rows in by_machine.items():
            bad = {r.field.name: r.bad for r in rows if r.bad}
            quality = "bad" if bad else "good"
            if direct.stopped:
                quality, bad = "uncertain", {"*": "cpu_stop", **bad}
            message: dict[str, Any] = {
                "site": site,
                "locatario_id": tenant,
                "plc_id": direct.plc.id,
                "ip": direct.host,
                "db": self.db,
                "group": self.name,
                "measurement": self.measurement,
                "machine": machine,
                "ts": self.ts_ms,
                "quality": quality,
                "latency_ms": round(self.latency_ms, 2),
                "values": {r.field.name: r.value for r in rows if not r.bad},
                "bad": bad,
            }
            optional = ("db", "machine", "bad", "measurement")
            out.append({k: v for k, v in message.items() if k not in optional or v})
        return out


@dataclass(slots=True)
class Seen:
    """A PLC whose fields are tags, and what one reading of it brought."""

    plc: PlcBase
    batches: list[Batch]
    host: str = ""
    """The address that was read, or was tried last."""
    stopped: bool = False
    """The CPU answers, but its data are frozen."""

    def __post_init__(self) -> None:
        self.host = self.plc.all_hosts[0]

    def read(self, site: Site) -> None:
        """Fills the batches. Raises PlcUnavailable."""
        once = read_once(site, self.plc)
        self.host, self.stopped = once.host, bool(once.frozen)
        places = {group.name: n for n, group in enumerate(self.plc.groups)}
        for batch in self.batches:
            reading = once.readings[places[batch.name]]
            ((_, values, bad),) = reading.records
            batch.ts_ms, batch.latency_ms = reading.ts_ms, reading.latency_ms
            for row in batch.rows:
                row.value = values.get(row.field.name)
                row.bad = bad.get(row.field.name, "")


@dataclass(slots=True)
class Direct:
    """A session with a configured PLC and the batches to read from it."""

    plc: S7Plc
    batches: list[Batch]
    session: Session | None = field(default=None)
    host: str = ""
    """The address that is read, or was tried last."""
    state: int | None = None
    """8 RUN, 4 STOP; None where the CPU does not say."""
    _tells_state: bool = True

    def __post_init__(self) -> None:
        self.host = self.plc.all_hosts[0]

    def connect(self) -> Session:
        """Connects and makes the plans. Raises PlcUnavailable."""
        session = self._connect()
        for batch in self.batches:
            batch.prepare(session.pdu_bytes)
        self.session = session
        return session

    def _connect(self) -> Session:
        """The first address that gives a connection; of several, one whose CPU runs is better."""
        plc = self.plc
        jobs = JOBS_ASKED if plc.parallel_jobs == "auto" else plc.parallel_jobs
        best: Session | None = None
        error: PlcUnavailable | None = None
        for host in plc.all_hosts:
            self.host = host
            try:
                session = Session(
                    host, plc.port, plc.tsaps(), pdu_bytes=plc.pdu, jobs=jobs, timeout_s=plc.timeout
                )
                runs = len(plc.all_hosts) == 1 or session.read_state() in (None, *RUNNING)
            except PlcUnavailable as e:
                error = e
                continue
            if best is None:
                best = session
            elif runs:
                best.close()
                best = session
            else:
                session.close()
            if runs:
                break
        if best is None:
            assert error is not None
            raise error
        self.host = best.host
        return best

    def ask_state(self) -> None:
        """Learns whether the CPU runs. Raises PlcUnavailable; a station that has never answered
        this is not asked again."""
        if not self._tells_state:
            return
        assert self.session is not None
        try:
            self.state = self.session.read_state()
        except PlcUnavailable as e:
            self._tells_state = e.code != "timeout" or self.state is not None
            raise

    @property
    def stopped(self) -> bool:
        """The CPU answers, but its data are frozen."""
        return self.state is not None and self.state not in RUNNING

    def close(self) -> None:
        """Drops the connection."""
        if self.session is not None:
            self.session.close()
            self.session = None


def find_plc(site: Site, wanted: str) -> PlcBase:
    """A PLC of the configuration; exits 2 with what is near."""
    plcs = {plc.id: plc for plc in site.config.plcs}
    if wanted not in plcs:
        fail(f"no PLC {wanted!r} in the configuration; {_near(wanted, plcs)}", EXIT_USAGE)
    return plcs[wanted]


def batches(site: Site, plc: PlcBase, tags: Sequence[str] = ()) -> list[Batch]:
    """A batch per group, with all fields or those that ``tags`` name.

    A tag is a field's name (``temperatura``), with its machine or group before it
    (``m03.temperatura``, ``db500.m03.temperatura``), a pattern (``m0?.AI_*``), or an address
    (``DB1.DBD0:REAL``). Raises UnknownTag.
    """
    found = []
    for group in plc.groups:
        rows = [
            Row(group.name, machine, f.at(f.byte + base))
            for machine, base in group.records()
            for f in site.fields[plc.id, group.name]
        ]
        found.append(Batch(group.name, rows, group.block(), group.measurement, group.scan))
    if not tags:
        return found
    every = [row for batch in found for row in batch.rows]
    wanted: set[int] = set()
    ad_hoc: list[Row] = []
    for tag in tags:
        matching = [id(r) for r in every if any(fnmatchcase(name, tag) for name in r.names)]
        wanted.update(matching)
        if not matching:
            if plc.tag_keys:
                names = {name for row in every for name in row.names}
                raise UnknownTag(f"no field {tag!r}; {_near(tag, names)}")
            ad_hoc.append(Row(AD_HOC, None, _address(tag, every)))
    for batch in found:
        batch.rows = [r for r in batch.rows if id(r) in wanted]
    if ad_hoc:
        found.append(Batch(AD_HOC, ad_hoc))
    return [b for b in found if b.rows]


def _address(tag: str, rows: Iterable[Row]) -> Field:
    try:
        return parse_address(tag, name=tag)
    except AddressError as e:
        if ":" in tag or (tag.upper().startswith("DB") and tag[2:3].isdigit()):
            raise UnknownTag(f"{e}\n    fix: {e.hint}") from None
        names = {name for r in rows for name in r.names}
        raise UnknownTag(f"no field {tag!r}, and it is no address; {_near(tag, names)}") from None


def _near(wanted: str, names: Iterable[str]) -> str:
    names = sorted(names)
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"there is {', '.join(names[:8])}"


def _extent(f: Field) -> Extent:
    return Extent(f.area, f.db if f.area == "DB" else 0, f.byte, f.size_bytes)


def _place(plan: Plan, f: Field) -> int:
    return plan.place(_extent(f))


def _record(rows: Sequence[Row], plan: Plan) -> Record:
    """A decoder of the image; its fields are named by their row's number."""
    return Record(
        [replace(r.field, name=str(n), byte=_place(plan, r.field)) for n, r in enumerate(rows)]
    )


def _fill(
    rows: Sequence[Row], record: Record, plan: Plan, image: bytes, refused: list[tuple[int, int]]
) -> list[Row]:
    """Gives each row its value or reason; returns those that lie in refused items."""
    record.changed(image)
    suspects = []
    for n, row in enumerate(rows):
        at = _place(plan, row.field)
        if any(at < end and start < at + row.field.size_bytes for start, end in refused):
            row.value, row.bad = None, "not_read"
            suspects.append(row)
        else:
            row.value = record.values.get(str(n))
            row.bad = record.bad.get(str(n), "")
    return suspects


def seen(config: Path | None, plc: str, tags: Sequence[str]) -> tuple[Site, Direct | Seen]:
    """What ``read`` begins with: a PLC of any protocol; exits 2 where a name is unknown."""
    site = load_site(config)
    try:
        found = find_plc(site, plc)
        to_read = batches(site, found, tags)
    except UnknownTag as e:
        fail(str(e), EXIT_USAGE)
    return site, Direct(found, to_read) if isinstance(found, S7Plc) else Seen(found, to_read)


def configured(config: Path | None, plc: str, tags: Sequence[str]) -> tuple[Site, Direct]:
    """What ``watch`` and ``export`` begin with; exits 2 where a name is unknown."""
    site = load_site(config)
    try:
        found = find_plc(site, plc)
        if not isinstance(found, S7Plc):
            raise UnknownTag(
                f"{plc} speaks `protocol: {found.protocol}`, and this follows S7 only\n    fix:"
                f" once by `plc-edge read {plc}`; live on the panel, which shows what its reader"
                " reads"
            )
        return site, Direct(found, batches(site, found, tags))
    except UnknownTag as e:
        fail(str(e), EXIT_USAGE)
