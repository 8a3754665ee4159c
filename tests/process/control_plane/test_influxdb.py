"""The InfluxDB that other tests use answers as the real one does: the same questions to both.

The real one is asked where its program is: ``PLC_EDGE_INFLUXD=/path/to/influxd``, or on PATH.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.influx_real import RealInflux, binary
from tests.kit.influx_server import DAY_S, OPERATOR, Server
from tests.kit.influx_v2 import StandIn

NOBODY = "0000000000000001"
FLUX = (
    'option task = {{name: "{name}", every: {every}, offset: 15s}}\n'
    'from(bucket: "a") |> range(start: -1m)\n'
)


@pytest.fixture(scope="module", params=["stand-in", "real"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    program = binary()
    if request.param == "real" and program is None:
        pytest.skip("no influxd of version 2: set PLC_EDGE_INFLUXD")
    made: Server = RealInflux(str(program)) if request.param == "real" else StandIn()
    yield made
    made.close()


def refused(server: Server, method: str, path: str, body: Any = None, token: str = OPERATOR) -> Any:
    """(status, code, message)."""
    reply = server.ask(method, path, body, token)
    assert reply.status >= 400, reply
    return reply.status, reply.body["code"], reply.body["message"]


def made(server: Server, path: str, body: Any, token: str = OPERATOR) -> Any:
    reply = server.ask("POST", path, body, token)
    assert reply.status == 201, reply
    return reply.body


def rule(seconds: int, **more: int) -> list[dict[str, Any]]:
    return [{"type": "expire", "everySeconds": seconds, **more}]


def test_who_has_no_token_learns_nothing(server: Server) -> None:
    unauthorized = (401, "unauthorized", "unauthorized access")
    assert refused(server, "GET", "/api/v2/orgs", token="x") == unauthorized
    assert refused(server, "GET", "/api/v2/nix", token="") == unauthorized
    assert refused(server, "GET", "/api/v2/nix") == (404, "not found", "path not found")
    assert server.ask("PUT", "/api/v2/orgs").status == 405


def test_organisations(server: Server) -> None:
    missing = (404, "not found", 'organization name "org-1" not found')
    assert refused(server, "GET", "/api/v2/orgs?org=org-1") == missing
    org = made(server, "/api/v2/orgs", {"name": "org-1", "description": "x"})
    assert server.org("org-1") == org["id"]
    taken = (422, "conflict", "organization with name org-1 already exists")
    assert refused(server, "POST", "/api/v2/orgs", {"name": "org-1"}) == taken
    empty = (400, "invalid", "org name is empty")
    assert refused(server, "POST", "/api/v2/orgs", {}) == empty
    assert refused(server, "POST", "/api/v2/orgs", b"{")[:2] == (400, "invalid")
    assert server.ask("DELETE", f"/api/v2/orgs/{org['id']}").status == 204
    assert refused(server, "DELETE", f"/api/v2/orgs/{org['id']}")[:2] == (404, "not found")
    assert refused(server, "DELETE", "/api/v2/orgs/zz")[:2] == (400, "invalid")


def test_buckets(server: Server) -> None:
    org = made(server, "/api/v2/orgs", {"name": "org-2"})["id"]
    path, form = "/api/v2/buckets", {"orgID": org, "name": "a", "retentionRules": rule(7 * DAY_S)}
    bucket = made(server, path, form)
    assert bucket["retentionRules"] == rule(7 * DAY_S, shardGroupDurationSeconds=DAY_S)
    long = made(server, path, {**form, "name": "long", "retentionRules": rule(365 * DAY_S)})
    assert long["retentionRules"] == rule(365 * DAY_S, shardGroupDurationSeconds=7 * DAY_S)
    taken = (422, "conflict", "bucket with name a already exists")
    assert refused(server, "POST", path, form) == taken
    short = (500, "internal error", "retention policy duration must be at least 1h0m0s")
    assert refused(server, "POST", path, {**form, "name": "b", "retentionRules": rule(1_800)}) == (
        short
    )
    assert refused(server, "POST", path, {**form, "name": "_b"})[:2] == (400, "invalid")
    two = {**form, "name": "b", "retentionRules": rule(DAY_S) * 2}
    assert refused(server, "POST", path, two)[:2] == (422, "unprocessable entity")
    assert refused(server, "POST", path, {**form, "orgID": NOBODY}) == (
        (404, "not found", "organization not found")
    )
    assert refused(server, "POST", path, {"name": "b"})[:2] == (400, "invalid")
    own = f"{path}/{long['id']}"
    assert refused(server, "PATCH", own, {"retentionRules": rule(3 * DAY_S)}) == (
        422,
        "unprocessable entity",
        "shard-group duration must also be updated to be smaller than new retention duration",
    )
    whole = rule(3 * DAY_S, shardGroupDurationSeconds=DAY_S)
    assert server.ask("PATCH", own, {"retentionRules": whole}).body["retentionRules"] == whole
    longer = server.ask("PATCH", own, {"retentionRules": rule(365 * DAY_S)}).body
    assert longer["retentionRules"] == rule(365 * DAY_S, shardGroupDurationSeconds=DAY_S)
    names = {b["name"]: b["type"] for b in server.ask("GET", f"{path}?orgID={org}").body["buckets"]}
    assert names == {"_monitoring": "system", "_tasks": "system", "a": "user", "long": "user"}
    assert len(server.ask("GET", f"{path}?orgID={org}&limit=3&offset=2").body["buckets"]) == 2
    assert refused(server, "GET", f"{path}?orgID={org}&limit=101")[:2] == (400, "invalid")
    assert refused(server, "PATCH", f"{path}/{NOBODY}", {})[:2] == (404, "not found")
    assert server.ask("DELETE", own).status == 204
    assert refused(server, "DELETE", own) == (404, "not found", "bucket not found")


def test_tasks(server: Server) -> None:
    org = made(server, "/api/v2/orgs", {"name": "org-3"})["id"]
    path, flux = "/api/v2/tasks", FLUX.format(name="t", every="1m")
    task = made(server, path, {"orgID": org, "flux": flux, "status": "active"})
    assert (task["name"], task["flux"], task["status"]) == ("t", flux, "active")
    twin = made(server, path, {"orgID": org, "flux": flux})
    assert twin["id"] != task["id"], "two tasks may have one name"
    assert refused(server, "POST", path, {"orgID": org, "flux": "x = 1"}) == (
        (400, "invalid", "invalid options: no task options defined")
    )
    assert refused(server, "POST", path, {"orgID": org})[:2] == (400, "invalid")
    assert refused(server, "POST", path, {"flux": flux})[:2] == (400, "invalid")
    wrong = {"orgID": org, "flux": flux, "status": "x"}
    assert refused(server, "POST", path, wrong)[:2] == (400, "invalid")
    own = f"{path}/{task['id']}"
    change = {"flux": FLUX.format(name="t", every="2m"), "status": "inactive"}
    changed = server.ask("PATCH", own, change).body
    assert (changed["flux"], changed["status"], changed["every"]) == (*change.values(), "2m")
    assert refused(server, "PATCH", own, {})[:2] == (400, "invalid")
    assert refused(server, "PATCH", f"{path}/{NOBODY}", {"status": "active"})[:2] == (
        (404, "not found")
    )
    assert len(server.ask("GET", f"{path}?orgID={org}&limit=500").body["tasks"]) == 2
    assert refused(server, "GET", f"{path}?orgID={org}&limit=501")[:2] == (400, "invalid")
    assert server.ask("DELETE", f"{path}/{twin['id']}").status == 204
    assert refused(server, "DELETE", f"{path}/{twin['id']}")[:2] == (404, "not found")


def test_tokens_open_what_they_say_and_are_shown_once(server: Server) -> None:
    org = made(server, "/api/v2/orgs", {"name": "org-4"})["id"]
    ids = [
        made(server, "/api/v2/buckets", {"orgID": org, "name": n, "retentionRules": []})["id"]
        for n in ("a", "b")
    ]
    rights = [
        {"action": "write", "resource": {"type": "buckets", "id": ids[0], "orgID": org}},
    ]
    path = "/api/v2/authorizations"
    form = {"orgID": org, "description": "d", "permissions": rights}
    token = made(server, path, {**form, "status": "active"})
    assert made(server, path, form)["id"] != token["id"], "two may have one description"
    listed = server.ask("GET", f"{path}?orgID={org}").body["authorizations"]
    assert [(t["description"], t["status"]) for t in listed] == [("d", "active")] * 2
    assert server.write("org-4", "a", token["token"]) == 204
    assert server.write("org-4", "b", token["token"]) == 403
    weak = {"method": "POST", "token": token["token"]}
    assert refused(server, path="/api/v2/orgs", body={"name": "q"}, **weak) == (
        (401, "unauthorized", "write:orgs is unauthorized")
    )
    assert refused(server, path=path, body=form, **weak)[:2] == (401, "unauthorized")
    own = f"{path}/{token['id']}"
    change = {"status": "inactive", "description": "d (off)"}
    changed = server.ask("PATCH", own, change).body
    assert (changed["status"], changed["description"]) == tuple(change.values())
    assert server.write("org-4", "a", token["token"]) == 403
    assert server.ask("PATCH", own, {"status": "active"}).status == 200
    assert server.write("org-4", "a", token["token"]) == 204
    assert refused(server, "PATCH", own, {"status": "x"})[:2] == (400, "invalid")
    assert refused(server, "POST", path, {**form, "permissions": []}) == (
        (400, "invalid", "authorization must include permissions")
    )
    assert refused(server, "POST", path, {**form, "orgID": NOBODY})[:2] == (400, "invalid")
    reader = [{**r, "action": "read"} for r in rights]
    seer = made(server, path, {**form, "description": "r", "permissions": reader})["token"]
    seen = server.ask("GET", f"/api/v2/buckets?orgID={org}", token=seer).body["buckets"]
    assert [b["name"] for b in seen] == ["a"]
    assert server.ask("DELETE", own).status == 204
    assert refused(server, "DELETE", own) == (404, "not found", "authorization not found")
    assert refused(server, "PATCH", own, {"status": "active"})[:2] == (404, "not found")
    assert server.ask("POST", "/api/v2/write?org=org-4&bucket=a", b"m v=1", token["token"])[0] == (
        401
    )


def test_an_organisation_takes_everything_with_it_but_its_tokens(server: Server) -> None:
    """Who does not remove them first leaves tokens that nobody can list."""
    org = made(server, "/api/v2/orgs", {"name": "org-5"})["id"]
    bucket = made(server, "/api/v2/buckets", {"orgID": org, "name": "a", "retentionRules": []})
    flux = FLUX.format(name="t", every="1m")
    task = made(server, "/api/v2/tasks", {"orgID": org, "flux": flux})
    rights = [{"action": "write", "resource": {"type": "buckets", "orgID": org}}]
    form = {"orgID": org, "description": "d", "permissions": rights}
    token = made(server, "/api/v2/authorizations", form)
    assert server.ask("DELETE", f"/api/v2/orgs/{org}").status == 204
    assert refused(server, "PATCH", f"/api/v2/buckets/{bucket['id']}", {})[0] == 404
    assert refused(server, "DELETE", f"/api/v2/tasks/{task['id']}")[0] == 404
    gone = server.ask("GET", f"/api/v2/authorizations?orgID={org}").body["authorizations"]
    assert gone == []
    assert server.ask("GET", "/api/v2/orgs", token=token["token"]).status == 200, "it still opens"
    assert server.ask("DELETE", f"/api/v2/authorizations/{token['id']}").status == 204
