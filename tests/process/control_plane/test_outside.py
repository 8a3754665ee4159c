"""InfluxDB and Grafana follow a tenant by the API alone; the InfluxDB is a real one where there is
a program of it (tests/kit/influx_real.py), the Grafana a stand-in.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.control_plane.outside.influxdb import MARK, SUSPENDED
from services.infra import tenant
from tests.kit.centre import BOX_CONFIG, DATABASES
from tests.kit.common import until
from tests.kit.http_faults import AWAY, CUT, HANG, PASS, UNAUTHORIZED, HttpFaults
from tests.kit.influx_server import DAY_S
from tests.kit.outside import Outside

ACME = "/v1/tenants/acme"


@pytest.fixture
def outside() -> Iterator[Outside]:
    with Outside() as outside:
        yield outside


def looked_at(way: HttpFaults) -> bool:
    return len(way.seen) >= 4


def new(outside: Outside, tenant_id: str = "acme", plan: str = "pro") -> None:
    outside.centre.make("/v1/tenants", {"id": tenant_id, "plan": plan})


@pytest.mark.parametrize("database", DATABASES)
def test_a_tenants_whole_life(database: str) -> None:
    with Outside(database) as outside:
        centre = outside.centre
        for tenant_id, plan in (("acme", "pro"), ("outra", "free")):
            new(outside, tenant_id, plan)
        outside.settled()
        assert outside.found("acme") == outside.expected("acme", "pro")
        assert outside.found("outra") == outside.expected("outra", "free")
        assert centre.call("GET", ACME).body["outside"] == "ready"
        for plan in ("enterprise", "free"):  # longer, and shorter than its shards were
            assert centre.call("PATCH", ACME, {"plan": plan}).status == 200
            outside.settled()
            assert outside.found("acme") == outside.expected("acme", plan)
        secrets = {kind: outside.secret("acme", kind) for kind in ("raw-escrita", "leitura")}
        centre.make(f"{ACME}/suspend", {})
        outside.settled()
        assert outside.found("acme") == outside.expected("acme", "free", "suspended")
        centre.make(f"{ACME}/resume", {})
        outside.settled()
        assert outside.found("acme") == outside.expected("acme", "free")
        assert secrets == {kind: outside.secret("acme", kind) for kind in secrets}
        assert centre.call("DELETE", ACME).status == 200
        outside.settled()
        assert outside.found("acme") == outside.expected("acme", "free", "deleted")
        assert centre.call("POST", f"{ACME}/purge").status == 204
        outside.settled()
        assert outside.found("acme") is None
        assert outside.found("outra") == outside.expected("outra", "free"), "untouched by all this"


def test_twice_changes_nothing(outside: Outside) -> None:
    """A restarted control plane looks at everything."""
    new(outside)
    outside.settled()
    for way in (outside.influx_way, outside.grafana_way):
        way.seen.clear()
    outside.centre.kill()
    outside.centre.start()
    for way in (outside.influx_way, outside.grafana_way):
        until(functools.partial(looked_at, way), 20, "it looks")
        assert way.calm(1.0)
        assert {method for method, _, _ in way.seen} == {"GET"}


def test_numbers_of_a_plan_and_fields_of_a_box_reach_it(outside: Outside) -> None:
    centre = outside.centre
    new(outside)
    centre.make(f"{ACME}/sites", {"id": "caixa-1"})
    text = BOX_CONFIG.format(site="caixa-1", tenant="acme", plc="clp-1", scan="1s")
    text = text.replace("name: a", "name: pecas_total").replace("name: b", "name: ligada")
    centre.make(f"{ACME}/sites/caixa-1/configs", {"yaml": text})
    numbers = {"max_devices": 20, "points_per_min": 5_000, "raw_days": 14}
    assert centre.call("PUT", "/v1/plans/pro", numbers).status == 200
    outside.settled()
    assert outside.influx.retentions("acme") == {
        "processo_raw": (14, DAY_S),
        "processo": (30, DAY_S),
        "processo_1m": (180, 7 * DAY_S),
        "processo_1h": (365, 7 * DAY_S),
        "platform_metrics": (30, DAY_S),
    }
    right = {t.name: (t.flux, "active") for t in tenant.tasks(["ligada"], ["pecas_total"], 14)}
    assert outside.influx.tasks("acme") == right


def test_telegraf_gets_its_tokens_and_nobody_else(outside: Outside) -> None:
    new(outside)
    outside.settled()
    file = outside.state / "telegraf" / "acme.env"
    values = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert values == {
        f"INFLUX_TOKEN_ACME_{name}": f"'{outside.secret('acme', f'{name.lower()}-escrita')}'"
        for name in ("RAW", "PROCESSO", "PLATAFORMA")
    }
    for path in (file, *(outside.state / "tokens").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600
    rows = outside.centre.call("GET", f"{ACME}/audit").body
    service = outside.centre.service
    assert service is not None
    said = str(rows) + service.stderr() + str(outside.effects())
    for kind in ("raw-escrita", "processo-escrita", "plataforma-escrita", "leitura"):
        secret = outside.secret("acme", kind)
        assert secret
        assert secret not in said


def test_what_was_changed_by_hand_is_set_right(outside: Outside) -> None:
    new(outside)
    outside.settled()
    influx, board_org = outside.influx, outside.grafana.org("acme")
    assert board_org is not None
    org = influx.org("acme")
    buckets = influx.ask("GET", f"/api/v2/buckets?orgID={org}").body["buckets"]
    ids = {b["name"]: b["id"] for b in buckets}
    influx.ask("DELETE", f"/api/v2/buckets/{ids['processo']}")
    rule = {"type": "expire", "everySeconds": 2 * DAY_S, "shardGroupDurationSeconds": DAY_S}
    influx.ask("PATCH", f"/api/v2/buckets/{ids['processo_raw']}", {"retentionRules": [rule]})
    tasks = influx.ask("GET", f"/api/v2/tasks?orgID={org}").body["tasks"]
    influx.ask("DELETE", f"/api/v2/tasks/{tasks[0]['id']}")
    influx.ask("PATCH", f"/api/v2/tasks/{tasks[1]['id']}", {"status": "inactive"})
    influx.ask("POST", "/api/v2/tasks", {"orgID": org, "flux": tasks[1]["flux"]})
    token = influx.tokens("acme")[f"telegraf: platform_metrics{MARK}"]
    influx.ask("DELETE", f"/api/v2/authorizations/{token['id']}")
    (outside.state / "tokens" / "acme-raw-escrita").unlink()
    board_org.sources[tenant.DATA_SOURCE_UID]["url"] = "http://elsewhere"
    del board_org.boards["plc-edge-oee"]
    board_org.boards["plc-edge-processo"]["version"] += 1
    outside.centre.kill()
    outside.centre.start()
    until(lambda: outside.found("acme") == outside.expected("acme", "pro"), 30, str(ids))
    assert board_org.boards["plc-edge-processo"]["version"] == 3


def test_tokens_made_by_hand_are_the_tenants_access_too(outside: Outside) -> None:
    new(outside)
    outside.settled()
    influx, org = outside.influx, outside.influx.org("acme")
    bucket = influx.ask("GET", f"/api/v2/buckets?orgID={org}").body["buckets"][0]["id"]
    own: Any = {"action": "read", "resource": {"type": "buckets", "id": bucket, "orgID": org}}
    whole: Any = {"action": "read", "resource": {"type": "orgs"}}
    for description, right in (("bi", own), ("operator's", whole)):
        form = {"orgID": org, "description": description, "permissions": [right]}
        assert influx.ask("POST", "/api/v2/authorizations", form).status == 201

    def hand() -> dict[str, str]:
        tokens = influx.tokens("acme").items()
        return {name: t["status"] for name, t in tokens if not name.endswith(MARK)}

    outside.centre.make(f"{ACME}/suspend", {})
    outside.settled()
    assert hand() == {f"bi{SUSPENDED}": "inactive", "operator's": "active"}
    outside.centre.make(f"{ACME}/resume", {})
    outside.settled()
    assert hand() == {"bi": "active", "operator's": "active"}
    outside.centre.call("DELETE", ACME)
    outside.settled()
    assert hand() == {"operator's": "active"}
    outside.centre.call("POST", f"{ACME}/purge")
    refused = until(lambda: [e for e in outside.effects() if e["error"]], 20, "refused")
    assert [(e["tenant"], e["target"], e["state"]) for e in refused] == [
        ("acme", "influxdb", "refused")
    ]
    assert "a token of the whole instance" in refused[0]["error"]
    token = influx.tokens("acme")["operator's"]
    influx.ask("DELETE", f"/api/v2/authorizations/{token['id']}")
    outside.settled()
    assert influx.org("acme") is None


def test_an_organisation_made_by_hand_is_taken_up(outside: Outside) -> None:
    """As the scripts leave it: its own tokens stay, what is missing is added."""
    outside.influx.ask("POST", "/api/v2/orgs", {"name": "acme"})
    org = outside.influx.org("acme")
    rule = {"type": "expire", "everySeconds": 90 * DAY_S}
    form = {"orgID": org, "name": "processo_raw", "retentionRules": [rule]}
    bucket = outside.influx.ask("POST", "/api/v2/buckets", form).body["id"]
    right = {"action": "write", "resource": {"type": "buckets", "id": bucket, "orgID": org}}
    own = {"orgID": org, "description": "telegraf: processo_raw", "permissions": [right]}
    token = outside.influx.ask("POST", "/api/v2/authorizations", own).body["token"]
    board_org = outside.grafana._make_org("acme")
    board_org.users = {}  # somebody else made it
    board_org.folders["xyz"] = tenant.FOLDER
    board_org.boards["plc-edge-oee"] = {"uid": "plc-edge-oee", "version": 1}
    board_org.provisioned.add("plc-edge-oee")
    new(outside)
    outside.settled()
    assert outside.influx.retentions("acme")["processo_raw"] == (7, DAY_S)
    assert outside.influx.write("acme", "processo_raw", token) == 204
    assert set(outside.influx.tokens("acme")) == {
        "telegraf: processo_raw",
        *(t.description + MARK for t in tenant.TOKENS),
    }
    assert board_org.folders == {"xyz": tenant.FOLDER}
    assert board_org.boards["plc-edge-oee"] == {"uid": "plc-edge-oee", "version": 1}
    assert set(board_org.folder_of.values()) == {"xyz"}
    assert len(board_org.boards) == 5


def test_a_new_tenant_of_an_old_name_gets_nothing_of_the_old_one(outside: Outside) -> None:
    """Purged and made again while nobody answered: never a row of another customer's data."""
    new(outside)
    outside.settled()
    before, boards = outside.influx.org("acme"), outside.grafana.org("acme")
    old = outside.secret("acme", "raw-escrita")
    for way in (outside.influx_way, outside.grafana_way):
        way.all(AWAY)
    assert outside.centre.call("DELETE", ACME).status == 200
    assert outside.centre.call("POST", f"{ACME}/purge").status == 204
    new(outside, plan="free")
    for way in (outside.influx_way, outside.grafana_way):
        way.all(PASS)
    outside.settled(60)
    assert outside.found("acme") == outside.expected("acme", "free")
    assert outside.influx.org("acme") != before
    assert outside.grafana.org("acme") is not boards
    assert outside.influx.write("acme", "processo_raw", str(old)) == 401


