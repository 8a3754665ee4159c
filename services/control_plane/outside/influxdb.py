"""InfluxDB 2: a tenant's organisation, buckets with the plan's days, tasks and tokens.

What the real one does was found by running 2.9.1: names of organisations and buckets are unique
(422), those of tasks and descriptions of tokens are not; retention below the present shard groups'
length is refused (422) unless that is changed along; a token is readable in the answer that makes
it and never again; removing an organisation removes buckets and tasks and leaves its tokens behind,
where nobody can list them any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from services.control_plane import effects
from services.control_plane.db import Database
from services.control_plane.effects import INFLUXDB
from services.control_plane.outside import wanted
from services.control_plane.outside.http import Http, Missing, part
from services.control_plane.outside.tokens import Secrets
from services.control_plane.outside.wanted import Wanted
from services.control_plane.outside.worker import HttpWorker, sha256
from services.control_plane.tables import BoxConfig
from services.control_plane.worker import Refused, Worker
from services.infra import tenant
from services.infra.tenant import DAY_S, Kinds
from services.runtime import failpoints
from services.runtime import secrets as references
from services.runtime.clock import now_ms
from services.runtime.log import Log

Json = dict[str, Any]
# Tokens with the plain description are those of infra/influxdb's script, and stay its own.
MARK = " (plc-edge central)"
# Of a token made by hand, while its tenant is suspended.
SUSPENDED = " (suspended by plc-edge central)"
HOUR_S = 3_600
PAGE_BUCKETS, PAGE_TASKS = 100, 500


def shard_s(retention_s: int) -> int:
    """What InfluxDB itself gives a new bucket; told explicitly, because a change does not move it
    (v1/services/meta, shardGroupDuration).
    """
    if retention_s >= 180 * DAY_S:
        return 7 * DAY_S
    return DAY_S if retention_s >= 2 * DAY_S else HOUR_S


def retention(days: int) -> Json:
    """A bucket's one rule."""
    seconds = days * DAY_S
    return {
        "type": "expire",
        "everySeconds": seconds,
        "shardGroupDurationSeconds": shard_s(seconds),
    }


def permissions(token: tenant.Token, buckets: dict[str, str], org: str) -> list[Json]:
    """Of one token; ``buckets`` is name -> id of all that the tenant must have."""
    action = "read" if token.bucket is None else "write"
    names = sorted(buckets) if token.bucket is None else [token.bucket]
    return [
        {"action": action, "resource": {"type": "buckets", "id": buckets[name], "orgID": org}}
        for name in names
    ]


def _same_rights(found: Sequence[Json], want: Sequence[Json]) -> bool:
    """The answer has names beside the ids."""

    def key(one: Json) -> tuple[str, ...]:
        resource = one["resource"]
        return (one["action"], resource["type"], resource.get("id", ""), resource.get("orgID", ""))

    return sorted(map(key, found)) == sorted(map(key, want))


def is_platforms(token: Json) -> bool:
    """Whether it reaches beyond its organisation, as an operator's does (and ours): never touched,
    wherever it was made.
    """
    return any(
        not one["resource"].get("orgID") and not one["resource"].get("id")
        for one in token["permissions"]
    )


