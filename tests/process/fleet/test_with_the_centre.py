"""A real box and a real control plane: claim, pull, go back, drift, roll-out, revocation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kit.centre import Centre
from tests.kit.common import until
from tests.kit.fleet_rig import FleetBox, nobody_there

pytestmark = pytest.mark.timeout(420)
BOX = "/v1/tenants/acme/sites/e2e"


class Plant:
    """What the test says to the centre of its one box."""

    def __init__(self, centre: Centre, box: FleetBox) -> None:
        self.centre, self.box = centre, box
        self.layouts = {"layouts/db500.yaml": (box.site.folder / "layouts/db500.yaml").read_text()}

    def push(self, yaml: str) -> int:
        """A new version; its number."""
        made = self.centre.make(f"{BOX}/configs", {"yaml": yaml, "layouts": self.layouts})
        return int(made["version"])

    def target(self, version: int, **more: Any) -> None:
        self.centre.make(f"{BOX}/target", {"version": version, **more})

    def wait(self, state: str, version: int | None, timeout_s: float) -> dict[str, Any]:
        """The box's report, once it says so."""

        def said() -> dict[str, Any] | None:
            reply = self.centre.call("GET", f"{BOX}/report")
            if reply.status != 200:
                return None
            report: dict[str, Any] = reply.body
            return report if (report["state"], report["version"]) == (state, version) else None

        def why() -> str:
            return f"{state} {version}: {self.centre.call('GET', f'{BOX}/report')}\n{log()}"

        def log() -> str:
            return self.box.site.log("fleet")[-3000:]

        return until(said, timeout_s, why)


def quota_of(box: FleetBox) -> int | None:
    """Points a minute that the box's store holds acme to."""
    store = json.loads(box.site.run("status", "--json").stdout)["store"] or {}
    limit: int | None = store.get("quotas", {}).get("acme", {}).get("points_per_min")
    return limit


def test_claim_pull_apply_go_back_drift_and_roll_out() -> None:
    with Centre(tls=True) as centre:
        assert centre.ca_file is not None
        centre.make("/v1/tenants", {"id": "acme", "plan": "enterprise"})
        centre.make("/v1/tenants/acme/sites", {"id": "e2e"})
        for plc in ("prensa-01", "prensa-02"):
            centre.make("/v1/tenants/acme/devices", {"id": plc, "site": "e2e"})
        code = centre.make(f"{BOX}/claims", {})["code"]
        with FleetBox(claim=False, centre=(centre.url, centre.ca_file)) as box:
            plant = Plant(centre, box)
            done = box.command("claim", given=f"{code.lower()}\n")
            assert "e2e of acme" in done.stdout, done.stderr
            plant.wait("applied", None, 30)

            first = plant.push(box.text(plcs=[box.plc(1), box.plc(2)]))
            plant.target(first)
            plant.wait("applied", first, 150)
            assert "reader-prensa-02" in box.site.table()
            # What the plan allows is where the store looks for it, and holds.
            told = json.loads((box.site.state / "quotas.json").read_text())
            assert told == {"v": 1, "points_per_min": {"acme": 50_000}}
            until(lambda: quota_of(box) == 50_000, 30, box.why)

            # A PLC that would be lost: a staged roll-out halts, and the box is where it was.
            before = box.site.file.read_text()
            bad = plant.push(box.text(plcs=[box.plc(1, port=nobody_there()), box.plc(2)]))
            form = {"sites": ["e2e"], "versions": {"e2e": bad}, "stages": [["e2e"]]}
            rollout = centre.make("/v1/tenants/acme/rollouts", form)["id"]
            report = plant.wait("watching", bad, 60)
            assert report["rollout"] == rollout
            path = f"/v1/tenants/acme/rollouts/{rollout}"
            until(lambda: centre.call("GET", path).body["state"] == "rolled_back", 120,
                  lambda: str(centre.call("GET", path).body))  # fmt: skip
            plant.wait("applied", first, 60)
            assert box.site.file.read_text() == before

            # The same once more, because a person says so: tried anew, and taken back again.
            for _ in range(2):
                plant.target(bad)
                plant.wait("watching", bad, 60)
                plant.wait("rolled_back", bad, 60)
            assert box.site.file.read_text() == before
            plant.target(first)
            plant.wait("applied", first, 60)

            # Changed at the box: told, not overwritten, until somebody says so.
            box.site.file.write_text(before.replace("100ms", "250ms"))
            report = plant.wait("drift", first, 60)
            assert "+    scan: 250ms" in report["drift"]
            plant.target(first, overwrite=True)
            plant.wait("applied", first, 150)
            assert box.site.file.read_text() == before

            # Revoked, it is told and goes on reading.
            listed = centre.call("GET", "/v1/tenants/acme/credentials").body["items"]
            (own,) = [c for c in listed if c["kind"] == "certificate"]
            centre.make(f"/v1/tenants/acme/credentials/{own['id']}/revoke", {})
            until(lambda: "not_accepted" in box.site.log("fleet"), 90, box.why)
            assert box.site.table()["reader-prensa-01"]["statename"] == "RUNNING"
