"""Random operations against the real control plane, which is killed in the middle of some; each is
repeated with its Idempotency-Key until it is answered. Then everything must be as if nothing had
happened: every answer, what the API shows, the keys that work, and the audit.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests.chaos.control_plane.model import Model, Operation, sequence
from tests.kit.centre import BOX_CONFIG, Centre, Reply

LENGTH = 14
KILL_WITHIN_S = 0.04
NOBODY = "crd_0000000000000000"


@dataclass
class Verdict:
    """What a run has shown."""

    sequences: int = 0
    operations: int = 0
    kills: int = 0
    replayed: int = 0
    """Operations that were done when the process died before its answer came."""
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Driver:
    """Runs sequences; ``kills`` is how many operations of each are disturbed."""

    def __init__(self, centre: Centre, seed: int, kills: int = 1) -> None:
        self.centre = centre
        self.random = random.Random(seed)
        self.kills = kills
        self.verdict = Verdict()
        self._keys: dict[str, list[tuple[str, str]]] = {}
        """Tenant -> (credential's id, its newest secret), in the order they were made."""

    def run(self, sequences: int) -> Verdict:
        """So many sequences, each with tenants of its own."""
        started_s = time.monotonic()
        for number in range(sequences):
            self._sequence(number)
        self.verdict.seconds = time.monotonic() - started_s
        self.verdict.wrong += self.centre.faults()
        return self.verdict

    def _sequence(self, number: int) -> None:
        tenants = [f"s{number}-a", f"s{number}-b"]
        model = Model()
        operations = sequence(self.random, tenants, LENGTH)
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
        return known[index][0] if index < len(known) else NOBODY

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
        self.centre.kill()
        caller.join()
        self.verdict.kills += 1
        self.centre.start()
        again = self.centre.call(method, path, body, headers=headers)
        if first and (first[0].status, first[0].body) != (again.status, again.body):
            self.verdict.wrong.append(f"{op}: {first[0]}, and repeated: {again}")
        if not first and again.headers.get("idempotency-replayed"):
            self.verdict.replayed += 1
        return again

    def _remember(self, op: Operation, reply: Reply) -> None:
        known = self._keys.setdefault(op.tenant, [])
        if op.kind == "tenant_purge" and reply.status == 204:
            known.clear()
        elif op.kind == "credential_create" and reply.status == 201:
            known.append((reply.body["id"], reply.body["secret"]))
        elif op.kind == "credential_rotate" and reply.status == 200:
            known[int(op.words[0])] = (reply.body["id"], reply.body["secret"])

    # -- what is there -------------------------------------------------------------------

    def _found(self, tenant: str) -> dict[str, Any] | None:
        base = f"/v1/tenants/{tenant}"
        shown = self.centre.call("GET", base)
        if shown.status == 404:
            return None
        sites = [row["id"] for row in self._items(f"{base}/sites")]
        revoked = []
        for credential, secret in self._keys.get(tenant, []):
            row = self.centre.call("GET", f"{base}/credentials/{credential}").body
            works = self.centre.call("GET", "/v1/me", key=secret).status == 200
            if works == bool(row["revoked_at"]):
                self.verdict.wrong.append(f"{credential} works: {works}, and is {row}")
            revoked.append(not works)
        return {
            "plan": shown.body["plan"],
            "state": shown.body["state"],
            "sites": sites,
            "devices": {row["id"]: row["site"] for row in self._items(f"{base}/devices")},
            "configs": {s: len(self._items(f"{base}/sites/{s}/configs")) for s in sites},
            "revoked": revoked,
        }

    def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.centre.call("GET", f"{path}?limit=500").body["items"]
        return items

    def _audit_rows(self, tenant: str) -> int:
        rows = [r for r in self._items("/v1/audit") if r["tenant"] == tenant]
        return len(rows)
