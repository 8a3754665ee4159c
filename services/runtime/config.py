"""The models of ``config.yaml`` (CONTRACT §3): every key, its default, its range.

``docs/configuration.md`` is generated from these descriptions. Services never import this module:
they read their own rendered JSON (services/runtime/render.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
)

from services.runtime.alert_model import Alerts
from services.runtime.base_model import Credentials as Credentials
from services.runtime.base_model import Duration as Duration
from services.runtime.base_model import Host as Host
from services.runtime.base_model import Model as Model
from services.runtime.base_model import Name as Name
from services.runtime.base_model import Port as Port
from services.runtime.base_model import Size as Size
from services.runtime.base_model import Zone as Zone
from services.runtime.fleet_model import Fleet
from services.runtime.judged import rule
from services.runtime.loopback import is_loopback
from services.runtime.opcua_model import OpcuaServing

# It goes into every message and becomes a tag.
MACHINE_NAME_MAX = 64
# What `str.format` may be given: `{n.__class__}` and `{n:999999999}` are no names.
_MACHINE_NAME = re.compile(r"(?:[^{}]|\{\{|\}\}|\{n(?::[^{}]{0,4})?\}){1,128}")


class Paths(Model):
    """Where files lie."""

    state: Path = Field(Path("/var/lib/plc-edge"), description="the outbox and what was applied")
    runtime: Path = Field(Path("/run/plc-edge"), description="sockets, rings, rendered files")
    logs: Path | None = Field(None, description="logs of the processes; default `<state>/log`")

    @property
    def log_dir(self) -> Path:
        """Where supervisord writes the processes' logs."""
        return self.logs or self.state / "log"


class Tsap(Model):
    """TSAPs as the S7 documentation writes them, two bytes in hex."""

    local: str = Field("10.00", pattern=r"^[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{2}$")
    remote: str = Field(pattern=r"^[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{2}$", description="e.g. `03.01`")


# The connection type is the first byte of the remote TSAP (Siemens: PG 1, OP 2, basic 3).
_CONNECTION = {"pg": 0x01, "op": 0x02, "basic": 0x03}


class Endpoint(Model):
    """How to connect to one S7 station."""

    port: Port = 102
    rack: int = Field(0, ge=0, le=7)
    slot: int = Field(1, ge=0, le=31, description="1 for S7-1200/1500, 2 for S7-300")
    tsap: Tsap | None = Field(
        None, description="instead of rack and slot (LOGO!, S7-200; docs/OPERACOES.md)"
    )
    connection: Literal["op", "pg", "basic"] = Field(
        "op", description="`pg` takes the slot that TIA Portal needs"
    )

    def tsaps(self) -> tuple[int, int]:
        """(local, remote) as 16-bit numbers."""
        if self.tsap is not None:
            local, remote = self.tsap.local, self.tsap.remote
            return int(local.replace(".", ""), 16), int(remote.replace(".", ""), 16)
        return 0x0100, _CONNECTION[self.connection] << 8 | self.rack << 5 | self.slot


class Machines(Model):
    """One record per machine, one after the other in the block."""

    count: int = Field(ge=1, le=1_000)
    stride: int = Field(ge=1, le=65_536, description="bytes from one machine to the next")
    first: int = Field(0, ge=0, le=65_535, description="byte where the first one begins")
    name: str = Field("m{n:02d}", description="`{n}` counts from 0; the CONTRACT's `machine`")

    @rule
    def _names(self) -> str | None:
        if not _MACHINE_NAME.fullmatch(self.name):
            return f"name {self.name!r} is no pattern with {{n}}"
        try:
            names = {self.name.format(n=n) for n in range(self.count)}
        except (OverflowError, ValueError) as e:
            return f"name {self.name!r} is no pattern with {{n}} ({e})"
        if max(map(len, names)) > MACHINE_NAME_MAX:
            return f"name {self.name!r} gives more than {MACHINE_NAME_MAX} characters"
        if len(names) < self.count:
            return f"name {self.name!r} gives two machines one name; use {{n:02d}}"
        return None


