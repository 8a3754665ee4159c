"""Targets reach boxes that wait, and what boxes report is kept: on both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.control_plane.fleet import store
from services.control_plane.tables import Report
from services.runtime.clock import now_ms
from tests.kit.central_box import CentralBox
from tests.kit.centre import BOX_CONFIG, DATABASES, Centre
from tests.kit.common import until


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as running:
        yield running


def push(centre: Centre, tenant: str, count: int, site: str = "caixa-1", plc: str = "clp-1") -> Any:
    """So many versions of a box's configuration; the newest."""
    made = None
    for n in range(count):
        text = BOX_CONFIG.format(site=site, tenant=tenant, plc=plc, scan=f"{n + 1}s")
        made = centre.make(f"/v1/tenants/{tenant}/sites/{site}/configs", {"yaml": text})
    return made


def box_of(centre: Centre, tenant: str, versions: int = 2) -> CentralBox:
    """A box of a tenant with so many versions."""
    keys = centre.tenant(tenant)
    push(centre, tenant, versions)
    return CentralBox(centre, tenant, "caixa-1", keys["box"])


def test_a_target_is_given_once(centre: Centre) -> None:
    box = box_of(centre, "alvo")
    assert box.poll() is None, "nothing is wanted yet"
    newest = centre.call("GET", f"{box.path}/configs/2").body
    made = centre.make(f"{box.path}/target", {"version": 2})
    assert (made["version"], made["overwrite"], made["rollout"]) == (2, False, None)
    target = box.poll()
    assert {k: target[k] for k in ("yaml", "layouts", "sha256", "version")} == {
        k: newest[k] for k in ("yaml", "layouts", "sha256", "version")
    }
    assert (target["rollout"], target["overwrite"], target["watch_s"]) == (None, False, 60)
    box.take_target(target)
    assert box.poll() is None
    refused = centre.call("POST", f"{box.path}/target", {"version": 3})
    assert (refused.status, refused.body["problems"][0]["key"]) == (422, "version")
    last = centre.call("GET", "/v1/tenants/alvo/audit").body["items"][0]
    assert (last["action"], last["after"]["version"]) == ("target.set", 2)


def test_who_waits_gets_it_at_once_and_nobody_elses(centre: Centre) -> None:
    box, other = box_of(centre, "aguarda"), box_of(centre, "vizinha")
    with ThreadPoolExecutor() as pool:
        waiting, neighbour = pool.submit(box.poll, 20), pool.submit(other.poll, 3)
        begun_s = time.monotonic()
        until(lambda: time.monotonic() - begun_s > 0.5, 2, "both wait")
        assert not waiting.done()
        centre.make(f"{box.path}/target", {"version": 1})
        assert waiting.result(20)["version"] == 1
        assert time.monotonic() - begun_s < 15, "at its end it would have come anyway"
        assert neighbour.result(20) is None
        assert time.monotonic() - begun_s >= 3


@pytest.mark.timing
def test_what_another_process_wrote_is_found_within_a_second(centre: Centre) -> None:
    box = box_of(centre, "de-fora")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(box.poll, 20)
        begun_s = time.monotonic()
        until(lambda: time.monotonic() - begun_s > 0.5, 2, "it waits")
        with centre.database.writing("de-fora") as session:
            store.set_target(session, "de-fora", "caixa-1", 2, author="x", at_ms=now_ms())
            centre.chain.append(session, "x", "operator", "de-fora", "a", "r", None, None)
        begun_s = time.monotonic()
        assert waiting.result(10)["version"] == 2
        assert time.monotonic() - begun_s < 3


def test_one_box_does_not_fill_the_place(centre: Centre) -> None:
    box = box_of(centre, "muitas")

    def waited_s(_: int) -> float:
        begun_s = time.monotonic()
        assert box.poll(4) is None
        return time.monotonic() - begun_s

    with ThreadPoolExecutor(12) as pool:
        took_s = sorted(pool.map(waited_s, range(10)))
    assert took_s[1] < 4 <= took_s[2], "two were sent home, eight waited"


