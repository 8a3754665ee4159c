"""What is rendered for VictoriaMetrics: every piece names what the others make."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.infra import boards, model, queries, render, tenant, victoria
from services.infra.condense import minutes
from services.infra.database import Database
from services.runtime import loader
from tests.kit import fleet
from tests.kit.common import ROOT


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> model.Fleet:
    """acme (pro) and beta (free)."""
    return fleet.load(fleet.write_boxes(tmp_path_factory.mktemp("boxes")))


@pytest.fixture(scope="module")
def files(boxes: model.Fleet) -> render.Files:
    return render.render(boxes, database=Database.VICTORIAMETRICS)


def test_nothing_of_influxdb_is_left(files: render.Files) -> None:
    assert not [name for name in files if "influx" in name]
    for name, text in files.items():
        # The line protocol keeps its name: Telegraf's output, and two flags.
        for kept in (
            "outputs.influxdb",
            'data_format = "influx"',
            "influxMeasurementFieldSeparator",
            "influxDBLabel",
        ):
            text = text.replace(kept, "")
        assert "influx" not in text.lower(), name


def test_one_store_for_each_retention_that_somebody_has(boxes: model.Fleet) -> None:
    """The retention of every bucket is its store's, and two resolutions share none."""
    for found in victoria.tenants(boxes).values():
        for bucket in found:
            store = victoria.store(bucket)
            assert store in victoria.stores(boxes)
            assert store.settings["retentionPeriod"] == f"{bucket.days}d"
            dedup = "1m" if bucket.name in ("processo_1m", "processo_1h") else "1ms"
            assert store.settings["dedup_minScrapeInterval"] == dedup


@given(st.integers(1, 200))
def test_tenants_of_the_usual_plans_need_seven_stores_at_most(count: int) -> None:
    """A hundred tenants are no more processes than three."""
    plans = list(tenant.RETENTION_DAYS)
    found = {
        victoria.store(b)
        for n in range(count)
        for b in tenant.buckets(tenant.RETENTION_DAYS[plans[n % 3]][0])
    }
    assert len(found) <= 7


def test_an_account_is_one_bucket_of_one_tenant(boxes: model.Fleet, files: render.Files) -> None:
    users = yaml.safe_load(files["victoriametrics/auth.yml"])["users"]
    assert len({u["username"] for u in users}) == len(users)
    wanted = {
        (t, b.name, w) for t, found in victoria.tenants(boxes).items() for b in found
        for w in ([False, True] if b.name in {k.bucket for k in tenant.WRITERS} else [False])
    }  # fmt: skip
    got = set()
    for user in users:
        (route,) = user["url_map"]
        assert "url_prefix" not in user, "a path that no route names would pass"
        prefix, _, query = route["url_prefix"].partition("/?")
        labels = dict(re.findall(r"extra_label=(\w+)=([\w-]+)", query))
        assert set(labels) == {"locatario_id", "bucket"}
        assert query.count("&") == 1
        assert re.fullmatch(r"%\{VM_[A-Z0-9_]+_URL\}", prefix)
        assert re.fullmatch(r"%\{VM_PASSWORD_[A-Z0-9_]+\}", user["password"])
        writes = route["src_paths"] == ["/write"]
        assert writes or set(route["src_paths"]) == set(victoria.READ)
        got.add((labels["locatario_id"], labels["bucket"], writes))
    assert got == wanted


def test_telegraf_writes_with_accounts_that_are_there(
    boxes: model.Fleet, files: render.Files
) -> None:
    accounts = {a.name: a for a in victoria.accounts(boxes)}
    conf = tomllib.loads(files["telegraf/telegraf.conf"])
    outputs = conf["outputs"]["http"]
    assert {o["username"] for o in outputs} == {
        a.name for a in accounts.values() if a.paths is victoria.WRITE
    }
    for output in outputs:
        account = accounts[output["username"]]
        labels = dict(account.labels)
        assert output["password"].startswith(f"${{{account.variable}:?")
        assert output["url"].endswith(f"}}/write?db={labels['bucket']}")
        for route in output["tagpass"]["_rota"]:
            assert route.split("/")[0] == labels["locatario_id"]
    assert conf["processors"]["starlark"][0]["constants"]["keeps_text"] is False


def test_grafana_reads_with_accounts_that_are_there(
    boxes: model.Fleet, files: render.Files
) -> None:
    accounts = {a.name: a for a in victoria.accounts(boxes)}
    found = yaml.safe_load(files["grafana/provisioning/datasources/plc-edge.yaml"])["datasources"]
    uids: dict[object, set[str]] = {}
    for source in found:
        uids.setdefault(source["orgId"], set()).add(source["uid"])
        if "basicAuth" in source:
            account = accounts[source["basicAuthUser"]]
            assert account.paths is victoria.READ
            assert source["secureJsonData"]["basicAuthPassword"] == (
                f"$__file{{/tokens/{account.file}}}"
            )
            assert source["uid"] == tenant.bucket_source_uid(dict(account.labels)["bucket"])
    assert {s["orgId"] for s in found if s.get("isDefault")} == {"$ORG_ACME", "$ORG_BETA"}
    for folder, orgs in (("dashboards", ("$ORG_ACME", "$ORG_BETA")), ("dashboards-operador", (1,))):
        for name, text in files.items():
            if f"grafana/{folder}/" in name:
                board = json.loads(text)
                asking = [*board["panels"], *board["templating"]["list"]]
                used = {p["datasource"]["uid"] for p in asking if "datasource" in p}
                assert all(used <= uids[org] for org in orgs), name


