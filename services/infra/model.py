"""Several boxes' configurations -> one fleet, as the templates need it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.infra.tenant import (
    PLATFORM,
    RETENTION_DAYS,
    TOKENS,
    Bucket,
    Token,
    buckets,
    join,
    kinds,
    slug,
    tasks,
)
from services.runtime.alert_routes import AlertMqtt
from services.runtime.config import Config, Credentials, InfraBroker, MqttOutput
from services.runtime.errors import ConfigError, Problem
from services.runtime.secrets import reference_of
from services.runtime.site import Site

TELEGRAF_ROLES = ("dados", "sinais", "edge")


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant: an InfluxDB organisation, a Grafana organisation, a broker reader."""

    id: str
    plan: str

    @property
    def slug(self) -> str:
        """As part of a shell variable: ``planta-sp`` -> ``PLANTA_SP``."""
        return slug(self.id)

    @property
    def raw_days(self) -> int:
        """Older messages than this are refused by Telegraf: their shards would be gone."""
        return RETENTION_DAYS[self.plan][0]

    @property
    def buckets(self) -> list[Bucket]:
        """All of them, the finest first."""
        return buckets(self.raw_days)

    @property
    def tasks(self) -> list[str]:
        """Their files."""
        return [task.file for task in tasks((), (), self.raw_days)]

    @property
    def tokens(self) -> tuple[Token, ...]:
        """One per writer, and the reader's."""
        return TOKENS


@dataclass(frozen=True, slots=True)
class Account:
    """One broker account, for one connection; ``write`` and ``read`` are topics or filters."""

    name: str
    comment: str
    write: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scrape:
    """One box's /metrics."""

    site: str
    locatario: str
    url: str
    username: str

    @property
    def slug(self) -> str:
        """As part of a shell variable."""
        return slug(self.site)


@dataclass(frozen=True, slots=True)
class Box:
    """What a container with one box's agent needs."""

    site: str
    plcs: list[str]
    """In the configuration's order: the simulator's ports follow it."""
    mqtt_outputs: list[str]
    secrets: list[tuple[str, str]]
    """(environment variable, broker account) of every ``password: ${VARIABLE}``."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything the templates read; equal configurations give equal fleets."""

    sites: list[str]
    tenants: list[Tenant]
    accounts: list[Account]
    scrapes: list[Scrape]
    histories: list[Scrape]
    """The boxes that keep a history."""
    measurements: list[str]
    booleans: list[str]
    counters: list[str]
    broker_host: str
    broker: InfraBroker
    influx_url: str
    victoria_url: str
    control_plane: bool
    """Whether it keeps the accounts of boxes and tenants; ``accounts`` are the platform's own then,
    and the broker's plugin has them instead of files."""
    box: Box
    """The first box: the one that docker-compose.yml runs under its profiles edge and demo."""
    plcs: dict[str, str] = field(default_factory=dict)
    """``site/plc`` -> tenant: whose the PLC of a box's metrics is."""
    nodes: tuple[str, ...] = ()
    """The NATS servers that are the broker together; none: Mosquitto is."""


def fleet(
    sites: Iterable[Site], *, control_plane: bool = False, nodes: Iterable[str] = ()
) -> Fleet:
    """Joins the boxes. Raises ConfigError naming every clash between them. ``control_plane``: that
    one keeps the broker's accounts of boxes and tenants. ``nodes``: of a NATS cluster as broker.
    """
    ordered = sorted(sites, key=lambda s: s.config.site)
    configs = [s.config for s in ordered]
    problems = [*_clashes(configs), *_account_problems(configs), *_board_problems(configs)]
    plans: dict[str, str] = {}
    for c in configs:
        for name in c.tenants():
            plan = c.infra.plan.get(name)
            if plan and plans.setdefault(name, plan) != plan:
                message = f"{name} is on plan {plan} here and on {plans[name]} in another box"
                problems.append(_problem(c, "infra.plan", message, "one tenant has one plan"))
    if problems:
        raise ConfigError(problems)
    names = sorted({t for c in configs for t in c.tenants()})
    booleans, counters = join(kinds(s) for s in ordered).conditions()
    return Fleet(
        sites=[c.site for c in configs],
        tenants=[Tenant(n, plans.get(n, "pro")) for n in names],
        accounts=_platform_accounts() if control_plane else _accounts(configs, names),
        control_plane=control_plane,
        scrapes=[_scrape(c) for c in configs],
        histories=[_scrape(c) for c in configs if c.history is not None],
        measurements=sorted({g.measurement for c in configs for p in c.plcs for g in p.groups}),
        booleans=booleans,
        counters=counters,
        broker_host=configs[0].infra.broker_host,
        broker=configs[0].infra.broker,
        influx_url=configs[0].infra.influx_url,
        victoria_url=configs[0].infra.victoria_url,
        box=_box(configs[0], control_plane),
        plcs={f"{c.site}/{p.id}": c.tenant(p) for c in configs for p in c.plcs},
        nodes=tuple(nodes),
    )


