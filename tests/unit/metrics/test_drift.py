"""Metric names: what is counted, what is described, and what rules and dashboards ask for."""

from __future__ import annotations

import re
from pathlib import Path

from services.metrics.catalog import HELP
from tests.kit.common import ROOT

# Names of Flux tasks begin with a digit after the prefix.
NAME = re.compile(r"\bplc_edge_[a-z][a-z0-9_]+\b")
SUFFIX = re.compile(r"_(bucket|count|sum)$")


def names(folder: Path, *suffixes: str) -> dict[str, str]:
    """Metric name -> a file that has it."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in suffixes:
            for name in NAME.findall(file.read_text(encoding="utf-8")):
                found[name] = str(file.relative_to(ROOT))
    return found


def unknown(found: dict[str, str]) -> dict[str, str]:
    """Those that the catalogue does not describe."""
    return {n: f for n, f in found.items() if n not in HELP and SUFFIX.sub("", n) not in HELP}


def test_every_counted_metric_is_described() -> None:
    counted = names(ROOT / "services", ".py")
    assert len(counted) > 30
    assert unknown(counted) == {}


def test_every_described_metric_is_counted_somewhere() -> None:
    said = {
        name
        for file in (ROOT / "services").rglob("*.py")
        if file.name != "catalog.py"
        for name in NAME.findall(file.read_text(encoding="utf-8"))
    }
    assert HELP.keys() - said == set()


def test_rules_and_dashboards_ask_for_what_is_there() -> None:
    assert unknown(names(ROOT / "infra", ".yml", ".yaml", ".json", ".j2")) == {}
