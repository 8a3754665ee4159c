"""A dashboard on the boxes' own history (`/api/history` of their panels): the operator's Grafana.

Beside what is provisioned, in a folder of its own: it needs the Infinity data source, a plugin that
Grafana's image does not hold, and the password of each box's panel; Grafana does not start where a
file that its provisioning names is missing. docs/historico-consultas.md says how to switch it on.
A box's panel shows all its tenants, so only the operator's organisation may ask it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from services.infra.boards import Board
from services.infra.dashboards import rendered
from services.infra.database import Database
from services.infra.model import Scrape

Json = dict[str, Any]

PLUGIN = "yesoreyeram-infinity-datasource"
_SOURCE = {"type": PLUGIN, "uid": "${caixa}"}
# What Grafana puts into the address: the chosen series, and the range in Unix ms.
_RANGE = "from=${__from}&to=${__to}"
_ROWS = f"/api/history/rows?series=${{serie:csv}}&{_RANGE}&points=1000"
_EVENTS = f"/api/history/events?{_RANGE}"
_LONGEST_UID = 40


def files(boxes: Sequence[Scrape]) -> dict[str, str]:
    """By path; none where no box keeps a history."""
    if not boxes:
        return {}
    sources = {"apiVersion": 1, "datasources": [_source(b) for b in boxes]}
    return {
        "grafana/historico/datasources.yaml": "# Rendered by `plc-edge infra render`.\n"
        + yaml.safe_dump(sources, allow_unicode=True, sort_keys=False, width=100),
        "grafana/historico/historico.json": json.dumps(board(), indent=2, ensure_ascii=False)
        + "\n",
    }


def _source(box: Scrape) -> Json:
    base = box.url.removesuffix("/metrics")
    source: Json = {
        "name": f"Histórico {box.site}",
        "uid": f"caixa-{box.site}"[:_LONGEST_UID],
        "orgId": 1,
        "type": PLUGIN,
        "access": "proxy",
        "url": base,
        "editable": False,
        "jsonData": {"allowedHosts": [base], "timeoutInSeconds": 10},
        "secureJsonData": {},
    }
    if box.username:
        source |= {"basicAuth": True, "basicAuthUser": box.username}
        source["jsonData"]["auth_method"] = "basicAuth"
        password = f"$__file{{/etc/plc-edge/secrets/metrics-{box.site}.pw}}"
        source["secureJsonData"]["basicAuthPassword"] = password
    if base.startswith("https"):
        source["jsonData"]["tlsAuthWithCACert"] = True
        source["secureJsonData"]["tlsCACert"] = "$__file{/etc/plc-edge/tls/ca.pem}"
    return source


def _query(url: str, rows: str, form: str, **columns: tuple[str, str]) -> Json:
    """``columns``: selector -> (title, type)."""
    return {
        "refId": "A",
        "datasource": _SOURCE,
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": form,
        "url": url,
        "url_options": {"method": "GET", "data": ""},
        "root_selector": rows,
        "columns": [{"selector": s, "text": t, "type": k} for s, (t, k) in columns.items()],
        "filters": [],
    }


def _panel(kind: str, title: str, about: str, place: tuple[int, int], target: Json) -> Json:
    y, height = place
    defaults: Json = {}
    if kind == "timeseries":
        defaults["custom"] = {"showPoints": "auto", "spanNulls": False, "fillOpacity": 8}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
        "targets": [target],
        "gridPos": {"x": 0, "y": y, "w": 24, "h": height},
    }


def board() -> Json:
    """The dashboard."""
    time, series = ("Hora", "timestamp_epoch"), ("série", "string")

    def over_time(**more: tuple[str, str]) -> Json:
        return _query(_ROWS, "rows", "timeseries", time=time, name=series, **more)

    known = (
        "Parte de cada intervalo em que o valor é conhecido: lacunas, CLP sem conexão e qualidade"
    )
    panels = [
        _panel(
            "timeseries", "Valores",
            "Média de cada intervalo (contador: último valor; estado: parte do tempo ligado).",
            (0, 10), over_time(value=("valor", "number")),
        ),
        _panel(
            "timeseries", "Mínimo e máximo", "De cada intervalo.",
            (10, 8), over_time(min=("mínimo", "number"), max=("máximo", "number")),
        ),
        _panel(
            "timeseries", "Conhecido", f"{known} conexão e qualidade ruim.",
            (18, 6), over_time(known=("conhecido", "number")),
        ),
        _panel(
            "table", "O que não se sabe", "Períodos sem valor conhecido, com o motivo.",
            (24, 8), _query(
                _ROWS, "unknown", "table", begin=("início", "timestamp_epoch"),
                end=("fim", "timestamp_epoch"), name=series, why=("motivo", "string"),
            ),
        ),
        _panel(
            "table", "Alarmes", "Do motor de alertas da caixa.",
            (32, 8), _query(
                _EVENTS, "alarms", "table", begin=("início", "timestamp_epoch"),
                end=("fim", "timestamp_epoch"), severity=("severidade", "string"),
                rule=("regra", "string"), plc=("CLP", "string"), text=("texto", "string"),
            ),
        ),
    ]  # fmt: skip
    document = rendered(
        Board("plc-edge-historico", "Histórico das caixas", (), None, since="now-24h", refresh=""),
        Database.INFLUXDB2,
    )
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    document["panels"] = panels
    document["templating"]["list"] = [_boxes(), _series()]
    return document


def _boxes() -> Json:
    return {
        "name": "caixa",
        "label": "Caixa",
        "type": "datasource",
        "query": PLUGIN,
        "regex": "/^Histórico /",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
    }


def _series() -> Json:
    columns = {"name": ("__text", "string"), "key": ("__value", "string")}
    asked = _query("/api/history/series?limit=5000", "series", "table", **columns)
    return {
        "name": "serie",
        "label": "Série",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"queryType": "infinity", "query": "", "infinityQuery": asked},
        "definition": "/api/history/series",
        "refresh": 1,
        "sort": 1,
        "multi": True,
        "includeAll": False,
        "current": {},
    }
