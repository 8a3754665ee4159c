"""What dashboards and alert rules ask, each question once, in Flux (InfluxDB 2) and in MetricsQL
(VictoriaMetrics).

The same message stands in both databases as one point: a bucket, a measurement, fields, tags. In
VictoriaMetrics a bucket is an account of vmauth (services/infra/victoria.py), ``measurement:field``
a series' name and a tag a label. Grafana puts the dashboard's variables into either text.
"""

from __future__ import annotations

from dataclasses import dataclass

_RANGE = "|> range(start: v.timeRangeStart, stop: v.timeRangeStop)"
_PROCESS = "r.locatario_id =~ /^${locatario:regex}$/ and r.plc_id =~ /^${plc:regex}$/"
# A tag that is absent (nothing repeats) passes as well: ${maquina} then matches the empty text.
_MACHINE = 'filter(fn: (r) => (if exists r.machine then r.machine else "") =~ /^${maquina:regex}$/)'
_TENANT_LABEL = 'locatario_id=~"$locatario"'
_PLC_LABELS = f'{_TENANT_LABEL}, plc_id=~"$plc"'
_MACHINE_LABEL = 'machine=~"$maquina"'
# Without it rollups lose what tells two fields of one machine apart.
KEEP = "keep_metric_names"


@dataclass(frozen=True, slots=True)
class Query:
    """One question. ``bucket`` is where its points lie."""

    bucket: str
    flux: str
    metricsql: str


@dataclass(frozen=True, slots=True)
class Points:
    """Which points: of one bucket, by both languages."""

    bucket: str
    where: str
    """Flux, of ``r``."""
    name: str
    """MetricsQL: the series' name; a pattern where ``pattern``."""
    labels: str = ""
    pattern: bool = False
    machine: bool = False

    def flux(self, *steps: str) -> str:
        """A query of them within the dashboard's time range."""
        lines = [f'from(bucket: "{self.bucket}")', _RANGE, f"|> filter(fn: (r) => {self.where})"]
        if self.machine:
            lines.append(f"|> {_MACHINE}")
        return "\n    ".join([*lines, *(f"|> {s}" for s in steps)])

    @property
    def series(self) -> str:
        """Their selector in MetricsQL."""
        parts = [f'__name__=~"{self.name}"'] if self.pattern else []
        parts += [p for p in (self.labels, _MACHINE_LABEL if self.machine else "") if p]
        inside = "{" + ", ".join(parts) + "}" if parts else ""
        return inside if self.pattern else self.name + inside


def anchored(pattern: str) -> str:
    """A pattern that matches a part (Flux) as one that matches a series' whole name, whatever its
    measurement is (MetricsQL).
    """
    flag = "(?i)" if pattern.startswith("(?i)") else ""
    rest = pattern.removeprefix(flag)
    parts = [rest] if "(" in rest else rest.split("|")
    whole = [
        ("" if p.startswith("^") else ".*")
        + p.removeprefix("^").removesuffix("$")
        + ("" if p.endswith("$") else ".*")
        for p in parts
    ]
    return f"{flag}[^:]+:({'|'.join(whole)})" if len(whole) > 1 else f"{flag}[^:]+:{whole[0]}"


def process(bucket: str, fields: str) -> Points:
    """Fields of the process whose name matches the pattern ``fields``."""
    where = f"{_PROCESS} and r._field =~ /{fields}/"
    return Points(bucket, where, anchored(fields), _PLC_LABELS, pattern=True, machine=True)


def numbers(bucket: str) -> Points:
    """Every number of the process."""
    where = f"{_PROCESS} and r._field !~ /_txt$/"
    return Points(bucket, where, "[^:]+:.+", _PLC_LABELS, pattern=True, machine=True)


def beat(field: str) -> Points:
    """One field of the heartbeats."""
    where = f'r._measurement == "heartbeat" and {_PROCESS} and r._field == "{field}"'
    return Points("platform_metrics", where, f"heartbeat:{field}", _PLC_LABELS)


def agent(field: str) -> Points:
    """One of the agents' own metrics of a PLC, scraped by Telegraf."""
    where = (
        'r._measurement == "agente" and r.locatario_id =~ /^${locatario:regex}$/'
        f' and r._field == "{field}" and r.plc =~ /^${{plc:regex}}$/'
    )
    return Points("platform_metrics", where, f"agente:{field}", f'{_TENANT_LABEL}, plc=~"$plc"')


def boxes_online() -> Points:
    """The state of each box."""
    where = (
        'r._measurement == "edge_status" and r._field == "online"'
        " and r.locatario_id =~ /^${locatario:regex}$/"
    )
    return Points("platform_metrics", where, "edge_status:online", _TENANT_LABEL)


def gaps() -> Points:
    """One point a gap."""
    where = f'r._measurement == "lacuna" and {_PROCESS} and r._field == "from_ts"'
    return Points("platform_metrics", where, "lacuna:from_ts", _PLC_LABELS)


# -- questions of any points -----------------------------------------------------------------


