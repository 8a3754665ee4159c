"""What one tenant can make the centre keep has an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.control_plane.routes.configs import KEPT_VERSIONS
from services.control_plane.routes.credentials import MAX_CREDENTIALS
from services.control_plane.routes.sites import MAX_SITES
from services.control_plane.tables import BoxConfig, Credential, Site
from tests.kit.central_box import CentralBox
from tests.kit.centre import BOX_CONFIG, DATABASES, Centre
from tests.kit.common import until


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as running:
        yield running


def test_sites_are_counted(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "caixas", "plan": "pro"})
    given = {"tenant_id": "caixas", "name": "", "version": 1, "created_ms": 1, "updated_ms": 1}
    with centre.database.writing("caixas") as session:
        session.add_all(Site(id=f"cx-{n}", **given) for n in range(MAX_SITES - 1))
    path = "/v1/tenants/caixas/sites"
    centre.make(path, {"id": "ultima"})
    refused = centre.call("POST", path, {"id": "mais-uma"})
    assert (refused.status, refused.body["limit"]) == (409, MAX_SITES)
    assert refused.body["type"] == "urn:plc-edge:problem:too-many-parts"
    assert centre.call("DELETE", f"{path}/ultima").status == 204
    centre.make(path, {"id": "mais-uma"})
    centre.tenant("outro-dono")


def test_credentials_are_counted_until_they_are_revoked(centre: Centre) -> None:
    centre.make("/v1/tenants", {"id": "chaves", "plan": "pro"})
    given: dict[str, Any] = {"tenant_id": "chaves", "kind": "api_key", "name": "", "role": "reader"}
    given |= {"version": 1, "created_ms": 1, "updated_ms": 1}
    with centre.database.writing("chaves") as session:
        session.add_all(Credential(id=f"crd_{n:016x}", **given) for n in range(MAX_CREDENTIALS - 1))
    path = "/v1/tenants/chaves/credentials"
    last = centre.make(path, {"role": "reader"})
    refused = centre.call("POST", path, {"role": "admin"})
    assert (refused.status, refused.body["limit"]) == (409, MAX_CREDENTIALS)
    assert centre.call("POST", f"{path}/{last['id']}/revoke").status == 200
    centre.make(path, {"role": "admin"})


def test_old_versions_go_unless_something_names_them(centre: Centre) -> None:
    keys = centre.tenant("versoes")
    box = CentralBox(centre, "versoes", "caixa-1", keys["box"])
    other = "/v1/tenants/versoes/sites/caixa-2"
    centre.make("/v1/tenants/versoes/sites", {"id": "caixa-2"})
    text = BOX_CONFIG.format(site="caixa-2", tenant="versoes", plc="clp-2", scan="10s")
    centre.make(f"{other}/configs", {"yaml": text})

    def push(comment: str) -> int:
        text = BOX_CONFIG.format(site="caixa-1", tenant="versoes", plc="clp-1", scan="10s")
        made = centre.make(f"{box.path}/configs", {"yaml": f"# {comment}\n{text}"})
        return int(made["version"])

    first = push("a")
    with centre.database.writing("versoes") as session:
        row = session.get_one(BoxConfig, ("versoes", "caixa-1", first))
        kept = {c.name: getattr(row, c.name) for c in BoxConfig.__table__.columns}
        session.add_all(BoxConfig(**{**kept, "version": n}) for n in range(2, 11))
    # A roll-out that is over names 2, and 3 as what was there before.
    box.running = 3
    assert box.report("applied", 3).status == 200
    rollouts = "/v1/tenants/versoes/rollouts"
    made = centre.make(rollouts, {"sites": ["caixa-1"], "versions": {"caixa-1": 2}})
    assert centre.call("POST", f"{rollouts}/{made['id']}/rollback").status == 200
    assert box.report("applied", 3).status == 200

    def is_over() -> bool:
        shown = centre.call("GET", f"{rollouts}/{made['id']}").body
        return bool(shown["state"] == "rolled_back")

    until(is_over, 30, "it is over")
    centre.make(f"{box.path}/target", {"version": 5})
    box.running = 6
    assert box.report("refused", 7).status == 200
    with centre.database.writing("versoes") as session:
        more = range(11, KEPT_VERSIONS + 10)
        session.add_all(BoxConfig(**{**kept, "version": n}) for n in more)
    newest = push("b")
    assert newest == KEPT_VERSIONS + 10
    with centre.database.reading("versoes") as session:
        query = session.query(BoxConfig.version).filter_by(site_id="caixa-1")
        versions = sorted(version for (version,) in query)
    assert versions == [2, 3, 5, 6, 7, *range(11, newest + 1)]
    assert [v["version"] for v in centre.call("GET", f"{other}/configs").body["items"]] == [1]
