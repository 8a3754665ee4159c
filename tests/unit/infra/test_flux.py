"""Every Flux query of tasks, dashboards and alert rules: syntax and types."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from services.infra.dashboards import INFLUX
from tests.kit.flux import check

INFRA = Path(__file__).resolve().parents[3] / "infra"
# What Grafana puts in a query's place before InfluxDB sees it.
OPTION = """\
option v = {timeRangeStart: -1h, timeRangeStop: now(), windowPeriod: 1m, defaultBucket: "b"}
"""


def _expanded(query: str) -> str:
    text = re.sub(r"\$\{\w+:regex\}", "x", query).replace("${ritmo}", "10")
    assert "${" not in text, f"a variable that this test does not know: {text}"
    lines = text.splitlines(keepends=True)
    imports = "".join(line for line in lines if line.startswith("import "))
    rest = "".join(line for line in lines if not line.startswith("import "))
    return f"{imports}\n{OPTION}\n{rest}"


def _queries() -> dict[str, str]:
    found = {f.name: f.read_text() for f in sorted((INFRA / "influxdb" / "tasks").glob("*.flux"))}
    for file in sorted((INFRA / "grafana").glob("dashboards*/*.json")):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                if target["datasource"] == INFLUX:
                    name = f"{file.stem}: {panel['title']} {target['refId']}"
                    found[name] = _expanded(target["query"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found[f"{file.stem}: ${variable['name']}"] = _expanded(variable["query"]["query"])
    rules = yaml.safe_load((INFRA / "grafana/provisioning/alerting/rules.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            query = rule["data"][0]["model"]["query"]
            found[f"alert {group['orgId']} {rule['uid']}"] = query
    return found


@pytest.mark.timeout(180)
def test_every_query_is_valid() -> None:
    queries = _queries()
    assert len(queries) > 40
    assert {name: errors for name, errors in check(queries).items() if errors} == {}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "broken",
    [
        "from(bucket: 1) |> range(start: -1h)",
        'from(bucket: "x") |> rang(start: -1h)',
        'from(bucket: "x") |> range(start: -1h',
        'from(bucket: "x") |> range(start: -1h) |> filter(fn: (r) => 1)',
    ],
)
def test_the_check_finds_mistakes(broken: str) -> None:
    assert check({"broken": broken})["broken"]


def test_tasks_write_whole_windows_only() -> None:
    for file in (INFRA / "influxdb" / "tasks").glob("*.flux"):
        text = file.read_text()
        assert "stop = date.truncate(t: now()" in text, file.name
        assert "createEmpty: false" in text


def test_what_only_the_database_would_refuse() -> None:
    """Found by running InfluxDB 2.7.12: both fail where series have different tags, as those of
    groups with and without machines do."""
    for name, query in _queries().items():
        assert "join." not in query, name
        if '"machine"' in query and "pivot(" in query:
            before = query[: query.index("pivot(")]
            assert "with machine: if exists r.machine" in before, name
