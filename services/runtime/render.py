"""A checked site -> what its processes and supervisord read, in the runtime directory.

``<runtime>/conf/<process>.json`` is all that a process ever reads: an unapplied edit of the YAML
cannot break a restart. ``<runtime>/supervisor.d/<process>.conf`` is its program. A hash of the
JSON stands in the program's environment, so supervisord's update restarts exactly what changed;
what a process takes while it runs (``RELOADED``) is not in the hash.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from bus.topology import PROCESSES, process_name
from services.protocols.s7.model import S7Group, S7Plc
from services.runtime import (
    alert_model,
    alert_rules,
    files,
    oee_rules,
    patterns,
    secrets,
    supervisor_access,
)
from services.runtime.alert_base import DAYS
from services.runtime.alert_routes import AlertMqtt, AlertRoute, AlertWebhook, AnyReceiver
from services.runtime.config import (
    BrokerOutput,
    Credentials,
    HttpOutput,
    Mirror,
    OpcuaOutput,
    Output,
    SparkplugOutput,
)
from services.runtime.consumers import consumers
from services.runtime.fleet_model import Fleet
from services.runtime.history_model import History
from services.runtime.named_files import SECRET_KEYS
from services.runtime.plc_model import GroupBase, PlcBase
from services.runtime.site import Site, raw_range
from services.s7.field import Field

Rendered = dict[str, dict[str, Any]]

# Lists that say which other processes there are: a new PLC must restart nobody.
RELOADED = ("plcs", "outputs", "processes", "mirrors", "quotas", "fleet", "alarms")

# In the state folder: the fleet process that watches a configuration which has none itself, until
# that one has proved good (services/fleet).
FLEET_KEPT = "fleet/kept.json"

PROGRAM = """\
; {name}: written by plc-edge from {source}; do not edit
[program:{name}]
command=%(ENV_PLC_EDGE_PYTHON)s -P -m services.{folder} --config {config}
environment=PLC_EDGE_CONFIG_HASH="{hash}"
priority={priority}
"""
# The same for every program; supervisord.conf explains each line.
PROGRAM_COMMON = """\
autostart=true
startsecs=1
startretries=1000000
autorestart=unexpected
exitcodes=78
stopsignal=TERM
stopwaitsecs=6
redirect_stderr=true
stdout_logfile=%(ENV_PLC_EDGE_LOGS)s/%(program_name)s.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


def render(site: Site) -> Rendered:
    """The JSON of every process, by process name; holds references to secrets, never one."""
    config = site.config
    plcs = [_plc_summary(site, p) for p in config.plcs]
    outputs = consumers(config)
    mirrors = [{"name": m.name, "enabled": m.enabled} for m in config.mirrors]
    rendered: Rendered = {}

    def add(folder: str, item: str, **content: Any) -> None:
        name = process_name(folder, item)
        rendered[name] = {
            "process": name,
            "folder": folder,
            "item": item,
            "site": config.site,
            "locatario": config.locatario,
            "runtime": str(config.paths.runtime.absolute()),
            "state": str(config.paths.state.absolute()),
            "logs": str(config.paths.log_dir.absolute()),
            **content,
        }

    clock = {"clock_sync": config.clock_sync}
    for plc in config.plcs:
        groups = [_group(site, plc, g) for g in plc.groups]
        add("reader", plc.id, plc=_plc(site, plc), groups=groups, **clock)
    for output in config.outputs:
        known: dict[str, Any] = {"plcs": plcs}
        if isinstance(output, SparkplugOutput):
            of = zip(config.plcs, plcs, strict=True)
            known = {"plcs": [_with_fields(site, plc, summary) for plc, summary in of]}
        elif isinstance(output, OpcuaOutput):
            known = _shown_by_opcua(site, output)
        elif output.reduce is not None:
            known = {"plcs": _reduced(site, plcs)}
        if not output.shows_values:
            known["history"] = config.history is not None
        add("publisher", output.name, output=_output(site, output), **known)
    for mirror in config.mirrors:
        add("mirror", mirror.name, mirror=_mirror(mirror), source_group=_source(site, mirror))
    if config.alerts.needed:
        add("alerts", "", **_alerts(site))
    if config.history is not None:
        add("historian", "", **_historian(site, config.history))
    if config.fleet is not None:
        add("fleet", "", **_fleet(site, config.fleet))
    elif (kept := _read_json(config.paths.state / FLEET_KEPT)) is not None:
        rendered[process_name("fleet")] = kept
    s = config.store
    store = {
        "max_size_bytes": s.max_size,
        "max_age_s": s.max_age,
        "min_free_bytes": s.min_free,
        "durability": s.durability,
        "commit_ms": s.commit * 1_000,
        "replay": s.replay.model_dump(mode="json"),
    }
    quotas = config.quotas
    # The centre's limit holds as long as something here asks the centre.
    follows = {"fleet": True} if process_name("fleet") in rendered else {}
    add("store_forward", "", store=store, outputs=outputs, plcs=plcs, quotas=quotas, **follows)
    m = config.metrics
    panel = {
        "host": m.host,
        "port": m.port,
        "username": m.username,
        "password": _secret(site, m, "password", "metrics"),
        "tls": {k: _beside(site, v) for k, v in m.tls.model_dump().items()} if m.tls else None,
    }
    processes = sorted([*rendered, process_name("metrics")])
    add(
        "metrics",
        "",
        metrics=panel,
        processes=processes,
        plcs=[_with_units(site, p) for p in plcs],
        outputs=outputs,
        mirrors=mirrors,
        certificates=_certificates(site),
        store_max_bytes=s.max_size,
        supervisor_socket=str(supervisor_socket(site)),
        **clock,
    )
    return rendered