def test_one_that_is_away_holds_up_no_other(outside: Outside) -> None:
    outside.influx_way.all(HANG)
    outside.centre.make("/v1/tenants", {"id": "acme", "plan": "pro"})
    until(lambda: outside.grafana.org("acme") is not None, 10, "Grafana is served")

    def waiting() -> list[tuple[str, str, int]]:
        items = outside.centre.call("GET", f"{ACME}/effects").body["items"]
        return [(e["target"], e["state"], e["attempts"]) for e in items]

    until(lambda: waiting() == [("influxdb", "pending", 0)], 10, lambda: str(waiting()))
    assert outside.centre.call("GET", ACME).body["outside"] == "pending"
    outside.influx_way.all(PASS)


def test_it_ends_in_time_though_nobody_answers(outside: Outside) -> None:
    for way in (outside.influx_way, outside.grafana_way):
        way.all(HANG)
    new(outside)
    until(lambda: outside.influx_way.seen and outside.grafana_way.seen, 10, "they are asked")
    assert outside.centre.service is not None
    assert outside.centre.service.terminate(8) == 0


@pytest.mark.parametrize("fault", [AWAY, UNAUTHORIZED])
def test_why_nobody_can_be_asked_is_shown(outside: Outside, fault: str) -> None:
    outside.influx_way.all(fault)
    new(outside)
    (waiting,) = until(
        lambda: [e for e in outside.effects() if e["target"] == "influxdb" and e["error"]], 20, "no"
    )
    word = {AWAY: "503", UNAUTHORIZED: "refuses the credentials"}[fault]
    assert word in waiting["error"]
    assert waiting["state"] == "pending"
    for words in (("effects", "list", "--json"), ("tenants", "show", "acme")):
        shown = outside.centre.cli(*words)
        assert (shown.returncode, "influxdb" in shown.stdout) == (0, True), shown
    outside.influx_way.all(PASS)
    outside.settled(90)
    assert outside.found("acme") == outside.expected("acme", "pro")