def windows(points: Points, how: str) -> Query:
    """``mean``, ``last`` or ``max`` of each of the graph's steps."""
    step = f"aggregateWindow(every: v.windowPeriod, fn: {how}, createEmpty: false)"
    rollup = {"mean": "avg_over_time", "last": "last_over_time", "max": "max_over_time"}[how]
    metricsql = f"{rollup}({points.series}[$__interval]) {KEEP}"
    return Query(points.bucket, points.flux(step), metricsql)


def per_minute(points: Points) -> Query:
    """How much a counter grows in a minute; a step back is no growth."""
    last = "aggregateWindow(every: v.windowPeriod, fn: last, createEmpty: false)"
    flux = points.flux(last, "derivative(unit: 1m, nonNegative: true)")
    # The product has no name: it goes on as a label.
    rate = f'label_copy(rate({points.series}[$__interval]) {KEEP}, "__name__", "campo")'
    return Query(points.bucket, flux, f"60 * {rate}")


def increase(points: Points) -> Query:
    """How much counters grew in all."""
    flux = points.flux("difference(nonNegative: true, initialZero: true)", "group()", "sum()")
    return Query(points.bucket, flux, f"sum(increase_prometheus({points.series}[$__range]))")


def total(points: Points) -> Query:
    """The sum of all points."""
    metricsql = f"sum(sum_over_time({points.series}[$__range]))"
    return Query(points.bucket, points.flux("group()", "sum()"), metricsql)


def mean(points: Points) -> Query:
    """The mean of all points: a series with many weighs more."""
    span = f"({points.series}[$__range])"
    metricsql = f"sum(sum_over_time{span}) / sum(count_over_time{span})"
    return Query(points.bucket, points.flux("group()", "mean()"), metricsql)


def count(points: Points) -> Query:
    """How many points."""
    metricsql = f"sum(count_over_time({points.series}[$__range]))"
    return Query(points.bucket, points.flux("group()", "count()"), metricsql)


def newest(points: Points, *together: str) -> Query:
    """The newest value of each series; ``together``: ``sum`` or ``max`` of them."""
    metricsql = f"last_over_time({points.series}[$__range])"
    if together:
        (how,) = together
        flux = points.flux("last()", "group()", f"{how}()")
        return Query(points.bucket, flux, f"{how}({metricsql})")
    return Query(points.bucket, points.flux("last()"), f"{metricsql} {KEEP}")


def newest_table(points: Points) -> Query:
    """The same as rows of one table."""
    flux = points.flux(
        "last()", "group()", 'keep(columns: ["_time", "plc_id", "machine", "_field", "_value"])'
    )
    rows = f"last_over_time({points.series}[$__range]) {KEEP}"
    metricsql = f'max by (plc_id, machine, campo) (label_copy({rows}, "__name__", "campo"))'
    return Query(points.bucket, flux, metricsql)


def newest_time(points: Points) -> Query:
    """When the newest came, Unix ms."""
    flux = points.flux(
        "group()",
        'sort(columns: ["_time"])',
        "last()",
        "map(fn: (r) => ({r with _value: float(v: uint(v: r._time)) / 1000000.0}))",
    )
    return Query(points.bucket, flux, f"max(tlast_over_time({points.series}[$__range])) * 1000")


def by_machine(points: Points) -> Query:
    """Points of an hour each, as they are."""
    flux = points.flux('group(columns: ["plc_id", "machine", "_field"])')
    rows = f'label_copy(last_over_time({points.series}[1h]) {KEEP}, "__name__", "campo")'
    return Query(points.bucket, flux, f"max by (plc_id, machine, campo) ({rows})")


# -- questions of one kind of points ---------------------------------------------------------

# The newest heartbeat of each PLC, whatever its address was.
NEWEST_BEAT = (
    "last()",
    'group(columns: ["plc_id", "locatario_id"])',
    'sort(columns: ["_time"])',
    "last()",
)


def online_now() -> Query:
    """How many PLCs are online. A heartbeat of two minutes ago is none."""
    points = beat("online")
    flux = points.flux(
        *NEWEST_BEAT,
        "map(fn: (r) => ({r with _value: if uint(v: v.timeRangeStop) - uint(v: r._time) >"
        " uint(v: 120000000000) then 0.0 else r._value}))",
        "group()",
        "sum()",
    )
    return Query(points.bucket, flux, f"sum({newest_beat(points.series, '$__range')})")


def newest_beat(series: str, span: str) -> str:
    """MetricsQL: the newest heartbeat of each PLC, 0 where it is older than two minutes."""
    each = "max by (plc_id, locatario_id)"
    now = f"{each} (last_over_time({series}[2m]))"
    return f"{now} or 0 * {each} (last_over_time({series}[{span}]))"