def supervisor_socket(site: Site) -> Path:
    """supervisord's control socket."""
    return site.config.paths.runtime.absolute() / supervisor_access.SOCKET


def _plc_summary(site: Site, plc: PlcBase) -> dict[str, Any]:
    groups = [
        {
            "name": g.name,
            "db": g.block(),
            "scan_s": g.scan,
            "machines": [name for name, _ in g.records()],
            "trend": g.trend,
        }
        for g in plc.groups
    ]
    return {
        "id": plc.id,
        "locatario": site.config.tenant(plc),
        "host": plc.all_hosts[0],
        "heartbeat_s": plc.heartbeat,
        "groups": groups,
    }


def _oee(site: Site) -> dict[str, Any] | None:
    if (shifts := site.config.shifts) is None:
        return None
    email = None
    if shifts.email is not None:
        email = oee_rules.email_spec(shifts.email)
        email["ca"] = _beside(site, shifts.email.ca)
        email["password"] = _secret(site, shifts.email, "password", "shifts-email")
    return {**oee_rules.spec(site), "site": site.config.site, "email": email}


def _with_units(site: Site, plc: dict[str, Any]) -> dict[str, Any]:
    """A PLC's summary with its fields' units, for the panel."""
    groups = [
        {**g, "units": {f.name: f.unit for f in site.fields[plc["id"], g["name"]] if f.unit}}
        for g in plc["groups"]
    ]
    return {**plc, "groups": groups}


def _zone(plc: PlcBase, group: GroupBase) -> str:
    """Whose time a group's dates without a zone show."""
    if isinstance(plc, S7Plc) and isinstance(group, S7Group):
        return group.timezone or plc.timezone
    return "UTC"


def _with_fields(site: Site, plc: PlcBase, summary: dict[str, Any]) -> dict[str, Any]:
    """A PLC's summary with its fields' types, for births."""
    groups = []
    for group, known in zip(plc.groups, summary["groups"], strict=True):
        fields = [
            {"name": f.name, "type": f.type, "unit": f.unit, "scaled": f.scale is not None}
            for f in site.fields[plc.id, group.name]
        ]
        groups.append({**known, "fields": fields, "timezone": _zone(plc, group)})
    return {**summary, "groups": groups}