class InfluxWorker(HttpWorker):
    """The thread."""

    target = INFLUXDB

    def __init__(
        self,
        database: Database,
        config: Json,
        secrets: Secrets,
        kinds: Callable[[BoxConfig], Kinds],
        reader: Worker | None,
        log: Log,
    ) -> None:
        """``config`` as rendered from central.yaml's ``influxdb``; ``kinds`` tells the fields of a
        box's configuration; ``reader`` needs the reader's token.
        """
        super().__init__(database, log)
        self._reader = reader
        self._secrets = secrets
        self._kinds = kinds
        token = config["token"]
        self._http = Http(
            "InfluxDB",
            config["url"],
            config["ca"],
            lambda: {"Authorization": f"Token {references.resolve(token)}"},
        )

    # -- organisations -------------------------------------------------------------------

    def find_org(self, tenant_id: str) -> str | None:
        """By its name; 404 where there is none."""
        found = self._http.find("/api/v2/orgs", {"org": tenant_id})
        orgs = found["orgs"] if found else []
        return str(orgs[0]["id"]) if orgs else None

    def make_org(self, tenant_id: str) -> str:
        """A new one."""
        form = {"name": tenant_id, "description": f"tenant {tenant_id} of plc-edge"}
        return str(self._http.ask("POST", "/api/v2/orgs", form)["id"])

    def remove_org(self, tenant_id: str, org: str) -> None:
        """Its tokens first: without it they could not be found."""
        for token in self._tokens(org):
            if is_platforms(token):
                raise Refused(
                    f"organisation {tenant_id} holds a token of the whole instance"
                    f" ({token['description']!r}): it is not removed; remove that token by hand"
                )
        for token in self._tokens(org):
            self._gone(f"/api/v2/authorizations/{part(token['id'])}")
            failpoints.hit("influxdb.token_removed")
        self._gone(f"/api/v2/orgs/{part(org)}")
        self._secrets.forget(tenant_id)

    def _gone(self, path: str) -> None:
        with suppress(Missing):
            self._http.ask("DELETE", path)

    # -- what is in one ------------------------------------------------------------------

    def furnish(self, want: Wanted, org: str) -> None:
        """Buckets before tasks and tokens, which name them. Of a deleted tenant access alone is
        withdrawn: its data stay until they are purged.
        """
        if want.state == "deleted":
            self._tasks(want, org, status="inactive")
            for token in self._tokens(org):
                if not is_platforms(token):
                    self._gone(f"/api/v2/authorizations/{part(token['id'])}")
            self._secrets.forget(want.tenant_id)
            return
        buckets = self._buckets(want, org)
        failpoints.hit("influxdb.buckets")
        self._tasks(want, org, status="active")
        failpoints.hit("influxdb.tasks")
        self._own_tokens(want, org, buckets)
        self._others_tokens(want, org)

    def _buckets(self, want: Wanted, org: str) -> dict[str, str]:
        """Name -> id."""
        there: dict[str, Json] = {}
        while True:
            page = {"orgID": org, "limit": PAGE_BUCKETS, "offset": len(there)}
            found = self._http.ask("GET", "/api/v2/buckets", query=page)["buckets"]
            there |= {b["name"]: b for b in found}
            if len(found) < PAGE_BUCKETS:
                break
        ids = {}
        for bucket in want.buckets:
            rule, found = retention(bucket.days), there.get(bucket.name)
            if found is None:
                form = {"orgID": org, "name": bucket.name, "retentionRules": [rule]}
                found = self._http.ask("POST", "/api/v2/buckets", form)
                failpoints.hit("influxdb.bucket")
                self._say(want, bucket=bucket.name, days=bucket.days)
            elif found["retentionRules"] != [rule]:
                path = f"/api/v2/buckets/{part(found['id'])}"
                self._http.ask("PATCH", path, {"retentionRules": [rule]})
                failpoints.hit("influxdb.retention")
                self._say(want, bucket=bucket.name, days=bucket.days)
            ids[bucket.name] = str(found["id"])
        return ids

    def _tasks(self, want: Wanted, org: str, status: str) -> None:
        page = {"orgID": org, "limit": PAGE_TASKS}
        there: dict[str, list[Json]] = {}
        for task in self._http.ask("GET", "/api/v2/tasks", query=page)["tasks"]:
            there.setdefault(task["name"], []).append(task)
        with self._database.reading(want.tenant_id) as session:
            configs = wanted.newest_configs(session, want.tenant_id)
        fields = tenant.join(map(self._kinds, configs)).conditions()
        for task in tenant.tasks(*fields, want.raw_days):
            found = there.get(task.name, [])
            own, twins = (found[0] if found else None), found[1:]
            for twin in twins:  # of one that was made, and whose answer was lost
                self._gone(f"/api/v2/tasks/{part(twin['id'])}")
            right = {"flux": task.flux, "status": status}
            if own is None:
                if status == "active":
                    self._http.ask("POST", "/api/v2/tasks", {"orgID": org, **right})
                    failpoints.hit("influxdb.task")
                    self._say(want, task=task.name)
            elif any(own[key] != value for key, value in right.items()):
                self._http.ask("PATCH", f"/api/v2/tasks/{part(own['id'])}", right)
                self._say(want, task=task.name, status=status)

    # -- tokens --------------------------------------------------------------------------

    def _tokens(self, org: str) -> list[Json]:
        found = self._http.ask("GET", "/api/v2/authorizations", query={"orgID": org})
        tokens: list[Json] = found["authorizations"]
        return tokens

    def _own_tokens(self, want: Wanted, org: str, buckets: dict[str, str]) -> None:
        """One of each, with its rights alone, whose secret we still have; else another."""
        there, made = self._tokens(org), self._made(want.tenant_id)
        status = "active" if want.state == "active" else "inactive"
        for token in tenant.TOKENS:
            rights = permissions(token, buckets, org)
            known, hash_ = made.get(token.description, ("", None))
            secret = self._secrets.read(want.tenant_id, token)
            kept = secret is not None and sha256(secret) == hash_
            named = [t for t in there if t["description"] == token.description + MARK]
            right = [
                t
                for t in named
                if kept and t["id"] == known and _same_rights(t["permissions"], rights)
            ]
            for other in named:
                if other not in right:  # nobody has its secret, or it is of other buckets
                    self._gone(f"/api/v2/authorizations/{part(other['id'])}")
            if not right:
                self._new_token(want, org, token, rights, status)
            elif right[0]["status"] != status:
                path = f"/api/v2/authorizations/{part(known)}"
                self._http.ask("PATCH", path, {"status": status})
                self._say(want, token=token.description, status=status)
        self._secrets.write_environment(want.tenant_id)

    def _new_token(
        self, want: Wanted, org: str, token: tenant.Token, rights: list[Json], status: str
    ) -> None:
        """Shown in this one answer. Killed before its file and its row are there, the next turn
        finds one of this description that it does not know, removes it and makes another.
        """
        form = {
            "orgID": org,
            "description": token.description + MARK,
            "permissions": rights,
            "status": status,
        }
        answer = self._http.ask("POST", "/api/v2/authorizations", form)
        failpoints.hit("influxdb.token")
        self._secrets.write(want.tenant_id, token, answer["token"])
        failpoints.hit("influxdb.token_file")
        with self._database.writing(want.tenant_id) as session:
            wanted.keep(
                session,
                INFLUXDB,
                want.tenant_id,
                token.description,
                str(answer["id"]),
                want.since_ms,
                sha256(answer["token"]),
            )
            if token is tenant.READER and self._reader is not None:
                effects.add(session, self._reader.target, want.tenant_id, now_ms())
        if self._reader is not None:
            self._reader.wake()
        failpoints.hit("influxdb.token_row")
        self._say(want, token=token.description)

    def _others_tokens(self, want: Wanted, org: str) -> None:
        """Those that somebody made by hand in the tenant's organisation are its access too."""
        for token in self._tokens(org):
            description = token["description"]
            if description.endswith(MARK) or is_platforms(token):
                continue
            change = {}
            if want.state == "suspended" and token["status"] == "active":
                change = {"status": "inactive", "description": description + SUSPENDED}
            elif want.state == "active" and description.endswith(SUSPENDED):
                change = {"status": "active", "description": description.removesuffix(SUSPENDED)}
            if change:
                path = f"/api/v2/authorizations/{part(token['id'])}"
                self._http.ask("PATCH", path, change)
                self._say(want, token=description, status=change["status"])

    def _say(self, want: Wanted, **what: object) -> None:
        self._log.info("influxdb set right", tenant=want.tenant_id, **what)
