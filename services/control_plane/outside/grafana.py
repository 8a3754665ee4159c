"""Grafana: a tenant's organisation, its data source with the reader's token, and the dashboards.

Made through the API of Grafana's administrator, by name and password: a service account belongs to
one organisation and cannot make others. What was provisioned from files (infra/grafana) is
read-only there, and is left as it is.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

from services.control_plane.db import Database
from services.control_plane.effects import GRAFANA, INFLUXDB
from services.control_plane.outside.http import Http, Missing, part
from services.control_plane.outside.tokens import Secrets
from services.control_plane.outside.wanted import Wanted
from services.control_plane.outside.worker import HttpWorker, sha256
from services.infra import dashboards, tenant
from services.runtime import failpoints
from services.runtime import secrets as references
from services.runtime.log import Log

Json = dict[str, Any]
FOLDERS = 1_000
ADMIN = "Admin"
# In the data source's jsonData: which of InfluxDB's tokens it was given; the token itself is
# write-only there.
TOKEN_ID = "plcEdgeToken"
DASHBOARD = "dashboard:"


class GrafanaWorker(HttpWorker):
    """The thread."""

    target = GRAFANA

    def __init__(self, database: Database, config: Json, secrets: Secrets, log: Log) -> None:
        """``config`` as rendered from central.yaml's ``grafana``."""
        super().__init__(database, log)
        self._secrets = secrets
        self._user: str = config["username"]
        self._influx_url: str = config["influxdb_url"]
        self._boards = dashboards.all_dashboards()

        def credentials() -> Json:
            text = f"{self._user}:{references.resolve(config['password'])}"
            return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}

        self._http = Http("Grafana", config["url"], config["ca"], credentials)

    # -- organisations -------------------------------------------------------------------

    def find_org(self, tenant_id: str) -> str | None:
        """By its name."""
        found = self._http.find(f"/api/orgs/name/{part(tenant_id)}")
        return str(found["id"]) if found else None

    def make_org(self, tenant_id: str) -> str:
        """A new one, whose administrator is our user."""
        return str(self._http.ask("POST", "/api/orgs", {"name": tenant_id})["orgId"])

    def remove_org(self, tenant_id: str, org: str) -> None:
        """With its dashboards and members."""
        with suppress(Missing):
            self._http.ask("DELETE", f"/api/orgs/{part(org)}")

    # -- what is in one ------------------------------------------------------------------

    def furnish(self, want: Wanted, org: str) -> None:
        """Of a suspended or deleted tenant the data source goes: nobody sees data any more, and
        dashboards and people stay as they are. A deleted one's people go too.
        """
        self._members(want, org)
        if want.state != "active":
            self._no_data_source(want, org)
            return
        folder = self._folder(want, org)
        failpoints.hit("grafana.folder")
        self._data_source(want, org)
        failpoints.hit("grafana.data_source")
        self._dashboards(want, org, folder)

    def _members(self, want: Wanted, org: str) -> None:
        """Ourselves, who else can ask nothing in it: who made it by hand did not add us."""
        path = f"/api/orgs/{part(org)}/users"
        found = {user["login"]: user for user in self._http.ask("GET", path)}
        own = found.pop(self._user, None)
        if own is None:
            self._http.ask("POST", path, {"loginOrEmail": self._user, "role": ADMIN})
        elif own["role"] != ADMIN:
            self._http.ask("PATCH", f"{path}/{part(own['userId'])}", {"role": ADMIN})
        if want.state == "deleted":
            for user in found.values():
                self._http.ask("DELETE", f"{path}/{part(user['userId'])}")
                self._say(want, member="removed")

    def _folder(self, want: Wanted, org: str) -> str:
        found = self._http.ask(
            "GET", "/api/folders", query={"limit": FOLDERS}, headers=_within(org)
        )
        for folder in found:
            if folder["title"] == tenant.FOLDER:
                return str(folder["uid"])
        form = {"uid": tenant.FOLDER, "title": tenant.FOLDER}
        made = self._http.ask("POST", "/api/folders", form, headers=_within(org))
        self._say(want, folder=tenant.FOLDER)
        return str(made["uid"])

    def _data_source(self, want: Wanted, org: str) -> None:
        token = self._made(want.tenant_id, INFLUXDB).get(tenant.READER.description)
        secret = self._secrets.read(want.tenant_id, tenant.READER)
        if token is None or secret is None or sha256(secret) != token[1]:
            return  # InfluxDB's worker is at it, and asks for us again when it is there
        right = tenant.data_source(want.tenant_id, self._influx_url)
        right["jsonData"][TOKEN_ID] = token[0]
        found = self._find_data_source(org)
        if found is not None and (found["readOnly"] or _holds(found, right)):
            return
        form = {**right, "secureJsonData": {"token": secret}}
        if found is None:
            self._http.ask("POST", "/api/datasources", form, headers=_within(org))
        else:
            path = f"/api/datasources/uid/{part(tenant.DATA_SOURCE_UID)}"
            self._http.ask("PUT", path, form, headers=_within(org))
        self._say(want, data_source=right["name"])

    def _find_data_source(self, org: str) -> Json | None:
        path = f"/api/datasources/uid/{part(tenant.DATA_SOURCE_UID)}"
        found: Json | None = self._http.find(path, headers=_within(org))
        return found

    def _no_data_source(self, want: Wanted, org: str) -> None:
        found = self._find_data_source(org)
        if found is None or found["readOnly"]:
            return  # one from a file has a token of the script, which InfluxDB takes no more
        path = f"/api/datasources/uid/{part(tenant.DATA_SOURCE_UID)}"
        self._http.ask("DELETE", path, headers=_within(org))
        self._say(want, data_source="removed")

    def _dashboards(self, want: Wanted, org: str, folder: str) -> None:
        """Grafana adds to what it is given, so what is there cannot be compared with what must be:
        kept are a hash of what was sent and the version that it became.
        """
        made = self._made(want.tenant_id)
        for board in self._boards.values():
            name, hash_ = DASHBOARD + board["uid"], sha256(json.dumps(board, sort_keys=True))
            path = f"/api/dashboards/uid/{part(board['uid'])}"
            found = self._http.find(path, headers=_within(org))
            if found is not None:
                if found["meta"].get("provisioned"):
                    continue
                if made.get(name) == (str(found["dashboard"]["version"]), hash_):
                    continue
            form = {
                "dashboard": board,
                "folderUid": folder,
                "overwrite": True,
                "message": "plc-edge central",
            }
            saved = self._http.ask("POST", "/api/dashboards/db", form, headers=_within(org))
            failpoints.hit("grafana.dashboard")
            self._keep(want, name, str(saved["version"]), hash_)
            self._say(want, dashboard=board["uid"])

    def _say(self, want: Wanted, **what: object) -> None:
        self._log.info("grafana set right", tenant=want.tenant_id, **what)


def _within(org: str) -> dict[str, str]:
    """The header that says in which organisation."""
    return {"X-Grafana-Org-Id": org}


def _holds(found: Json, right: Json) -> bool:
    """Whether a data source is what it must be; whatever Grafana adds is its own business."""
    if not found.get("secureJsonFields", {}).get("token"):
        return False
    data = found.get("jsonData") or {}
    plain = {k: v for k, v in right.items() if k != "jsonData"}
    return all(found.get(k) == v for k, v in plain.items()) and all(
        data.get(k) == v for k, v in right["jsonData"].items()
    )
