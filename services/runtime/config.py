"""The models of ``config.yaml`` (CONTRACT §3): every key, its default, its range.

``docs/configuration.md`` is generated from these descriptions. Services never import this module:
they read their own rendered JSON (services/runtime/render.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
)

from services.protocols.opcua.model import OpcuaPlc
from services.protocols.s7.model import Endpoint, S7Plc
from services.protocols.s7plus.model import S7PlusPlc
from services.runtime.alert_model import Alerts
from services.runtime.base_model import Credentials as Credentials
from services.runtime.base_model import Duration as Duration
from services.runtime.base_model import Host as Host
from services.runtime.base_model import Model as Model
from services.runtime.base_model import Name as Name
from services.runtime.base_model import Port as Port
from services.runtime.base_model import Size as Size
from services.runtime.base_model import Zone as Zone
from services.runtime.base_model import one_of
from services.runtime.fleet_model import Fleet
from services.runtime.history_model import History
from services.runtime.judged import rule
from services.runtime.loopback import is_loopback
from services.runtime.opcua_model import OpcuaServing
from services.runtime.plc_model import PlcBase

# The table of protocols: what a reader speaks is one row here and one folder of services/protocols.
# Without `protocol:` a PLC is the first.
PROTOCOLS: tuple[type[PlcBase], ...] = (S7Plc, S7PlusPlc, OpcuaPlc)

if TYPE_CHECKING:
    AnyPlc = PlcBase
else:
    AnyPlc = one_of(PROTOCOLS, "protocol")


class Paths(Model):
    """Where files lie."""

    state: Path = Field(Path("/var/lib/plc-edge"), description="the outbox and what was applied")
    runtime: Path = Field(Path("/run/plc-edge"), description="sockets, rings, rendered files")
    logs: Path | None = Field(None, description="logs of the processes; default `<state>/log`")

    @property
    def log_dir(self) -> Path:
        """Where supervisord writes the processes' logs."""
        return self.logs or self.state / "log"


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


class BrokerOutput(OutputBase):
    """What outputs to an MQTT broker have."""

    host: Host | None = None
    hosts: list[Host] = Field([], description="brokers to try in turn")
    port: Port = 8883
    version: Literal["3.1.1", 5] = Field(5, description="only 5 learns of refused messages")
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


class MqttOutput(BrokerOutput):
    """To an MQTT broker."""

    type: Literal["mqtt"]
    qos: Literal[0, 1] = 1


class SparkplugOutput(BrokerOutput):
    """To an MQTT broker, as a Sparkplug B 3.0 edge node (docs/sparkplug.md)."""

    type: Literal["sparkplug"]
    qos: Literal[0, 1] = Field(
        0,
        description="of values. The specification wants 0: the broker is asked after them, and what"
        " it refuses is not known. 1 is acknowledged one by one, and no longer conformant",
    )
    window: int = Field(5_000, ge=1, le=20_000, description="messages in flight")
    primary_host: str | None = Field(
        None,
        pattern=r"^[^+#/\x00]+$",
        description="host application that must be online (its `STATE`); while it is not, messages"
        " are kept, and sent as history later",
    )
    host_grace: Duration = Field(
        2.0,
        ge=0,
        le=300,
        description="with `primary_host`: so long a message that the broker has is kept, and sent"
        " again if the host proves to have been gone; at most `window` messages in that time",
    )


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
    MqttOutput | SparkplugOutput | HttpOutput | StdoutOutput | OpcuaOutput,
    Field(discriminator="type"),
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
    plcs: list[AnyPlc] = Field(min_length=1)
    mirrors: list[Mirror] = Field([])
    outputs: list[Output] = Field([])
    alerts: Alerts = Field(default_factory=Alerts)
    store: Store = Field(default_factory=Store)
    history: History | None = Field(
        None, description="keep what is delivered on this box (docs/historico.md)"
    )
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

    def tenant(self, plc: PlcBase) -> str:
        """The tenant of a PLC."""
        return plc.locatario or self.locatario

    def tenants(self) -> list[str]:
        """Every tenant of this box, the default one first."""
        return list(dict.fromkeys([self.locatario, *(self.tenant(p) for p in self.plcs)]))
