"""Alert rules with promtool, and their metrics against what the agent has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from services.metrics.catalog import HELP

HERE = Path(__file__).parent
RULES = HERE.parents[2] / "infra" / "prometheus" / "plc-edge.rules.yml"


def _promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not here (apt-get install prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid() -> None:
    _promtool("check", "rules", str(RULES))


def test_every_alert_fires_on_its_fault_alone(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(HERE / "rules.test.yml", tmp_path)
    _promtool("test", "rules", str(tmp_path / "rules.test.yml"))


def test_prometheus_configuration(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "plc-edge.rules.yml"):
        shutil.copy(RULES.parent / name, tmp_path)
    for name in ("tls/ca.pem", "secrets/metrics-planta-sp.pw"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    _promtool("check", "config", "--syntax-only", str(tmp_path / "prometheus.yml"))


def test_rules_use_metrics_that_exist() -> None:
    rules = [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    used = {n for r in rules for n in re.findall(r"plc_edge_\w+", r["expr"])}
    assert {re.sub(r"_bucket$", "", n) for n in used} <= set(HELP)
    tested = (HERE / "rules.test.yml").read_text()
    assert [r["alert"] for r in rules if f'alertname="{r["alert"]}"' not in tested] == []
