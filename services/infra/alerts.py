"""Grafana's alert rules, contact point and policy, for every organisation."""

from __future__ import annotations

from typing import Any

from services.infra.dashboards import source
from services.infra.database import Database
from services.infra.model import Fleet, Tenant
from services.infra.queries import NEWEST_BEAT, Query, newest_beat

Json = dict[str, Any]

# Of silence it tells for three days: a PLC that went on Friday still counts on Monday.
_SILENCE = "3d"
_NEWEST = "\n    |> ".join(NEWEST_BEAT)
_EACH = "by (plc_id, locatario_id)"


def _beats(field: str, span: str, *steps: str) -> str:
    """Flux: one field of the heartbeats, a row for each PLC."""
    lines = [
        'from(bucket: "platform_metrics")',
        f"|> range(start: -{span})",
        f'|> filter(fn: (r) => r._measurement == "heartbeat" and r._field == "{field}")',
        *(f"|> {s}" for s in steps),
        "|> group()",
        '|> keep(columns: ["plc_id", "locatario_id", "_value"])',
    ]
    return "\n    ".join(lines)


def _asks(flux: str, metricsql: str) -> Query:
    return Query("platform_metrics", flux, metricsql)


# (uid, title, query, condition on its value, how long, what to do)
RULES: tuple[tuple[str, str, Query, tuple[str, float], str, str], ...] = (
    (
        "sem-dados",
        "CLP sem dados",
        _asks(
            _beats(
                "online",
                _SILENCE,
                _NEWEST,
                """map(fn: (r) => ({r with _value: if r._time < date.sub(d: 2m, from: now())
        then 0.0 else r._value}))""",
            ),
            newest_beat("heartbeat:online", _SILENCE),
        ),
        ("lt", 1.0),
        "1m",
        "Veja o painel Saúde da borda; na caixa: plc-edge status e plc-edge doctor.",
    ),
    (
        "pendentes",
        "Mensagens acumulando na caixa",
        _asks(
            _beats("pending", "10m", "last()"),
            f"max {_EACH} (last_over_time(heartbeat:pending[10m]))",
        ),
        ("gt", 10_000.0),
        "10m",
        "O broker não recebe: verifique a rede e o acesso; na caixa: plc-edge doctor.",
    ),
    (
        "latencia",
        "Leitura lenta do CLP",
        _asks(
            _beats("latency_ms", "10m", "mean()"),
            f"avg {_EACH} (avg_over_time(heartbeat:latency_ms[10m]))",
        ),
        ("gt", 500.0),
        "10m",
        "Verifique a carga de comunicação do CLP, o cabo e o switch.",
    ),
    (
        "lacuna",
        "Dados perdidos (lacuna)",
        _asks(
            """\
from(bucket: "platform_metrics")
    |> range(start: -15m)
    |> filter(fn: (r) => r._measurement == "lacuna" and r._field == "from_ts")
    |> count()
    |> map(fn: (r) => ({r with _value: float(v: r._value)}))
    |> group()
    |> keep(columns: ["plc_id", "locatario_id", "_value"])""",
            f"sum {_EACH} (count_over_time(lacuna:from_ts[15m]))",
        ),
        ("gt", 0.0),
        "0s",
        "Veja o motivo no painel Depuração; aumente store.max_size se a caixa ficou sem broker.",
    ),
)


def flux(query: str) -> str:
    """A rule's query, with the packages that it uses."""
    return f'import "date"\n\n{query}\n' if "date." in query else query + "\n"


def _asked(query: Query, database: Database) -> Json:
    """As the data source takes it."""
    if database is Database.INFLUXDB2:
        return {"refId": "A", "query": flux(query.flux)}
    return {"refId": "A", "expr": query.metricsql, "instant": True, "range": False}


def _rule(
    tenant: Tenant,
    database: Database,
    rule: tuple[str, str, Query, tuple[str, float], str, str],
) -> Json:
    uid, title, query, (how, value), wait, text = rule
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
                "datasourceUid": source(query.bucket, database)["uid"],
                "model": _asked(query, database),
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


def provisioning(fleet: Fleet, database: Database = Database.INFLUXDB2) -> dict[str, Json]:
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
                    "rules": [_rule(t, database, rule) for rule in RULES],
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