def _reduced(site: Site, plcs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summaries with how long a value holds, and which fields are summed up in a way of their own:
    counters (and how many values each has), and what may come as text, being of 64 bits.
    """
    holds_ms = alert_rules.holds_ms(site)

    def more(plc: str, group: str) -> dict[str, Any]:
        fields = site.fields[plc, group]
        return {
            "hold_ms": holds_ms[plc, group],
            "counters": {f.name: _span(f) for f in fields if f.counts},
            "wide": [f.name for f in fields if f.type.partition("[")[0] in _WIDE],
        }

    return [
        {**plc, "groups": [{**g, **more(plc["id"], g["name"])} for g in plc["groups"]]}
        for plc in plcs
    ]


_WIDE = ("LINT", "ULINT", "LWORD")


def _span(counter: Field) -> int:
    """How many values it has; 0 where it does not go round."""
    goes_round = counter.scale is None and counter.type != "COUNTER"
    return 256**counter.size_bytes if goes_round else 0


def _shown_by_opcua(site: Site, output: OpcuaOutput) -> dict[str, Any]:
    """The nodes of a server: PLCs with their fields, and the rules that ring for each tenant."""
    config = site.config
    tenants = [t for t in config.tenants() if t in (output.locatarios or config.tenants())]
    plcs = []
    for plc in config.plcs:
        if config.tenant(plc) not in tenants:
            continue
        groups = [
            {
                "name": g.name,
                "machines": [name for name, _ in g.records()],
                "timezone": _zone(plc, g),
                "fields": [
                    {k: v for k, v in f.to_dict().items() if k not in _NOT_SHOWN}
                    for f in site.fields[plc.id, g.name]
                ],
            }
            for g in plc.groups
        ]
        plcs.append({**_plc_summary(site, plc), "groups": groups})
    alarms = [
        {"locatario": tenant, "name": spec["name"]}
        for tenant in tenants
        for spec in alert_model.specs(config.alerts, alert_rules.units(site))
        if patterns.matches((spec.get("where") or {}).get("locatario") or "*", tenant)
    ]
    return {"plcs": plcs, "alarms": alarms, "history": config.history is not None}


# Where a field lies is the reader's business; its change alone changes no node.
_NOT_SHOWN = ("area", "db", "byte", "bit", "tag", "deadband", "encoding")


def _certificates(site: Site) -> list[dict[str, str]]:
    """Certificates whose end is watched: whose they are, and the file."""
    found: list[tuple[str, Path | None]] = []
    for output in site.config.outputs:
        if isinstance(output, BrokerOutput | HttpOutput) and output.tls:
            owner = process_name("publisher", output.name)
            found += [(owner, output.tls.ca), (owner, output.tls.cert)]
        if isinstance(output, OpcuaOutput):
            found.append((process_name("publisher", output.name), output.certificate))
    if site.config.metrics.tls:
        found.append((process_name("metrics"), site.config.metrics.tls.cert))
    return [{"process": owner, "file": path} for owner, f in found if (path := _beside(site, f))]


def _plc(site: Site, plc: PlcBase) -> dict[str, Any]:
    return {
        "id": plc.id,
        "locatario": site.config.tenant(plc),
        "protocol": plc.protocol,
        "hosts": plc.all_hosts,
        "timeout_s": plc.timeout,
        "heartbeat_s": plc.heartbeat,
        **plc.rendered(_Files(site)),
    }


class _Files:
    """services/runtime/plc_model.py."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def beside(self, file: Path | None) -> str | None:
        """A path of the configuration, made absolute."""
        return _beside(self._site, file)

    def secret(self, holder: Credentials, key: str, owner: str) -> dict[str, str] | None:
        """The reference to a secret."""
        return _secret(self._site, holder, key, owner)


def _group(site: Site, plc: PlcBase, group: GroupBase) -> dict[str, Any]:
    return {
        "name": group.name,
        "measurement": group.measurement,
        "db": group.block(),
        "scan_s": group.scan,
        "publish": group.publish,
        "max_silence_s": group.max_silence,
        "timestamp": None,
        "timezone": None,
        "machines": group.records(),
        "fields": [f.to_dict() for f in site.fields[plc.id, group.name]],
        **group.rendered(plc),
    }


def _output(site: Site, output: Output) -> dict[str, Any]:
    out = output.model_dump(mode="json", by_alias=True)
    for key in output.secret_keys:
        out.pop(f"{key}_file", None)
        out[key] = _secret(site, output, key, output.name)
    if output.reduce is None:
        del out["reduce"]
    else:
        out["reduce"] = {
            "step_ms": round(output.reduce.step * 1_000),
            "max_size_bytes": output.reduce.max_size,
            "max_age_ms": round(site.config.store.max_age * 1_000),
        }
    if isinstance(output, BrokerOutput):
        del out["doctor"]  # none of the publisher's business, and it may hold a password
        out["hosts"] = output.all_hosts
        del out["host"]
        out["accounts"] = {
            tenant: _account(site, account, f"{output.name}-{tenant}")
            for tenant, account in output.accounts.items()
        }
    if isinstance(output, OpcuaOutput):
        for key in ("trusted", "certificate", "key"):
            out[key] = _beside(site, getattr(output, key))
        out["users"] = [
            {
                "username": user.username,
                "password": _secret(site, user, "password", f"{output.name}-{user.username}"),
                "certificate": _beside(site, user.certificate),
                "locatarios": user.locatarios,
            }
            for user in output.users
        ]
    if isinstance(output, BrokerOutput | HttpOutput) and output.tls:
        tls = output.tls.model_dump()
        out["tls"] = {k: _beside(site, v) for k, v in tls.items()}
    return out


def _alerts(site: Site) -> dict[str, Any]:
    alerts = site.config.alerts
    holds = alert_rules.holds_ms(site).items()
    return {
        "rules": alert_model.specs(alerts, alert_rules.units(site)),
        "roster": list(alert_rules.roster(site)),
        "hold_ms": alert_rules.hold_ms(alerts),
        "holds_ms": [[plc, group, hold_ms] for (plc, group), hold_ms in holds],
        "late_after_ms": round(alerts.late_after * 1_000),
        "receivers": [_receiver(site, r) for r in alerts.receivers],
        "routes": {name: alert_route(route) for name, route in alerts.routes.items()},
        "timezone": alerts.timezone,
    }


def alert_route(route: AlertRoute) -> dict[str, Any]:
    """As the engine takes it: times in ms, days as numbers."""
    return {
        "receivers": route.receivers,
        "group": [round(route.group.wait * 1_000), route.group.max] if route.group else None,
        "steps": [[round(step.after * 1_000), step.to] for step in route.escalate],
        "quiet": [
            [[DAYS.index(d) for d in q.days], q.begin, q.end, q.severities] for q in route.quiet
        ],
    }


def _receiver(site: Site, receiver: AnyReceiver) -> dict[str, Any]:
    if isinstance(receiver, AlertMqtt):
        return _board(site, receiver)
    out = receiver.model_dump(mode="json", by_alias=True)
    for key in receiver.secret_keys:
        out.pop(f"{key}_file", None)
        out[key] = _secret(site, receiver, key, f"alerts-{receiver.name}")
    out["ca"] = _beside(site, receiver.ca)
    if isinstance(receiver, AlertWebhook):
        panel = site.config.metrics
        scheme = "https" if panel.tls else "http"
        out["external_url"] = f"{scheme}://{site.config.site}:{panel.port}"
    return out


def _historian(site: Site, history: History) -> dict[str, Any]:
    holds = alert_rules.holds_ms(site)
    groups = [
        {
            "locatario": site.config.tenant(plc),
            "plc": plc.id,
            "group": group.name,
            "hold_ms": holds[plc.id, group.name],
            "fields": [
                {
                    "name": f.name,
                    "type": f.type,
                    "unit": f.unit,
                    "counts": f.counts,
                    "scaled": f.scale is not None,
                }
                for f in site.fields[plc.id, group.name]
            ],
        }
        for plc in site.config.plcs
        for group in plc.groups
    ]
    return {
        "max_size_bytes": history.max_size,
        "min_free_bytes": history.min_free,
        "max_age_ms": {k: round(v * 1_000) for k, v in history.max_age},
        "groups": groups,
        "oee": _oee(site),
    }


def _fleet(site: Site, fleet: Fleet) -> dict[str, Any]:
    return {
        "url": fleet.url,
        "ca": _beside(site, fleet.ca),
        "claim_file": _beside(site, fleet.claim_file),
        "watch_s": fleet.watch,
        "config_file": str(site.config.file.absolute()),
    }


def _board(site: Site, receiver: AlertMqtt) -> dict[str, Any]:
    """Its output's broker, with accounts of its own."""
    output = next(o for o in site.config.outputs if o.name == receiver.output)
    broker = _output(site, output)
    name = f"alerts-{receiver.name}"
    return {
        **{k: broker[k] for k in ("hosts", "port", "version", "keepalive", "tls")},
        "name": receiver.name,
        "type": receiver.type,
        "per_site": receiver.per_site,
        "tenants": {
            tenant: _account(site, receiver.accounts[tenant], f"{name}-{tenant}")
            if tenant in receiver.accounts
            else _account(site, receiver, name)
            for tenant in site.config.tenants()
        },
    }


def _account(site: Site, holder: Credentials, owner: str) -> dict[str, Any]:
    return {
        "username": holder.username,
        "password": _secret(site, holder, "password", owner),
    }


def _mirror(mirror: Mirror) -> dict[str, Any]:
    local, remote = mirror.target.tsaps()
    out = mirror.model_dump(mode="json", by_alias=True)
    out["target"] |= {"local_tsap": local, "remote_tsap": remote}
    return out


def _source(site: Site, mirror: Mirror) -> dict[str, Any]:
    plc = next(p for p in site.config.plcs if p.id == mirror.source.plc)
    group = next(g for g in plc.groups if g.name == mirror.source.group)
    assert isinstance(group, S7Group)
    start, length = raw_range(site, plc, group)
    return {"db": group.db, "start": start, "length": length, "scan_s": group.scan}


def _beside(site: Site, file: Path | None) -> str | None:
    """A path of the configuration, made absolute."""
    return str((site.config.file.parent / file).absolute()) if file else None


def _secret(site: Site, holder: Credentials, key: str, owner: str) -> dict[str, str] | None:
    """The reference to a secret, with a digest so that its change restarts who uses it."""
    reference = secrets.reference_of(holder, key, site.config.file.parent)
    if reference is None and getattr(holder, key, None) is not None:
        # Given in clear: kept in a file of its own, made by write_clear_secrets.
        reference = {"file": str(_clear_file(site, f"{owner}.{key}"))}
        return {**reference, "digest": hashlib.sha256(getattr(holder, key).encode()).hexdigest()}
    return {**reference, "digest": secrets.fingerprint(reference)} if reference else None


def _clear_file(site: Site, name: str) -> Path:
    return site.config.paths.state.absolute() / "secrets" / name


def config_hash(content: dict[str, Any]) -> str:
    """What must be equal for a running process to be left alone."""
    stable = {k: v for k, v in content.items() if k not in RELOADED}
    return hashlib.sha256(orjson.dumps(stable, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def write(rendered: Rendered, source: str) -> None:
    """Writes it all.

    Files are replaced whole (rename), so a process that starts meanwhile reads the old or the new.
    """
    some = next(iter(rendered.values()))
    runtime = Path(some["runtime"])
    folders = (runtime, runtime / "conf", runtime / "supervisor.d", some["state"], some["logs"])
    for folder in map(Path, folders):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in rendered.items():
        file = runtime / "conf" / f"{name}.json"
        data = orjson.dumps(content, option=orjson.OPT_INDENT_2)
        if not file.exists() or data != file.read_bytes():
            files.write_whole(file, data)
        process = PROCESSES[content["folder"]]
        if not process.rendered:
            continue  # stands in supervisord.conf itself
        program = PROGRAM.format(
            name=name,
            source=source,
            folder=process.folder,
            config=file,
            hash=config_hash(content),
            priority=process.priority,
        )
        files.write_whole(
            runtime / "supervisor.d" / f"{name}.conf", (program + PROGRAM_COMMON).encode()
        )
    for file in [*(runtime / "conf").glob("*.json"), *(runtime / "supervisor.d").glob("*.conf")]:
        if file.stem not in rendered:
            file.unlink()


def changed(rendered: Rendered) -> set[str]:
    """The processes whose hash is another than that of what is written."""
    folder = Path(next(iter(rendered.values()))["runtime"]) / "conf"
    return {
        name
        for name, content in rendered.items()
        if (old := _read_json(folder / f"{name}.json")) is None
        or config_hash(old) != config_hash(content)
    }


def _read_json(file: Path) -> Any:
    try:
        return orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        return None


# --- what was applied last -------------------------------------------------------------------


def save_applied(site: Site, rendered: Rendered) -> None:
    """Keeps what now runs in ``<state>/applied``, so that a later bad edit cannot stop the site."""
    applied = site.config.paths.state / "applied"
    applied.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_whole(applied / "rendered.json", orjson.dumps(rendered, option=orjson.OPT_INDENT_2))
    files.write_whole(applied / "config.yaml", site.config.file.read_bytes())


def load_applied(state: Path) -> Rendered | None:
    """What was applied last; None where there is nothing usable."""
    applied = _read_json(state / "applied" / "rendered.json")
    return applied if isinstance(applied, dict) and applied else None


def write_clear_secrets(site: Site) -> None:
    """Puts passwords given in clear into files of their own, so that no rendered file holds one."""
    (site.config.paths.state / "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
    holders: list[tuple[str, Credentials]] = [("metrics", site.config.metrics)]
    for plc in site.config.plcs:
        if isinstance(plc, Credentials):
            holders.append((plc.id, plc))
    for output in site.config.outputs:
        holders.append((output.name, output))
        if isinstance(output, BrokerOutput):
            holders += [(f"{output.name}-{t}", a) for t, a in output.accounts.items()]
        if isinstance(output, OpcuaOutput):
            holders += [(f"{output.name}-{u.username}", u) for u in output.users]
    for receiver in site.config.alerts.receivers:
        name = f"alerts-{receiver.name}"
        holders.append((name, receiver))
        if isinstance(receiver, AlertMqtt):
            holders += [(f"{name}-{t}", a) for t, a in receiver.accounts.items()]
    for owner, holder in holders:
        for key in SECRET_KEYS:
            value = getattr(holder, key, None)
            if value and secrets.reference_of(holder, key, Path()) is None:
                files.write_whole(_clear_file(site, f"{owner}.{key}"), value.encode())
