"""A control plane with an InfluxDB and a Grafana, faults between them at will, and what must be
there in the end.

with Outside("sqlite") as outside:
    outside.centre.make("/v1/tenants", {"id": "acme", "plan": "pro"})
    outside.settled()
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

from services.control_plane.outside.grafana import TOKEN_ID
from services.control_plane.outside.influxdb import MARK
from services.infra import dashboards, tenant
from tests.kit.centre import Centre
from tests.kit.common import until
from tests.kit.grafana_http import USER, StandIn
from tests.kit.http_faults import HttpFaults
from tests.kit.influx_real import influx

DAYS = {"free": 3, "pro": 7, "enterprise": 30}


class Outside:
    """All of it, running."""

    def __init__(self, database: str = "sqlite", start: bool = True) -> None:
        self._stack = contextlib.ExitStack()
        enter = self._stack.enter_context
        self.folder = Path(tempfile.mkdtemp(prefix="peo", dir="/tmp"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.influx = enter(influx())
        self.grafana = enter(StandIn())
        self.influx_way = enter(HttpFaults(self.influx.url))
        self.grafana_way = enter(HttpFaults(self.grafana.url))
        sections = {
            "influxdb": self.influx.section(self.folder, self.influx_way.url),
            "grafana": self.grafana.section(self.folder, self.grafana_way.url),
        }
        self.centre = Centre(database, more=sections)
        if start:
            self.start()

    def start(self) -> None:
        """Starts the control plane."""
        self._stack.enter_context(self.centre)

    @property
    def state(self) -> Path:
        """The control plane's."""
        return self.centre.config.state

    def effects(self) -> list[dict[str, Any]]:
        """What waits."""
        items: list[dict[str, Any]] = self.centre.call("GET", "/v1/effects").body["items"]
        return items

    def settled(self, timeout_s: float = 30.0) -> None:
        """Until nothing waits any more."""

        def why() -> str:
            assert self.centre.service is not None
            return f"{self.effects()}\n{self.centre.service.stderr()[-3_000:]}"

        until(lambda: not self.effects(), timeout_s, why)

    def secret(self, tenant_id: str, kind: str) -> str | None:
        """Of a token, as its file has it."""
        file = self.state / "tokens" / f"{tenant_id}-{kind}"
        return file.read_text() if file.exists() else None

    # -- what is there -------------------------------------------------------------------

    def found(self, tenant_id: str) -> dict[str, Any] | None:
        """Everything outside of one tenant that must not hang on how it came about."""
        org, board_org = self.influx.org(tenant_id), self.grafana.org(tenant_id)
        if org is None and board_org is None:
            return None
        assert org is not None
        assert board_org is not None
        tokens = {
            description.removesuffix(MARK): (token["status"], _rights(token))
            for description, token in self.influx.tokens(tenant_id).items()
        }
        source = board_org.sources.get(tenant.DATA_SOURCE_UID)
        secrets = board_org.secrets.get(tenant.DATA_SOURCE_UID)
        reader = self.influx.tokens(tenant_id).get(tenant.READER.description + MARK)
        files = {f.name for f in (self.state / "tokens").iterdir() if self._is_of(f, tenant_id)}
        return {
            "retentions": self.influx.retentions(tenant_id),
            "tasks": self.influx.tasks(tenant_id),
            "tokens": tokens,
            "secrets": sorted(files),
            "telegraf": (self.state / "telegraf" / f"{tenant_id}.env").exists(),
            "written": {token.bucket: self._write(tenant_id, token) for token in tenant.WRITERS},
            "source": None
            if source is None
            else {k: source[k] for k in ("name", "type", "url", "isDefault")},
            "source_is_right": source is None
            or (
                secrets == {"token": self.secret(tenant_id, "leitura")}
                and reader is not None
                and source["jsonData"][TOKEN_ID] == reader["id"]
            ),
            "boards": sorted(board_org.boards),
            "folders": list(board_org.folders.values()),
            "members": dict(board_org.users),
        }

    @staticmethod
    def _is_of(file: Path, tenant_id: str) -> bool:
        return file.name in {token.file(tenant_id) for token in tenant.TOKENS}

    def _write(self, tenant_id: str, token: tenant.Token) -> int | None:
        secret = self.secret(tenant_id, token.kind)
        if secret is None:
            return None
        return self.influx.write(tenant_id, str(token.bucket), secret)

    def expected(self, tenant_id: str, plan: str, state: str = "active") -> dict[str, Any]:
        """What an undisturbed run ends with, of a tenant without configurations."""
        days = DAYS[plan]
        active, gone = state == "active", state == "deleted"
        task = "inactive" if gone else "active"
        written = None if gone else 204 if active else 403
        everything = [b.name for b in tenant.buckets(days)]
        reads = sorted(("read", name) for name in everything)
        rights = {t.description: [("write", str(t.bucket))] for t in tenant.WRITERS}
        rights[tenant.READER.description] = reads
        status = "active" if active else "inactive"
        return {
            "retentions": {
                b.name: (b.days, 7 * 86_400 if b.days >= 180 else 86_400)
                for b in tenant.buckets(days)
            },
            "tasks": {t.name: (t.flux, task) for t in tenant.tasks([], [], days)},
            "tokens": {} if gone else {name: (status, r) for name, r in rights.items()},
            "secrets": [] if gone else sorted(t.file(tenant_id) for t in tenant.TOKENS),
            "telegraf": not gone,
            "written": {t.bucket: written for t in tenant.WRITERS},
            "source": {
                "name": f"InfluxDB {tenant_id}",
                "type": "influxdb",
                "url": self.influx_way.url,
                "isDefault": True,
            }
            if active
            else None,
            "source_is_right": True,
            "boards": sorted(b["uid"] for b in dashboards.all_dashboards().values()),
            "folders": [tenant.FOLDER],
            "members": {USER: "Admin"},
        }

    def close(self) -> None:
        """Ends it."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stack.__exit__(kind, error, trace)


def _rights(token: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((p["action"], p["resource"].get("name", "")) for p in token["permissions"])
