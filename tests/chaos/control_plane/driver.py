"""Random operations against the real control plane. In the middle of some it is killed, or its
PostgreSQL, or the broker whose accounts it keeps (``kill -9``, all of their processes); each is
repeated with its Idempotency-Key until it is answered. Then everything must be as if nothing had
happened: every answer, what the API shows, the keys that work, the accounts and permissions at the
broker, and the audit.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests.chaos.control_plane.model import Model, Operation, sequence
from tests.kit import postgres
from tests.kit.centre import BOX_CONFIG, Centre, Reply
from tests.kit.common import until
from tests.kit.dynsec import Accounts

LENGTH = 14
KILL_WITHIN_S = 0.04
# A broker that comes back is connected again within 5 s, and a tenant that it refused is tried
# again within 60.
BROKER_S = 90
NOBODY = "crd_0000000000000000"


@dataclass
class Verdict:
    """What a run has shown."""

    sequences: int = 0
    operations: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    """By what was killed."""
    replayed: int = 0
    """Operations that were done when the process died before its answer came."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Driver:
    """Runs sequences; ``kills`` is how many operations of each are disturbed. ``broker``: the one
    whose accounts ``centre`` keeps.
    """

    def __init__(
        self, centre: Centre, seed: int, kills: int = 1, broker: Accounts | None = None
    ) -> None:
        self.centre = centre
        self.broker = broker
        self.victims = ["control plane"]
        if not centre.database.is_sqlite:
            self.victims.append("database")
        if broker is not None:
            self.victims.append("broker")
        self.random = random.Random(seed)
        self.kills = kills
        self.verdict = Verdict()
        self._keys: dict[str, list[dict[str, Any]]] = {}
        """Tenant -> the newest answer for each credential, in the order they were made."""

    def run(self, sequences: int, seconds: float = float("inf")) -> Verdict:
        """So many sequences, each with tenants of its own; none is begun after ``seconds``. What
        differs is also said at once: a long run need not end to be read.
        """
        started_s = time.monotonic()
        for number in range(sequences):
            if time.monotonic() - started_s > seconds:
                break
            before = len(self.verdict.wrong)
            self._sequence(number)
            for text in self.verdict.wrong[before:]:
                sys.stderr.write(f"{text}\n")
            if number % 25 == 24:
                minutes = (time.monotonic() - started_s) / 60
                sys.stderr.write(f"{number + 1} sequences, {minutes:.1f} min\n")
        self.verdict.seconds = time.monotonic() - started_s
        self.verdict.wrong += self.centre.faults()
        return self.verdict

    def _sequence(self, number: int) -> None:
        tenants = [f"s{number}-a", f"s{number}-b"]
        model = Model()
        accounts = self.broker is not None
        operations = sequence(self.random, tenants, LENGTH, accounts=accounts)
        disturbed = self.random.sample(range(len(operations)), self.kills)
        for place, op in enumerate(operations):
            kill_after_s = self.random.uniform(0, KILL_WITHIN_S) if place in disturbed else None
            key = f"{number}-{place}"
            reply = self._call(op, key, kill_after_s)
            self._remember(op, reply)
            wanted = model.apply(op)
            if reply.status != wanted:
                self._wrong(number, f"{place} {op}: {reply}, not {wanted}")
            self.verdict.operations += 1
        self.verdict.sequences += 1
        for tenant in tenants:
            found, wanted_state = self._found(tenant), model.expected(tenant)
            if found != wanted_state:
                self._wrong(number, f"{tenant} is {found}, not {wanted_state}")
            rows = self._audit_rows(tenant)
            if rows != model.changes[tenant]:
                self._wrong(number, f"{tenant}: {rows} in the audit, not {model.changes[tenant]}")
            if self.broker is not None:
                self._look_at_broker(number, self.broker, tenant, model.at_broker(tenant))

    def _wrong(self, number: int, text: str) -> None:
        self.verdict.wrong.append(f"sequence {number}: {text}")

    # -- one operation -------------------------------------------------------------------

    def _request(self, op: Operation) -> tuple[str, str, Any]:
        base, words = f"/v1/tenants/{op.tenant}", op.words
        match op.kind:
            case "tenant_create":
                return "POST", "/v1/tenants", {"id": op.tenant, "plan": words[0]}
            case "tenant_change":
                return "PATCH", base, {"plan": words[0]}
            case "tenant_delete":
                return "DELETE", base, None
            case "tenant_suspend" | "tenant_resume" | "tenant_purge":
                return "POST", f"{base}/{op.kind.removeprefix('tenant_')}", None
            case "site_create":
                return "POST", f"{base}/sites", {"id": words[0]}
            case "site_delete":
                return "DELETE", f"{base}/sites/{words[0]}", None
            case "device_create":
                return "POST", f"{base}/devices", {"id": words[0], "site": words[1]}
            case "device_move":
                return "PATCH", f"{base}/devices/{words[0]}", {"site": words[1]}
            case "device_delete":
                return "DELETE", f"{base}/devices/{words[0]}", None
            case "credential_create":
                return "POST", f"{base}/credentials", {"role": "reader"}
            case "account_create":
                whose = {"role": "box", "site": words[0]} if words[0] else {"role": "reader"}
                return "POST", f"{base}/credentials", {"kind": "broker", **whose}
            case "credential_rotate":
                path = f"{base}/credentials/{self._credential(op)}/rotate"
                return "POST", path, {"overlap_s": 0}
            case "credential_revoke":
                return "POST", f"{base}/credentials/{self._credential(op)}/revoke", None
            case "config_push":
                site, plc, scan = words
                text = BOX_CONFIG.format(site=site, tenant=op.tenant, plc=plc, scan=scan)
                return "POST", f"{base}/sites/{site}/configs", {"yaml": text}
        raise AssertionError(op.kind)

    def _credential(self, op: Operation) -> str:
        known, index = self._keys.get(op.tenant, []), int(op.words[0])
        return str(known[index]["id"]) if index < len(known) else NOBODY

    def _call(self, op: Operation, key: str, kill_after_s: float | None) -> Reply:
        method, path, body = self._request(op)
        headers = {"idempotency-key": key}
        if kill_after_s is None:
            return self.centre.call(method, path, body, headers=headers)
        first: list[Reply] = []

        def call() -> None:
            with contextlib.suppress(urllib3.exceptions.HTTPError):  # it died before it answered
                first.append(self.centre.call(method, path, body, headers=headers))

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(kill_after_s)
        self._kill(self.victims[self.verdict.kills.total() % len(self.victims)])
        caller.join()
        again = until(
            lambda: self._unless_away(self.centre.call(method, path, body, headers=headers)),
            20,
            "an answer",
        )
        answered = self._unless_away(first[0]) if first else None
        if answered and (answered.status, answered.body) != (again.status, again.body):
            self.verdict.wrong.append(f"{op}: {answered}, and repeated: {again}")
        if not answered and again.headers.get("idempotency-replayed"):
            self.verdict.replayed += 1
        return again

    @staticmethod
    def _unless_away(reply: Reply) -> Reply | None:
        """503: the database is not back yet, and the request may be repeated."""
        return None if reply.status == 503 else reply

    def _kill(self, victim: str) -> None:
        """Returns when it runs again."""
        self.verdict.kills[victim] += 1
        if victim == "control plane":
            self.centre.kill()
            self.centre.start()
        elif victim == "database":
            postgres.cluster().kill()
            postgres.cluster().start()
        else:
            assert self.broker is not None
            self.broker.restart()

    def _remember(self, op: Operation, reply: Reply) -> None:
        known = self._keys.setdefault(op.tenant, [])
        if op.kind == "tenant_purge" and reply.status == 204:
            known.clear()
        elif op.kind in ("credential_create", "account_create") and reply.status == 201:
            known.append(reply.body)
        elif op.kind == "credential_rotate" and reply.status == 200:
            known[int(op.words[0])] = reply.body

    # -- what is there -------------------------------------------------------------------

    def _found(self, tenant: str) -> dict[str, Any] | None:
        base = f"/v1/tenants/{tenant}"
        shown = self.centre.call("GET", base)
        if shown.status == 404:
            return None
        sites = [row["id"] for row in self._items(f"{base}/sites")]
        revoked = []
        for made in self._keys.get(tenant, []):
            row = self.centre.call("GET", f"{base}/credentials/{made['id']}").body
            ended = bool(row["revoked_at"])
            if made["kind"] == "api_key":
                works = self.centre.call("GET", "/v1/me", key=made["secret"]).status == 200
                if works == ended:
                    self.verdict.wrong.append(f"{made['id']} works: {works}, and is {row}")
            revoked.append(ended)
        return {
            "plan": shown.body["plan"],
            "state": shown.body["state"],
            "sites": sites,
            "devices": {row["id"]: row["site"] for row in self._items(f"{base}/devices")},
            "configs": {s: len(self._items(f"{base}/sites/{s}/configs")) for s in sites},
            "revoked": revoked,
        }

    def _look_at_broker(
        self, number: int, broker: Accounts, tenant: str, roles: dict[str, set[str]]
    ) -> None:
        """Exactly the accounts that are alive, each with exactly what is its own."""
        live = {row["username"]: row for row in self._keys.get(tenant, []) if row["username"]}
        live = {n: r for n, r in live.items() if n.rpartition(".")[0] in roles}
        path = f"/v1/tenants/{tenant}/credentials"
        revoked = {r["id"] for r in self._items(path) if r["revoked_at"]} if live else set()
        wanted = {n for n, row in live.items() if row["id"] not in revoked}

        def differs() -> str:
            found = broker.usable(tenant)
            return "" if found == (wanted, roles) else f"{found}, not {(wanted, roles)}"

        try:
            until(lambda: not differs(), BROKER_S, differs)
        except AssertionError as e:
            self._wrong(number, f"broker, {tenant}: {e}")

    def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.centre.call("GET", f"{path}?limit=500").body["items"]
        return items

    def _audit_rows(self, tenant: str) -> int:
        """Of the whole platform's: a purged tenant has no page of its own."""
        return sum(row["tenant"] == tenant for row in self._items("/v1/audit"))
