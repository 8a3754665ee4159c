"""Every query of every dashboard, at the database itself: VictoriaMetrics from the rendered files,
InfluxDB 2 where there is a program of it. Points come as the rendered Telegraf would write them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.infra import condense, dashboards, model, render, tenant
from services.infra.database import Database
from services.runtime import loader
from tests.kit import plant_day
from tests.kit.common import ROOT
from tests.kit.influx_real import RealInflux, binary
from tests.kit.plant_day import HOUR_MS, MINUTE_MS
from tests.kit.telegraf import Telegraf
from tests.kit.victoria import Victoria

EXAMPLE = ROOT / "deploy" / "config.example.yaml"
Check = Callable[[list[float]], bool]


def _all(wanted: float, within: float = 1e-9) -> Check:
    return lambda values: all(math.isclose(v, wanted, abs_tol=within) for v in values)


PER_HOUR = 120
# Panel -> what its values of the last hour must be. The others: some value, and a finite one.
WANTED: dict[str, Check] = {
    "Peças boas no período": _all(plant_day.GOOD * PER_HOUR, 2 * plant_day.GOOD),
    "Peças ruins no período": _all(plant_day.BAD * PER_HOUR, 2 * plant_day.BAD),
    "Disponibilidade": _all(0.5, 0.02),
    "CLPs online": _all(1),
    "Caixas online": _all(1),
    "Pendentes na caixa": _all(plant_day.PENDING),
    "Lacunas no período": _all(6),
    "Latência da leitura": _all(plant_day.LATENCY_MS),
    "Tempo de varredura": _all(12),
    "Mensagens pendentes": _all(plant_day.PENDING),
    "Qualidade": _all(2 / 3, 0.01),
    "Peças boas": _all(plant_day.GOOD * PER_HOUR, 3 * plant_day.GOOD),
    "Peças ruins": _all(plant_day.BAD * PER_HOUR, 3 * plant_day.BAD),
    "Desempenho": _all(3 * 2 / 10, 0.02),
    "Disponibilidade por hora": _all(0.5),
    # The first point of all has none before it.
    "Peças por hora": lambda v: {240.0, 120.0} >= {x for x in v if x not in (238.0, 119.0)},
    "Máquina ligada": lambda v: set(v) == {0.0, 1.0},
    "CLP online": lambda v: set(v) <= {0.0, 1.0} and 1.0 in v,
    "Corrente": lambda v: len(set(v)) == 1,
    "Telegraf: pontos descartados": _all(4),
}


def test_panels_whose_values_are_known_exist() -> None:
    titles = {p["title"] for b in dashboards.all_dashboards().values() for p in b["panels"]}
    titles |= {p["title"] for b in dashboards.operator_dashboards().values() for p in b["panels"]}
    assert set(WANTED) <= titles


@dataclass(frozen=True)
class Asked:
    """One query of a rendered dashboard."""

    board: str
    title: str
    kind: str
    target: dict[str, Any]


def asked(folder: Path, kind: str) -> list[Asked]:
    """Every query for data sources of this kind."""
    return [
        Asked(file.stem, panel["title"], panel["type"], target)
        for file in sorted(folder.glob("*.json"))
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
        if target["datasource"]["uid"] != "plc-edge-prometheus"
        if target["datasource"]["type"] == kind
    ]


def judge(asked: Asked, values: list[float]) -> None:
    name = f"{asked.board}: {asked.title}"
    assert values, f"{name} shows nothing: {asked.target}"
    assert all(map(math.isfinite, values)), name
    check = WANTED.get(asked.title)
    assert check is None or check(values), f"{name}: {sorted(set(values))}"


# -- VictoriaMetrics -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def day() -> tuple[int, int]:
    """Of the plant's messages; it ends now."""
    end = int(time.time() * 1e3) // plant_day.STEP_MS * plant_day.STEP_MS
    return end // HOUR_MS * HOUR_MS - HOUR_MS, end


@pytest.fixture(scope="module")
def centre(day: tuple[int, int]) -> Iterator[Victoria]:
    fleet = model.fleet([loader.load(EXAMPLE, check_secrets=False)])
    files = render.render(fleet, database=Database.VICTORIAMETRICS)
    telegraf = Telegraf(files["telegraf/telegraf.conf"])
    plant_day.feed(telegraf, *day)
    with Victoria(files) as running, pytest.MonkeyPatch.context() as patch:
        for alias, lines in telegraf.lines.items():
            output = telegraf.outputs[alias]
            path = output["url"].partition("}")[2]
            reply = running.ask(output["username"], "POST", path, "\n".join(lines).encode())
            assert reply.status == 204, reply
        for name, url in running.variables.items():
            patch.setenv(name, url)
        running.settle()
        condenser = condense.Condenser(running.infra / "victoriametrics/condense.json")
        condenser.last_minutes(day[1], since=day[0])
        running.settle()
        condenser.last_hours(day[1])
        running.settle()
        yield running


