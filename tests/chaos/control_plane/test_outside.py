"""Tenants made, moved, suspended, deleted and purged while the control plane, InfluxDB and Grafana
are killed at random points and answers are lost: in the end everything outside is as an undisturbed
run leaves it, and nothing is there twice.

``PLC_EDGE_OUTSIDE_OPERATIONS=200`` for more than CI's few; with ``PLC_EDGE_INFLUXD`` the InfluxDB
is a real one, and its ``kill -9`` too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import threading
import time
from typing import Any

import pytest
import urllib3

from tests.kit.centre import DATABASES, Reply
from tests.kit.common import until
from tests.kit.http_faults import CUT, PASS
from tests.kit.outside import DAYS, Outside

OPERATIONS = int(os.environ.get("PLC_EDGE_OUTSIDE_OPERATIONS", "16"))
TENANTS = ("um", "dois", "tres")
# One tenant is made from nothing within this.
KILL_WITHIN_S = 1.0
# Where a death hurts most (services/control_plane/outside), in the order of a tenant's life: each
# process is armed with the next.
POINTS = {
    "influxdb": (
        *("before_org", "org", "bucket", "bucket:2", "task", "task", "token", "token_file"),
        *("token_row", "token:2", "retention", "token_removed", "removed"),
    ),
    "grafana": (
        *("before_org", "org", "folder", "dashboard", "dashboard:2", "data_source"),
        "removed",
    ),
}


class Driver:
    """Random operations, each repeated until it is answered; all disturbed somehow."""

    def __init__(self, outside: Outside, seed: int) -> None:
        self.outside = outside
        self.random = random.Random(seed)
        self.plans: dict[str, str] = {}
        self.states: dict[str, str] = {}
        self.kills = {"centre": 0, "influx": 0, "grafana": 0, "answers": 0}

    def run(self) -> None:
        """All of them."""
        for number in range(OPERATIONS):
            name = self.random.choice(TENANTS)
            method, path, form = self._draw(name)
            self._disturbed(number, method, path, form)

    def _draw(self, name: str) -> tuple[str, str, Any]:
        base, state = f"/v1/tenants/{name}", self.states.get(name)
        if state is None:
            self.plans[name] = self.random.choice(list(DAYS))
            self.states[name] = "active"
            return "POST", "/v1/tenants", {"id": name, "plan": self.plans[name]}
        if state == "deleted":
            del self.states[name]
            return "POST", f"{base}/purge", None
        verb = self.random.choices(("plan", "suspend", "resume", "delete"), (3, 2, 2, 3))[0]
        if verb == "plan":
            self.plans[name] = self.random.choice(list(DAYS))
            return "PATCH", base, {"plan": self.plans[name]}
        if verb == "delete":
            self.states[name] = "deleted"
            return "DELETE", base, None
        self.states[name] = "suspended" if verb == "suspend" else "active"
        return "POST", f"{base}/{verb}", None

    def _disturbed(self, number: int, method: str, path: str, form: Any) -> None:
        headers = {"idempotency-key": f"op-{number}"}
        centre = self.outside.centre

        def call() -> None:
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # it died before it answered
                centre.call(method, path, form, headers=headers)

        caller = threading.Thread(target=call)
        caller.start()
        self._disturb()
        caller.join()
        reply: Reply = centre.call(method, path, form, headers=headers)
        assert reply.status in (200, 201, 204), reply

    def _disturb(self) -> None:
        what = self.random.choice(list(self.kills))
        self.kills[what] += 1
        if what == "answers":
            faults = self.random.choice((self.outside.influx_way, self.outside.grafana_way))
            dice = random.Random(self.random.random())
            faults.judge = lambda method, _path: (
                CUT if method != "GET" and dice.random() < 0.3 else PASS
            )
            time.sleep(self.random.random() * KILL_WITHIN_S)
            faults.all(PASS)
            return
        time.sleep(self.random.random() * KILL_WITHIN_S)
        if what == "centre":
            self.outside.centre.kill()
            self.outside.centre.start()
        else:
            server = self.outside.influx if what == "influx" else self.outside.grafana
            server.stop()
            time.sleep(self.random.random())
            server.start()

    def judge(self) -> None:
        """Everything against what an undisturbed run leaves."""
        self.outside.settled(120)
        for name in TENANTS:
            state = self.states.get(name)
            expected = (
                None if state is None else self.outside.expected(name, self.plans[name], state)
            )
            if state == "deleted":
                self._nothing_opens(name)
                continue
            assert self.outside.found(name) == expected, name
        assert self.outside.centre.faults() == []

    def _nothing_opens(self, name: str) -> None:
        """What a deleted tenant still has hangs on how far it ever came; what it may, does not."""
        if self.outside.influx.org(name) is not None:
            assert self.outside.influx.tokens(name) == {}
            tasks = self.outside.influx.tasks(name).values()
            assert {status for _, status in tasks} <= {"inactive"}
        org = self.outside.grafana.org(name)
        assert org is None or org.sources == {}
        assert not any((self.outside.state / "tokens").glob(f"{name}-*"))


@pytest.mark.timeout(1_800 if OPERATIONS > 50 else 300)
@pytest.mark.parametrize(("database", "seed"), [("sqlite", 1), ("postgresql", 2)])
def test_outside_ends_where_the_database_is(database: str, seed: int) -> None:
    with Outside(database) as outside:
        driver = Driver(outside, seed)
        driver.run()
        assert sum(driver.kills.values()) == OPERATIONS
        driver.judge()


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("target", sorted(POINTS))
def test_killed_at_each_point(database: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``kill -9`` by itself just there, again and again in one life."""
    with Outside(database, start=False) as outside:
        armed = [f"{target}.{point}" for point in POINTS[target]]
        deaths = 0

        def arm() -> None:
            monkeypatch.setenv("PLC_EDGE_FAILPOINT", armed.pop(0) if armed else "")

        def ask(method: str, path: str, form: Any = None) -> None:
            """One operation, until all that follows is done, whoever dies of it."""
            nonlocal deaths
            assert outside.centre.call(method, path, form).status < 300
            while True:
                assert outside.centre.service is not None
                process = outside.centre.service.process
                until(functools.partial(_is_over, outside, process), 60, str(armed))
                if process.poll() is None:
                    return
                deaths += 1
                arm()
                try:
                    outside.centre.start()
                except AssertionError:  # its worker may come to the next point before READY
                    assert outside.centre.service.process.poll() == -signal.SIGKILL

        arm()
        outside.start()
        ask("POST", "/v1/tenants", {"id": "um", "plan": "pro"})
        assert outside.found("um") == outside.expected("um", "pro")
        ask("PATCH", "/v1/tenants/um", {"plan": "free"})
        assert outside.found("um") == outside.expected("um", "free")
        ask("DELETE", "/v1/tenants/um")
        # A deleted tenant has no token, but for what somebody made by hand meanwhile.
        org = outside.influx.org("um")
        rights = [{"action": "read", "resource": {"type": "buckets", "orgID": org}}]
        form = {"orgID": org, "description": "x", "permissions": rights}
        assert outside.influx.ask("POST", "/api/v2/authorizations", form).status == 201
        ask("POST", "/v1/tenants/um/purge")
        assert outside.found("um") is None
        ask("POST", "/v1/tenants", {"id": "um", "plan": "free"})
        assert outside.found("um") == outside.expected("um", "free")
        assert deaths == len(POINTS[target]), f"never passed: {armed}"
        assert outside.centre.faults() == []


def _is_over(outside: Outside, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or not outside.effects()
