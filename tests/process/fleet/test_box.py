"""A whole box and a centre: claim, apply, refuse, go back, drift."""

from __future__ import annotations

import json
import stat

import yaml

from tests.kit.common import until
from tests.kit.fleet_rig import FleetBox, nobody_there


def test_a_claimed_box_takes_what_the_centre_wants_and_reports_it() -> None:
    with FleetBox() as box:
        first = box.wait_report("applied", None)
        assert first["running"] is None
        until(lambda: box.centre.reports[-1]["health"]["plcs"], 30, box.why)
        two = [box.plc(1), box.plc(2, scan="200ms")]
        box.centre.want(7, box.text(plcs=two), rollout="rol_0123456789abcdef")
        report = box.wait_report("applied", 7)
        assert report["running"] == 7
        assert report["rollout"] == "rol_0123456789abcdef"
        assert box.rendered("reader-prensa-02") is not None
        assert box.centre.states() == [
            ("applied", None), ("applying", 7), ("watching", 7), ("applied", 7),
        ]  # fmt: skip
        said = json.loads(box.command("status", "--json").stdout)
        assert (said["state"], said["version"], said["running"]) == ("applied", 7, 7)
        shown = box.site.run("status")
        assert "centre: ok, version 7, applied" in shown.stdout, shown.stdout
        found = json.loads(box.site.run("doctor", "--json").stdout)["findings"]
        ours = [(f["level"], f["code"]) for f in found if f["subject"] == "fleet"]
        assert ours == [("ok", "certificate"), ("ok", "fleet")], ours
        key = box.site.state / "fleet" / "box.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert "PRIVATE KEY" in key.read_text()
        assert "PRIVATE KEY" not in json.dumps(box.centre.claimed)


def test_a_wrong_address_is_taken_back_within_the_watch() -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        before = box.site.file.read_text()
        box.centre.want(3, box.text(plcs=[box.plc(1, port=nobody_there())]))
        report = box.wait_report("rolled_back", 3)
        assert "prensa-01 worked before" in report["error"]
        assert report["running"] is None
        assert box.site.file.read_text() == before
        port = box.plc_ports[0]
        until(lambda: box.rendered("reader-prensa-01")["plc"]["port"] == port, 10, box.why)
        until(lambda: box.centre.reports[-1]["health"]["plcs"] == {"prensa-01": "online"},
              30, box.why)  # fmt: skip


def test_what_check_refuses_is_never_put_in_place() -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        before = box.site.file.read_text()
        box.centre.want(2, before.replace("100ms", "100 parsecs"))
        report = box.wait_report("refused", 2)
        assert [p["key"] for p in report["problems"]] == ["plcs[0].groups[0].scan"]
        assert report["problems"][0]["file"] == "config.yaml"
        assert box.site.file.read_text() == before
        # The box is who it is, lives where it lives, and keeps its secrets.
        box.centre.want(3, before.replace("site: e2e", "site: outra"))
        assert "this box is 'e2e'" in box.wait_report("refused", 3)["problems"][0]["message"]
        box.centre.want(4, before.replace("/s\n", "/elsewhere\n"))
        keys = {p["key"] for p in box.wait_report("refused", 4)["problems"]}
        assert keys == {"paths.state", "paths.logs"}
        box.centre.want(5, before, {"../outside.yaml": "name: x\n"})
        assert "leaves the folder" in box.wait_report("refused", 5)["problems"][0]["message"]
        # What no group names is no layout: another file of somebody's, beside the configuration.
        own = box.site.folder / "rules.yaml"
        own.write_text("mine\n")
        named = {"layouts/db500.yaml": (box.site.folder / "layouts/db500.yaml").read_text()}
        box.centre.want(6, before, {**named, "rules.yaml": "name: x\n"})
        (problem,) = box.wait_report("refused", 6)["problems"]
        assert (problem["file"], problem["message"]) == ("rules.yaml", "no group names it")
        central = box.text(plcs=[box.plc(1, layout="central.yaml")])
        box.centre.want(7, central, {"central.yaml": named["layouts/db500.yaml"]})
        assert "that of a centre" in box.wait_report("refused", 7)["problems"][0]["message"]
        assert own.read_text() == "mine\n"
        assert not (box.site.folder / "central.yaml").exists()
        # And takes the next that is right.
        box.centre.want(8, box.text(plcs=[box.plc(1, scan="150ms")]))
        box.wait_report("applied", 8)


