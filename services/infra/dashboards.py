"""Grafana dashboards in Flux. One set serves every tenant: each Grafana organisation has its own
data source of the same uid, with a token that reads its own InfluxDB organisation alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

INFLUX = {"type": "influxdb", "uid": "plc-edge-influx"}
PROMETHEUS = {"type": "prometheus", "uid": "plc-edge-prometheus"}
# Grafana lays panels on a grid of 24 columns.
COLUMNS = 24

_RANGE = "|> range(start: v.timeRangeStart, stop: v.timeRangeStop)"
_PROCESS = "r.locatario_id =~ /^${locatario:regex}$/ and r.plc_id =~ /^${plc:regex}$/"
# A tag that is absent (nothing repeats) passes as well: ${maquina} then matches the empty text.
_MACHINE = 'filter(fn: (r) => (if exists r.machine then r.machine else "") =~ /^${maquina:regex}$/)'


# The newest heartbeat of each PLC, whatever its address was.
NEWEST_BEAT = (
    "last()",
    'group(columns: ["plc_id", "locatario_id"])',
    'sort(columns: ["_time"])',
    "last()",
)
# One of two minutes ago is none.
ONLINE_NOW = (
    *NEWEST_BEAT,
    "map(fn: (r) => ({r with _value: if uint(v: v.timeRangeStop) - uint(v: r._time) >"
    " uint(v: 120000000000) then 0.0 else r._value}))",
    "group()",
    "sum()",
)


def points(bucket: str, condition: str, *steps: str, machine: bool = False) -> str:
    """A query of one bucket within the dashboard's time range."""
    lines = [f'from(bucket: "{bucket}")', _RANGE, f"|> filter(fn: (r) => {condition})"]
    if machine:
        lines.append(f"|> {_MACHINE}")
    return "\n    ".join([*lines, *(f"|> {s}" for s in steps)])


def process(bucket: str, fields: str, *steps: str) -> str:
    """Fields of the process whose name matches the pattern ``fields``."""
    return points(bucket, f"{_PROCESS} and r._field =~ /{fields}/", *steps, machine=True)


def beat(field: str, *steps: str) -> str:
    """One field of the heartbeats."""
    condition = f'r._measurement == "heartbeat" and {_PROCESS} and r._field == "{field}"'
    return points("platform_metrics", condition, *steps)


def agent(condition: str, *steps: str) -> str:
    """The agents' own metrics, scraped by Telegraf."""
    where = (
        f'r._measurement == "agente" and r.locatario_id =~ /^${{locatario:regex}}$/ and {condition}'
    )
    return points("platform_metrics", where, *steps)


WINDOW_MEAN = "aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: false)"
WINDOW_LAST = "aggregateWindow(every: v.windowPeriod, fn: last, createEmpty: false)"
WINDOW_MAX = "aggregateWindow(every: v.windowPeriod, fn: max, createEmpty: false)"
PER_MINUTE = "derivative(unit: 1m, nonNegative: true)"


def panel(
    kind: str,
    title: str,
    queries: Sequence[str],
    *,
    width: int = 12,
    height: int = 8,
    unit: str = "short",
    source: Json = INFLUX,
    options: Json | None = None,
    steps: Sequence[tuple[float | None, str]] = (),
    about: str = "",
) -> Json:
    """One panel without its place; ``steps`` are (from, colour) of the thresholds."""
    defaults: Json = {"unit": unit}
    if steps:
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in steps],
        }
        defaults["color"] = {"mode": "thresholds"}
    if kind == "timeseries":
        defaults["custom"] = {"showPoints": "never", "spanNulls": 120_000, "fillOpacity": 8}
    key = "query" if source is INFLUX else "expr"
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": source,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options or {},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": source, key: query}
            for i, query in enumerate(queries)
        ],
        "gridPos": {"w": width, "h": height},
    }


