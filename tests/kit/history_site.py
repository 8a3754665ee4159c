"""A running box that keeps a history, with simulated PLCs and an alert rule that rings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3

from tests.kit.common import free_port, free_ports, until
from tests.kit.simulator import Simulator
from tests.kit.site import Site

FIELDS = [
    {"name": "ligada", "address": "DB500.DBX0.2"},
    {"name": "temperatura", "address": "DB500.DBD4:REAL", "unit": "°C"},
    {"name": "pressao", "address": "DB500.DBD8:REAL", "unit": "bar"},
]
KEY = "prensa-01/avulsos//temperatura"


@dataclass
class HistorySite:
    """``url`` is the panel's."""

    site: Site
    simulator: Simulator
    url: str

    def get(self, path: str, login: str = "") -> urllib3.BaseHTTPResponse:
        """One GET."""
        headers = urllib3.make_headers(basic_auth=login) if login else {}
        return urllib3.request("GET", f"{self.url}{path}", headers=headers, retries=False)

    def wait_recorded(self, seconds: float = 3.0) -> None:
        """Returns when so much of `KEY` has been recorded."""

        def recorded() -> bool:
            found = self.get(f"/api/history?series={KEY}&from=-1h&step=raw").json()
            ts = found["series"][0]["ts"] if "series" in found else []
            return len(ts) > 1 and ts[-1] - ts[0] >= seconds * 1_000

        until(recorded, 30 + seconds, self.site.logs)

    def down(self, seconds: float) -> None:
        """The first PLC is away for so long, and back."""
        self.simulator.tell("down prensa-01")
        why = f"{self.url}/api/history?series={KEY}&from=-1h&step=raw"

        def offline(least_ms: float) -> bool:
            spans = self.get(why.removeprefix(self.url)).json()["series"][0]["unknown"]
            return any(s[2] == "plc_offline" and s[1] - s[0] >= least_ms for s in spans)

        until(lambda: offline(seconds * 1_000), 20 + seconds, self.site.logs)
        back_ms = time.time() * 1_000
        self.simulator.tell("up prensa-01")
        self.wait_good(back_ms)

        def told() -> bool:
            events = self.get("/api/history/events?from=-1h").json()["events"]
            return any(e["code"] == "plc_online" and e["ts"] > back_ms for e in events)

        until(told, 20, self.site.logs)

    def wait_good(self, after_ms: float = 0.0) -> None:
        """Returns when the newest value of `KEY` is good, and newer than ``after_ms``."""

        def good() -> bool:
            found = self.get(f"/api/history?series={KEY}&from=-1m&step=raw").json()["series"][0]
            return bool(found["quality"][-1:] == [0] and found["ts"][-1] > after_ms)

        until(good, 20, self.site.logs)


@contextlib.contextmanager
def history_site(**changes: Any) -> Iterator[HistorySite]:
    """``changes`` go into the configuration."""
    *ports, panel = (*free_ports(2), free_port())
    base = {"site": "planta-sp", "locatario": "acme"}
    plcs = [
        {"id": name, "host": "127.0.0.1", "port": port, "timeout": "1s",
         "groups": [{"name": "avulsos", "scan": "200ms", "fields": FIELDS, "publish": "always"}]}
        for name, port in zip(("prensa-01", "forno-02"), ports, strict=True)
    ]  # fmt: skip
    rule = {
        "name": "quente", "type": "threshold", "above": -1e9, "severity": "aviso",
        "where": {"plc": "prensa-01", "field": "temperatura"},
    }  # fmt: skip
    config: dict[str, Any] = {
        **base, "plcs": plcs, "outputs": [], "history": {},
        "metrics": {"port": panel, **changes.pop("metrics", {})}, "alerts": {"rules": [rule]},
        **changes,
    }  # fmt: skip
    with Simulator({**base, "plcs": plcs}) as simulator, Site(config) as site:
        site.wait_running()
        yield HistorySite(site, simulator, f"http://127.0.0.1:{panel}")
