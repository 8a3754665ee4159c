"""An output to a broker without TLS, as a newcomer writes it: wherever he looks is the fix."""

from __future__ import annotations

import json
from typing import Any

import urllib3

from tests.kit.box import plc
from tests.kit.broker import Broker
from tests.kit.common import free_ports, until
from tests.kit.site import Site

FIX = "`tls: false`"


def test_status_panel_and_doctor_say_the_fix() -> None:
    plc_port, panel_port = free_ports(2)
    with Broker() as broker:
        output = {"name": "central", "type": "mqtt", "host": "127.0.0.1", "port": broker.port}
        config = {
            "site": "planta-sp",
            "locatario": "acme",
            "plcs": [plc("prensa-01", plc_port)],
            "outputs": [output],
            "metrics": {"port": panel_port},
        }
        with Site(config) as site:
            site.wait_running()
            until(lambda: "tls: false" in site.run("status").stdout, 20, site.logs)
            assert "does not speak TLS" in site.run("status").stdout

            def problem() -> dict[str, Any] | None:
                """Not told while supervisord calls the publisher's process STARTING."""
                answer = urllib3.request("GET", f"http://127.0.0.1:{panel_port}/api/status")
                problems = {p["code"]: p for p in answer.json()["problems"]}
                return problems.get("output_no_tls")

            fix = until(problem, 10, site.logs)["fix"]
            assert "8883" in fix
            assert "tls: false" in fix
            findings = json.loads(site.run("doctor", "--json").stdout)["findings"]
            said = [f for f in findings if f["subject"] == "output central"]
            assert {f["code"] for f in said} == {"publisher_no_tls", "no_tls"}
            assert all(FIX in f["text"] + f["fix"] for f in said)
            # He does so, and what has waited goes out.
            site.configure({**config, "outputs": [{**output, "tls": False}]})
            with broker.subscribe("plc/#") as seen:
                assert site.run("apply").returncode == 0
                until(lambda: seen.topic("plc/acme/prensa-01"), 20, site.logs)