def _problem(config: Config, key: str, message: str, hint: str) -> Problem:
    return Problem(str(config.file), key, message, None, hint)


def _clashes(configs: list[Config]) -> Iterable[Problem]:
    boxes: dict[str, Config] = {}
    plcs: dict[tuple[str, str], Config] = {}
    slugs: dict[str, str] = {}
    for c in configs:
        if (other := boxes.setdefault(c.site, c)) is not c:
            message = f"{c.site} is also the box of {other.file}"
            yield _problem(c, "site", message, "give every box a name of its own")
        for p in c.plcs:
            key = (c.tenant(p), p.id)
            if (other := plcs.setdefault(key, c)) is not c:
                message = f"{p.id} of tenant {key[0]} is also read by {other.file}"
                yield _problem(c, "plcs", message, "rename one: they would share one topic")
        for name in (c.site, *c.tenants()):
            if (first := slugs.setdefault(slug(name), name)) != name:
                message = f"{name} and {first} differ in - and _ only"
                yield _problem(c, "site", message, "their secrets would share one variable")
        for name in c.tenants():
            if name == PLATFORM:
                message = f"{PLATFORM} is the operator's own organisation"
                yield _problem(c, "locatario", message, "choose another name for the tenant")


def box_accounts(config: Config) -> list[tuple[str, str]]:
    """(account, tenant) of every MQTT connection of a box: one per output and tenant."""
    pairs: list[tuple[str, str]] = []
    for output in config.outputs:
        if not isinstance(output, MqttOutput):
            continue
        for tenant in output.locatarios or config.tenants():
            account = output.accounts.get(tenant)
            name = account.username if account else output.username
            pairs.append((name or f"edge-{config.site}-{tenant}", tenant))
    return list(dict.fromkeys(pairs))


def alert_accounts(config: Config) -> list[tuple[str, str]]:
    """The same of its MQTT alert receivers."""
    pairs = [
        (
            (receiver.accounts.get(tenant) or receiver).username
            or f"alerts-{config.site}-{receiver.name}-{tenant}",
            tenant,
        )
        for receiver in _boards(config)
        for tenant in config.tenants()
    ]
    return list(dict.fromkeys(pairs))


def _boards(config: Config) -> list[AlertMqtt]:
    return [r for r in config.alerts.receivers if isinstance(r, AlertMqtt)]


def _board_problems(configs: list[Config]) -> Iterable[Problem]:
    """Boxes of one tenant would clear each other's word of a rule of the same name."""
    used: dict[tuple[str, str], Config] = {}
    for c in configs:
        if all(receiver.per_site for receiver in _boards(c)):
            continue
        for tenant in c.tenants():
            for rule in c.alerts.rules:
                if (first := used.setdefault((tenant, rule.name), c)) is not c:
                    message = f"alertas/{tenant}/{rule.name} is also written by {first.file}"
                    hint = "say `per_site: true` in the MQTT receivers of both, or rename the rule"
                    yield _problem(c, "alerts.receivers", message, hint)