class RawRange(Model):
    """Bytes of the block to copy."""

    start: int = Field(ge=0, le=65_535)
    length: int = Field(ge=1, le=65_536)

    @rule
    def _in_block(self) -> str | None:
        if self.start + self.length > 65_536:
            return f"reaches byte {self.start + self.length - 1}; a block ends at 65535"
        return None


class Group(Model):
    """Fields that are read together, at one rate."""

    name: Name
    measurement: str = Field("s7_db1", pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")
    db: int | None = Field(None, ge=1, le=65_535, strict=True, description="DB number")
    scan: Duration = Field(1.0, ge=0.01, le=3_600, description="time from one read to the next")
    layout: Path | None = Field(None, description="layout file, relative to the configuration")
    fields: list[Any] | None = Field(
        None,
        description="instead of a layout: fields with an `address`, or, in block `db`, with `type`"
        " and `offset` as in a layout",
    )
    machines: Machines | None = None
    publish: Literal["on_change", "always"] = Field(
        "on_change", description="the whole group goes out when any field passes its deadband"
    )
    max_silence: Duration = Field(60.0, ge=0.1, description="`on_change` repeats at least so often")
    raw: bool | RawRange = Field(False, description="put the bytes on the bus, for mirrors")
    consistent: bool = Field(False, description="all bytes in one telegram, or `check` refuses")
    timestamp: str | None = Field(None, description="a DTL or DT field to take the time from")
    timezone: Zone | None = Field(None, description="of `timestamp`, if not the PLC's")
    trend: list[str] = Field([], description="fields whose trend the panel always keeps")

    @rule
    def _one_source(self) -> str | None:
        if (self.layout is None) == (self.fields is None):
            return "give either `layout:` (a file) or `fields:` (a list)"
        return None

    @rule
    def _layout_of_a_block(self) -> str | None:
        if self.layout is not None and self.db is None:
            return "a layout needs `db:`, the number of the data block"
        return None

    @rule
    def _raw_of_a_block(self) -> str | None:
        if self.raw is not False and self.db is None:
            return "`raw:` copies bytes of one data block: it needs `db:`"
        return None

    @rule
    def _zone_of_a_timestamp(self) -> str | None:
        if self.timezone is not None and self.timestamp is None:
            return "`timezone:` is that of `timestamp:`, and there is none"
        return None


class Alive(Model):
    """A field the PLC program changes, for CPUs that refuse to tell their state."""

    address: str = Field(description="e.g. `DB1.DBW0:INT`")
    timeout: Duration = Field(5.0, ge=0.1, description="unchanged for longer: `uncertain`")


class Plc(Endpoint):
    """One PLC, one reader process."""

    id: Name
    host: Host | None = Field(None, description="address or name of its network interface")
    hosts: list[Host] = Field(
        [],
        max_length=8,
        description="instead of `host`, for a redundant PLC (S7-400H): one is read; another where"
        " that one is lost or its CPU stops",
    )
    locatario: Name | None = Field(None, description="tenant, if not the default")
    pdu: int = Field(960, ge=240, le=960, description="asked for; the PLC grants what it can")
    parallel_jobs: Literal["auto"] | Annotated[int, Field(ge=1, le=32)] = "auto"
    timeout: Duration = Field(2.0, ge=0.05, le=60)
    heartbeat: Duration = Field(10.0, ge=0.5, le=3_600)
    alive: Alive | None = None
    timezone: Zone = Field(
        "UTC",
        description="whose time the groups' `timestamp` fields show, e.g. `America/Sao_Paulo`",
    )
    groups: list[Group] = Field(min_length=1)

    @rule
    def _some_host(self) -> str | None:
        if self.host is None and not self.hosts:
            return "`host:` is missing (or `hosts:`, the addresses of a redundant PLC)"
        if self.host is not None and self.hosts:
            return "give either `host:` (one address) or `hosts:` (a redundant PLC's)"
        return None

    @rule
    def _different_hosts(self) -> str | None:
        return (
            "`hosts:` names one address twice" if len(set(self.hosts)) < len(self.hosts) else None
        )

    @property
    def all_hosts(self) -> list[str]:
        """Every address, the first to try first."""
        return self.hosts or [str(self.host)]


class MirrorSource(Model):
    """Whose raw bytes are copied."""

    plc: Name
    group: Name


class MirrorTarget(Endpoint):
    """The only block that may ever be written."""

    host: Host = Field(description="address or name of the PLC's network interface")
    db: int = Field(ge=1, le=65_535)
    start: int = Field(0, ge=0, le=65_535, description="where the first byte goes")


class MirrorMap(Model):
    """One sub-range: bytes of the source to an offset in the target."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    start: int = Field(alias="from", ge=0, le=65_535, description="first byte in the source DB")
    length: int = Field(ge=1, le=65_536)
    to: int = Field(ge=0, le=65_535, description="first byte in the target DB")


class MirrorCommit(Model):
    """How the target's program can tell a torn copy.

    `begin` and `end`: two WORDs in the target DB, outside the copied bytes. The target's program
    compares them, copies, compares again: equal both times and unchanged means whole. `offset` and
    `kind` are for a program that copies at once when the byte changes; a copy that it takes later
    may be torn.
    """

    begin: int | None = Field(None, ge=0, le=65_535, description="counter (WORD) written first")
    end: int | None = Field(None, ge=0, le=65_535, description="the same number, written last")
    offset: int | None = Field(None, ge=0, le=65_535, description="one byte written last")
    kind: Literal["toggle", "counter"] = "counter"

    @rule
    def _one_way(self) -> str | None:
        if (self.offset is None) == (self.begin is None and self.end is None):
            return "give either `begin:` and `end:`, or `offset:` and `kind:`"
        if (self.begin is None) != (self.end is None):
            return "`begin:` needs `end:` and the other way round"
        return None


class MirrorWatchdog(Model):
    """A byte of the target that says whether the source is copied.

    Should the box itself lose power, nobody writes it: what then tells is a `commit` counter, which
    changes every `full_every` at least.
    """

    offset: int = Field(ge=0, le=65_535, description="in the target DB")
    alive: int = Field(1, ge=0, le=255, description="while copies follow the source")
    stale: int = Field(0, ge=0, le=255, description="source silent, bad or offline, mirror stopped")


class Mirror(Model):
    """A raw copy of a group's bytes to another PLC."""

    name: Name
    source: MirrorSource
    target: MirrorTarget
    enabled: bool = Field(False, description="nothing is written until this is true")
    maps: list[MirrorMap] = Field([], description="sub-ranges; default: all bytes from `start`")
    commit: MirrorCommit | None = None
    watchdog: MirrorWatchdog | None = None
    full_every: Duration = Field(60.0, ge=1, description="rewrite everything so often")
    stale_after: Duration = Field(5.0, ge=0.1, description="source silent for so long: stop")
    timeout: Duration = Field(2.0, ge=0.05, le=60, description="of each of the target's answers")
    dry_run: bool = Field(False, description="say what would be written")
    verify: bool = Field(False, description="read back what was written")
    max_writes_per_s: float | None = Field(
        None, gt=0, description="telegrams a second, on average; the newest image wins"
    )
    consistent_bytes: int = Field(64, ge=1, le=960, description="bytes the CPU takes as one")


class Tls(Model):
    """TLS of an output; 1.2 is the oldest version spoken."""

    ca: Path | None = Field(None, description="CA certificate; default: the system's")
    cert: Path | None = Field(None, description="client certificate")
    key: Path | None = Field(None, description="its private key")

    @rule
    def _pair(self) -> str | None:
        if (self.cert is None) != (self.key is None):
            return "`cert:` and `key:` go together"
        return None


class OutputBase(Credentials):
    """What all outputs have."""

    name: Name
    locatarios: list[Name] | None = Field(
        None, min_length=1, description="only these tenants' messages"
    )
    start: Literal["now", "oldest"] = Field(
        "now", alias="from", description="where a new output begins in what is stored"
    )
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    secret_keys: ClassVar[tuple[str, ...]] = ("password",)


class MqttOutput(OutputBase):
    """To an MQTT broker."""

    type: Literal["mqtt"]
    host: Host | None = None
    hosts: list[Host] = Field([], description="brokers to try in turn")
    port: Port = 8883
    version: Literal["3.1.1", 5] = Field(5, description="only 5 learns of refused messages")
    qos: Literal[0, 1] = 1
    client_id: str | None = Field(None, description="default: `<site>-<output>-<tenant>`")
    keepalive: Duration = Field(15.0, ge=2, le=3_600)
    window: int = Field(1_000, ge=1, le=20_000, description="messages in flight")
    tls: Tls | Literal[False] = Field(
        default_factory=Tls, description="`false` only for a broker on this machine"
    )
    accounts: dict[Name, Credentials] = Field(
        {}, description="credentials per tenant, where the tenants differ in them"
    )
    doctor: Credentials | None = Field(
        None,
        description="account that `plc-edge doctor` tests with; a broker that knows one connection"
        " per account would end the output's",
    )

    @rule
    def _some_host(self) -> str | None:
        if (self.host is None) == (not self.hosts):
            return "give `host:` or `hosts:`"
        return None

    @property
    def all_hosts(self) -> list[str]:
        """Every broker to try."""
        return self.hosts or [str(self.host)]


class HttpOutput(OutputBase):
    """To an HTTP endpoint: JSON or InfluxDB line protocol."""

    type: Literal["http"]
    url: str = Field(pattern=r"^https?://[^\s]+$")
    format: Literal["json", "influx"] = "json"
    gzip: bool = True
    batch: int = Field(500, ge=1, le=10_000, description="messages in one request")
    timeout: Duration = Field(10.0, ge=0.1, le=300)
    token_file: Path | None = Field(None, description="bearer token (InfluxDB: `Token`)")
    token: str | None = Field(None, description="`${VARIABLE}`")
    headers: dict[str, str] = Field({})
    tls: Tls = Field(default_factory=Tls)
    secret_keys: ClassVar[tuple[str, ...]] = ("password", "token")


class StdoutOutput(OutputBase):
    """JSON lines on the process's standard output."""

    type: Literal["stdout"]


class OpcuaOutput(OpcuaServing, OutputBase):
    """An OPC UA server that shows the newest values (docs/opcua-server.md)."""

    type: Literal["opcua"]

    @rule
    def _whose_account(self) -> str | None:
        if self.username or self.password or self.password_file:
            return "this is a server: give its clients' accounts under `users:`"
        return None


Output = Annotated[
    MqttOutput | HttpOutput | StdoutOutput | OpcuaOutput, Field(discriminator="type")
]


class Replay(Model):
    """What happens to stored messages when an output comes back."""

    mode: Literal["strict", "lanes"] = Field(
        "strict", description="`lanes`: live messages pass beside the backlog, marked `replay`"
    )
    live_weight: int = Field(4, ge=1, le=100, description="live messages for one old one")
    max_rate: int | None = Field(None, ge=1, description="old messages per second")


class Store(Model):
    """The outbox on disk."""

    max_size: Size = Field(2 * 2**30, ge=16 * 2**20)
    max_age: Duration = Field(
        14 * 86_400.0,
        ge=60,
        description="what nobody has taken by then is dropped, with a `gap` message, up to an"
        " eighth later (never by a clock that was just set: not within ten minutes of a start)",
    )
    min_free: Size = Field(256 * 2**20, ge=0, description="disk space left to others")
    durability: Literal["full", "normal"] = Field(
        "full", description="`normal` may lose the last seconds at a power cut"
    )
    commit: Duration = Field(
        0,
        ge=0,
        le=10,
        description="least time between two commits; 0: as soon as the last has returned."
        " Longer spares flash and CPU, and every message may wait so long",
    )
    replay: Replay = Field(default_factory=Replay)


class HttpTls(Model):
    """Certificate that a server here shows."""

    cert: Path
    key: Path


class Metrics(Credentials):
    """The metrics service and panel."""

    host: str = "127.0.0.1"
    port: Port = 9108
    tls: HttpTls | None = None

    @rule
    def _safe(self) -> str | None:
        secured = self.tls and self.username and (self.password or self.password_file)
        if not is_loopback(self.host) and not secured:
            return (
                f"{self.host} can be reached from the network: set `tls:`, `username:` and"
                " `password_file:`, or bind to 127.0.0.1"
            )
        return None


class InfraBroker(Model):
    """Where Mosquitto finds its files and listens; by default as docker-compose.yml runs it.

    For one without containers. The same for all boxes of `infra render --fleet`: the first one's.
    """

    folder: Path = Field(
        Path("/mosquitto"), description="holds `config/`, `certs/`, `secrets/` and `data/`"
    )
    user: str | None = Field(
        None, description="what it becomes where root starts it, if not `mosquitto`"
    )
    listen: Host | None = Field(None, description="address to listen at; default: all")
    port: Port = Field(8883, description="user and password")
    websocket_port: Port = Field(8083, description="the same over WebSocket")
    certificate_port: Port = Field(8884, description="client certificates")


class Infra(Model):
    """What `plc-edge infra render` needs to know of the central side."""

    plan: dict[Name, Literal["free", "pro", "enterprise"]] = Field(
        {}, description="retention plan per tenant; default pro"
    )
    broker_host: str = "mosquitto"
    broker: InfraBroker = Field(default_factory=InfraBroker)
    influx_url: str = "http://influxdb:8086"
    metrics_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+/metrics$",
        description="how the centre reaches this box's metrics; default"
        " `https://<site>:<port>/metrics` where they are bound to loopback",
    )
    victoria_url: str = Field(
        "http://vmauth:8427", description="vmauth's, of `infra render --database victoriametrics`"
    )


