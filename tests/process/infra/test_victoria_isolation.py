"""One tenant's credentials at VictoriaMetrics, against another's data: real vmauth, real stores,
from the rendered files. The requests are those of somebody who knows how both work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from services.infra import render
from services.infra.database import Database
from tests.kit import fleet
from tests.kit.victoria import Params, Victoria

# Neither may be told to acme.
SECRET, MARK = "4711.25", "forno-secreto"
READER, WRITER = "acme-processo-leitura", "acme-processo-escrita"


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victoria]:
    """acme (pro) and beta (enterprise, free: whatever shares a store with acme)."""
    boxes = fleet.load(fleet.write_boxes(tmp_path_factory.mktemp("boxes")))
    with Victoria(render.render(boxes, database=Database.VICTORIAMETRICS)) as running:
        now_ns = time.time_ns() - 5_000_000_000  # whole seconds alone are asked for
        for tenant, plc, value in (("acme", "prensa-01", 1.5), ("beta", MARK, SECRET)):
            tags = f"locatario_id={tenant},plc_id={plc}"
            for kind in ("raw", "processo", "plataforma"):
                line = f"s7_db1,{tags} temperatura={value} {now_ns}"
                assert running.write(f"{tenant}-{kind}-escrita", [line]).status == 204
        running.settle()
        yield running


def shared(centre: Victoria, bucket: str) -> str:
    """The store that keeps this bucket of both tenants, or of acme and others of beta's."""
    told = json.loads((centre.infra / "victoriametrics/condense.json").read_text())
    name: str = told["tenants"][0]["buckets"][bucket]
    held = {s["metric"]["locatario_id"] for s in centre.held(name)}
    assert held >= {"acme", "beta"}, f"{name} holds {held}: nothing is tried here"
    return name


def test_each_reads_its_own(centre: Victoria) -> None:
    shared(centre, "processo")
    for tenant, value in (("acme", "1.5"), ("beta", SECRET)):
        for bucket in ("processo_raw", "processo", "platform_metrics"):
            query = {"query": 's7_db1:temperatura{plc_id!=""}'}
            found = centre.read(f"{tenant}-{bucket}-leitura", "/api/v1/query", query).result
            (series,) = found["result"]
            assert series["value"][1] == value
            assert series["metric"]["locatario_id"] == tenant
            assert series["metric"]["bucket"] == bucket


QUERIES = (
    's7_db1:temperatura{locatario_id="beta"}',
    '{locatario_id=~".*"}',
    '{__name__!=""}',
    '{locatario_id!="acme"}',
    '{locatario_id="acme"} or {locatario_id="beta"}',
    's7_db1:temperatura or on() s7_db1:temperatura{locatario_id="beta"}',
    'max_over_time({locatario_id="beta"}[1h:1m])',
    'sum(count_over_time({locatario_id=~"beta|acme"}[1h])) by (plc_id)',
    'WITH (x = {locatario_id="beta"}) x',
    'union({locatario_id="beta"}, {bucket="processo_raw"})',
    'label_set({plc_id=~".*"}, "locatario_id", "beta")',
    'absent_over_time({locatario_id="beta"}[1h]) or {plc_id=~"forno.*"}',
    's7_db1:temperatura{locatario_id="beta"} offset -1m',
    'topk(10, {locatario_id=""} or {locatario_id=~".+"})',
)
EXTRA: tuple[list[tuple[str, str]], ...] = (
    [],
    [("extra_label", "locatario_id=beta")],
    [("extra_label", "locatario_id=acme"), ("extra_label", "locatario_id=beta")],
    [("extra_filters", '{locatario_id="beta"}')],
    [("extra_filters[]", '{locatario_id="beta"}')],
    [("extra_filters[]", '{locatario_id=~".*"}'), ("extra_filters", '{bucket=~".*"}')],
    [("extra_label", ""), ("extra_filters[]", "{}")],
    [("extra_label", "locatario_id"), ("extra_filters[]", '{plc_id=~".+"}')],
)
PATHS = ("/api/v1/query", "/api/v1/query_range", "/api/v1/series", "/api/v1/labels",
         "/api/v1/label/plc_id/values", "/api/v1/label/locatario_id/values",
         "/api/v1/label/__name__/values")  # fmt: skip


def parameters(query: str, extra: list[tuple[str, str]]) -> Params:
    now_s = int(time.time())
    span = [("start", str(now_s - 3_600)), ("end", str(now_s + 60)), ("step", "60")]
    return [("query", query), ("match[]", query), ("nocache", "1"), *span, *extra]