def test_passwords_script(files: render.Files, boxes: model.Fleet, tmp_path: Path) -> None:
    """Makes what the accounts need, once, and hands Telegraf no more than it needs."""
    render.write(files, tmp_path)
    script = tmp_path / "victoriametrics/passwords.sh"
    tokens = tmp_path / "tokens"

    def run() -> dict[str, str]:
        env = {"PATH": "/usr/bin:/bin", "TOKENS": str(tokens)}
        done = subprocess.run([script], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        for secret in tokens.iterdir():
            assert secret.read_text() not in done.stdout
        return {f.name: f.read_text() for f in tokens.iterdir()}

    first = run()
    assert run() == first
    telegraf = {line.split("=")[0] for line in first["telegraf.env"].splitlines()}
    assert telegraf == {a.variable for a in victoria.accounts(boxes) if a.paths is victoria.WRITE}
    named = set(re.findall(r"%\{(VM_PASSWORD_\w+)\}", files["victoriametrics/auth.yml"]))
    assert named <= {line.split("=")[0] for line in first["vmauth.env"].splitlines()}
    urls = {line.split("=")[0] for line in files["victoriametrics/urls.env"].splitlines()}
    assert set(re.findall(r"%\{(VM_\w+_URL)\}", files["victoriametrics/auth.yml"])) <= urls
    checker = shutil.which("shellcheck")
    if checker is not None:
        done = subprocess.run([checker, script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_compose_file(tmp_path: Path) -> None:
    """Parses, passes the linter, is hardened; who reaches a store is not Grafana."""
    loaded = loader.load(ROOT / "deploy/config.example.yaml", check_secrets=False)
    render.write(render.render(model.fleet([loaded]), database=Database.VICTORIAMETRICS), tmp_path)
    file = tmp_path / "docker-compose.yml"
    for name, *words in (
        ("docker-compose", "-f", str(file), "--profile", "demo", "config", "-q"),
        ("compose-lint", str(file)),
    ):
        program = str(Path(sys.executable).with_name(name))
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load(file.read_text())["services"]
    stores = {n for n, s in services.items() if "stores" in s.get("networks", ())}
    assert stores == {n for n in services if n.startswith("vm-")} | {"vmauth", "condensador"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        assert "ports" not in service or name in ("mosquitto", "grafana"), name


def test_every_question_stands_in_both_languages() -> None:
    found = [p.query for b in (*boards.tenants().values(), *boards.operator().values())
             for p in b.panels if isinstance(p.query, queries.Query)]  # fmt: skip
    assert len(found) > 30
    for query in found:
        assert query.flux.startswith(f'from(bucket: "{query.bucket}")')
        assert query.metricsql
        for a, b in ("()", "[]", "{}"):
            assert query.metricsql.count(a) == query.metricsql.count(b), query.metricsql


PATTERNS = sorted(
    set(re.findall(r'r\._field =~ /([^/]+)/', " ".join(
        p.query.flux for b in boards.tenants().values() for p in b.panels
        if isinstance(p.query, queries.Query))))
)  # fmt: skip


@given(st.sampled_from(PATTERNS), st.one_of(
    st.text("abcxAI_.", max_size=8),
    st.sampled_from(["contador_bom", "contador_ruim_inc", "AI_Corrente", "sensor.1.valor", "x_duty",
                     "xcontador_bom", "contador_bomx", "Vibracao", "status_maquina", "seq"]),
))  # fmt: skip
def test_a_series_name_matches_as_the_field_does(pattern: str, field: str) -> None:
    """Flux looks for a part of the field; MetricsQL at the whole name."""
    whole = queries.anchored(pattern)
    # Python wants a flag first; RE2 takes it anywhere.
    assert bool(re.search(pattern, field)) == bool(re.fullmatch(whole, f"s7_db1:{field}"))
    assert not re.fullmatch(whole, field)


def test_names_with_signs_are_quoted_for_the_condenser() -> None:
    asked = minutes(["x.0", "a-b"], [])
    (duty,) = [q for suffix, q in asked.asked if suffix == "_duty"]
    assert r'{__name__=~"[^:]+:(x\\.0|a\\-b)"}' in duty
    assert len({suffix for suffix, _ in asked.asked}) == len(asked.asked)


def test_the_condenser_is_told_what_the_accounts_are(
    boxes: model.Fleet, files: render.Files
) -> None:
    told = json.loads(files["victoriametrics/condense.json"])
    assert (told["booleans"], told["counters"]) == (["rodando"], ["ciclos"])
    for t in told["tenants"]:
        for bucket, store in t["buckets"].items():
            reads = f"{t['id']}-{bucket}-leitura"
            (account,) = [a for a in victoria.accounts(boxes) if a.name == reads]
            assert account.store.name == store
            assert told["stores"][store] == account.store.variable
