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
SOURCE = {"type": PLUGIN, "uid": "${caixa}"}
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


def query(url: str, rows: str, form: str, **columns: tuple[str, str]) -> Json:
    """What the Infinity data source asks; ``columns``: selector -> (title, type)."""
    return {
        "refId": "A",
        "datasource": SOURCE,
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


def panel(kind: str, title: str, about: str, place: tuple[int, int], target: Json) -> Json:
    """One of the whole width; ``place``: (y, height)."""
    y, height = place
    defaults: Json = {}
    if kind == "timeseries":
        defaults["custom"] = {"showPoints": "auto", "spanNulls": False, "fillOpacity": 8}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
        "targets": [target],
        "gridPos": {"x": 0, "y": y, "w": 24, "h": height},
    }


def board() -> Json:
    """The dashboard."""
    time, series = ("Hora", "timestamp_epoch"), ("série", "string")

    def over_time(**more: tuple[str, str]) -> Json:
        return query(_ROWS, "rows", "timeseries", time=time, name=series, **more)

    known = (
        "Parte de cada intervalo em que o valor é conhecido: não o é em lacunas, com o CLP sem"
        " conexão e com qualidade ruim."
    )
    panels = [
        panel(
            "timeseries", "Valores",
            "Média de cada intervalo (contador: último valor; estado: parte do tempo ligado).",
            (0, 10), over_time(value=("valor", "number")),
        ),
        panel(
            "timeseries", "Mínimo e máximo", "De cada intervalo.",
            (10, 8), over_time(min=("mínimo", "number"), max=("máximo", "number")),
        ),
        panel(
            "timeseries", "Conhecido", known,
            (18, 6), over_time(known=("conhecido", "number")),
        ),
        panel(
            "table", "O que não se sabe", "Períodos sem valor conhecido, com o motivo.",
            (24, 8), query(
                _ROWS, "unknown", "table", begin=("início", "timestamp_epoch"),
                end=("fim", "timestamp_epoch"), name=series, why=("motivo", "string"),
            ),
        ),
        panel(
            "table", "Alarmes", "Do motor de alertas da caixa.",
            (32, 8), query(
                _EVENTS, "alarms", "table", begin=("início", "timestamp_epoch"),
                end=("fim", "timestamp_epoch"), severity=("severidade", "string"),
                rule=("regra", "string"), plc=("CLP", "string"), text=("texto", "string"),
            ),
        ),
    ]  # fmt: skip
    return document("plc-edge-historico", "Histórico das caixas", panels, _series())


def document(uid: str, title: str, panels: list[Json], variable: Json) -> Json:
    """A dashboard on one box at a time."""
    found = rendered(Board(uid, title, (), None, since="now-24h", refresh=""), Database.INFLUXDB2)
    for number, one in enumerate(panels, start=1):
        one["id"] = number
    found["panels"] = panels
    found["templating"]["list"] = [boxes_variable(), variable]
    return found


def boxes_variable() -> Json:
    """Which box is asked."""
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
    asked = query("/api/history/series?limit=5000", "series", "table", **columns)
    return choice("serie", "Série", asked, several=True)


def choice(name: str, label: str, asked: Json, *, several: bool = False) -> Json:
    """A variable whose values the chosen box is asked for; several are put in order of names."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"queryType": "infinity", "query": "", "infinityQuery": asked},
        "definition": asked["url"].partition("?")[0],
        "refresh": 1,
        "sort": int(several),
        "multi": several,
        "includeAll": False,
        "current": {},
    }