@pytest.mark.parametrize("path", PATHS)
def test_no_query_reads_anothers(centre: Victoria, path: str) -> None:
    """In the address, in the body and in both."""
    answered = 0
    for query in QUERIES:
        for extra in EXTRA:
            params = parameters(query, extra)
            address = f"{path}?{urlencode(params)}"
            replies = [
                centre.ask(READER, "GET", address),
                centre.read(READER, path, params),
                centre.ask(READER, "POST", address, form=params),
                centre.ask(READER, "POST", f"{path}?{urlencode(extra)}", form=params),
            ]
            for reply in replies:
                if reply.status == 200:
                    answered += 1
                    assert SECRET not in reply.text, (query, extra)
                    assert MARK not in reply.text, (query, extra)
                    if "label/locatario_id" in path:
                        assert "beta" not in reply.text, (query, extra)
    # Most are good queries: were all refused, nothing would have been tried.
    assert answered > 100


FORBIDDEN = (
    "/api/v1/export?match[]={locatario_id=%22beta%22}",
    "/api/v1/export/native?match[]={__name__!=%22%22}",
    "/api/v1/export/csv?format=__name__,__value__&match[]={__name__!=%22%22}",
    "/federate?match[]={locatario_id=%22beta%22}",
    "/prometheus/api/v1/query?query={locatario_id=%22beta%22}",
    "/api/v1/status/tsdb",
    "/api/v1/status/top_queries",
    "/api/v1/status/active_queries",
    "/api/v1/series/count",
    "/api/v1/admin/tsdb/delete_series?match[]={locatario_id=%22beta%22}",
    "/snapshot/create",
    "/snapshot/list",
    "/internal/force_merge",
    "/internal/resetRollupResultCache",
    "/vmui/",
    "/graphite/metrics/find?query=*",
    "/render?target=*",
    "/metrics",
    "/flags",
    "/debug/pprof/cmdline",
    "/-/reload",
    "/write",
    "/api/v1/write",
    "/api/v1/import",
    "/api/v1/query/../export?match[]={__name__!=%22%22}",
    "/api/v1/query/%2e%2e/export?match[]={__name__!=%22%22}",
    "/api/v1/query%2f..%2fexport?match[]={__name__!=%22%22}",
    "//api/v1/export?match[]={__name__!=%22%22}",
    "/api/v1/label/../export/values?match[]={__name__!=%22%22}",
    "/api/v1/label/x%2f..%2f..%2fexport/values",
)


@pytest.mark.parametrize("path", FORBIDDEN)
def test_a_reader_gets_nowhere_else(centre: Victoria, path: str) -> None:
    for method in ("GET", "POST"):
        reply = centre.ask(READER, method, path)
        assert SECRET not in reply.text
        assert MARK not in reply.text
        assert reply.status >= 400, reply


def values(centre: Victoria) -> dict[str, dict[str, list[float]]]:
    """Tenant -> every series of it, in every store."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in centre.stores:
        for series in centre.held(name):
            labels = json.dumps(series["metric"], sort_keys=True)
            found.setdefault(series["metric"].get("locatario_id", ""), {})[labels] = series[
                "values"
            ]
    return found


LINES = (
    "s7_db1,locatario_id=beta,plc_id={mark} temperatura=0 {now}",
    "s7_db1,locatario_id=beta,locatario_id=beta,plc_id={mark} temperatura=0 {now}",
    "s7_db1,plc_id={mark},bucket=processo_raw,locatario_id=beta temperatura=0 {now}",
    "s7_db1,zzz=1,locatario_id=acme,locatario_id=beta temperatura=0 {now}",
    's7_db1,locatario_id=beta temperatura=0,locatario_id="beta" {now}',
)
ADDRESSES = (
    "",
    "?extra_label=locatario_id=beta",
    "?db=processo_raw&extra_label=locatario_id=beta&extra_label=bucket=processo",
    "?extra_label=",
    "?precision=ns&bucket=processo_raw&org=beta",
)


def test_no_point_is_written_among_anothers(centre: Victoria) -> None:
    """Whatever its tags and the address say, it lies with the account's tenant and bucket."""
    before = values(centre)
    now_ns = time.time_ns()
    lines = [line.format(mark=MARK, now=now_ns) for line in LINES]
    taken = sum(
        centre.write(WRITER, [line], address).status == 204
        for line in lines
        for address in ADDRESSES
    )
    assert taken > 10
    centre.settle()
    after = values(centre)
    assert after["beta"] == before["beta"]
    assert set(after) == set(before)
    new = [json.loads(s) for s in after["acme"] if s not in before["acme"]]
    assert new
    assert {s["bucket"] for s in new} == {"processo"}