def stat(title: str, query: str, **more: Any) -> Json:
    """One number."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background",
        "textMode": "auto",
    }
    return panel("stat", title, [query], options=options, **{"width": 6, "height": 4, **more})


def table(title: str, query: str, **more: Any) -> Json:
    """Rows."""
    return panel("table", title, [query], **{"width": 24, "height": 9, **more})


def _variable(
    name: str, label: str, bucket: str, tag: str, where: str, absent: bool = False
) -> Json:
    # Grafana's "all" would list every value; .* also matches where the tag is absent.
    query = (
        'import "influxdata/influxdb/schema"\n'
        f'schema.tagValues(bucket: "{bucket}", tag: "{tag}", predicate: (r) => {where}, start: -7d)'
    )
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": INFLUX,
        "query": {"query": query},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*" if absent else ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def variables(bucket: str = "processo") -> list[Json]:
    """Tenant, PLC and machine; each narrows the next."""
    tenant = "r.locatario_id =~ /^${locatario:regex}$/"
    return [
        _variable("locatario", "Locatário", bucket, "locatario_id", "true"),
        _variable("plc", "CLP", bucket, "plc_id", tenant),
        _variable(
            *("maquina", "Máquina", bucket, "machine"),
            f"{tenant} and r.plc_id =~ /^${{plc:regex}}$/",
            absent=True,
        ),
    ]


def dashboard(uid: str, title: str, panels: list[Json], templating: list[Json]) -> Json:
    """Panels laid out left to right; ids by position."""
    x = y = row_height = 0
    for number, p in enumerate(panels, start=1):
        place = p["gridPos"]
        if x + place["w"] > COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        p["id"] = number
        p["gridPos"] = {"x": x, "y": y, **place}
        x += place["w"]
        row_height = max(row_height, place["h"])
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "tags": ["plc-edge"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
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


_OK_BAD: tuple[tuple[float | None, str], ...] = ((None, "red"), (1.0, "green"))
_CURRENT, _VIBRATION = "(?i)corrente", "(?i)vibra"
_GOOD, _BAD_PARTS = "^contador_bom$", "^contador_ruim$"
_RUNNING = "^(maquina_ligada|status_maquina|rodando)$"
_BY_MACHINE = 'group(columns: ["plc_id", "machine", "_field"])'


def _process_overview() -> Json:
    increase = "difference(nonNegative: true, initialZero: true)"
    panels = [
        stat(
            "Peças boas no período",
            process("processo", _GOOD, increase, "group()", "sum()"),
            steps=[(None, "green")],
        ),
        stat(
            "Peças ruins no período",
            process("processo", _BAD_PARTS, increase, "group()", "sum()"),
            steps=[(None, "green"), (1.0, "orange")],
        ),
        stat(
            "Disponibilidade",
            process(
                "processo_1m", "^(maquina_ligada|status_maquina|rodando)_duty$", "group()", "mean()"
            ),
            unit="percentunit",
            steps=[(None, "red"), (0.6, "orange"), (0.85, "green")],
            about="Parte do tempo em que a máquina esteve ligada (processo_1m, campos _duty).",
        ),
        stat(
            "CLPs online",
            beat("online", *ONLINE_NOW),
            steps=_OK_BAD,
        ),
        panel(
            "timeseries",
            "Produção por minuto",
            [process("processo", "^contador_(bom|ruim)$", WINDOW_LAST, PER_MINUTE)],
            unit="cpm",
            about="Derivada não negativa: um contador que volta a zero não dá um pico negativo.",
        ),
        panel("timeseries", "Contadores", [process("processo", "(?i)contador", WINDOW_LAST)]),
        panel("timeseries", "Corrente", [process("processo", _CURRENT, WINDOW_MEAN)], unit="amp"),
        panel(
            "timeseries",
            "Vibração",
            [process("processo", _VIBRATION, WINDOW_MEAN)],
            unit="velocityms",
        ),
        panel(
            "state-timeline",
            "Máquina ligada",
            [process("processo", _RUNNING, WINDOW_LAST)],
            width=24,
            steps=_OK_BAD,
        ),
    ]
    return dashboard("plc-edge-processo", "Processo: visão geral", panels, variables())


def _machine() -> Json:
    panels = [
        stat("Ligada agora", process("processo", _RUNNING, "last()"), steps=_OK_BAD),
        stat("Contador bom", process("processo", _GOOD, "last()")),
        stat("Contador ruim", process("processo", _BAD_PARTS, "last()")),
        stat(
            "Última mensagem",
            process(
                "processo",
                ".*",
                "group()",
                'sort(columns: ["_time"])',
                "last()",
                "map(fn: (r) => ({r with _value: float(v: uint(v: r._time)) / 1000000.0}))",
            ).replace("r._field =~ /.*/", "r._field !~ /_txt$/"),
            unit="dateTimeFromNow",
        ),
        panel(
            "timeseries",
            "Sensores",
            [process("processo", "(?i)valor$|corrente|vibra", WINDOW_MEAN)],
        ),
        panel(
            "timeseries",
            "Produção por minuto",
            [process("processo", "^contador_(bom|ruim)$", WINDOW_LAST, PER_MINUTE)],
        ),
        panel(
            "state-timeline",
            "Estados",
            [process("processo", _RUNNING, WINDOW_LAST)],
            width=24,
            steps=_OK_BAD,
        ),
        table(
            "Últimos valores",
            process(
                "processo",
                ".*",
                "last()",
                "group()",
                'keep(columns: ["_time", "plc_id", "machine", "_field", "_value"])',
            ).replace("r._field =~ /.*/", "r._field !~ /_txt$/"),
        ),
    ]
    return dashboard("plc-edge-maquina", "Máquina", panels, variables())


def _edge_health() -> Json:
    plc = "r.plc =~ /^${plc:regex}$/"
    panels = [
        stat("CLPs online", beat("online", *ONLINE_NOW), steps=_OK_BAD),
        stat(
            "Caixas online",
            points(
                "platform_metrics",
                'r._measurement == "edge_status" and r._field == "online"'
                " and r.locatario_id =~ /^${locatario:regex}$/",
                "last()",
                "group()",
                "sum()",
            ),
            steps=_OK_BAD,
        ),
        stat(
            "Pendentes na caixa",
            beat("pending", "last()", "group()", "max()"),
            steps=[(None, "green"), (10_000.0, "orange"), (100_000.0, "red")],
        ),
        stat(
            "Lacunas no período",
            points(
                "platform_metrics",
                f'r._measurement == "lacuna" and {_PROCESS} and r._field == "from_ts"',
                "group()",
                "count()",
            ),
            steps=[(None, "green"), (1.0, "red")],
        ),
        panel("timeseries", "Latência da leitura", [beat("latency_ms", WINDOW_MEAN)], unit="ms"),
        panel("timeseries", "Tempo de varredura", [beat("scan_ms", WINDOW_MAX)], unit="ms"),
        panel("timeseries", "Mensagens pendentes", [beat("pending", WINDOW_MAX)]),
        panel(
            "timeseries",
            "Reconexões por minuto",
            [agent(f'r._field == "plc_edge_reconnects_total" and {plc}', WINDOW_LAST, PER_MINUTE)],
        ),
        panel(
            "timeseries",
            "Leituras com falha por minuto",
            [beat("reads_failed", WINDOW_LAST, PER_MINUTE)],
        ),
        panel(
            "timeseries",
            "Varreduras atrasadas por minuto",
            [
                agent(
                    f'r._field == "plc_edge_scan_overruns_total" and {plc}', WINDOW_LAST, PER_MINUTE
                )
            ],
        ),
        panel(
            "state-timeline", "CLP online", [beat("online", WINDOW_LAST)], width=24, steps=_OK_BAD
        ),
        table(
            "Falhas",
            points(
                "platform_metrics",
                f'r._measurement == "heartbeat" and {_PROCESS}'
                ' and (r._field == "failure_code_txt" or r._field == "failure_message_txt")',
                'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
                "group()",
                'sort(columns: ["_time"], desc: true)',
                "limit(n: 50)",
            ),
        ),
    ]
    return dashboard("plc-edge-saude", "Saúde da borda", panels, variables("platform_metrics")[:2])


def _debug() -> Json:
    panels = [
        table(
            "Últimas mensagens",
            process(
                "processo_raw",
                "^(seq|epoch|latency_ms)$",
                # pivot fails where a series, or every one, is without one of its columns.
                "group()",
                'map(fn: (r) => ({r with machine: if exists r.machine then r.machine else ""}))',
                'pivot(rowKey: ["_time", "plc_id", "group", "machine", "quality"],'
                ' columnKey: ["_field"], valueColumn: "_value")',
                "group()",
                'sort(columns: ["_time"], desc: true)',
                "limit(n: 200)",
            ),
            height=10,
        ),
        table(
            "Lacunas (dados perdidos, declarados pela caixa)",
            points(
                "platform_metrics",
                f'r._measurement == "lacuna" and {_PROCESS}',
                'filter(fn: (r) => r._field == "reason_txt")',
                "group()",
                'sort(columns: ["_time"], desc: true)',
                "limit(n: 100)",
            ),
        ),
        table(
            "Identidades divergentes (o tópico vale, não o conteúdo)",
            points(
                "processo_raw",
                f'exists r.id_divergente and {_PROCESS} and r._field == "id_no_payload_txt"',
                "group()",
                'sort(columns: ["_time"], desc: true)',
                "limit(n: 100)",
            ),
        ),
        panel(
            "timeseries",
            "Mensagens por minuto e qualidade",
            [
                process(
                    "processo_raw",
                    "^seq$",
                    'group(columns: ["plc_id", "quality"])',
                    "aggregateWindow(every: 1m, fn: count, createEmpty: false)",
                )
            ],
        ),
        table(
            "Campos ruins",
            process(
                "processo_raw",
                "^bad_txt$",
                "group()",
                'sort(columns: ["_time"], desc: true)',
                "limit(n: 100)",
            ),
            width=12,
            height=8,
        ),
    ]
    return dashboard("plc-edge-depuracao", "Depuração", panels, variables("processo_raw"))


def _oee() -> Json:
    def total(pattern: str) -> str:
        return process("processo_1m", pattern, "group()", "sum()")

    availability = process(
        "processo_1m", "^(maquina_ligada|status_maquina|rodando)_duty$", "group()", "mean()"
    )
    quality = process(
        "processo_1m",
        "^contador_(bom|ruim)_inc$",
        'group(columns: ["_field"])',
        "sum()",
        "group()",
        "reduce(identity: {good: 0.0, all: 0.0}, fn: (r, accumulator) => ({"
        'good: accumulator.good + (if r._field == "contador_bom_inc" then r._value else 0.0),'
        " all: accumulator.all + r._value}))",
        "map(fn: (r) => ({_value: if r.all > 0.0 then r.good / r.all else 0.0}))",
    )
    levels = [(None, "red"), (0.6, "orange"), (0.85, "green")]
    panels = [
        stat("Disponibilidade", availability, unit="percentunit", steps=levels, width=8),
        stat(
            "Desempenho",
            process(
                "processo_1m",
                "^contador_(bom|ruim)_inc$",
                "group()",
                "sum()",
                "map(fn: (r) => ({_value: r._value / (float(v: uint(v: v.timeRangeStop)"
                " - uint(v: v.timeRangeStart)) / 60000000000.0) / ${ritmo}.0}))",
            ),
            unit="percentunit",
            steps=levels,
            width=8,
            about="Peças produzidas ÷ (minutos do período × ritmo nominal da variável ritmo).",
        ),
        stat("Qualidade", quality, unit="percentunit", steps=levels, width=8),
        stat("Peças boas", total("^contador_bom_inc$"), width=12),
        stat("Peças ruins", total("^contador_ruim_inc$"), width=12),
        panel(
            "timeseries",
            "Disponibilidade por hora",
            [process("processo_1h", "_duty$", _BY_MACHINE)],
            unit="percentunit",
        ),
        panel(
            "timeseries",
            "Peças por hora",
            [process("processo_1h", "^contador_(bom|ruim)_inc$", _BY_MACHINE)],
        ),
    ]
    pace: Json = {
        "name": "ritmo",
        "label": "Ritmo nominal (peças/min)",
        "type": "textbox",
        "query": "10",
        "current": {"text": "10", "value": "10"},
    }
    board = dashboard("plc-edge-oee", "OEE (inicial)", panels, [*variables("processo_1m"), pace])
    return {**board, "time": {"from": "now-24h", "to": "now"}, "refresh": "1m"}


def all_dashboards() -> dict[str, Json]:
    """Those of every tenant, by file name."""
    return {
        "processo": _process_overview(),
        "maquina": _machine(),
        "saude-da-borda": _edge_health(),
        "depuracao": _debug(),
        "oee": _oee(),
    }


def operator_dashboards() -> dict[str, Json]:
    """The operator's: every box by Prometheus, and what Telegraf refused."""

    def prometheus(title: str, expr: str, **more: Any) -> Json:
        return panel("timeseries", title, [expr], source=PROMETHEUS, **more)

    latency = (
        "histogram_quantile(0.95,"
        " sum by (le, output) (rate(plc_edge_publish_latency_seconds_bucket[5m])))"
    )
    panels = [
        prometheus("CLPs online", "plc_edge_plc_up"),
        prometheus("Pendentes por saída", "plc_edge_store_pending"),
        prometheus("Latência até o broker, p95", latency, unit="s"),
        prometheus("Descartadas por hora", "increase(plc_edge_store_dropped_total[1h])"),
        prometheus(
            "Reinícios de processos por hora", "increase(plc_edge_process_restarts_total[1h])"
        ),
        prometheus("Outbox", "plc_edge_store_bytes", unit="bytes"),
        panel(
            "timeseries",
            "Recusadas pelo Telegraf",
            [
                points(
                    "platform_metrics",
                    'r._measurement == "telegraf_recusados"',
                    WINDOW_LAST,
                    PER_MINUTE,
                )
            ],
        ),
        panel(
            "timeseries",
            "Telegraf: pontos descartados",
            [
                points(
                    "platform_metrics",
                    'r._measurement == "internal_write" and r._field == "metrics_dropped"',
                    WINDOW_LAST,
                )
            ],
        ),
    ]
    return {"operador": dashboard("plc-edge-operador", "Operador: todas as caixas", panels, [])}
