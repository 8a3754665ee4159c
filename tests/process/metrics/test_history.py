"""/api/history, Grafana's questions to it and `plc-edge history`, at a running box."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from services.infra import history as grafana
from services.infra.model import Scrape
from tests.kit.common import until
from tests.kit.history_site import KEY, HistorySite, history_site
from tests.kit.metrics_rig import Rig
from tests.kit.site import Site

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def box() -> Iterator[HistorySite]:
    with history_site() as box:
        box.wait_recorded()
        box.down(1.0)
        yield box


def ask(box: HistorySite, path: str, status: int = 200) -> Any:
    reply = box.get(path)
    assert reply.status == status, reply.data
    assert reply.headers["cache-control"] == "no-store"
    return reply.json()


def run(box: HistorySite, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = box.site.run("history", *words)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


# -- /api/history ---------------------------------------------------------------------------------


def test_series_are_found_by_words(box: HistorySite) -> None:
    every = ask(box, "/api/history/series")
    assert every["count"] == 6
    found = ask(box, "/api/history/series?find=PRENSA%20temp")["series"]
    assert [s["key"] for s in found] == [KEY]
    assert (found[0]["kind"], found[0]["type"], found[0]["unit"]) == ("number", "REAL", "°C")
    few = ask(box, "/api/history/series?plc=forno-02&limit=1")
    assert (few["count"], len(few["series"])) == (3, 1)


def test_every_value_with_its_quality_and_what_is_not_known(box: HistorySite) -> None:
    found = ask(box, f"/api/history?series={KEY}&from=-5m&step=raw")
    (one,) = found["series"]
    assert found["step_ms"] == 0
    assert one["ts"] == sorted(one["ts"])
    bad = [i for i, q in enumerate(one["quality"]) if q == 2]
    assert bad
    assert all(one["values"][i] is None and one["reasons"][i] == "plc_offline" for i in bad)
    whys = {why for _, _, why in one["unknown"]}
    assert whys == {"silent", "plc_offline"}


def test_roll_ups_are_those_of_the_values(box: HistorySite) -> None:
    raw = ask(box, f"/api/history?series={KEY}&from=-5m&step=raw")["series"][0]
    begin = raw["ts"][0] - raw["ts"][0] % 60_000
    rolled = ask(box, f"/api/history?series={KEY}&from={begin}&to={begin + 120_000}&step=1m")
    assert rolled["step_ms"] == 60_000
    one = rolled["series"][0]
    for i, at in enumerate(one["ts"]):
        known = [
            v for t, v, q in zip(raw["ts"], raw["values"], raw["quality"], strict=True)
            if q == 0 and at <= t < at + 60_000
        ]  # fmt: skip
        if not known or at + 60_000 > raw["ts"][-1]:
            continue
        assert one["min"][i] == pytest.approx(min(known))
        assert one["max"][i] == pytest.approx(max(known))
        assert min(known) <= one["mean"][i] <= max(known)
    picked = ask(box, f"/api/history?series={KEY}&from=-7d&points=500")
    assert 500 >= len(picked["series"][0]["ts"]) > 250


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 400, "series=plc/group/machine/field"),
        (f"?series={KEY}&from=soon", 400, "is no time"),
        (f"?series={KEY}&from=-1h&to=-2h", 400, "must lie before"),
        (f"?series={KEY}&points=0", 400, "number from 1 to 5000"),
        (f"?series={KEY}&points=1e9", 400, "number from 1 to 5000"),
        (f"?series={KEY}&step=2x", 400, "500ms, 2s"),
        (f"?series={KEY}&step=0s", 400, "longer than 0"),
        ("?series=prensa-01/avulsos//nada", 404, "no such series"),
        ("?" + "&".join(f"series=a/b//{n}" for n in range(21)), 400, "more than 20"),
        (f"?series={KEY}&from=-365d&step=1m", 422, "ask for a step of"),
        (f"?series={KEY}&step=10ms", 422, "raw"),
    ],
)
def test_what_is_refused_says_why(box: HistorySite, query: str, status: int, says: str) -> None:
    assert says in ask(box, f"/api/history{query}", status)["text"]


def test_alarms_and_events_of_a_range(box: HistorySite) -> None:
    found = ask(box, "/api/history/events?from=-10m&plc=prensa-01")
    assert found["complete"]
    (alarm,) = found["alarms"]
    assert (alarm["rule"], alarm["field"], alarm["end"]) == ("quente", "temperatura", None)
    codes = [e["code"] for e in found["events"]]
    assert codes.count("plc_online") >= 1
    assert all(e["fields"].get("plc", "prensa-01") == "prensa-01" for e in found["events"])
    old = ask(box, "/api/history/events?from=-2h&to=-1h")
    assert (old["alarms"], old["events"]) == ([], [])
    other = ask(box, "/api/history/events?from=-10m&plc=forno-02")
    assert other["alarms"] == []


def test_events_outlive_the_panel(box: HistorySite) -> None:
    before = ask(box, "/api/history/events?from=-10m")["events"]
    pid, _ = box.site.kill("metrics")
    box.site.wait_back("metrics", pid)
    after = until(lambda: ask(box, "/api/history/events?from=-10m")["events"], 5, "events")
    assert [e for e in after if e in before] == before


def test_a_page_and_no_history_behind_it() -> None:
    with Rig(plcs=1, groups=1) as rig:
        assert rig.get("/history").status == 200
        reply = rig.get("/api/history/series")
        assert (reply.status, reply.json()["error"]) == (503, "away")
        assert rig.get("/api/history/events").json()["complete"]


def test_behind_the_login(tmp_path: Path) -> None:
    login: dict[str, Any] = {"username": "tecnico", "password": {"file": str(tmp_path / "pw")}}
    (tmp_path / "pw").write_text("segredo")
    with Rig(plcs=1, groups=1, **login) as rig:
        for path in ("/history", "/api/history", "/api/history/rows", "/api/history/series",
                     "/api/history/events"):  # fmt: skip
            assert rig.get(path).status == 401, path


# -- Grafana --------------------------------------------------------------------------------------


def test_each_question_of_the_dashboard_is_answered(box: HistorySite) -> None:
    """As the Infinity data source asks: variables put in, the root and the columns picked."""
    board = grafana.board()
    (series,) = [v for v in board["templating"]["list"] if v["name"] == "serie"]
    asked = series["query"]["infinityQuery"]
    names = {row["name"]: row["key"] for row in _table(box, asked, {})}
    key = names["prensa-01 avulsos temperatura (°C)"]
    now_ms = round(datetime.now().timestamp() * 1_000)
    chosen = {
        "${serie:csv}": f"{key},prensa-01/avulsos//ligada",
        "${__from}": str(now_ms - 600_000),
        "${__to}": str(now_ms),
    }
    seen = {}
    for panel in board["panels"]:
        (target,) = panel["targets"]
        seen[panel["title"]] = rows = _table(box, target, chosen)
        for row in rows:
            for column in target["columns"]:
                value, kind = row[column["selector"]], column["type"]
                wanted: Any = str if kind == "string" else (int, float)
                assert value is None or isinstance(value, wanted), (panel["title"], column, value)
    assert all(seen.values()), {title for title, rows in seen.items() if not rows}
    assert {r["why"] for r in seen["O que não se sabe"]} >= {"plc_offline"}
    values = [r["value"] for r in seen["Valores"] if r["key"] == key and r["value"] is not None]
    assert len(values) > 5


def _table(box: HistorySite, target: dict[str, Any], variables: dict[str, str]) -> list[Any]:
    url = target["url"]
    for name, value in variables.items():
        url = url.replace(name, value)
    assert "$" not in url
    found = ask(box, url)[target["root_selector"]]
    wanted = {c["selector"] for c in target["columns"]}
    assert all(wanted <= row.keys() for row in found)
    return list(found)


def test_the_data_source_names_the_secret_and_never_holds_it() -> None:
    box = Scrape("planta-sp", "acme", "https://planta-sp:9108/metrics", "operador")
    files = grafana.files([box])
    text = files["grafana/historico/datasources.yaml"]
    assert "$__file{/etc/plc-edge/secrets/metrics-planta-sp.pw}" in text
    assert "https://planta-sp:9108\n" in text
    assert json.loads(files["grafana/historico/historico.json"])["uid"] == "plc-edge-historico"
    assert grafana.files([]) == {}


# -- plc-edge history -----------------------------------------------------------------------------


def test_a_table_and_what_is_not_known(box: HistorySite) -> None:
    listed = run(box, "prensa-01").stdout
    assert all(word in listed for word in ("temperatura", "pressao", "ligada", "REAL", "°C"))
    told = run(box, "prensa-01", "temperatura", "--from", "-10m", "--step", "1m")
    assert "known_s" in told.stdout
    assert "plc_offline" in told.stderr


@pytest.mark.parametrize("running", [True, False])
def test_the_same_rows_in_every_format(box: HistorySite, tmp_path: Path, running: bool) -> None:
    ask_raw = ("prensa-01", "temperatura", "ligada", "--to", "-1s")
    if not running:
        _stop(box.site, "historian")
    try:
        text = run(box, *ask_raw, "-f", "csv").stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {r["field"] for r in rows} == {"temperatura", "ligada"}
        assert {r["quality"] for r in rows} == {"good", "bad"}
        assert all((r["value"] == "") == (r["quality"] == "bad") for r in rows)
        assert all(datetime.fromisoformat(r["time"]).tzinfo for r in rows)
        ends = ("--from", rows[0]["time"], "--to", rows[-1]["time"])
        lines = run(box, *ask_raw[:3], *ends, "-f", "json").stdout.splitlines()
        out = tmp_path / "h.parquet"
        run(box, "prensa-01", "temperatura", *ends, "-f", "parquet", "-o", str(out))
        table = pq.read_table(out)
    finally:
        if not running:
            box.site.rpc.startProcess("historian")
            box.site.wait_running()
    said = [json.loads(line) for line in lines]
    mine = [r for r in rows if r["field"] == "temperatura" and r["time"] < rows[-1]["time"]]
    theirs = [s for s in said if s["field"] == "temperatura"]
    assert [(r["time"], r["value"]) for r in mine] == [
        (s["time"], "" if s["value"] is None else repr(s["value"])) for s in theirs
    ]
    assert str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"
    assert table.column("value").to_pylist() == [s["value"] for s in theirs]
    assert table.column("unit").to_pylist() == ["°C"] * len(theirs)
    assert list(tmp_path.iterdir()) == [out]


def _stop(site: Site, process: str) -> None:
    pid = site.pid(process)
    site.rpc.stopProcess(process)
    until(lambda: site.pid(process) != pid, 10, f"{process} stopped")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("prensa-01", "ligada", "-o", "h.csv"), 2, "--out needs --format csv, json or parquet"),
        (("nada",), 1, "no value of 'nada' has been recorded, and none is configured; there are"),
        (("prensa-01", "temperatur"), 1, "did you mean temperatura?"),
        (("prensa-01", "temperatura", "--from", "ontem"), 2, "--from: 'ontem' is no time"),
        (("prensa-01", "temperatura", "--from", "now", "--to", "-1h"), 2, "does not lie before"),
        (("prensa-01", "temperatura", "--step", "1"), 2, "--step: a duration is"),
        (("prensa-01", "temperatura", "--step", "10ms"), 2, "1s at least"),
        (("prensa-01", "temperatura", "-f", "csv", "-o", "/nicht/da.csv"), 1, "No such file"),
    ],
)
def test_mistakes_are_told(
    box: HistorySite, words: tuple[str, ...], status: int, says: str
) -> None:
    assert says in re.sub(r"\s+", " ", run(box, *words, status=status).stderr)


def test_a_box_without_history(tmp_path: Path) -> None:
    plc = {"id": "p1", "host": "127.0.0.1", "groups": [
        {"name": "g1", "fields": [{"name": "a", "address": "DB1.DBW0:INT"}]}]}  # fmt: skip
    site = Site({"site": "s1", "locatario": "acme", "plcs": [plc]})
    told = site.run("history", "p1")
    assert told.returncode == 1
    assert "give it `history: {}` in the configuration" in told.stderr


def test_too_many_questions_at_once_are_told_so(box: HistorySite) -> None:
    """Whoever comes while others wait gets an answer at once, and the next one a good one."""
    url = f"/api/history?series={KEY}&from=-1h&points=5000"
    with ThreadPoolExecutor(24) as many:
        replies = list(many.map(box.get, [url] * 48))
    assert {r.status for r in replies} <= {200, 503}
    assert sum(r.status == 200 for r in replies) >= 8
    refused = [r.json()["error"] for r in replies if r.status == 503]
    assert set(refused) <= {"busy"}
    assert box.get(url).status == 200
