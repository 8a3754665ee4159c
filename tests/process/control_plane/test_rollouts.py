"""Roll-outs with boxes that speak the protocol, through the real process, also killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import urllib3

from services.control_plane.fleet import views
from services.control_plane.tables import RolloutBox, RolloutRow, Target
from services.runtime.clock import now_ms
from tests.kit.central_box import CentralBox, Course, good
from tests.kit.centre import BOX_CONFIG, DATABASES, Centre
from tests.kit.common import until


def refuses(version: int) -> list[str]:
    """Takes the first version only."""
    return good(version) if version == 1 else ["refused"]


def falls_back(version: int) -> list[str]:
    """Its PLCs stop working with any but the first."""
    return good(version) if version == 1 else ["applying", "watching", "rolled_back"]


class Plant:
    """A tenant with boxes that have applied version 1 of two."""

    def __init__(self, centre: Centre, tenant: str, boxes: int, tls: bool = False) -> None:
        self.centre, self.base = centre, f"/v1/tenants/{tenant}"
        centre.make("/v1/tenants", {"id": tenant, "plan": "enterprise"})
        self.boxes: dict[str, CentralBox] = {}
        for n in range(1, boxes + 1):
            site = f"caixa-{n}"
            centre.make(f"{self.base}/sites", {"id": site})
            key = None
            if not tls:
                form = {"role": "box", "site": site}
                key = centre.make(f"{self.base}/credentials", form)["secret"]
            box = CentralBox(centre, tenant, site, key)
            if tls:
                code = centre.make(f"{self.base}/sites/{site}/claims", {})["code"]
                assert box.claim(code).status == 201
            for scan in ("10s", "5s"):
                text = BOX_CONFIG.format(site=site, tenant=tenant, plc=f"clp-{n}", scan=scan)
                centre.make(f"{box.path}/configs", {"yaml": text})
            centre.make(f"{box.path}/target", {"version": 1})
            box.take_target(box.poll())
            self.boxes[site] = box

    def begin(self, **form: Any) -> Any:
        """A roll-out of the newest version to all."""
        return self.centre.make(f"{self.base}/rollouts", {"sites": "all", **form})

    def shown(self, made: Any) -> Any:
        """How it is now."""
        return self.centre.call("GET", f"{self.base}/rollouts/{made['id']}").body

    def ends(self, made: Any, *states: str) -> Any:
        """Waits for its end."""

        def ended() -> Any:
            found = self.shown(made)
            return found if found["state"] in states else None

        return until(ended, 60, lambda: str(self.shown(made)))

    def states(self, made: Any) -> dict[str, str]:
        """Of each box."""
        return {s["site"]: s["state"] for s in self.shown(made)["sites"]}


@pytest.fixture(scope="module", params=DATABASES)
def centre(request: pytest.FixtureRequest) -> Iterator[Centre]:
    with Centre(request.param) as running:
        yield running


def test_a_good_version_reaches_everybody_stage_by_stage(centre: Centre) -> None:
    plant = Plant(centre, "todas", 5)
    made = plant.begin(stages=[20, 60, 100], comment="prensa nova")
    assert (made["state"], made["stage"], made["stages"]) == ("running", 0, 3)
    assert made["boxes"] == {"sent": 1, "waiting": 4}
    sites = list(plant.boxes)
    assert [s["stage"] for s in made["sites"]] == [0, 1, 1, 2, 2]
    for n, stage in enumerate((sites[:1], sites[1:3], sites[3:])):
        for site in sites:
            target = plant.boxes[site].poll()
            assert (target is not None) == (site in stage), (n, site)
        until(lambda n=n: plant.shown(made)["stage"] == n, 30, "its stage")  # type: ignore[misc]
        for site in stage:
            plant.boxes[site].take_target(plant.boxes[site].poll())
        if stage != sites[3:]:
            until(lambda n=n: plant.shown(made)["stage"] == n + 1, 30, "the next")  # type: ignore[misc]
    done = plant.ends(made, "done")
    assert done["boxes"] == {"applied": 5}
    actions = [r["action"] for r in centre.call("GET", f"{plant.base}/audit").body["items"]]
    assert actions[:4] == ["rollout.done", "rollout.running", "rollout.running", "rollout.create"]
    listed = centre.call("GET", f"{plant.base}/rollouts").body["items"]
    assert [(r["id"], r["comment"]) for r in listed] == [(made["id"], "prensa nova")]
    with centre.database.reading("todas") as session:  # as a page of the centre has it
        (row,) = views.rollouts(session)
        assert (row.state, row.boxes) == ("done", {"applied": 5})
        assert [b.running for b in views.boxes(session, now_ms())] == [2] * 5


@pytest.mark.parametrize(("course", "why"), [(refuses, "refused"), (falls_back, "rolled_back")])
def test_a_bad_version_stops_at_its_first_stage_and_all_go_back(
    centre: Centre, course: Course, why: str
) -> None:
    plant = Plant(centre, f"volta-{len(why)}", 4)
    with ExitStack() as stack:
        for n, box in enumerate(plant.boxes.values()):
            stack.enter_context(box.live(course if n == 1 else good, wait_s=5))
        made = plant.begin(stages=[50, 100])
        ended = plant.ends(made, "rolled_back")
    assert ended["reason"] == f"caixa-2: {why}"
    assert ended["stage"] == 0
    assert ended["boxes"] == {"returned": 2, "waiting": 2}
    assert {b.running for b in plant.boxes.values()} == {1}
    boxes = centre.call("GET", f"{plant.base}/boxes").body["items"]
    assert {(b["target"], b["running"]) for b in boxes} == {(1, 1)}


def test_halted_by_hand_resumed_and_taken_back(centre: Centre) -> None:
    plant = Plant(centre, "mao", 2)
    first, second = plant.boxes.values()
    made = plant.begin(stages=[["caixa-1"], ["caixa-2"]])
    path = f"{plant.base}/rollouts/{made['id']}"
    assert centre.call("POST", f"{path}/halt").body["state"] == "halted"
    first.take_target(first.poll())
    until(lambda: plant.states(made)["caixa-1"] == "applied", 30, "it is watched all the same")
    assert second.poll() is None
    # While it has not ended its boxes are its own.
    by_hand = centre.call("POST", f"{first.path}/target", {"version": 1})
    assert (by_hand.status, by_hand.body["rollout"]) == (409, made["id"])
    another = centre.call("POST", f"{plant.base}/rollouts", {"sites": ["caixa-2"]})
    assert (another.status, another.body["rollout"]) == (409, made["id"])
    gone = centre.call("DELETE", f"{plant.base}/devices/clp-2")
    assert gone.status == 204
    assert centre.call("DELETE", second.path).status == 409
    assert centre.call("POST", f"{path}/resume").body["state"] == "running"
    until(lambda: second.poll() is not None, 30, "sent")
    second.take_target(second.poll())
    plant.ends(made, "done")
    assert centre.call("POST", f"{path}/halt").status == 409
    # Boxes of another that has not ended are that one's, also those that it has not come to yet.
    other = plant.begin(stages=[["caixa-2"], ["caixa-1"]], versions=dict.fromkeys(plant.boxes, 1))
    refused = centre.call("POST", f"{path}/rollback")
    assert (refused.status, refused.body["rollout"]) == (409, other["id"])
    assert centre.call("POST", f"{plant.base}/rollouts/{other['id']}/rollback").status == 200
    assert second.report("applied", 2).status == 200
    plant.ends(other, "rolled_back")
    # A newer word for one of them: it is not sent back with the others.
    centre.make(f"{second.path}/target", {"version": 2})
    assert centre.call("POST", f"{path}/rollback").body["state"] == "rolling_back"
    first.take_target(first.poll())
    ended = plant.ends(made, "rolled_back")
    assert ended["reason"] == "asked for"
    assert ended["boxes"] == {"returned": 1, "applied": 1}
    assert (first.running, second.running) == (1, 2)
    assert centre.call("POST", f"{path}/rollback").status == 200, "the same again"


def test_what_cannot_be_rolled_out_is_named(centre: Centre) -> None:
    plant = Plant(centre, "recusas", 2)
    centre.make(f"{plant.base}/sites", {"id": "vazia"})
    both: dict[str, Any] = {"sites": ["caixa-1", "caixa-2"]}
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"sites": "all"}, "versions", "box vazia has no version"),
        ({"sites": ["nenhuma"]}, "sites", "no box nenhuma"),
        ({"sites": ["caixa-1", "caixa-1"]}, "sites", "twice"),
        ({**both, "versions": {"caixa-1": 1}}, "versions", "caixa-2 has no version to be sent"),
        ({**both, "versions": {"caixa-1": 9, "caixa-2": 1}}, "versions", "no version 9"),
        ({**both, "stages": [["caixa-1"]]}, "stages", "caixa-2 must be in one stage"),
        ({**both, "stages": [["caixa-1", "caixa-2"], ["vazia"]]}, "stages", "not among"),
        ({**both, "stages": [50, 10, 100]}, "stages", "rise"),
        ({**both, "stages": [50]}, "stages", "the last is 100"),
    ]
    for form, key, words in cases:
        refused = centre.call("POST", f"{plant.base}/rollouts", form)
        assert refused.status == 422, form
        found = [p for p in refused.body["problems"] if p["key"].startswith(key)]
        assert words in found[0]["message"], refused.body
    assert centre.call("GET", f"{plant.base}/rollouts").body["items"] == []


def test_a_silent_box_ends_it(centre: Centre) -> None:
    plant = Plant(centre, "muda", 2)
    first = plant.boxes["caixa-1"]
    made = plant.begin(stages=[100], timeout_s=30)
    first.take_target(first.poll())
    until(lambda: plant.states(made)["caixa-1"] == "applied", 30, "applied")

    def ago(seconds: int) -> None:
        """Puts the moment of asking back."""
        with centre.database.writing("muda") as session:
            for box in session.query(RolloutBox):
                box.asked_ms -= seconds * 1_000

    ago(10)
    assert plant.shown(made)["state"] == "running"
    with centre.database.writing("muda") as session:
        session.query(RolloutRow).update({"timeout_ms": 500})
    ended = plant.ends(made, "rolling_back", "rolled_back")
    assert ended["reason"] == "caixa-2: timeout"
    first.take_target(first.poll())
    final = plant.ends(made, "rolled_back")
    assert final["boxes"] == {"returned": 1, "missing": 1} or final["boxes"] == {"missing": 2}
    with centre.database.reading("muda") as session:
        assert {t.version for t in session.query(Target)} == {1}


@pytest.mark.parametrize("database", DATABASES)
def test_killed_anywhere_it_goes_on(database: str) -> None:
    """Boxes with certificates; the process dies again and again, a good roll-out ends well and a
    bad one with everybody back.
    """
    with Centre(database, tls=True) as centre:
        plant = Plant(centre, "mortes", 4, tls=True)

        def kill() -> None:
            centre.kill()
            centre.start()

        with ExitStack() as stack:
            for box in plant.boxes.values():
                stack.enter_context(patient(box, {"caixa-3"}, bad=3))
            made = plant.begin(stages=[25, 50, 100])
            for _ in range(3):
                kill()
            done = plant.ends(made, "done")
            assert done["boxes"] == {"applied": 4}
            for n, site in enumerate(plant.boxes, 1):
                text = BOX_CONFIG.format(site=site, tenant="mortes", plc=f"clp-{n}", scan="2s")
                centre.make(f"{plant.base}/sites/{site}/configs", {"yaml": text})
            made = plant.begin(stages=[["caixa-1"], ["caixa-2", "caixa-3"], ["caixa-4"]])
            for _ in range(3):
                kill()
            ended = plant.ends(made, "rolled_back")
        assert ended["reason"] == "caixa-3: refused"
        assert {s["site"]: s["state"] for s in ended["sites"]} == {
            "caixa-1": "returned",
            "caixa-2": "returned",
            "caixa-3": "returned",
            "caixa-4": "waiting",
        }
        assert {b.running for b in plant.boxes.values()} == {2}
        assert centre.faults() == []


def patient(box: CentralBox, bad_ones: set[str], bad: int) -> Any:
    """A box that repeats a report that was lost, and refuses version ``bad`` where it is one."""
    once = box.report

    def report(state: str, version: int | None = None, **more: Any) -> Any:
        while True:
            try:
                return once(state, version, **more)
            except urllib3.exceptions.HTTPError:
                continue

    box.report = report  # type: ignore[method-assign]

    def course(version: int) -> list[str]:
        return ["refused"] if version == bad and box.site in bad_ones else good(version)

    return box.live(course, wait_s=5)
