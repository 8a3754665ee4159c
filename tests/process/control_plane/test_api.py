"""The API as a caller sees it: the real process, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from services.control_plane import metering
from tests.kit.centre import BOX_CONFIG, DATABASES, Centre


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as running:
        yield running


def config(tenant: str, plc: str = "clp-1", scan: str = "1s") -> dict[str, Any]:
    return {"yaml": BOX_CONFIG.format(site="caixa-1", tenant=tenant, plc=plc, scan=scan)}


def test_a_tenant_from_beginning_to_end(centre: Centre) -> None:
    path = "/v1/tenants/vida"
    made = centre.call("POST", "/v1/tenants", {"id": "vida", "plan": "free", "name": "Vida S.A."})
    assert (made.status, made.headers["location"], made.headers["etag"]) == (201, path, '"1"')
    assert {**made.body, "outside": "ready"} == centre.call("GET", path).body
    again = centre.call("POST", "/v1/tenants", {"id": "vida"})
    assert (again.status, again.body["type"]) == (409, "urn:plc-edge:problem:exists")
    assert again.headers["content-type"] == "application/problem+json"

    key = centre.make(f"{path}/credentials", {"role": "admin"})["secret"]
    assert centre.call("POST", f"{path}/sites", {"id": "caixa-1"}, key).status == 201

    assert centre.call("POST", f"{path}/suspend").body["state"] == "suspended"
    assert centre.call("GET", path, key=key).status == 200
    refused = centre.call("POST", f"{path}/sites", {"id": "caixa-2"}, key)
    assert (refused.status, refused.body["tenant"]) == (403, "vida")
    assert centre.call("POST", f"{path}/purge").status == 409
    assert centre.call("POST", f"{path}/resume").body["state"] == "active"
    assert centre.call("POST", f"{path}/sites", {"id": "caixa-2"}, key).status == 201

    assert centre.call("DELETE", path).body["state"] == "deleted"
    assert centre.call("GET", path, key=key).status == 401
    assert len(centre.call("GET", f"{path}/sites").body["items"]) == 2
    assert centre.call("POST", f"{path}/purge").status == 204
    assert centre.call("GET", path).status == 404
    actions = [row["action"] for row in centre.call("GET", "/v1/audit?limit=500").body["items"]]
    for action in ("create", "suspend", "resume", "delete", "purge"):
        assert f"tenant.{action}" in actions


def test_a_device_beyond_the_plan_is_refused_with_the_number(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "pequeno", "plan": "free"})
    base = "/v1/tenants/pequeno"
    centre.make(f"{base}/sites", {"id": "caixa-1"})
    for n in (1, 2):
        centre.make(f"{base}/devices", {"id": f"clp-{n}", "site": "caixa-1"})
    third = {"id": "clp-3", "site": "caixa-1"}
    refused = centre.call("POST", f"{base}/devices", third, headers={"accept-language": "pt-BR"})
    assert (refused.status, refused.body["limit"], refused.body["used"]) == (409, 2, 2)
    assert refused.headers["content-language"] == "pt"
    assert "permite 2 CLPs" in refused.body["detail"]
    assert centre.call("GET", f"{base}/limits").body["devices"]["state"] == "warning"
    centre.call("PATCH", base, {"plan": "pro"})
    assert centre.call("POST", f"{base}/devices", third).status == 201
    down = centre.call("PATCH", base, {"plan": "free"})
    assert (down.status, down.body["limit"], down.body["used"]) == (409, 2, 3)


def test_devices_made_at_the_same_moment_do_not_pass_the_plan_together(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "juntos", "plan": "free"})
    base = "/v1/tenants/juntos"
    centre.make(f"{base}/sites", {"id": "caixa-1"})
    statuses: list[int] = []

    def create(n: int) -> None:
        form = {"id": f"clp-{n}", "site": "caixa-1"}
        statuses.append(centre.call("POST", f"{base}/devices", form).status)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] * 2 + [409] * 10


def test_names_are_unique_within_a_tenant_and_follow_the_contract(centre: Centre) -> None:
    for tenant in ("nomes-a", "nomes-b"):
        centre.tenant(tenant)  # both have caixa-1 and clp-1
    base = "/v1/tenants/nomes-a"
    assert centre.call("POST", f"{base}/devices", {"id": "clp-1", "site": "caixa-1"}).status == 409
    for bad in ("A", "a", "-a", "a b", "a" * 33, "plc/+", "", "é1"):
        refused = centre.call("POST", f"{base}/sites", {"id": bad})
        assert refused.status == 422, bad
        assert refused.body["problems"][0]["key"] == "id"
    assert centre.call("POST", "/v1/tenants", {"id": "plataforma"}).status == 409
    unknown = centre.call("POST", f"{base}/devices", {"id": "clp-9", "site": "caixa-9"})
    assert (unknown.status, unknown.body["problems"][0]["key"]) == (422, "site")


def test_a_change_that_names_an_old_version_is_refused(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "etiqueta"})
    path = "/v1/tenants/etiqueta"
    tag = centre.call("GET", path).headers["etag"]
    changed = centre.call("PATCH", path, {"name": "Um"}, headers={"if-match": tag})
    assert changed.status == 200
    assert changed.headers["etag"] != tag
    refused = centre.call("PATCH", path, {"name": "Dois"}, headers={"if-match": tag})
    assert (refused.status, refused.body["etag"]) == (412, changed.headers["etag"])
    assert centre.call("GET", path).body["name"] == "Um"
    same = centre.call("PATCH", path, {"name": "Um"})
    assert same.headers["etag"] == changed.headers["etag"], "nothing changed"


def test_a_request_repeated_with_its_key_is_answered_once_more_and_done_once(
    centre: Centre,
) -> None:
    centre.tenant("repete")
    path = "/v1/tenants/repete/credentials"
    form, header = {"role": "reader", "name": "Leitor"}, {"idempotency-key": "pedido-1"}
    one = centre.call("POST", path, form, headers=header)
    two = centre.call("POST", path, form, headers=header)
    assert one.status == two.status == 201
    assert one.body == two.body, "the secret too"
    assert two.headers["idempotency-replayed"] == "true"
    other = centre.call("POST", path, {"role": "admin"}, headers=header)
    assert other.status == 422
    # The key is the caller's own: another's request with the same text is a new one.
    admin = centre.make(path, {"role": "admin"})["secret"]
    assert centre.call("POST", path, form, admin, header).body["id"] != one.body["id"]
    # After a rotation the answer, sealed with the old key, is nobody's: nothing is done again.
    own = centre.make(path, {"role": "admin"})
    header = {"idempotency-key": "pedido-2"}
    assert centre.call("POST", path, form, own["secret"], header).status == 201
    rotated = centre.make(f"{path}/{own['id']}/rotate", {"overlap_s": 600})["secret"]
    refused = centre.call("POST", path, form, rotated, header)
    assert (refused.status, refused.body["type"][-18:]) == (422, "idempotency-reused")
    assert centre.call("POST", path, form, own["secret"], header).status == 201
    secret = one.body["secret"].rpartition("_")[2]
    with centre.database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT body FROM replies").all()
    assert rows
    assert not any(secret.encode() in bytes(row[0]) for row in rows)


def test_a_list_is_read_part_by_part(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "lista", "plan": "enterprise"})
    base = "/v1/tenants/lista/sites"
    wanted = [f"caixa-{n:02d}" for n in range(7)]
    for site in reversed(wanted):
        centre.make(base, {"id": site})
    found, cursor = [], ""
    while cursor is not None:
        part = centre.call("GET", f"{base}?limit=3{cursor and f'&cursor={cursor}'}").body
        found += [row["id"] for row in part["items"]]
        cursor = part["next"]
    assert found == wanted
    for bad in ("x", "W10", "WyJhIiwgImIiXQ", "W251bGxd", "WzFd"):
        assert centre.call("GET", f"{base}?cursor={bad}").status == 422, bad


def test_a_rotated_key_overlaps_and_a_revoked_one_ends(centre: Centre) -> None:
    keys = centre.tenant("chaves")
    path = "/v1/tenants/chaves"
    (admin,) = (
        c for c in centre.call("GET", f"{path}/credentials").body["items"] if c["role"] == "admin"
    )
    mine = f"{path}/credentials/{admin['id']}"
    rotated = centre.make(f"{mine}/rotate", {"overlap_s": 2})
    rotated_at = time.monotonic()
    assert centre.call("GET", path, key=keys["admin"]).status == 200, "the overlap"
    assert centre.call("GET", path, key=rotated["secret"]).status == 200
    while time.monotonic() - rotated_at < 2:
        time.sleep(0.1)
    assert centre.call("GET", path, key=keys["admin"]).status == 401
    assert centre.call("GET", path, key=rotated["secret"]).status == 200
    assert centre.call("POST", f"{mine}/revoke").body["revoked_at"]
    assert centre.call("GET", path, key=rotated["secret"]).status == 401
    assert centre.call("POST", f"{mine}/rotate", {}).status == 409
    listed = centre.call("GET", f"{path}/credentials")
    assert "secret" not in str(listed.body)


def test_the_last_operator_stays(centre: Centre) -> None:
    (only,) = centre.call("GET", "/v1/credentials").body["items"]
    assert centre.call("POST", f"/v1/credentials/{only['id']}/revoke").status == 409
    second = centre.make("/v1/credentials", {"name": "Outra"})
    assert centre.call("GET", "/v1/me", key=second["secret"]).body["role"] == "operator"
    assert centre.call("POST", f"/v1/credentials/{second['id']}/revoke").status == 200
    assert centre.call("GET", "/v1/me", key=second["secret"]).status == 401


def test_what_was_sent_is_counted_per_minute_hour_and_day(centre: Centre) -> None:
    centre.tenant("uso")
    base = 1_764_000_000 // 86_400 * 86_400
    counts = [
        metering.Count("uso", "clp-1", base + 10, 100, 10, 5_000),
        metering.Count("uso", "clp-2", base + 20, 50, 5, 2_000),
        metering.Count("uso", "clp-1", base + 70, 1, 1, 1),
    ]
    for _ in range(2):
        with centre.database.writing(None) as session:
            metering.add(session, counts)

    def read(query: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]]
        items = centre.call("GET", f"/v1/tenants/uso/usage?{query}").body["items"]
        return items

    assert [(r["points"], r["device"]) for r in read("span=minute")] == [(2, None), (300, None)]
    assert [(r["messages"], r["bytes"]) for r in read("span=hour")] == [(32, 14_002)]
    devices = read("span=day&by=device")
    assert {(r["device"], r["points"]) for r in devices} == {("clp-1", 202), ("clp-2", 100)}
    assert len(read("span=minute&device=clp-1&limit=1")) == 1
    assert read("span=hour&to=2001-01-01T00:00:00Z") == []


def test_a_configuration_is_checked_versioned_and_compared(centre: Centre) -> None:
    keys = centre.tenant("config")
    path = "/v1/tenants/config/sites/caixa-1/configs"
    one = centre.call("POST", path, {**config("config"), "comment": "primeira"}, keys["admin"])
    assert (one.status, one.body["version"], one.body["points_per_min"]) == (201, 1, 120)
    assert one.body["check"]["plan"][0]["requests"] >= 1
    assert centre.call("POST", path, config("config")).status == 200, "the same again"
    two = centre.make(path, config("config", scan="2s"))
    assert two["version"] == 2
    diff = centre.call("GET", f"{path}/diff?old=1&new=2").body["diff"]
    assert "-        scan: 1s\n+        scan: 2s\n" in diff
    listed = centre.call("GET", path, key=keys["box"]).body["items"]
    assert [row["version"] for row in listed] == [2, 1]
    # What a diff is slowest with: the same lines again and again.
    for step in (7, 13):
        text = "".join(f"#{n * step % 110}\n" for n in range(100_000))
        centre.make(path, {"yaml": two["yaml"] + text})
    diff = centre.call("GET", f"{path}/diff?old=3&new=4").body["diff"]
    assert diff.endswith("left out)")
    assert len(diff.encode()) <= 256 * 1_024
    assert len(centre.call("GET", f"{path}/diff?old=2&new=3").body["diff"].splitlines()) > 10_000
    assert centre.call("GET", f"{path}/2", key=keys["box"]).body["yaml"] == two["yaml"]
    assert centre.call("POST", f"{path}/check", config("config", scan="3s")).status == 200
    assert len(centre.call("GET", path).body["items"]) == 4, "a check keeps nothing"


def test_what_the_box_would_refuse_is_refused(centre: Centre) -> None:
    centre.tenant("recusa")
    path = "/v1/tenants/recusa/sites/caixa-1/configs"
    good = config("recusa")["yaml"]
    layout = good.replace("fields: [", "db: 1\n        layout: FILE\n        x: [")
    cases = {
        "unknown key": good.replace("scan", "scam"),
        "a name of another box": good.replace("site: caixa-1", "site: caixa-2"),
        "of another tenant": good.replace("locatario: recusa", "locatario: outra"),
        "no YAML": "\t: [",
        "empty": "",
        "a file of this machine": layout.replace("FILE", "/etc/passwd"),
        "a folder above": layout.replace("FILE", "../../etc/passwd"),
        "a secret in clear": good + "metrics: {username: u, password: segredo}\n",
        "aliases without end": "a: &a [x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n"
                  for i in range(12)),
    }  # fmt: skip
    for name, text in cases.items():
        refused = centre.call("POST", path, {"yaml": text})
        assert (refused.status, refused.body["type"][-14:]) == (422, "invalid-config"), name
        assert refused.body["problems"][0]["message"], name
        assert "segredo" not in str(refused.body)
        assert "root:" not in str(refused.body)
    line = centre.call("POST", path, {"yaml": cases["unknown key"]}).body["problems"][0]
    assert (line["file"], line["line"], line["hint"]) == ("config.yaml", 8, "did you mean `scan`?")
    assert centre.call("GET", path).body["items"] == []


def test_a_configuration_with_layouts(centre: Centre) -> None:
    centre.tenant("desenho")
    path = "/v1/tenants/desenho/sites/caixa-1/configs"
    text = config("desenho")["yaml"].split("        fields:")[0]
    text += "        db: 5\n        layout: layouts/db5.yaml\n"
    layout = "name: db5\nfields:\n  - {name: x, type: REAL, offset: 0}\n"
    missing = centre.call("POST", path, {"yaml": text})
    assert "was not sent along" in missing.body["problems"][0]["message"]
    made = centre.make(path, {"yaml": text, "layouts": {"layouts/db5.yaml": layout}})
    assert made["points_per_min"] == 60
    more = {"layouts/db5.yaml": layout, "layouts/other.yaml": layout}
    unnamed = centre.call("POST", path, {"yaml": text, "layouts": more})
    assert unnamed.status == 422
    (problem,) = unnamed.body["problems"]
    assert (problem["file"], problem["message"]) == ("layouts/other.yaml", "no group names it")
    for name in ("/etc/x", "../x", "config.yaml", "central.yaml", "a/../b", ".", "a//b"):
        refused = centre.call("POST", path, {"yaml": text, "layouts": {name: layout}})
        assert refused.body["type"] == "urn:plc-edge:problem:invalid-request", name


def test_a_configuration_beyond_the_plan_is_refused_with_the_arithmetic(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "pontos", "plan": "free"})
    base = "/v1/tenants/pontos"
    for site in ("caixa-1", "caixa-2"):
        centre.make(f"{base}/sites", {"id": site})
    other = config("pontos", "clp-2")["yaml"].replace("caixa-1", "caixa-2")
    centre.make(f"{base}/sites/caixa-2/configs", {"yaml": other})
    path = f"{base}/sites/caixa-1/configs"
    refused = centre.call("POST", path, config("pontos", scan="300ms"))
    assert (refused.status, refused.body["limit"], refused.body["estimated"]) == (422, 500, 520)
    assert "clp-1/g1: 2 fields every 300 ms = 400; box caixa-2 = 120" in refused.body["detail"]
    assert centre.call("POST", path, config("pontos", scan="400ms")).status == 201
    limits = centre.call("GET", f"{base}/limits").body
    assert limits["configured_points_per_min"] == {"used": 420, "limit": 500, "state": "warning"}


def test_a_configuration_registers_its_plcs_within_the_plan(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "clps", "plan": "free"})
    base = "/v1/tenants/clps"
    centre.make(f"{base}/sites", {"id": "caixa-1"})
    path = f"{base}/sites/caixa-1/configs"
    for n in (1, 2):
        centre.make(path, config("clps", f"clp-{n}", scan="10s"))
    refused = centre.call("POST", path, config("clps", "clp-3"))
    assert (refused.status, refused.body["limit"]) == (409, 2)
    assert len(centre.call("GET", f"{base}/devices").body["items"]) == 2
    centre.make(f"{base}/sites", {"id": "caixa-2"})
    other = config("clps", "clp-1")["yaml"].replace("caixa-1", "caixa-2")
    elsewhere = centre.call("POST", f"{base}/sites/caixa-2/configs", {"yaml": other})
    assert (elsewhere.status, elsewhere.body["site"]) == (409, "caixa-1")


def test_plans_can_be_changed(centre: Centre) -> None:
    listed = {p["id"]: p for p in centre.call("GET", "/v1/plans").body["items"]}
    assert listed["free"]["max_devices"] == 2
    assert listed["pro"]["points_per_min"] == 5_000
    assert listed["enterprise"]["raw_days"] == 30
    numbers = {"max_devices": 1, "points_per_min": 10, "raw_days": 1}
    assert centre.call("PUT", "/v1/plans/mini", numbers).status == 201
    assert centre.call("PUT", "/v1/plans/mini", {**numbers, "max_devices": 3}).status == 200
    centre.make("/v1/tenants", {"id": "mini-sa", "plan": "mini"})
    assert centre.call("DELETE", "/v1/plans/mini").status == 409
    assert centre.call("POST", "/v1/tenants", {"id": "sem-plano", "plan": "nada"}).status == 422


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v2", None, 404),
        ("PUT", "/v1/tenants", None, 405),
        ("POST", "/v1/tenants", b"{", 422),
        ("POST", "/v1/tenants", b"\xff", 422),
        ("POST", "/v1/tenants", b'{"id":"ab","name":"\\u0000"}', 422),
        ("POST", "/v1/tenants", b'{"id":"ab","name":"\\ud800"}', 422),
        ("POST", "/v1/tenants", b'{"id":"ab","\\ud800":1}', 422),
        ("POST", "/v1/tenants", b" " * (4 * 2**20 + 1), 413),
    ],
)
def test_nonsense_is_refused_as_a_problem(
    centre: Centre, method: str, path: str, body: bytes | None, status: int
) -> None:
    reply = centre.call(method, path, body)
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.body["status"] == status


def test_every_change_is_in_the_audit_and_the_chain_is_whole(centre: Centre) -> None:
    centre.tenant("livro")
    rows = centre.call("GET", "/v1/tenants/livro/audit").body["items"]
    assert [row["action"] for row in rows[-3:]] == [
        "device.create", "site.create", "tenant.create",
    ]  # fmt: skip
    assert rows[-1]["after"]["plan"] == "pro"
    assert rows[-1]["before"] is None
    assert rows[-1]["actor"] == centre.call("GET", "/v1/me").body["credential"]
    assert centre.faults() == []
