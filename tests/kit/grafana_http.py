"""A stand-in of Grafana: the parts of its HTTP API that the control plane uses.

Written from its published documentation and source, which is read and never built here; no real
Grafana has confirmed it. Stricter than the real one: a field that it does not know is refused.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tests.kit.http_api import Asked, HttpApi, Json, Refusal

USER, PASSWORD = "admin", "geheim-grafana"
_SOURCE = (
    *("name", "uid", "type", "access", "url", "isDefault", "jsonData", "secureJsonData"),
    *("basicAuth", "basicAuthUser", "database", "user", "version", "withCredentials"),
)


def _no(status: int, message: str) -> Refusal:
    return Refusal(status, {"message": message})


class Org:
    """One organisation."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.users: dict[str, str] = {}
        """Login -> role."""
        self.folders: dict[str, str] = {}
        """uid -> title."""
        self.sources: dict[str, Json] = {}
        self.secrets: dict[str, Json] = {}
        self.boards: dict[str, Json] = {}
        """uid -> dashboard as it is stored, with ``id`` and ``version``."""
        self.folder_of: dict[str, str] = {}
        self.provisioned: set[str] = set()


class StandIn(HttpApi):
    """In memory."""

    def __init__(self) -> None:
        super().__init__()
        self.orgs: dict[int, Org] = {}
        self.logins = {USER: 1}
        """Every user, and its number."""
        self._last = 0
        self._make_org("Main Org.")
        org, user = "/api/orgs/{}", "/api/orgs/{}/users/{}"
        source = "/api/datasources/uid/{}"
        for method, pattern, answer in (
            ("GET", "/api/orgs/name/{}", self._get_org),
            ("POST", "/api/orgs", self._post_org),
            ("DELETE", org, self._delete_org),
            ("GET", f"{org}/users", self._get_users),
            ("POST", f"{org}/users", self._post_user),
            ("PATCH", user, self._patch_user),
            ("DELETE", user, self._delete_user),
            ("GET", "/api/folders", self._get_folders),
            ("POST", "/api/folders", self._post_folder),
            ("GET", source, self._get_source),
            ("POST", "/api/datasources", self._post_source),
            ("PUT", source, self._put_source),
            ("DELETE", source, self._delete_source),
            ("GET", "/api/dashboards/uid/{}", self._get_board),
            ("POST", "/api/dashboards/db", self._post_board),
        ):
            self.route(method, pattern, answer)

    def section(self, folder: Path, url: str | None = None) -> Json:
        """``grafana`` of central.yaml."""
        file = folder / "grafana.pw"
        file.write_text(PASSWORD)
        return {"url": url or self.url, "password_file": str(file)}

    def org(self, name: str) -> Org | None:
        """What a test looks into."""
        return next((o for o in self.orgs.values() if o.name == name), None)

    # -- who asks ------------------------------------------------------------------------

    def authenticate(self, asked: Asked) -> None:
        """The server's administrator, by name and password."""
        whole = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {whole}":
            raise _no(401, "Invalid username or password")

    def unknown(self, asked: Asked, known_path: bool) -> tuple[int, Any]:
        """As of a wrong method, too."""
        return 404, {"message": "Not found"}

    def _within(self, asked: Asked) -> Org:
        """By X-Grafana-Org-Id. Who is no member may nothing there, the server's admin neither."""
        number = asked.headers.get("x-grafana-org-id", "1")
        org = self.orgs.get(int(number))
        if org is None or org.users.get(USER) != "Admin":
            raise _no(403, "You'll need additional permissions to perform this action.")
        return org

    @staticmethod
    def _form(asked: Asked, *known: str) -> Json:
        try:
            form = asked.body
        except ValueError:
            raise _no(400, "bad request data") from None
        if extra := set(form) - set(known):
            raise _no(400, f"stand-in: the real one passes over {sorted(extra)}")
        return dict(form)

    # -- organisations and who is in them ------------------------------------------------

    def _make_org(self, name: str) -> Org:
        self._last += 1
        org = self.orgs[self._last] = Org(self._last, name)
        org.users[USER] = "Admin"
        return org

    def _of(self, number: str) -> Org:
        org = self.orgs.get(int(number))
        if org is None:
            raise _no(404, "Organization not found")
        return org

    def _get_org(self, _asked: Asked, name: str) -> tuple[int, Any]:
        org = self.org(name)
        if org is None:
            raise _no(404, "Organization not found")
        return 200, {"id": org.number, "name": org.name, "address": {"address1": ""}}

    def _post_org(self, asked: Asked) -> tuple[int, Any]:
        name = self._form(asked, "name").get("name")
        if not name:
            raise _no(400, "bad request data")
        if self.org(name) is not None:
            raise _no(409, "Organization name taken")
        org = self._make_org(name)
        return 200, {"orgId": org.number, "message": "Organization created"}

    def _delete_org(self, _asked: Asked, number: str) -> tuple[int, Any]:
        if int(number) not in self.orgs:
            raise _no(404, "Failed to delete organization. ID not found")
        del self.orgs[int(number)]
        return 200, {"message": "Organization deleted"}

    def _get_users(self, _asked: Asked, number: str) -> tuple[int, Any]:
        return 200, [
            {"orgId": int(number), "userId": self.logins[login], "login": login, "role": role}
            for login, role in self._of(number).users.items()
        ]

    def _post_user(self, asked: Asked, number: str) -> tuple[int, Any]:
        form, org = self._form(asked, "loginOrEmail", "role"), self._of(number)
        if form["role"] not in ("Viewer", "Editor", "Admin"):
            raise _no(400, "Invalid role specified")
        if form["loginOrEmail"] not in self.logins:
            raise _no(404, "User not found")
        if form["loginOrEmail"] in org.users:
            raise _no(409, "User is already member of this organization")
        org.users[form["loginOrEmail"]] = form["role"]
        return 200, {"message": "User added to organization"}

    def _login(self, org: Org, user: str) -> str:
        found = [login for login in org.users if self.logins[login] == int(user)]
        if not found:
            raise _no(404, "User not found")
        return found[0]

    def _patch_user(self, asked: Asked, number: str, user: str) -> tuple[int, Any]:
        form, org = self._form(asked, "role"), self._of(number)
        org.users[self._login(org, user)] = form["role"]
        return 200, {"message": "Organization user updated"}

    def _delete_user(self, _asked: Asked, number: str, user: str) -> tuple[int, Any]:
        org = self._of(number)
        login = self._login(org, user)
        rest = [role for other, role in org.users.items() if other != login]
        if org.users[login] == "Admin" and "Admin" not in rest:
            raise _no(400, "Cannot remove last organization admin")
        del org.users[login]
        return 200, {"message": "User removed from organization"}

    # -- folders -------------------------------------------------------------------------

    def _get_folders(self, asked: Asked) -> tuple[int, Any]:
        folders = self._within(asked).folders
        return 200, [{"id": n, "uid": u, "title": t} for n, (u, t) in enumerate(folders.items())]

    def _post_folder(self, asked: Asked) -> tuple[int, Any]:
        org, form = self._within(asked), self._form(asked, "uid", "title")
        if not form.get("title"):
            raise _no(400, "folder title cannot be empty")
        if form["title"] in org.folders.values():
            raise _no(409, "a folder with the same name already exists in the current location")
        if form["uid"] in org.folders:
            raise _no(409, "a folder/dashboard with the same uid already exists")
        org.folders[form["uid"]] = form["title"]
        return 200, {"id": len(org.folders), **form, "version": 1}

    # -- data sources --------------------------------------------------------------------

    @staticmethod
    def _shown(source: Json, secrets: Json) -> Json:
        """A secret goes in and never comes out."""
        fields = {name: True for name, value in secrets.items() if value}
        return {**source, "secureJsonFields": fields}

    def _get_source(self, asked: Asked, uid: str) -> tuple[int, Any]:
        org = self._within(asked)
        if uid not in org.sources:
            raise _no(404, "Data source not found")
        return 200, self._shown(org.sources[uid], org.secrets[uid])

    def _post_source(self, asked: Asked) -> tuple[int, Any]:
        org, form = self._within(asked), self._form(asked, *_SOURCE)
        if not {"name", "type", "access"} <= set(form):
            raise _no(400, "bad request data")
        if any(s["name"] == form["name"] for s in org.sources.values()):
            raise _no(409, "data source with the same name already exists")
        if form["uid"] in org.sources:
            raise _no(409, "data source with the same uid already exists")
        secret = form.pop("secureJsonData", {})
        source = {"id": len(org.sources) + 1, "orgId": org.number, "version": 1, **form}
        org.sources[form["uid"]] = {**source, "readOnly": False, "basicAuth": False}
        org.secrets[form["uid"]] = secret
        shown = self._shown(org.sources[form["uid"]], secret)
        return 200, {"message": "Datasource added", "name": form["name"], "datasource": shown}

    def _changeable(self, org: Org, uid: str, verb: str) -> Json:
        if uid not in org.sources:
            raise _no(404, "Data source not found")
        if org.sources[uid]["readOnly"]:
            raise _no(403, f"Cannot {verb} read-only data source")
        return org.sources[uid]

    def _put_source(self, asked: Asked, uid: str) -> tuple[int, Any]:
        org, form = self._within(asked), self._form(asked, *_SOURCE)
        source = self._changeable(org, uid, "update")
        org.secrets[uid] |= form.pop("secureJsonData", {})
        source |= {**form, "version": source["version"] + 1}
        return 200, {"message": "Datasource updated", "name": form["name"]}

    def _delete_source(self, asked: Asked, uid: str) -> tuple[int, Any]:
        org = self._within(asked)
        self._changeable(org, uid, "delete")
        del org.sources[uid], org.secrets[uid]
        return 200, {"message": "Data source deleted"}

    # -- dashboards ----------------------------------------------------------------------

    def _get_board(self, asked: Asked, uid: str) -> tuple[int, Any]:
        org = self._within(asked)
        if uid not in org.boards:
            raise _no(404, "Dashboard not found")
        meta = {"folderUid": org.folder_of.get(uid, ""), "version": org.boards[uid]["version"]}
        return 200, {
            "dashboard": org.boards[uid],
            "meta": {**meta, **({"provisioned": True} if uid in org.provisioned else {})},
        }

    def _post_board(self, asked: Asked) -> tuple[int, Any]:
        form = self._form(asked, "dashboard", "folderUid", "overwrite", "message")
        org, board = self._within(asked), form["dashboard"]
        if not board.get("title"):
            raise _no(400, "Dashboard title cannot be empty")
        if form.get("folderUid") and form["folderUid"] not in org.folders:
            raise _no(400, "folder not found")
        uid, before = board["uid"], org.boards.get(board["uid"])
        if uid in org.provisioned:
            raise _no(400, "Cannot save provisioned dashboard")
        if before is not None and not form.get("overwrite"):
            message = "The dashboard has been changed by someone else"
            raise Refusal(412, {"message": message, "status": "version-mismatch"})
        version = before["version"] + 1 if before else 1
        # It adds what it likes: what comes back is not what was sent.
        org.boards[uid] = {
            **board,
            "id": 100 + len(org.boards),
            "version": version,
            "weekStart": "",
        }
        org.folder_of[uid] = form.get("folderUid", "")
        return 200, {"status": "success", "uid": uid, "version": version, "slug": uid}
