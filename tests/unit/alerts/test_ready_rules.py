"""The manual's ten rules: `check` takes them, and each fires for what it is meant for, only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.alerts.core.engine import Engine
from services.cli.alerts_play import make_engine
from services.runtime import loader
from tests.kit.common import ROOT
from tests.kit.markdown import blocks

PAGE = ROOT / "docs" / "ESPECIFICACAO_MOTOR_ALERTAS.md"
T = 1_763_985_600_000  # 2025-11-24, a Monday, 12:00 UTC: 09:00 there
MINUTE = 60
Line = tuple[int, str, dict[str, Any]]
"""(second, topic below the tenant, what the message says)"""


def ready_rules() -> dict[str, Any]:
    (block,) = (b for b in blocks(PAGE) if b.marker == "ready rules")
    return {"site": "planta-sp", "locatario": "acme", **yaml.safe_load(block.text)}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    shutil.copytree(ROOT / "deploy" / "layouts", tmp_path / "layouts")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(ready_rules(), allow_unicode=True))
    return make_engine(*loader.load_rules(file))


def press(seconds: range, **values: Any) -> Iterator[Line]:
    for s in seconds:
        shown = {k: v(s) if callable(v) else v for k, v in values.items()}
        yield s, "prensa-01", {"group": "db500", "values": shown}


def line2(seconds: range, **values: Any) -> Iterator[Line]:
    for s in seconds:
        shown = {k.replace("__", "."): v(s) if callable(v) else v for k, v in values.items()}
        yield s, "linha-02", {"group": "maquinas", "machine": "m03", "values": shown}


def beats(seconds: range, status: str, **more: Any) -> Iterator[Line]:
    for s in seconds:
        yield s, "prensa-01/heartbeat", {"status": status, "interval_s": 10, **more}


hour = range(0, 3_600, 30)
# rule → (when it fires, second; lines that make it fire; lines that must not)
CASES: dict[str, tuple[int, list[Line], list[Line]]] = {
    "sobrecorrente": (
        30, [*press(range(0, 40, 10), AI_Corrente=81.5)],
        [*press(range(0, 100, 10), AI_Corrente=lambda s: 85 if s % 30 else 70)],
    ),
    "vibracao-subindo": (
        4 * 3_600, [*press(range(0, 5 * 3_600, MINUTE), AI_Vibracao=lambda s: 2 + s / 3_600)],
        [*press(range(0, 5 * 3_600, MINUTE), AI_Vibracao=lambda s: 2 + s / 14_400)],
    ),
    "parada-no-turno": (
        600, [*press(range(0, 700, MINUTE), maquina_ligada=False)],
        [*press(range(-5 * 3_600, -3_600 * 3, MINUTE), maquina_ligada=False)],
    ),
    "refugo-alto": (
        660, [*press(range(0, 700, MINUTE), contador_bom=lambda s: s,
                     contador_ruim=lambda s: s // 10)],
        [*press(hour, contador_bom=lambda s: s, contador_ruim=lambda s: s // 60)],
    ),
    "contador-parado": (
        600, [*line2(range(0, 700, MINUTE), status_maquina=True, contador_bom=7)],
        [*line2(range(0, 1_400, MINUTE), status_maquina=lambda s: s < 540, contador_bom=7)],
    ),
    "sensor-desviado": (
        3_660, [*line2(range(0, 3_600, MINUTE), sensor__2__valor=50),
                *line2(range(3_600, 3_720, MINUTE), sensor__2__valor=30)],
        [*line2(range(0, 3_600, MINUTE), sensor__2__valor=50),
         *line2(range(3_600, 3_720, MINUTE), sensor__2__valor=55)],
    ),
    "clp-em-stop": (
        10, [*beats(range(0, 30, 10), "degraded", failure={"code": "cpu_stop"})],
        [*beats(range(0, 30, 10), "degraded", failure={"code": "fields_refused"})],
    ),
    "clp-mudo": (
        130, [*beats(range(0, 20, 10), "online"), *beats(range(20, 200, 10), "offline")],
        [*beats(range(0, 200, 10), "degraded")],
    ),
    "caixa-muda": (180, [*beats(range(0, 10, 10), "online"), (181, "", {})],
                   [*beats(range(0, 200, 10), "offline")]),
    "enlace-caido": (60, [(0, "edge", {"status": "offline"}), (61, "", {})],
                     [(0, "edge", {"status": "offline"}), (30, "edge", {"status": "online"}),
                      (90, "", {})]),
}  # fmt: skip


def play(engine: Engine, lines: list[Line], rule: str) -> list[float]:
    """When the rule fired, of what the lines speak of: the other PLC is silent."""
    fired = []
    speaking = {"", *(plc.partition("/")[0] for _, plc, _ in lines)}
    for seq, (second, plc, message) in enumerate(lines, 1):
        now = T + second * 1_000
        whole = {"ts": now, "site": "planta-sp", "quality": "good", **message}
        if "values" in message:
            whole |= {"epoch": T, "seq": seq}
        topic = "edge/acme/planta-sp/status" if plc == "edge" else f"plc/acme/{plc}"
        said = engine.message(topic, whole, now) if plc else []
        for t in [*said, *engine.tick(now)]:
            if (t.rule, t.to_state) == (rule, "disparando") and t.place.plc in speaking:
                assert t.text
                fired.append((t.ts - T) / 1_000)
    return fired


@pytest.mark.parametrize("rule", CASES)
def test_it_fires_for_what_it_is_meant_for(engine: Engine, rule: str) -> None:
    second, lines, _ = CASES[rule]
    assert play(engine, lines, rule) == [second]


@pytest.mark.parametrize("rule", CASES)
def test_it_does_not_fire_for_less(engine: Engine, rule: str) -> None:
    assert play(engine, CASES[rule][2], rule) == []


def test_there_are_ten_and_each_has_a_case() -> None:
    names = [r["name"] for r in ready_rules()["alerts"]["rules"]]
    assert len(names) == 10
    assert set(names) == set(CASES)
