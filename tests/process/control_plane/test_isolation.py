"""Every route of the API, tried with every identity that has no business there: never data.

The routes come from the OpenAPI document of the running process: one that is added later is tried
too, and fails here while nobody says what a valid request to it looks like.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.kit.central_box import CentralBox, csr
from tests.kit.centre import BOX_CONFIG, DATABASES, Centre

MARK = "so-da-vitima"
CSR = csr(ec.generate_private_key(ec.SECP256R1()))
# A valid body of each form, by its name in the OpenAPI document.
BODIES: dict[str, Any] = {
    "NewTenant": {"id": "intruso"},
    "TenantChange": {"name": "intruso"},
    "PlanForm": {"max_devices": 1, "points_per_min": 1, "raw_days": 1},
    "NewSite": {"id": "intruso"},
    "SiteChange": {"name": "intruso"},
    "NewDevice": {"id": "intruso", "site": "caixa-1"},
    "DeviceChange": {"name": "intruso"},
    "NewOperator": {},
    "NewCredential": {"role": "admin"},
    "Rotation": {},
    "NewClaim": {},
    "ClaimForm": {"code": "0" * 20, "csr": CSR},
    "Renewal": {"csr": CSR},
    "NewTarget": {"version": 1},
    "ReportForm": {"state": "applied", "version": 1},
    "NewRollout": {"sites": ["caixa-1"]},
    "NewConfig": {
        "yaml": BOX_CONFIG.format(site="caixa-1", tenant="vitima", plc="clp-1", scan="9s")
    },
    "Draft": {"yaml": BOX_CONFIG.format(site="caixa-1", tenant="vitima", plc="clp-1", scan="9s")},
}
QUERIES = {"old": "1", "new": "1"}
# What a role may do in its own tenant; every other route refuses it.
ANYBODY = {("GET", "/healthz")}
# Asks for a code, and answers 403 whoever has another one.
BY_CODE = {("POST", "/v1/claim")}
READER = {
    ("GET", "/v1/me"),
    ("GET", "/v1/overview/tenants"),
    ("GET", "/v1/overview/boxes"),
    ("GET", "/v1/overview/rollouts"),
    ("GET", "/v1/plans"),
    ("GET", "/v1/plans/{plan_id}"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/tenants/{tenant_id}"),
    ("GET", "/v1/tenants/{tenant_id}/sites"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}"),
    ("GET", "/v1/tenants/{tenant_id}/devices"),
    ("GET", "/v1/tenants/{tenant_id}/devices/{device_id}"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/configs"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/configs/diff"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/configs/{version}"),
    ("GET", "/v1/tenants/{tenant_id}/usage"),
    ("GET", "/v1/tenants/{tenant_id}/limits"),
    ("GET", "/v1/tenants/{tenant_id}/boxes"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/target"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/overview"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/report"),
    ("GET", "/v1/tenants/{tenant_id}/rollouts"),
    ("GET", "/v1/tenants/{tenant_id}/rollouts/{rollout_id}"),
}
BOX = {
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/configs"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/configs/{version}"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/target"),
    ("GET", "/v1/tenants/{tenant_id}/sites/{site_id}/report"),
    ("PUT", "/v1/tenants/{tenant_id}/sites/{site_id}/report"),
}
OPERATOR_ONLY = re.compile(
    r"/v1/(plans|credentials|audit)|/v1/tenants(/\{tenant_id\}(/(suspend|resume|purge))?)?$"
)


OTHER = ("vitima", "caixa-2")


class Victim:
    """A tenant with something of everything, and every identity that is not its administrator."""

    def __init__(self, centre: Centre) -> None:
        self.centre = centre
        self.own = centre.tenant("vitima")
        self.foreign = centre.tenant("outra")
        base = "/v1/tenants/vitima"
        centre.call("PATCH", base, {"name": MARK})
        centre.call("PATCH", f"{base}/sites/caixa-1", {"name": MARK})
        centre.call("PATCH", f"{base}/devices/clp-1", {"name": MARK})
        made = centre.make(f"{base}/credentials", {"role": "reader", "name": MARK})
        centre.make(f"{base}/sites/caixa-1/configs", {**BODIES["NewConfig"], "comment": MARK})
        centre.make(f"{base}/sites", {"id": "caixa-2"})
        rollout = centre.make(f"{base}/rollouts", {"sites": ["caixa-1"], "comment": MARK})
        CentralBox(centre, "vitima", "caixa-1", self.own["box"]).report("applied", 1, software=MARK)
        box = centre.make(f"{base}/credentials", {"role": "box", "site": "caixa-2"})
        revoked = centre.make(f"{base}/credentials", {"role": "admin"})
        centre.make(f"{base}/credentials/{revoked['id']}/revoke", {})
        self.other_box = box["secret"]
        self.dead = {
            "no key": "",
            "no such key": "plce_0123456789abcdef_" + "A" * 43,
            "another secret": self.own["admin"][:-43] + "A" * 43,
            "revoked": revoked["secret"],
            "not ours": "eyJhbGciOiJub25lIn0.e30.",
        }
        self.parameters = {
            "tenant_id": "vitima",
            "site_id": "caixa-1",
            "device_id": "clp-1",
            "credential_id": made["id"],
            "plan_id": "pro",
            "version": "1",
            "rollout_id": rollout["id"],
        }
        document = centre.call("GET", "/openapi.json").body
        self.routes = [
            (method.upper(), path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]

    def body(self, operation: dict[str, Any]) -> Any:
        """A valid one of the operation's form."""
        if "requestBody" not in operation:
            return None
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        return BODIES[schema["$ref"].rpartition("/")[2]]

    def path(self, template: str, operation: dict[str, Any]) -> str:
        """The address of the victim's own thing."""
        path = template.format(**self.parameters)
        needed = [
            p["name"]
            for p in operation.get("parameters", [])
            if p["in"] == "query" and p.get("required")
        ]
        return path + ("?" + "&".join(f"{n}={QUERIES[n]}" for n in needed) if needed else "")

    def head(self) -> int:
        """How many changes there were so far."""
        seq: int = self.centre.call("GET", "/v1/audit?limit=1").body["items"][0]["seq"]
        return seq


