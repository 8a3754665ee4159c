"""Operations on accounts while the control plane or the broker is killed: at the end the broker
holds exactly the accounts that the API says are alive, and each of them works.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import Any

import urllib3

from tests.kit.centre import Centre, Reply
from tests.kit.common import until
from tests.kit.dynsec import Accounts, connected

ACME = "/v1/tenants/acme"
OPERATIONS = 24
KILL_EVERY = 4
KILL_WITHIN_S = 0.15


class Driver:
    """Random operations, each repeated until it is answered; some with a kill in the middle."""

    def __init__(self, centre: Centre, broker: Accounts, seed: int) -> None:
        self.centre = centre
        self.broker = broker
        self.random = random.Random(seed)
        self.live: dict[str, dict[str, Any]] = {}
        """By the credential's id, its newest answer."""
        self.kills = 0

    def run(self) -> None:
        """All of them; the tenant is active at the end."""
        for number in range(OPERATIONS):
            method, path, form = self._draw()
            headers = {"idempotency-key": f"op-{number}"}
            if number % KILL_EVERY == KILL_EVERY - 1:
                reply = self._disturbed(method, path, form, headers)
            else:
                reply = self.centre.call(method, path, form, headers=headers)
            self._remember(path, reply)
        assert self.centre.call("POST", f"{ACME}/resume").status == 200

    def _draw(self) -> tuple[str, str, Any]:
        drawn = self.random.choices(("create", "rotate", "revoke", "tenant"), (4, 3, 2, 1))[0]
        if drawn == "tenant":
            return "POST", f"{ACME}/{self.random.choice(('suspend', 'resume'))}", None
        if drawn == "create" or not self.live:
            forms = ({"role": "box", "site": "caixa-1"}, {"role": "reader"})
            return "POST", f"{ACME}/credentials", {"kind": "broker", **self.random.choice(forms)}
        path = f"{ACME}/credentials/{self.random.choice(sorted(self.live))}/{drawn}"
        return "POST", path, {"overlap_s": 0} if drawn == "rotate" else None

    def _disturbed(self, method: str, path: str, form: Any, headers: dict[str, str]) -> Reply:
        def call() -> None:
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # it died before it answered
                self.centre.call(method, path, form, headers=headers)

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(self.random.random() * KILL_WITHIN_S)
        self.kills += 1
        if self.random.random() < 0.5:
            self.broker.restart()
        else:
            self.centre.kill()
            self.centre.start()
        caller.join()
        return self.centre.call(method, path, form, headers=headers)

    def _remember(self, path: str, reply: Reply) -> None:
        if reply.status == 409:  # suspended
            return
        assert reply.status in (200, 201), reply
        if path.endswith("/revoke"):
            self.live.pop(reply.body["id"])
        elif "secret" in reply.body:
            self.live[reply.body["id"]] = reply.body


def test_the_broker_ends_where_the_database_is() -> None:
    with Accounts() as broker, Centre("sqlite", broker.section()) as centre:
        centre.tenant("acme")
        driver = Driver(centre, broker, seed=3)
        driver.run()
        assert driver.kills == OPERATIONS // KILL_EVERY
        assert len(driver.live) >= 2, "else this shows nothing"
        expected = {made["username"] for made in driver.live.values()}
        until(lambda: broker.accounts() == expected, 30, lambda: f"{expected} {broker.accounts()}")
        for made in driver.live.values():
            connected(broker, made).close()
        assert centre.faults() == []
