"""A stand-in of InfluxDB 2: the parts used, which answer as 2.9.1 was seen to.

tests/process/control_plane/test_influxdb.py asks it and the real one the same.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from tests.kit.http_api import Asked, HttpApi, Refusal
from tests.kit.influx_server import DAY_S, HOUR_S, OPERATOR, Json, Server

_TYPES = {"authorizations", "buckets", "orgs", "tasks", "users", "dashboards", "variables"}
_OPTION = re.compile(
    r'option task = \{name: "([^"]+)", (every|cron): "?([^,"}]+)"?(?:, offset: (\w+))?\}'
)


def _error(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, {"code": code, "message": message})


def _new_id() -> str:
    return secrets.token_hex(8)


def _an_id(text: Any, where: str = "") -> str:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{16}", text):
        message = "id must have a length of 16 bytes"
        raise _error(400, "invalid", f"{where}{message}")
    return text


class StandIn(HttpApi, Server):
    """In memory. Stricter than the real one in this alone: a field or parameter that it does not
    know is refused, where the real one passes over it, and over the mistake of who sent it.
    """

    real = False

    def __init__(self) -> None:
        self.orgs: dict[str, Json] = {}
        self.buckets: dict[str, Json] = {}
        self.all_tasks: dict[str, Json] = {}
        self.auths: dict[str, Json] = {}
        super().__init__()
        self._user = _new_id()
        everything = [
            {"action": action, "resource": {"type": kind}}
            for kind in sorted(_TYPES)
            for action in ("read", "write")
        ]
        org = self._make_org("plataforma", "")
        self._make_auth(org["id"], "operador's Token", everything, "active", OPERATOR)
        self._make_bucket(org["id"], "platform_metrics", [])
        for method, pattern, answer in (
            ("GET", "/health", lambda _: (200, {"status": "pass"})),
            ("GET", "/api/v2/orgs", self._get_orgs),
            ("POST", "/api/v2/orgs", self._post_org),
            ("DELETE", "/api/v2/orgs/{}", self._delete_org),
            ("GET", "/api/v2/buckets", self._get_buckets),
            ("POST", "/api/v2/buckets", self._post_bucket),
            ("PATCH", "/api/v2/buckets/{}", self._patch_bucket),
            ("DELETE", "/api/v2/buckets/{}", self._delete_bucket),
            ("GET", "/api/v2/tasks", self._get_tasks),
            ("POST", "/api/v2/tasks", self._post_task),
            ("PATCH", "/api/v2/tasks/{}", self._patch_task),
            ("DELETE", "/api/v2/tasks/{}", self._delete_task),
            ("GET", "/api/v2/authorizations", self._get_auths),
            ("POST", "/api/v2/authorizations", self._post_auth),
            ("PATCH", "/api/v2/authorizations/{}", self._patch_auth),
            ("DELETE", "/api/v2/authorizations/{}", self._delete_auth),
            ("POST", "/api/v2/write", self._write),
        ):
            self.route(method, pattern, answer)

    # -- who asks ------------------------------------------------------------------------

    def authenticate(self, asked: Asked) -> None:
        """By token; a token whose organisation is gone still is one."""
        if asked.path == "/health":
            return
        given = asked.headers.get("authorization", "").removeprefix("Token ")
        found = [a for a in self.auths.values() if a["token"] == given]
        if not given or not found:
            raise _error(401, "unauthorized", "unauthorized access")
        self._who = found[0]

    def unknown(self, asked: Asked, known_path: bool) -> tuple[int, Any]:
        """Its own words."""
        if known_path:
            return 405, None
        return 404, {"code": "not found", "message": "path not found"}

    def _may(self, action: str, kind: str, org: str | None = None, id_: str | None = None) -> bool:
        if self._who["status"] != "active":
            return False
        for one in self._who["permissions"]:
            resource = one["resource"]
            if one["action"] != action or resource["type"] != kind:
                continue
            if "orgID" not in resource and "id" not in resource:
                return True
            if "id" in resource and resource["id"] == id_:
                return True
            if "id" not in resource and resource.get("orgID") == org:
                return True
        return False

    def _must(self, action: str, kind: str, org: str | None = None, id_: str | None = None) -> None:
        if not self._may(action, kind, org, id_):
            what = f"orgs/{org}/{kind}" if org else kind
            raise _error(401, "unauthorized", f"{action}:{what} is unauthorized")

    @staticmethod
    def _form(asked: Asked, *known: str) -> Json:
        try:
            form = asked.body
        except ValueError:
            raise _error(400, "invalid", "failed to unmarshal json: unexpected EOF") from None
        if extra := set(form) - set(known):
            raise _error(400, "invalid", f"stand-in: the real one passes over {sorted(extra)}")
        return dict(form)

    @staticmethod
    def _query(asked: Asked, *known: str) -> dict[str, str]:
        if extra := set(asked.query) - set(known):
            raise _error(400, "invalid", f"stand-in: the real one passes over {sorted(extra)}")
        return asked.query

    @staticmethod
    def _limit(query: dict[str, str], most: int, default: int, words: str = "") -> int:
        limit = int(query.get("limit", default))
        if not 1 <= limit <= most:
            raise _error(400, "invalid", f"{words}limit must be between 1 and {most}")
        return limit

    # -- organisations -------------------------------------------------------------------

    def _named(self, name: str) -> Json:
        for org in self.orgs.values():
            if org["name"] == name:
                return org
        raise _error(404, "not found", f'organization name "{name}" not found')

    def _make_org(self, name: str, description: str) -> Json:
        org = {"id": _new_id(), "name": name, "description": description}
        self.orgs[org["id"]] = org
        for system, days in (("_tasks", 3), ("_monitoring", 7)):
            self._make_bucket(org["id"], system, [{"everySeconds": days * DAY_S}], "system")
        return org

    def _get_orgs(self, asked: Asked) -> tuple[int, Any]:
        query = self._query(asked, "org", "limit", "offset")
        if "org" in query:
            org = self._named(query["org"])
            self._must("read", "orgs", id_=org["id"])
            return 200, {"orgs": [org]}
        limit, offset = self._limit(query, 100, 20), int(query.get("offset", 0))
        seen = [o for o in self.orgs.values() if self._may("read", "orgs", id_=o["id"])]
        return 200, {"orgs": seen[offset : offset + limit]}

    def _post_org(self, asked: Asked) -> tuple[int, Any]:
        form = self._form(asked, "name", "description")
        self._must("write", "orgs")
        name = form.get("name", "")
        if not name:
            raise _error(400, "invalid", "org name is empty")
        if any(o["name"] == name for o in self.orgs.values()):
            raise _error(422, "conflict", f"organization with name {name} already exists")
        return 201, self._make_org(name, form.get("description", ""))

    def _delete_org(self, asked: Asked, org: str) -> tuple[int, Any]:
        """Tokens stay behind, and are not listed any more."""
        _an_id(org)
        self._must("write", "orgs", id_=org)
        if org not in self.orgs:
            message = f"error deleting organization id: {org}: organization not found"
            raise _error(404, "not found", message)
        del self.orgs[org]
        for table in (self.buckets, self.all_tasks):
            for id_ in [i for i, row in table.items() if row["orgID"] == org]:
                del table[id_]
        return 204, None

    # -- buckets -------------------------------------------------------------------------

    def _make_bucket(self, org: str, name: str, rules: list[Json], kind: str = "user") -> Json:
        every = rules[0]["everySeconds"] if rules else 0
        shard = rules[0].get("shardGroupDurationSeconds", 0) if rules else 0
        if not shard:
            shard = 7 * DAY_S if every >= 180 * DAY_S or not every else DAY_S
            shard = shard if every >= 2 * DAY_S or not every else HOUR_S
        if every and every < HOUR_S:
            message = "retention policy duration must be at least 1h0m0s"
            raise _error(500, "internal error", message)
        bucket: Json = {
            "id": _new_id(),
            "orgID": org,
            "type": kind,
            "name": name,
            "retentionRules": [
                {"type": "expire", "everySeconds": every, "shardGroupDurationSeconds": shard}
            ],
        }
        self.buckets[bucket["id"]] = bucket
        return bucket

    def _rules(self, form: Json) -> list[Json]:
        rules: list[Json] = form.get("retentionRules", [])
        if len(rules) > 1:
            message = "buckets cannot have more than one retention rule at this time"
            raise _error(422, "unprocessable entity", message)
        for rule in rules:
            if set(rule) - {"type", "everySeconds", "shardGroupDurationSeconds"}:
                raise _error(400, "invalid", f"stand-in: the real one passes over some of {rule}")
            if rule.get("everySeconds", 0) < 0:
                message = "expiration seconds cannot be negative"
                raise _error(422, "unprocessable entity", message)
        return rules

    def _get_buckets(self, asked: Asked) -> tuple[int, Any]:
        query = self._query(asked, "org", "orgID", "limit", "offset")
        limit, offset = self._limit(query, 100, 20), int(query.get("offset", 0))
        org = self._named(query["org"])["id"] if "org" in query else query.get("orgID")
        seen = [
            b
            for b in sorted(self.buckets.values(), key=lambda b: str(b["name"]))
            if org in (None, b["orgID"]) and self._may("read", "buckets", b["orgID"], b["id"])
        ]
        return 200, {"buckets": seen[offset : offset + limit]}

    def _post_bucket(self, asked: Asked) -> tuple[int, Any]:
        form = self._form(asked, "orgID", "name", "description", "retentionRules")
        if "orgID" not in form:
            raise _error(400, "invalid", "organization id must be provided")
        org, name = _an_id(form["orgID"], "failed to unmarshal json: "), form.get("name", "")
        rules = self._rules(form)
        self._must("write", "buckets", org)
        if name.startswith("_"):
            message = f"bucket name {name} is invalid. Buckets may not start with underscore"
            raise _error(400, "invalid", message)
        if org not in self.orgs:
            raise _error(404, "not found", "organization not found")
        if any(b["orgID"] == org and b["name"] == name for b in self.buckets.values()):
            raise _error(422, "conflict", f"bucket with name {name} already exists")
        return 201, self._make_bucket(org, name, rules)

    def _bucket(self, id_: str) -> Json:
        if _an_id(id_) not in self.buckets:
            raise _error(404, "not found", "bucket not found")
        return self.buckets[id_]

    def _patch_bucket(self, asked: Asked, id_: str) -> tuple[int, Any]:
        form = self._form(asked, "name", "description", "retentionRules")
        rules, bucket = self._rules(form), self._bucket(id_)
        self._must("write", "buckets", bucket["orgID"], id_)
        if rules:
            now = bucket["retentionRules"][0]
            every = rules[0].get("everySeconds", now["everySeconds"])
            shard = rules[0].get("shardGroupDurationSeconds", now["shardGroupDurationSeconds"])
            if every and every < HOUR_S:
                message = "retention policy duration must be at least 1h0m0s"
                raise _error(500, "internal error", message)
            if every and every < shard:
                message = (
                    "shard-group duration must also be updated to be smaller than new retention"
                    " duration"
                )
                raise _error(422, "unprocessable entity", message)
            now |= {"everySeconds": every, "shardGroupDurationSeconds": shard}
        return 200, bucket

    def _delete_bucket(self, asked: Asked, id_: str) -> tuple[int, Any]:
        bucket = self._bucket(id_)
        self._must("write", "buckets", bucket["orgID"], id_)
        del self.buckets[id_]
        return 204, None

    # -- tasks ---------------------------------------------------------------------------

    def _get_tasks(self, asked: Asked) -> tuple[int, Any]:
        query = self._query(asked, "org", "orgID", "limit", "after", "name")
        limit = self._limit(query, 500, 100, "failed to decode request: ")
        org = self._named(query["org"])["id"] if "org" in query else query.get("orgID")
        seen = [
            t
            for t in self.all_tasks.values()
            if org in (None, t["orgID"])
            and query.get("name", t["name"]) == t["name"]
            and self._may("read", "tasks", t["orgID"], t["id"])
        ]
        return 200, {"tasks": seen[:limit]}

    @staticmethod
    def _options(flux: str) -> Json:
        match = _OPTION.search(flux)
        if match is None:
            raise _error(400, "invalid", "invalid options: no task options defined")
        name, how, value, offset = match.groups()
        return {"name": name, how: value, **({"offset": offset} if offset else {})}

    @staticmethod
    def _status(form: Json) -> str:
        status = form.get("status", "active")
        if status not in ("active", "inactive"):
            message = f'failed to decode request: invalid task status: "{status}"'
            raise _error(400, "invalid", message)
        return str(status)

    def _post_task(self, asked: Asked) -> tuple[int, Any]:
        """Two may have one name."""
        form = self._form(asked, "orgID", "org", "flux", "status", "description")
        if not form.get("flux"):
            raise _error(400, "invalid", "failed to decode request: missing flux")
        if "orgID" not in form and "org" not in form:
            raise _error(400, "invalid", "failed to decode request: missing orgID and org")
        status, org = self._status(form), form.get("orgID", "")
        self._must("write", "tasks", org)
        if org not in self.orgs:
            raise _error(
                404, "not found", "could not identify organization: organization not found"
            )
        task = {
            "id": _new_id(),
            "orgID": org,
            "flux": form["flux"],
            "status": status,
            **self._options(form["flux"]),
        }
        self.all_tasks[task["id"]] = task
        return 201, task

    def _task(self, id_: str, verb: str) -> Json:
        if _an_id(id_) not in self.all_tasks:
            raise _error(404, "not found", f"failed to {verb} task: task not found")
        return self.all_tasks[id_]

    def _patch_task(self, asked: Asked, id_: str) -> tuple[int, Any]:
        form = self._form(asked, "flux", "status", "description")
        if not form:
            message = "failed to decode request: cannot update task without content"
            raise _error(400, "invalid", message)
        status, task = self._status(form), self._task(id_, "update")
        self._must("write", "tasks", task["orgID"], id_)
        if "flux" in form:
            task |= {"flux": form["flux"], **self._options(form["flux"])}
        if "status" in form:
            task["status"] = status
        return 200, task

    def _delete_task(self, asked: Asked, id_: str) -> tuple[int, Any]:
        task = self._task(id_, "delete")
        self._must("write", "tasks", task["orgID"], id_)
        del self.all_tasks[id_]
        return 204, None

    # -- tokens --------------------------------------------------------------------------

    def _make_auth(
        self, org: str, description: str, rights: list[Json], status: str, token: str
    ) -> Json:
        auth: Json = {
            "id": _new_id(),
            "token": token,
            "status": status,
            "description": description,
            "orgID": org,
            "permissions": rights,
        }
        self.auths[auth["id"]] = auth
        return auth

    def _shown(self, auth: Json) -> Json:
        """From 2.9 on the token itself is in the answer that makes it alone."""
        rights = []
        for one in auth["permissions"]:
            bucket = self.buckets.get(one["resource"].get("id", ""))
            named = {"name": bucket["name"]} if bucket else {}
            rights.append({**one, "resource": {**one["resource"], **named}})
        org = self.orgs[auth["orgID"]]["name"]
        return {**auth, "token": "", "org": org, "permissions": rights}

    def _get_auths(self, asked: Asked) -> tuple[int, Any]:
        query = self._query(asked, "org", "orgID")
        org = self._named(query["org"])["id"] if "org" in query else query.get("orgID")
        seen = [
            self._shown(a)
            for a in self.auths.values()
            if org in (None, a["orgID"])
            and a["orgID"] in self.orgs
            and self._may("read", "authorizations", a["orgID"], a["id"])
        ]
        return 200, {"authorizations": seen}

    def _post_auth(self, asked: Asked) -> tuple[int, Any]:
        """Two may have one description."""
        form = self._form(asked, "orgID", "status", "description", "permissions")
        rights = form.get("permissions") or []
        if not rights:
            raise _error(400, "invalid", "authorization must include permissions")
        for one in rights:
            kinds = "invalid resource type for permission: unknown resource type for permission"
            if one["resource"]["type"] not in _TYPES:
                raise _error(400, "invalid", kinds)
            if one["action"] not in ("read", "write"):
                message = "invalid action type for permission: unknown action for permission"
                raise _error(400, "invalid", message)
        if "orgID" not in form:
            raise _error(400, "invalid", "org id required: invalid ID")
        org = _an_id(form["orgID"])
        self._must("write", "authorizations", org)
        foreign = [o for one in rights if (o := one["resource"].get("orgID")) not in (None, org)]
        if foreign:
            raise _error(400, "invalid", f"permission is not for org id {org}")
        if org not in self.orgs:
            raise _error(400, "invalid", "unable to create token")
        token = secrets.token_urlsafe(64)
        auth = self._make_auth(
            org, form.get("description", ""), rights, self._auth_status(form), token
        )
        return 201, {**self._shown(auth), "token": token}

    @staticmethod
    def _auth_status(form: Json) -> str:
        status = form.get("status", "active")
        if status not in ("active", "inactive"):
            raise _error(400, "invalid", "encodeAuthorization: unknown authorization status")
        return str(status)

    def _auth(self, id_: str) -> Json:
        if _an_id(id_) not in self.auths:
            raise _error(404, "not found", "authorization not found")
        return self.auths[id_]

    def _patch_auth(self, asked: Asked, id_: str) -> tuple[int, Any]:
        form = self._form(asked, "status", "description")
        auth = self._auth(id_)
        self._must("write", "authorizations", auth["orgID"], id_)
        self._auth_status(form)
        auth |= form
        return 200, self._shown(auth)

    def _delete_auth(self, asked: Asked, id_: str) -> tuple[int, Any]:
        auth = self._auth(id_)
        self._must("write", "authorizations", auth["orgID"], id_)
        del self.auths[id_]
        return 204, None

    # -- points --------------------------------------------------------------------------

    def _write(self, asked: Asked) -> tuple[int, Any]:
        query = self._query(asked, "org", "bucket", "precision")
        org = self._named(query["org"])["id"]
        found = [
            b for b in self.buckets.values() if (b["orgID"], b["name"]) == (org, query["bucket"])
        ]
        if not found:
            raise _error(404, "not found", f'bucket "{query["bucket"]}" not found')
        if self._who["status"] != "active":
            message = "insufficient permissions for write: token is inactive"
            raise _error(403, "forbidden", message)
        if not self._may("write", "buckets", org, found[0]["id"]):
            raise _error(403, "forbidden", "insufficient permissions for write")
        return 204, None