@pytest.mark.parametrize(
    "path",
    ["/api/v1/import", "/api/v1/import/prometheus", "/api/v1/import/csv?format=1:metric:x",
     "/api/v1/import/native", "/api/v1/write", "/api/v2/write", "/influx/write", "/api/put",
     "/datadog/api/v1/series", "/write/../api/v1/import", "/write/%2e%2e/api/v1/import",
     "/write%2f..%2fapi%2fv1%2fimport", "//write/../api/v1/import/prometheus",
     "/api/v1/admin/tsdb/delete_series?match[]={locatario_id=%22beta%22}",
     "/api/v1/query?query={locatario_id=%22beta%22}"],
)  # fmt: skip
def test_a_writer_gets_nowhere_else(centre: Victoria, path: str) -> None:
    before = values(centre)
    body = json.dumps({"metric": {"__name__": "x", "locatario_id": "beta"}, "values": [1],
                       "timestamps": [int(time.time() * 1e3)]})  # fmt: skip
    for text in (body, 'x{locatario_id="beta"} 1\n', "x,locatario_id=beta y=1"):
        reply = centre.ask(WRITER, "POST", path, text.encode())
        assert reply.status >= 400, reply
    centre.settle()
    assert values(centre) == before


@pytest.mark.parametrize(
    ("account", "password"),
    [
        ("beta-processo-leitura", "acme-leitura"),
        ("acme-processo-leitura", "acme-processo-escrita"),
        ("acme-processo-escrita", "acme-raw-escrita"),
        ("beta-processo-escrita", "acme-processo-escrita"),
        ("acme", "acme-leitura"),
        ("", "acme-leitura"),
        ("acme-processo-leitura", ""),
    ],
)
def test_a_password_opens_its_own_accounts_only(
    centre: Victoria, account: str, password: str
) -> None:
    secret = (centre.tokens / password).read_text() if password else ""
    for path in ("/api/v1/query?query=1", "/write"):
        assert centre.ask(account, "POST", path, b"", password=secret).status in (400, 401)


def test_one_password_reads_all_buckets_of_a_tenant(centre: Victoria) -> None:
    for bucket in ("processo_raw", "processo", "processo_1m", "processo_1h", "platform_metrics"):
        reply = centre.read(f"acme-{bucket}-leitura", "/api/v1/query", {"query": "1"})
        assert reply.status == 200


def test_no_secret_in_rendered_files_or_command_lines(centre: Victoria) -> None:
    secrets = [f.read_text() for f in centre.tokens.iterdir() if not f.name.endswith(".env")]
    assert len(secrets) == len(set(secrets)) > 8
    assert min(map(len, secrets)) > 30
    texts = [f.read_text() for f in centre.infra.rglob("*") if f.is_file()]
    texts += [Path(f"/proc/{p.pid}/cmdline").read_text() for p in centre.processes.values()]
    texts += [centre.log(name) for name in centre.processes]
    for secret in secrets:
        assert not [t for t in texts if secret in t]
    assert {f.stat().st_mode & 0o077 for f in centre.tokens.iterdir()} == {0}


def test_a_new_password_after_a_restart(centre: Victoria) -> None:
    """Rotation: the file goes, the script makes another, vmauth starts again."""
    old = centre.password(READER)
    (centre.tokens / "acme-leitura").unlink()
    centre.passwords()
    centre.kill("vmauth")
    centre.start_vmauth()
    query = {"query": "1"}
    assert centre.read(READER, "/api/v1/query", query).status == 200
    assert centre.ask(READER, "POST", "/api/v1/query", form=query, password=old).status == 400
    assert centre.read("beta-processo-leitura", "/api/v1/query", query).status == 200


def test_a_store_that_is_stopped_keeps_everything(centre: Victoria) -> None:
    """As `docker compose stop` does. (Killed, it has lost what came in the last ten seconds: it
    writes no log ahead of its data.)
    """
    name = shared(centre, "processo")
    before = values(centre)
    centre.processes[name].terminate()
    assert centre.processes[name].wait(20) == 0
    centre.start(name)
    assert values(centre) == before