def _account_problems(configs: list[Config]) -> Iterable[Problem]:
    used: dict[str, tuple[Config, str]] = {}
    for c in configs:
        for name, tenant in [*box_accounts(c), *alert_accounts(c)]:
            first, of = used.setdefault(name, (c, tenant))
            if first is c and of == tenant:
                continue
            who = f"tenant {of}" if first is c else str(first.file)
            message = f"broker account {name} of tenant {tenant} is also used by {who}"
            hint = (
                f"give the tenant its own: accounts: {{{tenant}: {{username: {name}-{tenant}, …}}}}"
                " (one account is one connection: the broker ends the older of two)"
            )
            yield _problem(c, "outputs", message, hint)


def _accounts(configs: list[Config], tenants: list[str]) -> list[Account]:
    accounts = []
    for c in configs:
        everything: list[str] = []
        for tenant in c.tenants():
            topics = [f"edge/{tenant}/{c.site}/status"]
            for p in c.plcs:
                if c.tenant(p) == tenant:
                    base = f"plc/{tenant}/{p.id}"
                    topics += [base, f"{base}/heartbeat", f"{base}/gap"]
            everything += topics
            for name, of in box_accounts(c):
                if of == tenant:
                    comment = f"box {c.site}, tenant {tenant}"
                    accounts.append(Account(name, comment, write=tuple(topics)))
            for name, of in alert_accounts(c):
                if of == tenant:
                    shown: tuple[str, ...] = (f"alertas/{tenant}/#",)
                    comment = f"alerts of box {c.site}, tenant {tenant}"
                    accounts.append(Account(name, comment, write=shown))
        doctor = f"plc-edge doctor and technicians on box {c.site}"
        accounts.append(Account(f"doctor-{c.site}", doctor, write=tuple(everything)))
    *telegraf, health = _platform_accounts()
    for tenant in tenants:
        read = tuple(f"{tree}/{tenant}/#" for tree in ("plc", "edge", "alertas"))
        telegraf.append(Account(f"leitor-{tenant}", f"reader of tenant {tenant}", read=read))
    return [*accounts, *telegraf, health]


def _platform_accounts() -> list[Account]:
    """Of no box and no tenant."""
    accounts = []
    for n in (1, 2):
        for role, read in (
            ("dados", ("plc/+/+",)),
            ("sinais", ("plc/+/+/heartbeat", "plc/+/+/gap")),
            ("edge", ("edge/+/+/status",)),
        ):
            accounts.append(Account(f"telegraf-{n}-{role}", f"Telegraf {n}: {role}", read=read))
    # What a full queue has lost, nobody else is told.
    counters = ("$SYS/broker/uptime", "$SYS/broker/publish/messages/dropped")
    health = Account("saude", "health check of the container", read=counters)
    return [*accounts, health]


def _box(config: Config, control_plane: bool) -> Box:
    outputs = [o for o in config.outputs if isinstance(o, MqttOutput)]
    clients: list[MqttOutput | AlertMqtt] = [*outputs, *_boards(config)]
    holders: list[Credentials] = [c for o in clients for c in (o, *o.accounts.values())]
    secrets = [
        (reference["env"], holder.username)
        for holder in holders
        if not control_plane  # which shows each secret once, to whoever brings it to the box
        and (reference := reference_of(holder, "password", config.file.parent))
        and "env" in reference
        and holder.username
    ]
    return Box(config.site, [p.id for p in config.plcs], [o.name for o in outputs], secrets)


def _scrape(config: Config) -> Scrape:
    m = config.metrics
    if config.infra.metrics_url:
        return Scrape(config.site, config.locatario, config.infra.metrics_url, m.username or "")
    try:
        address = ipaddress.ip_address(m.host)
        reachable = not address.is_loopback
        host = config.site if address.is_unspecified or not reachable else m.host
    except ValueError:
        reachable, host = m.host != "localhost", m.host if m.host != "localhost" else config.site
    # From another machine loopback cannot be reached; docker-compose.yml binds the panel of its box
    # to the container's network, with TLS and this user.
    scheme = "https" if m.tls or not reachable else "http"
    username = m.username or ("" if reachable else "metrics")
    return Scrape(config.site, config.locatario, f"{scheme}://{host}:{m.port}/metrics", username)
