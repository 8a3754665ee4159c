"""Every dashboard, once: panels, and what each asks. services/infra/dashboards.py makes Grafana's
files of them, for either database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.infra import queries as q
from services.infra.queries import Query

Steps = Sequence[tuple[float | None, str]]
"""(from, colour) of a panel's thresholds."""


@dataclass(frozen=True, slots=True)
class Agents:
    """A question to the operator's Prometheus, which scrapes every box."""

    expr: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel without its place."""

    kind: str
    title: str
    query: Query | Agents
    width: int = 12
    height: int = 8
    unit: str = "short"
    steps: Steps = ()
    about: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    panels: Sequence[Panel]
    narrowed_by: str | None = "processo"
    """The bucket whose tenants, PLCs and machines can be chosen; None: nothing can."""
    machines: bool = True
    pace: bool = False
    """Whether the pace that is nominal can be given."""
    since: str = "now-1h"
    refresh: str = "10s"


_NUMBER: Mapping[str, Any] = {
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "background",
    "textMode": "auto",
}
_OK_BAD: Steps = ((None, "red"), (1.0, "green"))
_LEVELS: Steps = ((None, "red"), (0.6, "orange"), (0.85, "green"))
_CURRENT, _VIBRATION = "(?i)corrente", "(?i)vibra"
_GOOD, _BAD_PARTS, _PARTS = "^contador_bom$", "^contador_ruim$", "^contador_(bom|ruim)$"
_RUNNING = "^(maquina_ligada|status_maquina|rodando)$"
_RUNNING_SHARE = "^(maquina_ligada|status_maquina|rodando)_duty$"


def _stat(title: str, query: Query, **more: Any) -> Panel:
    """One number."""
    return Panel("stat", title, query, options=_NUMBER, **{"width": 6, "height": 4, **more})


def _table(title: str, query: Query, **more: Any) -> Panel:
    """Rows."""
    return Panel("table", title, query, **{"width": 24, "height": 9, **more})


def _graph(title: str, query: Query | Agents, **more: Any) -> Panel:
    """Over time."""
    return Panel("timeseries", title, query, **more)


def _states(title: str, query: Query) -> Panel:
    """On and off over time."""
    return Panel("state-timeline", title, query, width=24, steps=_OK_BAD)


def _process_overview() -> Board:
    panels = [
        _stat(
            "Peças boas no período",
            q.increase(q.process("processo", _GOOD)),
            steps=[(None, "green")],
        ),
        _stat(
            "Peças ruins no período",
            q.increase(q.process("processo", _BAD_PARTS)),
            steps=[(None, "green"), (1.0, "orange")],
        ),
        _stat(
            "Disponibilidade",
            q.mean(q.process("processo_1m", _RUNNING_SHARE)),
            unit="percentunit",
            steps=_LEVELS,
            about="Parte do tempo em que a máquina esteve ligada (processo_1m, campos _duty).",
        ),
        _stat("CLPs online", q.online_now(), steps=_OK_BAD),
        _graph(
            "Produção por minuto",
            q.per_minute(q.process("processo", _PARTS)),
            unit="cpm",
            about="Derivada não negativa: um contador que volta a zero não dá um pico negativo.",
        ),
        _graph("Contadores", q.windows(q.process("processo", "(?i)contador"), "last")),
        _graph("Corrente", q.windows(q.process("processo", _CURRENT), "mean"), unit="amp"),
        _graph("Vibração", q.windows(q.process("processo", _VIBRATION), "mean"), unit="velocityms"),
        _states("Máquina ligada", q.windows(q.process("processo", _RUNNING), "last")),
    ]
    return Board("plc-edge-processo", "Processo: visão geral", panels)


def _machine() -> Board:
    sensors = q.process("processo", "(?i)valor$|corrente|vibra")
    panels = [
        _stat("Ligada agora", q.newest(q.process("processo", _RUNNING)), steps=_OK_BAD),
        _stat("Contador bom", q.newest(q.process("processo", _GOOD))),
        _stat("Contador ruim", q.newest(q.process("processo", _BAD_PARTS))),
        _stat("Última mensagem", q.newest_time(q.numbers("processo")), unit="dateTimeFromNow"),
        _graph("Sensores", q.windows(sensors, "mean")),
        _graph("Produção por minuto", q.per_minute(q.process("processo", _PARTS))),
        _states("Estados", q.windows(q.process("processo", _RUNNING), "last")),
        _table("Últimos valores", q.newest_table(q.numbers("processo"))),
    ]
    return Board("plc-edge-maquina", "Máquina", panels)


def _edge_health() -> Board:
    panels = [
        _stat("CLPs online", q.online_now(), steps=_OK_BAD),
        _stat("Caixas online", q.newest(q.boxes_online(), "sum"), steps=_OK_BAD),
        _stat(
            "Pendentes na caixa",
            q.newest(q.beat("pending"), "max"),
            steps=[(None, "green"), (10_000.0, "orange"), (100_000.0, "red")],
        ),
        _stat("Lacunas no período", q.count(q.gaps()), steps=[(None, "green"), (1.0, "red")]),
        _graph("Latência da leitura", q.windows(q.beat("latency_ms"), "mean"), unit="ms"),
        _graph("Tempo de varredura", q.windows(q.beat("scan_ms"), "max"), unit="ms"),
        _graph("Mensagens pendentes", q.windows(q.beat("pending"), "max")),
        _graph("Reconexões por minuto", q.per_minute(q.agent("plc_edge_reconnects_total"))),
        _graph("Leituras com falha por minuto", q.per_minute(q.beat("reads_failed"))),
        _graph(
            "Varreduras atrasadas por minuto", q.per_minute(q.agent("plc_edge_scan_overruns_total"))
        ),
        _states("CLP online", q.windows(q.beat("online"), "last")),
        _table("Falhas", q.failures()),
    ]
    return Board("plc-edge-saude", "Saúde da borda", panels, "platform_metrics", machines=False)


def _debug() -> Board:
    panels = [
        _table("Últimas mensagens", q.messages(), height=10),
        _table("Lacunas (dados perdidos, declarados pela caixa)", q.gap_table()),
        _table("Identidades divergentes (o tópico vale, não o conteúdo)", q.divergent()),
        _graph("Mensagens por minuto e qualidade", q.message_rate()),
        _table("Campos ruins", q.bad_fields(), width=12, height=8),
    ]
    return Board("plc-edge-depuracao", "Depuração", panels, "processo_raw")


def _oee() -> Board:
    # Of condensed points: services/infra/oee.py has what the boxes themselves compute.
    differs = (
        " Estimativa: sem turnos, pausas, motivos nem paradas planejadas, e lacunas não aparecem."
        " O índice do turno está na caixa: página OEE do painel, `plc-edge oee`, relatório."
    )

    def minutes(fields: str) -> q.Points:
        return q.process("processo_1m", fields)

    panels = [
        _stat(
            "Disponibilidade",
            q.mean(minutes(_RUNNING_SHARE)),
            unit="percentunit",
            steps=_LEVELS,
            width=8,
            about="Parte do período em que a máquina esteve ligada." + differs,
        ),
        _stat(
            "Desempenho",
            q.performance(),
            unit="percentunit",
            steps=_LEVELS,
            width=8,
            about="Peças produzidas ÷ (minutos do período, rodando ou não, × ritmo nominal da"
            " variável ritmo)." + differs,
        ),
        _stat(
            "Qualidade",
            q.quality(),
            unit="percentunit",
            steps=_LEVELS,
            width=8,
            about="Peças boas ÷ todas, do período." + differs,
        ),
        _stat("Peças boas", q.total(minutes("^contador_bom_inc$")), width=12),
        _stat("Peças ruins", q.total(minutes("^contador_ruim_inc$")), width=12),
        _graph(
            "Disponibilidade por hora",
            q.by_machine(q.process("processo_1h", "_duty$")),
            unit="percentunit",
        ),
        _graph(
            "Peças por hora", q.by_machine(q.process("processo_1h", "^contador_(bom|ruim)_inc$"))
        ),
    ]
    return Board(
        *("plc-edge-oee", "OEE (estimativa)", panels, "processo_1m"),
        pace=True,
        since="now-24h",
        refresh="1m",
    )


def _operator() -> Board:
    latency = (
        "histogram_quantile(0.95,"
        " sum by (le, output) (rate(plc_edge_publish_latency_seconds_bucket[5m])))"
    )
    restarts = "increase(plc_edge_process_restarts_total[1h])"
    panels = [
        _graph("CLPs online", Agents("plc_edge_plc_up")),
        _graph("Pendentes por saída", Agents("plc_edge_store_pending")),
        _graph("Latência até o broker, p95", Agents(latency), unit="s"),
        _graph("Descartadas por hora", Agents("increase(plc_edge_store_dropped_total[1h])")),
        _graph("Reinícios de processos por hora", Agents(restarts)),
        _graph("Outbox", Agents("plc_edge_store_bytes"), unit="bytes"),
        _graph("Recusadas pelo Telegraf", q.refused()),
        _graph("Telegraf: pontos descartados", q.dropped()),
    ]
    return Board("plc-edge-operador", "Operador: todas as caixas", panels, None)


def tenants() -> dict[str, Board]:
    """Those of every tenant, by file name."""
    return {
        "processo": _process_overview(),
        "maquina": _machine(),
        "saude-da-borda": _edge_health(),
        "depuracao": _debug(),
        "oee": _oee(),
    }


def operator() -> dict[str, Board]:
    """The operator's: every box by Prometheus, and what Telegraf refused."""
    return {"operador": _operator()}
