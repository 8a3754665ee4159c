"""Whatever the centre does or does not do, the box goes on, and says what is wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.fleet.link import claim
from services.runtime.errors import PlcEdgeError
from tests.kit import pki
from tests.kit.common import free_port, until
from tests.kit.procs import Service, service
from tests.kit.scripted_centre import CODE, SITE, TENANT, ScriptedCentre


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[ScriptedCentre]:
    with ScriptedCentre(tmp_path) as running:
        yield running


def rendered(tmp_path: Path, centre: ScriptedCentre, **changes: Any) -> dict[str, Any]:
    """A fleet process alone: no site around it answers, and nothing is targeted."""
    runtime = tmp_path / "r"
    runtime.mkdir(exist_ok=True)
    (tmp_path / "config.yaml").write_text("site: e2e\n")
    (tmp_path / "claim.txt").write_text(CODE)
    return {
        "process": "fleet", "folder": "fleet", "item": "", "site": SITE, "locatario": TENANT,
        "runtime": str(runtime), "state": str(tmp_path / "s"), "logs": str(tmp_path),
        "url": centre.url, "ca": str(centre.ca.file), "claim_file": str(tmp_path / "claim.txt"),
        "watch_s": 5.0, "config_file": str(tmp_path / "config.yaml"), **changes,
    }  # fmt: skip


def said(tmp_path: Path) -> dict[str, Any]:
    """What it says of the centre."""
    content = json.loads((tmp_path / "r" / "fleet-status.json").read_bytes())["centre"]
    assert isinstance(content, dict)
    return content


def wait_code(tmp_path: Path, fleet: Service, *codes: str, timeout_s: float = 30) -> dict[str, Any]:
    until(lambda: said(tmp_path)["code"] in codes, timeout_s,
          lambda: f"{codes}: {fleet.stderr()}")  # fmt: skip
    return said(tmp_path)


FAULTS = {
    "500": "centre_fault", "garbage": "garbage", "oversize": "oversize", "drop": "broken",
    "redirect": "refused", "wrong_sha": "garbage",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_centre_out_of_order_is_told_once_and_asked_again_ever_slower(
    tmp_path: Path, centre: ScriptedCentre, fault: str
) -> None:
    with service(rendered(tmp_path, centre)) as fleet:
        until(lambda: centre.reports, 20, fleet.stderr)
        centre.fault = fault
        centre.want(1, "site: e2e\n")
        told = wait_code(tmp_path, fleet, FAULTS[fault])
        assert told["message"]
        before = centre.requests
        time.sleep(6)
        assert centre.requests - before <= 14
        lines = [x for x in fleet.lines if x.get("code") == f"fleet_{FAULTS[fault]}"]
        assert len(lines) == 1, "one line per change of state"
        centre.target, centre.fault = None, ""
        wait_code(tmp_path, fleet, "", timeout_s=40)
        fleet.wait_said("fleet_centre_back")
        assert fleet.terminate() == 0


def test_nobody_there_no_name_no_answer(tmp_path: Path, centre: ScriptedCentre) -> None:
    for url, code in (
        (f"https://localhost:{free_port()}", "no_connection"),
        ("https://no-such-host.invalid:8443", "dns"),
    ):
        with service(rendered(tmp_path, centre, url=url)) as fleet:
            assert wait_code(tmp_path, fleet, code)["reached_ms"] is None
        (tmp_path / "r" / "fleet-status.json").unlink()


def test_a_wrong_ca_and_a_wrong_name_are_told_with_the_key_to_mend(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = pki.Ca(tmp_path / "other", "other")
    with (
        ScriptedCentre(tmp_path) as centre,
        service(rendered(tmp_path, centre, ca=str(other.file))) as fleet,
    ):
        assert "fleet.ca" in wait_code(tmp_path, fleet, "tls_ca")["message"]
        assert not centre.claimed
    (tmp_path / "named").mkdir()
    with (
        ScriptedCentre(tmp_path / "named", name="elsewhere") as centre,
        service(rendered(tmp_path, centre)) as fleet,
    ):
        told = wait_code(tmp_path, fleet, "tls_certificate_name")
        assert "fleet.url" in told["message"]


def test_an_expired_certificate_needs_a_new_code_and_takes_it_from_the_file(
    tmp_path: Path, centre: ScriptedCentre
) -> None:
    centre.days = (-10.0, -1.0)
    with service(rendered(tmp_path, centre)) as fleet:
        told = wait_code(tmp_path, fleet, "tls_client_certificate", "broken")
        assert "expired" in told["message"]
        centre.days = (-1.0, 90.0)
        centre.codes.add("NEW00-NEW00-NEW00-NEW00")
        (tmp_path / "claim.txt").write_text("NEW00-NEW00-NEW00-NEW00\n")
        wait_code(tmp_path, fleet, "", timeout_s=60)


def test_a_revoked_certificate_is_told(tmp_path: Path, centre: ScriptedCentre) -> None:
    with service(rendered(tmp_path, centre)) as fleet:
        until(lambda: centre.reports, 20, fleet.stderr)
        centre.revoked.add(centre.issued[0].serial_number)
        centre.want(1, "site: e2e\n")
        assert "plc-edge fleet claim" in wait_code(tmp_path, fleet, "not_accepted")["message"]


def test_a_lost_reply_to_the_claim_costs_nothing(tmp_path: Path, centre: ScriptedCentre) -> None:
    centre.lose_claim_replies = 2
    with service(rendered(tmp_path, centre)) as fleet:
        until(lambda: centre.reports, 30, fleet.stderr)
        assert len(centre.claimed) == 3
        assert len(centre.issued) == 1, "the same key each time"


def test_a_wrong_code_is_not_hammered(tmp_path: Path, centre: ScriptedCentre) -> None:
    centre.codes.clear()
    with service(rendered(tmp_path, centre)) as fleet:
        wait_code(tmp_path, fleet, "claim")
        time.sleep(5)
        assert len(centre.claimed) == 1
        assert not fleet.said(CODE)
        # Corrected in the file, it is used at once.
        centre.codes.add("RIGHT-RIGHT-RIGHT-RIGHT")
        (tmp_path / "claim.txt").write_text("RIGHT-RIGHT-RIGHT-RIGHT\n")
        until(lambda: centre.reports, 15, fleet.stderr)


def test_the_certificate_is_renewed_with_a_new_key(tmp_path: Path, centre: ScriptedCentre) -> None:
    centre.renew_days = -1.0
    with service(rendered(tmp_path, centre)) as fleet:
        until(lambda: len(centre.issued) == 2, 20, fleet.stderr)
        centre.renew_days = 60.0
        until(lambda: len(centre.issued) >= 3, 20, fleet.stderr)
        count = len(centre.issued)
        keys = {c.public_key().public_numbers() for c in centre.issued}  # type: ignore[union-attr]
        assert len(keys) == count
        since = len(centre.polls)
        # With the new one it goes on.
        centre.want(1, "site: other\n")
        until(lambda: len(centre.polls) > since + 1, 40, fleet.stderr)
        assert said(tmp_path)["code"] == ""
        assert not (tmp_path / "s/fleet/next.key").exists()


def test_a_claim_by_hand_is_taken_up_by_the_running_process(
    tmp_path: Path, centre: ScriptedCentre
) -> None:
    config = rendered(tmp_path, centre, claim_file=None)
    with service(config) as fleet:
        wait_code(tmp_path, fleet, "unclaimed")
        own = tmp_path / "s" / "fleet"
        with pytest.raises(PlcEdgeError, match="wrong"):
            claim(own, centre.url, str(centre.ca.file), "WRONG", "test")
        who = claim(own, centre.url, str(centre.ca.file), CODE, "test")
        assert (who.tenant, who.site) == (TENANT, SITE)
        until(lambda: centre.reports, 20, fleet.stderr)
        for file in own.rglob("*"):
            if file.is_file():
                assert file.stat().st_mode & 0o077 == 0, file


def test_the_process_is_light(tmp_path: Path, centre: ScriptedCentre) -> None:
    with service(rendered(tmp_path, centre)) as fleet:
        until(lambda: centre.reports, 20, fleet.stderr)
        status = Path(f"/proc/{fleet.pid}/status").read_text()
        rss_kb = int(status.partition("VmRSS:")[2].split()[0])
        maps = Path(f"/proc/{fleet.pid}/maps").read_text()
        for heavy in ("pydantic_core", "cryptography", "_yaml"):
            assert heavy not in maps
        print(f"fleet: {rss_kb / 1024:.1f} MB", os.getpid())
        assert rss_kb < 60_000