@pytest.fixture(scope="module", params=DATABASES)
def victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    with Centre(request.param) as centre:
        yield Victim(centre)


def test_there_are_routes_and_each_is_tried(victim: Victim) -> None:
    assert len(victim.routes) > 30
    known = {(method, path) for method, path, _ in victim.routes}
    assert known >= READER | BOX | ANYBODY, "a route of these sets has gone"


def test_without_a_key_that_lives_nothing_is_answered(victim: Victim) -> None:
    before = victim.head()
    for (method, template, operation), (name, key) in itertools.product(
        victim.routes, victim.dead.items()
    ):
        if (method, template) in ANYBODY | BY_CODE:
            continue
        path = victim.path(template, operation)
        reply = victim.centre.call(method, path, victim.body(operation), key or "-")
        assert reply.status == 401, (method, template, name, reply)
        assert MARK not in str(reply.body)
    assert victim.head() == before


@pytest.mark.parametrize("role", ["admin", "reader", "box"])
def test_another_tenants_keys_see_and_change_nothing(victim: Victim, role: str) -> None:
    before = victim.head()
    for method, template, operation in victim.routes:
        path = victim.path(template, operation)
        reply = victim.centre.call(method, path, victim.body(operation), victim.foreign[role])
        assert MARK not in str(reply.body), (method, template, reply)
        if "{tenant_id}" in template:
            assert reply.status == 404, (method, template, reply)
        elif (method, template) not in READER | ANYBODY:
            assert reply.status == 403, (method, template, reply)
    assert victim.head() == before


@pytest.mark.parametrize(("role", "allowed"), [("reader", READER), ("box", BOX)])
def test_a_lesser_role_does_what_it_may_and_no_more(
    victim: Victim, role: str, allowed: set[tuple[str, str]]
) -> None:
    before = victim.head()
    passed = set()
    for method, template, operation in victim.routes:
        path = victim.path(template, operation)
        reply = victim.centre.call(method, path, victim.body(operation), victim.own[role])
        if reply.status in (401, 403, 404):
            assert MARK not in str(reply.body)
        else:
            passed.add((method, template))
    assert passed == allowed | ANYBODY
    assert victim.head() == before


def test_a_box_does_not_see_another_box_of_its_tenant(victim: Victim) -> None:
    for method, template, operation in victim.routes:
        if (method, template) in ANYBODY:
            continue
        path = victim.path(template, operation)
        reply = victim.centre.call(method, path, victim.body(operation), victim.other_box)
        assert reply.status in (403, 404), (method, template, reply)
        assert MARK not in str(reply.body)


def test_a_tenants_administrator_has_no_right_of_the_platform(victim: Victim) -> None:
    before = victim.head()
    for method, template, operation in victim.routes:
        if OPERATOR_ONLY.match(template) and (method, template) not in READER:
            path = victim.path(template, operation)
            reply = victim.centre.call(method, path, victim.body(operation), victim.own["admin"])
            assert reply.status == 403, (method, template, reply)
    assert victim.head() == before
    listed = victim.centre.call("GET", "/v1/tenants", key=victim.own["admin"]).body["items"]
    assert [tenant["id"] for tenant in listed] == ["vitima"]


def test_a_box_with_a_certificate_has_no_more_rights_than_one_with_a_key() -> None:
    """Real TLS: the certificate of another tenant's box, and of another box of the same tenant."""
    with Centre(tls=True) as centre:
        victim = Victim(centre)
        boxes = {name: CentralBox(centre, *name) for name in (("outra", "caixa-1"), OTHER)}
        for (tenant, site), box in boxes.items():
            claim = centre.make(f"/v1/tenants/{tenant}/sites/{site}/claims", {})
            assert box.claim(claim["code"]).status == 201
        before = victim.head()
        for (method, template, operation), (name, box) in itertools.product(
            victim.routes, boxes.items()
        ):
            if (method, template) in ANYBODY:
                continue
            path = victim.path(template, operation)
            reply = box.call(method, path, victim.body(operation))
            wanted = (404,) if "{tenant_id}" in template and name != OTHER else (403, 404)
            assert reply.status in wanted, (method, template, name, reply)
            assert MARK not in str(reply.body)
        for box in boxes.values():
            assert box.call("GET", box.path).status == 200
        assert victim.head() == before