def failures() -> Query:
    """What heartbeats say of PLCs that are not well."""
    where = (
        f'r._measurement == "heartbeat" and {_PROCESS}'
        ' and (r._field == "failure_code_txt" or r._field == "failure_message_txt")'
    )
    points = Points("platform_metrics", where, "falha:tentativas", _PLC_LABELS)
    flux = points.flux(
        'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        "group()",
        'sort(columns: ["_time"], desc: true)',
        "limit(n: 50)",
    )
    when = f"max by (plc_id, codigo) (tlast_over_time({points.series}[$__range]))"
    return Query(points.bucket, flux, f"topk(50, {when} * 1000)")


def messages() -> Query:
    """MetricsQL tells the newest message of each PLC, group, machine and quality; Flux the last
    200.
    """
    points = process("processo_raw", "^(seq|epoch|latency_ms)$")
    flux = points.flux(
        # pivot fails where a series, or every one, is without one of its columns.
        "group()",
        'map(fn: (r) => ({r with machine: if exists r.machine then r.machine else ""}))',
        'pivot(rowKey: ["_time", "plc_id", "group", "machine", "quality"],'
        ' columnKey: ["_field"], valueColumn: "_value")',
        "group()",
        'sort(columns: ["_time"], desc: true)',
        "limit(n: 200)",
    )
    rows = f'label_copy(last_over_time({points.series}[$__range]) {KEEP}, "__name__", "campo")'
    labels = "plc_id, group, machine, quality, campo"
    return Query(points.bucket, flux, f"max by ({labels}) ({rows})")


def gap_table() -> Query:
    """What was lost, and why."""
    flux = Points("platform_metrics", f'r._measurement == "lacuna" and {_PROCESS}', "").flux(
        'filter(fn: (r) => r._field == "reason_txt")',
        "group()",
        'sort(columns: ["_time"], desc: true)',
        "limit(n: 100)",
    )
    metricsql = f"sum by (plc_id, motivo) (count_over_time({gaps().series}[$__range]))"
    return Query("platform_metrics", flux, metricsql)


def divergent() -> Query:
    """Messages that named another identity than their topic."""
    where = f'exists r.id_divergente and {_PROCESS} and r._field == "id_no_payload_txt"'
    points = Points("processo_raw", where, "identidade:vista", _PLC_LABELS)
    flux = points.flux("group()", 'sort(columns: ["_time"], desc: true)', "limit(n: 100)")
    metricsql = f"sum by (plc_id, id_no_payload) (count_over_time({points.series}[$__range]))"
    return Query(points.bucket, flux, metricsql)


def message_rate() -> Query:
    """Messages a minute, by quality."""
    points = process("processo_raw", "^seq$")
    flux = points.flux(
        'group(columns: ["plc_id", "quality"])',
        "aggregateWindow(every: 1m, fn: count, createEmpty: false)",
    )
    return Query(
        points.bucket, flux, f"sum by (plc_id, quality) (count_over_time({points.series}[1m]))"
    )


def bad_fields() -> Query:
    """Fields that could not be read."""
    points = process("processo_raw", "^bad_txt$")
    flux = points.flux("group()", 'sort(columns: ["_time"], desc: true)', "limit(n: 100)")
    series = Points("processo_raw", "", "campo_ruim:visto", _PLC_LABELS, machine=True).series
    metricsql = f"sum by (plc_id, campo, motivo) (count_over_time({series}[$__range]))"
    return Query(points.bucket, flux, metricsql)


def quality() -> Query:
    """The share of good parts."""
    points = process("processo_1m", "^contador_(bom|ruim)_inc$")
    flux = points.flux(
        'group(columns: ["_field"])',
        "sum()",
        "group()",
        "reduce(identity: {good: 0.0, all: 0.0}, fn: (r, accumulator) => ({"
        'good: accumulator.good + (if r._field == "contador_bom_inc" then r._value else 0.0),'
        " all: accumulator.all + r._value}))",
        "map(fn: (r) => ({_value: if r.all > 0.0 then r.good / r.all else 0.0}))",
    )
    good = total(process("processo_1m", "^contador_bom_inc$")).metricsql
    return Query(points.bucket, flux, f"{good} / ({total(points).metricsql} > 0) or vector(0)")


def performance() -> Query:
    """Parts made, by those that ``ritmo`` a minute would have made."""
    points = process("processo_1m", "^contador_(bom|ruim)_inc$")
    flux = points.flux(
        "group()",
        "sum()",
        "map(fn: (r) => ({_value: r._value / (float(v: uint(v: v.timeRangeStop)"
        " - uint(v: v.timeRangeStart)) / 60000000000.0) / ${ritmo}.0}))",
    )
    metricsql = f"{total(points).metricsql} / ($__range_s / 60) / ${{ritmo}}"
    return Query(points.bucket, flux, metricsql)


def refused() -> Query:
    """What Telegraf refused, a minute."""
    where = 'r._measurement == "telegraf_recusados"'
    return per_minute(Points("platform_metrics", where, "telegraf_recusados:total"))


def dropped() -> Query:
    """Points that Telegraf dropped."""
    where = 'r._measurement == "internal_write" and r._field == "metrics_dropped"'
    return windows(Points("platform_metrics", where, "internal_write:metrics_dropped"), "last")