class Config(Model):
    """One edge box."""

    site: Name
    locatario: Name = Field(description="default tenant")
    clock_sync: Literal["auto", "required", "ignored"] = Field(
        "auto",
        description="when this PC's clock makes values `uncertain`: `required`, while nothing (NTP,"
        " PTP) keeps it right; `auto`, the same on a PC with systemd and a time service, whether"
        " that runs or not; `ignored`, never",
    )
    paths: Paths = Field(default_factory=Paths)
    plcs: list[Plc] = Field(min_length=1)
    mirrors: list[Mirror] = Field([])
    outputs: list[Output] = Field([])
    alerts: Alerts = Field(default_factory=Alerts)
    store: Store = Field(default_factory=Store)
    quotas: dict[Name, Annotated[int, Field(ge=1)]] = Field(
        {},
        description="points a minute by tenant, one point being one value of one field: over it its"
        " groups are thinned out, and what is withheld is told in `gap` messages (`reason: quota`)."
        " A smaller number of the centre's holds instead",
    )
    metrics: Metrics = Field(default_factory=Metrics)
    infra: Infra = Field(default_factory=Infra)
    fleet: Fleet | None = Field(
        None, description="take the configuration from a control plane (docs/frota.md)"
    )

    _file: Path = PrivateAttr(default=Path("config.yaml"))
    _warnings: list[str] = PrivateAttr(default_factory=list)

    @property
    def file(self) -> Path:
        """Where it was read."""
        return self._file

    @property
    def warnings(self) -> list[str]:
        """What is allowed but not wise."""
        return self._warnings

    def tenant(self, plc: Plc) -> str:
        """The tenant of a PLC."""
        return plc.locatario or self.locatario

    def tenants(self) -> list[str]:
        """Every tenant of this box, the default one first."""
        return list(dict.fromkeys([self.locatario, *(self.tenant(p) for p in self.plcs)]))
