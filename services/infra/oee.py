"""A dashboard of the boxes' own OEE (`/api/oee/rows` of their panels): the same numbers as their
panel, command and report, because they are the same answer. As services/infra/history.py, beside
which it is provisioned.

The tenants' dashboard (services/infra/boards.py) has only condensed points: it knows no shift,
break, reason or gap, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.infra.history import choice, document, panel, query
from services.infra.model import Scrape

Json = dict[str, Any]

_RANGE = "from=${__from}&to=${__to}&machine=${maquina}"
_SHIFTS = f"/api/oee/rows?{_RANGE}"
_STOPS = f"/api/oee/rows?{_RANGE}&stops"
_TIME, _MACHINE = ("Hora", "timestamp_epoch"), ("máquina", "string")


def files(boxes: Sequence[Scrape]) -> dict[str, str]:
    """By path; none where no box keeps a history."""
    if not boxes:
        return {}
    return {"grafana/historico/oee.json": json.dumps(board(), indent=2, ensure_ascii=False) + "\n"}


def board() -> Json:
    """The dashboard."""
    indices = {
        "oee": ("OEE", "number"),
        "availability": ("disponibilidade", "number"),
        "performance": ("desempenho", "number"),
        "quality": ("qualidade", "number"),
    }
    parts = {
        "running_s": ("rodando (s)", "number"),
        "stopped_unplanned_s": ("parada não planejada (s)", "number"),
        "stopped_planned_s": ("parada planejada (s)", "number"),
        "unknown_s": ("não se sabe (s)", "number"),
        "breaks_s": ("pausas (s)", "number"),
    }
    pieces = {
        "good": ("boas", "number"),
        "bad": ("ruins", "number"),
        "stops": ("paradas", "number"),
    }
    shift = ("turno", "string")
    same = "Os mesmos números do painel da caixa (página OEE), de `plc-edge oee` e do relatório."
    panels = [
        panel(
            "table", "Turnos", f"Cada turno do período, inteiro. {same}", (0, 9),
            query(_SHIFTS, "rows", "table", time=_TIME, shift=shift, machine=_MACHINE,
                  **indices, **pieces),
        ),
        panel(
            "timeseries", "OEE por turno", "No início de cada turno. Sem ponto: indefinido.",
            (9, 8), query(_SHIFTS, "rows", "timeseries", time=_TIME, machine=_MACHINE,
                          oee=indices["oee"]),
        ),
        panel(
            "table", "Para onde foi o tempo", "Segundos de cada turno; juntos são o turno.",
            (17, 9), query(_SHIFTS, "rows", "table", time=_TIME, shift=shift, machine=_MACHINE,
                           **parts),
        ),
        panel(
            "table", "Paradas", "Do período escolhido: uma linha por parada e motivo.", (26, 10),
            query(_STOPS, "rows", "table", time=("início", "timestamp_epoch"),
                  end=("fim", "timestamp_epoch"), machine=_MACHINE,
                  seconds=("parada (s)", "number"), reason=("motivo", "string")),
        ),
    ]  # fmt: skip
    return document("plc-edge-oee-caixas", "OEE das caixas", panels, _machines())


def _machines() -> Json:
    columns = {"machine": ("__text", "string"), "value": ("__value", "string")}
    asked = query("/api/oee/machines", "machines", "table", **columns)
    return choice("maquina", "Máquina", asked)