def sources(centre: Victoria, org: str | int) -> dict[str, str]:
    """uid -> account, as the provisioning file of Grafana says."""
    file = centre.infra / "grafana/provisioning/datasources/plc-edge.yaml"
    found = yaml.safe_load(file.read_text())["datasources"]
    return {s["uid"]: s["basicAuthUser"] for s in found if s["orgId"] == org and "basicAuth" in s}


def expanded(text: str, who: str, span_s: int = 3_600) -> str:
    """With the dashboard's variables put in, as Grafana does."""
    plc, machine, *_ = plant_day.PLCS.get(who, ("", None))
    put = {"$locatario": who, "$plc": plc, "$maquina": machine or ".*", "$__interval": "1m",
           "$__range_s": str(span_s), "$__range": f"{span_s}s", "${ritmo}": "10"}  # fmt: skip
    for name, value in put.items():
        text = text.replace(name, value)
    assert "$" not in text, f"a variable that this test does not know: {text}"
    return text


def numbers(centre: Victoria, account: str, one: Asked, who: str, end_ms: int) -> list[float]:
    """What a panel shows of the last hour."""
    query = expanded(one.target["expr"], who)
    end = str(end_ms // 1_000)
    if one.target["instant"]:
        params = {"query": query, "time": end}
        found = centre.read(account, "/api/v1/query", params).result
        return [float(series["value"][1]) for series in found["result"]]
    # As often as messages come: what turns with each of them is seen in both states.
    step = str(plant_day.STEP_MS // 1_000)
    params = {"query": query, "start": str(end_ms // 1_000 - 3_600), "end": end, "step": step}
    found = centre.read(account, "/api/v1/query_range", params).result
    return [float(v) for series in found["result"] for _, v in series["values"]]


@pytest.mark.parametrize("who", ["acme", "beta"])
def test_every_query_of_every_dashboard(centre: Victoria, who: str, day: tuple[int, int]) -> None:
    accounts = sources(centre, f"$ORG_{who.upper()}")
    queries = asked(centre.infra / "grafana/dashboards", "prometheus")
    assert len(queries) == sum(len(b["panels"]) for b in dashboards.all_dashboards().values())
    for one in queries:
        account = accounts[one.target["datasource"]["uid"]]
        # Of hours only whole ones are there.
        end = day[1] // HOUR_MS * HOUR_MS - MINUTE_MS if "por hora" in one.title else day[1]
        judge(one, numbers(centre, account, one, who, end))


def test_the_operators_dashboard(centre: Victoria, day: tuple[int, int]) -> None:
    accounts = sources(centre, 1)
    queries = asked(centre.infra / "grafana/dashboards-operador", "prometheus")
    assert [q.title for q in queries] == ["Recusadas pelo Telegraf", "Telegraf: pontos descartados"]
    for one in queries:
        account = accounts[one.target["datasource"]["uid"]]
        judge(one, numbers(centre, account, one, "plataforma", day[1]))


@pytest.mark.parametrize("who", ["acme", "beta"])
def test_every_variable(centre: Victoria, who: str, day: tuple[int, int]) -> None:
    accounts = sources(centre, f"$ORG_{who.upper()}")
    plc, machine, *_ = plant_day.PLCS[who]
    wanted = {"locatario": [who], "plc": [plc], "maquina": [machine] if machine else []}
    for file in (centre.infra / "grafana/dashboards").glob("*.json"):
        for variable in json.loads(file.read_text())["templating"]["list"]:
            if variable["type"] != "query":
                continue
            inside = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
            selector, _, label = expanded(inside, who).rpartition(", ")
            account = accounts[variable["datasource"]["uid"]]
            span = {"start": str(day[0] // 1_000), "end": str(day[1] // 1_000)}
            params = {"match[]": selector, **span}
            found = centre.read(account, f"/api/v1/label/{label}/values", params).result
            assert found == wanted[variable["name"]], (file.name, variable["name"])


def test_every_alert_rule(centre: Victoria, day: tuple[int, int]) -> None:
    """None of them is without an answer; what is well is on the right side of its limit."""
    file = centre.infra / "grafana/provisioning/alerting/rules.yaml"
    for group in yaml.safe_load(file.read_text())["groups"]:
        accounts = sources(centre, group["orgId"])
        fires = {}
        for rule in group["rules"]:
            query, condition = rule["data"]
            evaluator = condition["model"]["conditions"][0]["evaluator"]
            params = {"query": query["model"]["expr"], "time": str(day[1] // 1_000)}
            reply = centre.read(accounts[query["datasourceUid"]], "/api/v1/query", params)
            (series,) = reply.result["result"]
            value, (limit,) = float(series["value"][1]), evaluator["params"]
            fires[rule["uid"]] = value < limit if evaluator["type"] == "lt" else value > limit
        assert fires == {"plc-edge-sem-dados": False, "plc-edge-pendentes": False,
                         "plc-edge-latencia": False, "plc-edge-lacuna": True}  # fmt: skip


def test_a_silent_plc_counts_as_none(centre: Victoria, day: tuple[int, int]) -> None:
    """Three minutes after the last heartbeat: 0, not nothing."""
    queries = asked(centre.infra / "grafana/dashboards", "prometheus")
    (one,) = [q for q in queries if (q.board, q.title) == ("saude-da-borda", "CLPs online")]
    account = "acme-platform_metrics-leitura"
    assert numbers(centre, account, one, "acme", day[1] + 4 * MINUTE_MS) == [0.0]


# -- InfluxDB 2 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def influx(day: tuple[int, int]) -> Iterator[RealInflux]:
    """The buckets of both tenants, filled; minutes and hours by the tasks' own Flux."""
    program = binary()
    if program is None:
        pytest.skip("no InfluxDB 2 here (PLC_EDGE_INFLUXD=/path/influxd)")
    fleet = model.fleet([loader.load(EXAMPLE, check_secrets=False)])
    files = render.render(fleet)
    telegraf = Telegraf(files["telegraf/telegraf.conf"])
    plant_day.feed(telegraf, *day)
    server = RealInflux(program)
    try:
        for t in fleet.tenants:
            assert server.ask("POST", "/api/v2/orgs", {"name": t.id}).status == 201
            for bucket in t.buckets:
                body = {"orgID": server.org(t.id), "name": bucket.name}
                assert server.ask("POST", "/api/v2/buckets", body).status == 201
        for alias, lines in telegraf.lines.items():
            output = telegraf.outputs[alias]
            path = f"/api/v2/write?org={output['organization']}&bucket={output['bucket']}"
            assert server.ask("POST", path, "\n".join(lines).encode()).status == 204
        for t in fleet.tenants:
            for name, step in (("plc_edge_1m", 10 * MINUTE_MS), ("plc_edge_1h", HOUR_MS)):
                (task,) = [k for k in tenant.tasks(fleet.booleans, fleet.counters, t.raw_days)
                           if k.name == name]  # fmt: skip
                for at in range(day[0] + step, day[1] + step, step):
                    flux_rows(server, t.id, task.flux.replace("option task", "_task"), at)
        yield server
    finally:
        server.close()


def flux_rows(server: RealInflux, org: str, query: str, now_ms: int) -> list[dict[str, str]]:
    """The rows of every table, with this time as ``now()``."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_ms // 1_000))
    body = {"query": query, "type": "flux", "now": at, "dialect": {"annotations": []}}
    reply = server.ask("POST", f"/api/v2/query?org={org}", body)
    assert reply.status == 200, reply
    rows: list[dict[str, str]] = []
    for table in str(reply.body).replace("\r", "").split("\n\n"):
        head, *lines = [line.split(",") for line in table.strip().split("\n")]
        rows += [dict(zip(head, line, strict=False)) for line in lines]
    return rows


@pytest.mark.parametrize("who", ["acme", "beta"])
def test_every_flux_query_of_every_dashboard(
    influx: RealInflux, who: str, day: tuple[int, int]
) -> None:
    plc, machine, *_ = plant_day.PLCS[who]
    queries = asked(ROOT / "infra/grafana/dashboards", "influxdb")
    assert len(queries) == sum(len(b["panels"]) for b in dashboards.all_dashboards().values())
    for one in queries:
        end = day[1] // HOUR_MS * HOUR_MS - MINUTE_MS if "por hora" in one.title else day[1]
        query = one.target["query"]
        for name, value in (("${locatario:regex}", who), ("${plc:regex}", plc),
                            ("${maquina:regex}", machine or ".*"), ("${ritmo}", "10")):  # fmt: skip
            query = query.replace(name, value)
        span = (end - HOUR_MS, end)
        first, last = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t // 1_000)) for t in span)
        # As often as messages come, as above.
        period = f"{plant_day.STEP_MS}ms"
        option = (f"option v = {{timeRangeStart: {first}, timeRangeStop: {last},"
                  f" windowPeriod: {period}}}\n")  # fmt: skip
        rows = flux_rows(influx, who, option + query, end)
        if one.kind == "table":
            assert rows, f"{one.board}: {one.title} shows nothing"
        else:
            judge(one, [float(r["_value"]) for r in rows if r.get("_value")])