def test_layouts_come_along_and_go_back() -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        old = (box.site.folder / "layouts/db500.yaml").read_text()
        new = old.replace("unit: mm/s", "unit: m/s")
        assert new != old
        layouts = {"layouts/db500.yaml": new, "layouts/more/extra.yaml": old}
        extra = box.plc(2, layout="layouts/more/extra.yaml")
        box.centre.want(1, box.text(plcs=[box.plc(1), extra]), layouts)
        box.wait_report("applied", 1)
        assert (box.site.folder / "layouts/db500.yaml").read_text() == new
        assert (box.site.folder / "layouts/more/extra.yaml").read_text() == old
        third = {"layouts/db500.yaml": old, "layouts/third.yaml": old}
        plcs = [box.plc(1, port=nobody_there()), box.plc(2, layout="layouts/third.yaml")]
        box.centre.want(2, box.text(plcs=plcs), third)
        box.wait_report("rolled_back", 2)
        assert (box.site.folder / "layouts/db500.yaml").read_text() == new
        assert not (box.site.folder / "layouts/third.yaml").exists()
        until(lambda: box.journal()["step"] == "idle", 10, box.why)


def test_a_change_at_the_box_is_told_and_left_alone_until_it_may_be_overwritten() -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        box.centre.want(1, box.text())
        box.wait_report("applied", 1)
        local = box.site.file.read_text().replace("100ms", "250ms") + "# password: segredo\n"
        box.site.file.write_text(local)
        report = box.wait_report("drift", 1)
        assert "-    scan: 100ms" in report["drift"]
        assert "+    scan: 250ms" in report["drift"]
        assert "segredo" not in report["drift"]
        box.centre.want(2, box.text(plcs=[box.plc(1, scan="300ms")]))
        box.wait_report("drift", 2)
        assert box.site.file.read_text() == local
        box.centre.want(2, box.text(plcs=[box.plc(1, scan="300ms")]), overwrite=True)
        box.wait_report("applied", 2)
        assert "300ms" in box.site.file.read_text()
        kept = sorted((box.site.state / "fleet").glob("local-*"))
        # What was there before the centre's first version, and what was overwritten now.
        assert len(kept) == 2
        assert (kept[-1] / "config.yaml").read_text() == local
        # The word held once.
        box.site.file.write_text(local)
        box.wait_report("drift", 2)
        assert box.site.file.read_text() == local


def test_a_plc_that_was_off_before_is_no_reason_to_go_back() -> None:
    with FleetBox(plcs=2) as box:
        box.simulator.tell("down prensa-02")
        box.wait_report("applied", None)
        until(lambda: box.centre.reports[-1]["health"]["plcs"].get("prensa-02") == "offline",
              30, box.why)  # fmt: skip
        box.centre.want(1, box.text(plcs=[box.plc(1, scan="150ms"), box.plc(2)]))
        box.wait_report("applied", 1, 60)


def test_a_configuration_that_cuts_the_box_off_is_taken_back() -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        fleet = {**box.site.config["fleet"], "url": f"https://localhost:{nobody_there()}"}
        box.centre.want(1, box.text(fleet=fleet))
        report = box.wait_report("rolled_back", 1, 60)
        assert "centre could be reached before" in report["error"]
        assert box.rendered("fleet")["url"] == box.centre.url


def test_a_configuration_without_fleet_is_watched_and_then_left() -> None:
    with FleetBox() as box:
        box.wait_report("applied", None)
        bad = {k: v for k, v in box.site.config.items() if k != "fleet"}
        plcs = [box.plc(1, port=nobody_there())]
        box.centre.want(1, yaml.safe_dump({**bad, "plcs": plcs}))
        box.wait_report("rolled_back", 1)
        assert "fleet" in yaml.safe_load(box.site.file.read_text())
        box.centre.want(2, yaml.safe_dump(bad))
        box.wait_report("applied", 2)
        until(lambda: "fleet" not in box.site.table(), 20, box.why)
        assert "fleet" not in yaml.safe_load(box.site.file.read_text())
        assert box.site.table()["reader-prensa-01"]["statename"] == "RUNNING"
        assert not (box.site.state / "fleet" / "kept.json").exists()