def test_overwriting_is_said_again_until_it_is_done(centre: Centre) -> None:
    box = box_of(centre, "deriva")
    centre.make(f"{box.path}/target", {"version": 1})
    box.take_target(box.poll(), lambda _: ["drift"])
    assert box.report("drift", 1, drift="--- a\n+++ b\n").status == 200
    assert centre.call("GET", f"{box.path}/report").body["drift"] == "--- a\n+++ b\n"
    assert box.poll() is None, "it has dealt with it"
    centre.make(f"{box.path}/target", {"version": 1, "overwrite": True})
    assert box.poll()["overwrite"] is True
    assert box.poll()["overwrite"] is True, "the answer may have been lost"
    box.take_target(box.poll())
    assert box.poll() is None
    assert centre.call("GET", f"{box.path}/report").body["drift"] is None


def test_a_report_is_shown_as_it_was_said(centre: Centre) -> None:
    box = box_of(centre, "relata")
    assert centre.call("GET", f"{box.path}/report").status == 404
    problem = {"file": "config.yaml", "line": 8, "key": "scam", "message": "x", "hint": "y"}
    taken = box.report(
        "refused", 2, error="não dá", problems=[{**problem, "more": 1}], software="1.2"
    )
    assert taken.body == {"points_per_min": 5_000, "poll_s": 55}
    shown = centre.call("GET", f"{box.path}/report").body
    assert (shown["state"], shown["version"], shown["silent"]) == ("refused", 2, False)
    assert shown["problems"] == [problem]
    assert shown["health"] == {
        "plcs": {"clp-1": "online"},
        "outputs": {"central": "up"},
        "pending": 0,
    }
    (listed,) = centre.call("GET", "/v1/tenants/relata/boxes").body["items"]
    assert (listed["state"], listed["error"], listed["plcs"]) == (
        "refused", "não dá", {"online": 1},
    )  # fmt: skip
    long = {**problem, "message": "m" * 5_000, "hint": "h" * 5_000}
    assert box.report("refused", 3, problems=[long]).status == 200
    (kept,) = centre.call("GET", f"{box.path}/report").body["problems"]
    assert kept == {**problem, "message": "m" * 1_000, "hint": "h" * 1_000}
    unknown = {"state": "applied", "nada": 1}
    assert box.call("PUT", f"{box.path}/report", unknown).status == 422
    # A tenant that is suspended is still looked after.
    centre.call("POST", "/v1/tenants/relata/suspend")
    assert box.report("applied", 2).status == 200


def test_the_same_again_costs_no_write_and_is_still_heard(centre: Centre) -> None:
    box = box_of(centre, "calma")
    assert box.report("applied", 1).status == 200
    first = centre.call("GET", f"{box.path}/report").body
    health = {"plcs": {"clp-1": "offline"}, "outputs": {}, "pending": 7}

    def heard() -> bool:
        assert box.report("applied", 1, health=health).status == 200
        shown = centre.call("GET", f"{box.path}/report").body
        return bool(shown["health"]["pending"] == 7 and shown["seen_at"] > first["seen_at"])

    until(heard, 5, "heard again")
    assert centre.call("GET", f"{box.path}/report").body["changed_at"] == first["changed_at"]
    # Last heard four minutes ago.
    with centre.database.writing("calma") as session:
        session.query(Report).update({"seen_ms": now_ms() - 240_000})
    (listed,) = centre.call("GET", "/v1/tenants/calma/boxes").body["items"]
    assert (listed["state"], listed["reported"]) == ("silent", "applied")


def test_the_end_of_the_process_sends_everybody_home() -> None:
    with Centre() as centre:
        box = box_of(centre, "fim")
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(box.poll, 50)
            begun_s = time.monotonic()
            until(lambda: time.monotonic() - begun_s > 0.5, 2, "it waits")
            assert centre.service is not None
            assert centre.service.terminate() == 0
            assert waiting.result(5) is None
