"""Boards (services/infra/boards.py) as Grafana's JSON, in Flux or in MetricsQL. One set serves
every tenant: each Grafana organisation has its own data sources of the same uids, with an account
that reads its own tenant alone.
"""

from __future__ import annotations

from typing import Any

from services.infra import boards
from services.infra.boards import Agents, Board, Panel
from services.infra.database import Database
from services.infra.tenant import DATA_SOURCE_UID, bucket_source_uid

Json = dict[str, Any]

INFLUX = {"type": "influxdb", "uid": DATA_SOURCE_UID}
PROMETHEUS = {"type": "prometheus", "uid": "plc-edge-prometheus"}
# Grafana lays panels on a grid of 24 columns.
COLUMNS = 24
_LEGEND = "{{plc_id}} {{machine}} {{campo}} {{__name__}}"


def source(bucket: str, database: Database) -> Json:
    """Where a bucket is read: of VictoriaMetrics each is an account, so a source, of its own."""
    if database is Database.INFLUXDB2:
        return INFLUX
    return {"type": "prometheus", "uid": bucket_source_uid(bucket)}


def _target(panel: Panel, database: Database) -> Json:
    query = panel.query
    if isinstance(query, Agents):
        return {"refId": "A", "datasource": PROMETHEUS, "expr": query.expr}
    where = source(query.bucket, database)
    if database is Database.INFLUXDB2:
        return {"refId": "A", "datasource": where, "query": query.flux}
    over_time = panel.kind in ("timeseries", "state-timeline")
    return {
        "refId": "A",
        "datasource": where,
        "expr": query.metricsql,
        "range": over_time,
        "instant": not over_time,
        "format": "table" if panel.kind == "table" else "time_series",
        "legendFormat": _LEGEND if over_time and " by (" not in query.metricsql else "__auto",
    }


def _panel(panel: Panel, database: Database) -> Json:
    """One panel without its place."""
    defaults: Json = {"unit": panel.unit}
    if panel.steps:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        }
        defaults["color"] = {"mode": "thresholds"}
    if panel.kind == "timeseries":
        defaults["custom"] = {"showPoints": "never", "spanNulls": 120_000, "fillOpacity": 8}
    target = _target(panel, database)
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": target["datasource"],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": dict(panel.options),
        "targets": [target],
        "gridPos": {"w": panel.width, "h": panel.height},
    }


def _variable(
    name: str, label: str, where: Json, query: str, more: Json, absent: bool = False
) -> Json:
    # Grafana's "all" would list every value; .* also matches where the tag is absent.
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": where,
        "query": {"query": query, **more},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*" if absent else ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


# (name, label, tag, whether it may be absent); each narrows the next.
_CHOICES = (
    ("locatario", "Locatário", "locatario_id", False),
    ("plc", "CLP", "plc_id", False),
    ("maquina", "Máquina", "machine", True),
)


def _variables(board: Board, database: Database) -> list[Json]:
    """Tenant, PLC and machine."""
    if board.narrowed_by is None:
        return []
    where, found = source(board.narrowed_by, database), []
    flux: list[str] = []
    labels: list[str] = []
    for name, label, tag, absent in _CHOICES[: 3 if board.machines else 2]:
        if database is Database.INFLUXDB2:
            query = (
                'import "influxdata/influxdb/schema"\n'
                f'schema.tagValues(bucket: "{board.narrowed_by}", tag: "{tag}",'
                f" predicate: (r) => {' and '.join(flux) or 'true'}, start: -7d)"
            )
            found.append(_variable(name, label, where, query, {}, absent))
        else:
            inside = ", ".join([*labels, f'{tag}!=""'])
            query = f"label_values({{{inside}}}, {tag})"
            more = {"refId": "PrometheusVariableQueryEditor-VariableQuery"}
            found.append(_variable(name, label, where, query, more, absent))
        flux.append(f"r.{tag} =~ /^${{{name}:regex}}$/")
        labels.append(f'{tag}=~"${name}"')
    return found


def rendered(board: Board, database: Database) -> Json:
    """Panels laid out left to right; ids by position."""
    panels = [_panel(p, database) for p in board.panels]
    x = y = row_height = 0
    for number, p in enumerate(panels, start=1):
        place = p["gridPos"]
        if x + place["w"] > COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        p["id"] = number
        p["gridPos"] = {"x": x, "y": y, **place}
        x += place["w"]
        row_height = max(row_height, place["h"])
    templating = _variables(board, database)
    if board.pace:
        pace: Json = {
            "name": "ritmo",
            "label": "Ritmo nominal (peças/min)",
            "type": "textbox",
            "query": "10",
            "current": {"text": "10", "value": "10"},
        }
        templating.append(pace)
    return {
        "id": None,
        "uid": board.uid,
        "title": board.title,
        "tags": ["plc-edge"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": board.refresh,
        "time": {"from": board.since, "to": "now"},
        "timezone": "browser",
        "templating": {"list": templating},
        "annotations": {"list": []},
        "links": [
            {
                "title": "plc-edge",
                "type": "dashboards",
                "tags": ["plc-edge"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


def all_dashboards(database: Database = Database.INFLUXDB2) -> dict[str, Json]:
    """Those of every tenant, by file name."""
    return {name: rendered(board, database) for name, board in boards.tenants().items()}


def operator_dashboards(database: Database = Database.INFLUXDB2) -> dict[str, Json]:
    """The operator's."""
    return {name: rendered(board, database) for name, board in boards.operator().items()}