def test_who_is_refused_holds_up_nobody_else(outside: Outside) -> None:
    """An organisation that cannot be made, and one that can."""
    org = outside.influx.org("plataforma")
    assert org
    outside.influx_way.judge = lambda method, path: (
        CUT if (method, path) == ("POST", "/api/v2/tasks") else PASS
    )
    new(outside, "acme")
    refused = until(lambda: [e for e in outside.effects() if e["attempts"] > 1], 30, "refused")
    assert refused[0]["target"] == "influxdb"
    assert outside.centre.call("GET", ACME).body["outside"] in ("refused", "pending")
    outside.influx_way.all(PASS)
    new(outside, "outra")
    outside.settled(90)
    for tenant_id in ("acme", "outra"):
        assert outside.found(tenant_id) == outside.expected(tenant_id, "pro")


@pytest.mark.parametrize(
    ("way", "method", "end"),
    [
        ("influx", "POST", "/orgs"),
        ("influx", "POST", "/buckets"),
        ("influx", "POST", "/tasks"),
        ("influx", "POST", "/authorizations"),
        ("grafana", "POST", "/orgs"),
        ("grafana", "POST", "/folders"),
        ("grafana", "POST", "/datasources"),
        ("grafana", "POST", "/db"),
    ],
)
def test_done_and_never_answered(outside: Outside, way: str, method: str, end: str) -> None:
    """Whoever asks looks again before it asks once more: nothing is there twice."""
    faults = outside.influx_way if way == "influx" else outside.grafana_way
    faults.once(method, end, CUT)
    new(outside)
    outside.settled(60)
    assert [f for _, _, f in faults.seen if f == CUT] == [CUT]
    assert outside.found("acme") == outside.expected("acme", "pro")


def test_the_target_is_killed_and_comes_back(outside: Outside) -> None:
    new(outside)
    time.sleep(0.1)
    for server in (outside.influx, outside.grafana):
        server.stop()
    outside.centre.make("/v1/tenants", {"id": "outra", "plan": "free"})
    for server in (outside.influx, outside.grafana):
        server.start()
    outside.settled(90)
    assert outside.found("acme") == outside.expected("acme", "pro")
    assert outside.found("outra") == outside.expected("outra", "free")
