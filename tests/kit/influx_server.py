"""What a test knows of an InfluxDB 2, the real one or the stand-in: what its API shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import urllib3

Json = dict[str, Any]
OPERATOR = "operator-token-of-the-test"
DAY_S, HOUR_S = 86_400, 3_600


class Reply(NamedTuple):
    """What it answered."""

    status: int
    body: Any


class Server:
    """What both are, and what a test sees through the API alone."""

    url: str
    real: bool

    def start(self) -> None:
        """Answers again, with what it held."""
        raise NotImplementedError

    def stop(self) -> None:
        """Killed."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it."""
        raise NotImplementedError

    def ask(self, method: str, path: str, body: Any = None, token: str = OPERATOR) -> Reply:
        """One request."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        response = urllib3.request(
            method,
            self.url + path,
            body=content,
            headers={"Authorization": f"Token {token}"},
            retries=False,
            timeout=20,
        )
        text = response.data.decode()
        return Reply(response.status, json.loads(text) if text.lstrip()[:1] in ("{", "[") else text)

    def org(self, name: str) -> str | None:
        """Its id."""
        found = self.ask("GET", f"/api/v2/orgs?org={name}")
        return None if found.status == 404 else str(found.body["orgs"][0]["id"])

    def retentions(self, name: str) -> dict[str, tuple[int, int]]:
        """Bucket -> (days kept, seconds of a shard group); without the system's."""
        buckets = self.ask("GET", f"/api/v2/buckets?org={name}&limit=100").body["buckets"]
        rules = {b["name"]: b["retentionRules"][0] for b in buckets if b["type"] == "user"}
        return {
            name: (r["everySeconds"] // DAY_S, r["shardGroupDurationSeconds"])
            for name, r in rules.items()
        }

    def tasks(self, name: str) -> dict[str, tuple[str, str]]:
        """Name -> (Flux, status)."""
        found = self.ask("GET", f"/api/v2/tasks?org={name}&limit=500").body["tasks"]
        return {key: (t["flux"], t["status"]) for key, t in _by(found, "name").items()}

    def tokens(self, name: str) -> dict[str, Json]:
        """Description -> token."""
        found = self.ask("GET", f"/api/v2/authorizations?org={name}").body["authorizations"]
        return _by(found, "description")

    def write(self, org: str, bucket: str, token: str) -> int:
        """The status of one point."""
        path = f"/api/v2/write?org={org}&bucket={bucket}"
        return self.ask("POST", path, b"m v=1", token).status

    def section(self, folder: Path, url: str | None = None) -> Json:
        """``influxdb`` of central.yaml."""
        file = folder / "influx.token"
        file.write_text(OPERATOR)
        return {"url": url or self.url, "token_file": str(file)}


def _by(rows: list[Json], name: str) -> dict[str, Json]:
    """By a name that two may have: the second is shown as what it is."""
    found: dict[str, Json] = {}
    for row in rows:
        key = row[name]
        while key in found:
            key += " once more"
        found[key] = row
    return found
