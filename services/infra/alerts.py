"""Grafana's alert rules, contact point and policy, for every organisation."""

from __future__ import annotations

from typing import Any

from services.infra.dashboards import INFLUX, NEWEST_BEAT
from services.infra.model import Fleet, Tenant

Json = dict[str, Any]

# (uid, title, Flux, condition on its value, how long, what to do)
_HEARTBEAT = 'r._measurement == "heartbeat"'
_NEWEST = "\n    |> ".join(NEWEST_BEAT)
RULES: tuple[tuple[str, str, str, tuple[str, float], str, str], ...] = (
    (
        "sem-dados",
        "CLP sem dados",
        # Of silence it tells for three days: a PLC that went on Friday still counts on Monday.
        f"""\
from(bucket: "platform_metrics")
    |> range(start: -3d)
    |> filter(fn: (r) => {_HEARTBEAT} and r._field == "online")
    |> {_NEWEST}
    |> map(fn: (r) => ({{r with _value: if r._time < date.sub(d: 2m, from: now())
        then 0.0 else r._value}}))
    |> group()
    |> keep(columns: ["plc_id", "locatario_id", "_value"])""",
        ("lt", 1.0),
        "1m",
        "Veja o painel Saúde da borda; na caixa: plc-edge status e plc-edge doctor.",
    ),
    (
        "pendentes",
        "Mensagens acumulando na caixa",
        f"""\
from(bucket: "platform_metrics")
    |> range(start: -10m)
    |> filter(fn: (r) => {_HEARTBEAT} and r._field == "pending")
    |> last()
    |> group()
    |> keep(columns: ["plc_id", "locatario_id", "_value"])""",
        ("gt", 10_000.0),
        "10m",
        "O broker não recebe: verifique a rede e o acesso; na caixa: plc-edge doctor.",
    ),
    (
        "latencia",
        "Leitura lenta do CLP",
        f"""\
from(bucket: "platform_metrics")
    |> range(start: -10m)
    |> filter(fn: (r) => {_HEARTBEAT} and r._field == "latency_ms")
    |> mean()
    |> group()
    |> keep(columns: ["plc_id", "locatario_id", "_value"])""",
        ("gt", 500.0),
        "10m",
        "Verifique a carga de comunicação do CLP, o cabo e o switch.",
    ),
    (
        "lacuna",
        "Dados perdidos (lacuna)",
        """\
from(bucket: "platform_metrics")
    |> range(start: -15m)
    |> filter(fn: (r) => r._measurement == "lacuna" and r._field == "from_ts")
    |> count()
    |> map(fn: (r) => ({r with _value: float(v: r._value)}))
    |> group()
    |> keep(columns: ["plc_id", "locatario_id", "_value"])""",
        ("gt", 0.0),
        "0s",
        "Veja o motivo no painel Depuração; aumente store.max_size se a caixa ficou sem broker.",
    ),
)


def flux(query: str) -> str:
    """A rule's query, with the packages that it uses."""
    return f'import "date"\n\n{query}\n' if "date." in query else query + "\n"


def _rule(
    tenant: Tenant, uid: str, title: str, query: str, limit: tuple[str, float], wait: str, text: str
) -> Json:
    how, value = limit
    expression = {"type": "__expr__", "uid": "__expr__"}
    return {
        # A uid holds at most 40 characters; the organisation already tells tenants apart.
        "uid": f"plc-edge-{uid}",
        "title": title,
        "condition": "C",
        "for": wait,
        # Silence is a fault of the heartbeat alone: no gap and no latency mean nothing is wrong.
        "noDataState": "Alerting" if uid == "sem-dados" else "OK",
        "execErrState": "KeepLast",
        "annotations": {"summary": title, "description": text, "runbook": "docs/OPERACOES.md"},
        "labels": {
            "severity": "critical" if uid in ("sem-dados", "lacuna") else "warning",
            "locatario": tenant.id,
        },
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": {"from": 900, "to": 0},
                "datasourceUid": INFLUX["uid"],
                "model": {"refId": "A", "query": flux(query)},
            },
            {
                "refId": "C",
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "C",
                    "type": "threshold",
                    "datasource": expression,
                    "expression": "A",
                    "conditions": [{"evaluator": {"type": how, "params": [value]}}],
                },
            },
        ],
    }


def provisioning(fleet: Fleet) -> dict[str, Json]:
    """File name -> content of ``provisioning/alerting``."""
    tenants = fleet.tenants
    return {
        "rules": {
            "apiVersion": 1,
            "groups": [
                {
                    "orgId": f"$ORG_{t.slug}",
                    "name": "plc-edge",
                    "folder": "plc-edge",
                    "interval": "1m",
                    "rules": [_rule(t, *rule) for rule in RULES],
                }
                for t in tenants
            ],
        },
        "contact-points": {
            "apiVersion": 1,
            "contactPoints": [
                {
                    "orgId": f"$ORG_{t.slug}",
                    "name": "plantao",
                    "receivers": [
                        {
                            "uid": "plc-edge-plantao",
                            "type": "email",
                            # Set by the environment of Grafana; SMTP is configured with GF_SMTP_*.
                            "settings": {"addresses": f"$ALERT_EMAIL_{t.slug}"},
                        }
                    ],
                }
                for t in tenants
            ],
        },
        "policies": {
            "apiVersion": 1,
            "policies": [
                {
                    "orgId": f"$ORG_{t.slug}",
                    "receiver": "plantao",
                    "group_by": ["alertname", "plc_id"],
                    "group_wait": "30s",
                    "group_interval": "5m",
                    "repeat_interval": "4h",
                }
                for t in tenants
            ],
        },
    }
