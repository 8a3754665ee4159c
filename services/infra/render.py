"""A fleet -> reviewable files: deterministic, and with no secret in them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import yaml

from services.infra import alerts, dashboards, history, nats, tenant, victoria
from services.infra.database import Database
from services.infra.model import Fleet
from services.runtime import assets

Files = dict[str, str]

# Template -> rendered file.
_TEMPLATES = {
    "telegraf/telegraf.conf.j2": "telegraf/telegraf.conf",
    "grafana/init-orgs.sh.j2": "grafana/init-orgs.sh",
    "grafana/datasources.yaml.j2": "grafana/provisioning/datasources/plc-edge.yaml",
    "grafana/dashboards.yaml.j2": "grafana/provisioning/dashboards/plc-edge.yaml",
    "prometheus/prometheus.yml.j2": "prometheus/prometheus.yml",
}
# One broker, and the machine on which all of it runs in containers.
_MOSQUITTO = {
    "mosquitto/mosquitto.conf.j2": "mosquitto/mosquitto.conf",
    "mosquitto/users.txt.j2": "mosquitto/users.txt",
    "compose/agent-secrets.txt.j2": "agent-secrets.txt",
    "compose/docker-compose.yml.j2": "docker-compose.yml",
}
_BY_DATABASE = {
    Database.INFLUXDB2: {"influxdb/10-plc-edge.sh.j2": "influxdb/initdb.d/10-plc-edge.sh"},
    Database.VICTORIAMETRICS: {
        "victoriametrics/auth.yml.j2": "victoriametrics/auth.yml",
        "victoriametrics/passwords.sh.j2": "victoriametrics/passwords.sh",
        "victoriametrics/urls.env.j2": "victoriametrics/urls.env",
    },
}
# Where files keep the broker's accounts; where its plugin does, for the control plane.
_BY_FILES = {"mosquitto/acl.j2": "mosquitto/acl"}
_BY_PLUGIN = {"mosquitto/dynamic-security.json.in.j2": "mosquitto/dynamic-security.json.in"}
# As they are: their own braces are no template's.
_COPIED = {
    "telegraf/plc_edge.star": "telegraf/plc_edge.star",
    "prometheus/plc-edge.rules.yml": "prometheus/plc-edge.rules.yml",
}


def render(
    fleet: Fleet,
    infra_dir: str = ".",
    root_dir: str = "..",
    database: Database = Database.INFLUXDB2,
) -> Files:
    """Every file by its path. ``infra_dir`` and ``root_dir`` (of the Dockerfile's context) are seen
    from docker-compose.yml."""
    by_victoria = database is Database.VICTORIAMETRICS
    env = tenant.templates()
    context: dict[str, Any] = {
        "f": fleet,
        "platform": tenant.PLATFORM,
        "infra_dir": infra_dir,
        "root_dir": root_dir,
        "hour_days": tenant.HOUR_DAYS,
        "platform_days": tenant.PLATFORM_DAYS,
        "victoria": by_victoria,
    }
    if by_victoria:
        context |= {
            "stores": victoria.stores(fleet),
            "accounts": list(victoria.accounts(fleet)),
            "passwords": victoria.secrets(fleet),
            "readable": victoria.tenants(fleet),
            "reader": victoria.reader,
            "source_uid": tenant.bucket_source_uid,
        }
    templates = assets.path("infra/templates")
    chosen = _TEMPLATES | _BY_DATABASE[database]
    if not fleet.nodes:
        chosen |= _MOSQUITTO | (_BY_PLUGIN if fleet.control_plane else _BY_FILES)
    files = {out: env.get_template(name).render(context) for name, out in chosen.items()}
    if fleet.nodes:
        files |= nats.files(env, fleet)
    files |= {out: (templates / name).read_text("utf-8") for name, out in _COPIED.items()}
    files |= _victoria(fleet) if by_victoria else _tasks(fleet)
    for name, board in dashboards.all_dashboards(database).items():
        files[f"grafana/dashboards/{name}.json"] = _json(board)
    for name, board in dashboards.operator_dashboards(database).items():
        files[f"grafana/dashboards-operador/{name}.json"] = _json(board)
    files |= history.files(fleet.histories)
    for name, content in alerts.provisioning(fleet, database).items():
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=100)
        files[f"grafana/provisioning/alerting/{name}.yaml"] = text
    return files


def _tasks(fleet: Fleet) -> Files:
    """What InfluxDB condenses by."""
    return {
        f"influxdb/tasks/{task.file}.flux": task.flux
        for days in sorted({t.raw_days for t in fleet.tenants})
        for task in tenant.tasks(fleet.booleans, fleet.counters, days)
    }


def _victoria(fleet: Fleet) -> Files:
    """The flags of each VictoriaMetrics, and what the condenser does."""
    files = {"victoriametrics/condense.json": _json(victoria.condenser(fleet))}
    for store in victoria.stores(fleet):
        lines = [f"{name}={value}\n" for name, value in store.settings.items()]
        files[f"victoriametrics/{store.name}.env"] = "".join(lines)
    return files


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def write(files: Files, out: Path) -> list[str]:
    """Writes them under ``out``; the names of those that changed. Leaves other files alone."""
    changed = []
    for name, text in sorted(files.items()):
        file = out / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        changed.append(name)
    return changed
