"""A control plane for a test: its database made, its process running, and a caller of its API.

with Centre("sqlite") as centre:
    status, tenant, _ = centre.call("POST", "/v1/tenants", {"id": "acme"})
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import urllib3
import yaml

from services.control_plane import audit, first
from services.control_plane.db import Database
from services.control_plane.fleet import ca
from services.runtime import central_config
from tests.kit import postgres
from tests.kit.common import ROOT, free_port
from tests.kit.pki import Ca
from tests.kit.procs import Service

DATABASES = ("sqlite", "postgresql")
PLC_EDGE = [sys.executable, "-P", "-m", "services.cli.main"]
BOX_CONFIG = """\
site: {site}
locatario: {tenant}
plcs:
  - id: {plc}
    host: 192.168.0.10
    groups:
      - name: g1
        scan: {scan}
        fields: [{{name: a, address: "DB1.DBW0:INT"}}, {{name: b, address: "M10.3"}}]
"""


class Reply(NamedTuple):
    """What the API answered."""

    status: int
    body: Any
    headers: urllib3.HTTPHeaderDict


class Centre:
    """One control plane with an operator."""

    def __init__(
        self,
        database: str = "sqlite",
        broker: dict[str, Any] | None = None,
        more: Callable[[Path, str], dict[str, Any]] | dict[str, Any] | None = None,
        *,
        tls: bool = False,
        alerts: bool = False,
    ) -> None:
        """``broker`` as central.yaml has it; ``more`` is further sections of it, or makes them from
        the folder and the address; with ``tls`` its own certificate is of ``ca_file``. With
        ``alerts``, its process is the test's to run.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="pec", dir="/tmp"))
        self.port = free_port()
        url = "sqlite:///central.db"
        if database == "postgresql":
            url = postgres.cluster().create()
        self.file = self.folder / "central.yaml"
        listen: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "tls": False}
        self.ca_file: Path | None = None
        if tls:
            authority = Ca(self.folder, "api-ca")
            cert, key = authority.issue("localhost")
            listen["tls"], self.ca_file = {"cert": cert, "key": key}, authority.file
        content: dict[str, Any] = {
            "listen": listen,
            "database": url,
            **({"broker": broker} if broker else {}),
        }
        content |= {"alerts": True, "alert_receivers": "any"} if alerts else {}
        content |= more(self.folder, self.url) if callable(more) else more or {}
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))
        self.reload()
        self.config.runtime.mkdir(mode=0o700, parents=True)
        self.chain = audit.Chain(audit.make_key(self.config.state))
        ca.make(self.config.state)
        self.database = Database(self.config.database)
        made = first.prepare(self.database, self.chain, another_key=False)
        assert made.api_key is not None
        self.key: str = made.api_key
        self._pool = self.pool()
        self.service: Service | None = None

    def pool(self, cert: str | None = None, key: str | None = None) -> urllib3.PoolManager:
        """Connections of one caller, who may show a certificate (PEM files)."""
        files = {"ca_certs": self.ca_file, "cert_file": cert, "key_file": key}
        given = {name: str(file) for name, file in files.items() if file is not None}
        return urllib3.PoolManager(timeout=70, retries=False, maxsize=16, **given)  # type: ignore[arg-type]

    def reload(self) -> None:
        """Takes up an edited configuration."""
        self.config = central_config.load(self.file, {})

    def take_over(self) -> None:
        """After a restore: the audit's key that lies there now, and an operator's key for us."""
        self.chain = audit.Chain(audit.load_key(self.config.state))
        made = first.prepare(self.database, self.chain, another_key=True)
        assert made.api_key is not None
        self.key = made.api_key

    def start(self) -> None:
        """Starts the process; returns when it serves."""
        self.service = Service(central_config.render(self.config)["control_plane"])
        self.service.wait_ready(60)  # it imports 60 MB, beside whatever else runs

    def kill(self) -> None:
        """``kill -9``."""
        assert self.service is not None
        self.service.kill()

    @property
    def url(self) -> str:
        """Of the API."""
        if self.ca_file is not None:
            return f"https://localhost:{self.port}"
        return f"http://127.0.0.1:{self.port}"

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request with the operator's key, or another."""
        given = {"authorization": f"Bearer {key or self.key}", **(headers or {})}
        content = body if isinstance(body, bytes) else json.dumps(body)
        if body is not None:
            given.setdefault("content-type", "application/json")
        response = self._pool.request(
            method, self.url + path, body=None if body is None else content, headers=given
        )
        kind = response.headers.get("content-type", "")
        document = json.loads(response.data) if "json" in kind else response.data
        return Reply(response.status, document, response.headers)

    def make(self, path: str, body: Any, key: str | None = None) -> Any:
        """A POST that must succeed; the document."""
        reply = self.call("POST", path, body, key)
        assert reply.status in (200, 201), reply
        return reply.body

    def tenant(self, tenant: str, plan: str = "pro") -> dict[str, str]:
        """A tenant with a box ``caixa-1`` and a PLC ``clp-1``, and a key of each role."""
        self.make("/v1/tenants", {"id": tenant, "plan": plan})
        base = f"/v1/tenants/{tenant}"
        self.make(f"{base}/sites", {"id": "caixa-1"})
        self.make(f"{base}/devices", {"id": "clp-1", "site": "caixa-1"})
        keys = {}
        for role in ("admin", "reader", "box"):
            form = {"role": role, **({"site": "caixa-1"} if role == "box" else {})}
            keys[role] = self.make(f"{base}/credentials", form)["secret"]
        return keys

    def cli(
        self, *words: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One ``plc-edge central`` command with the operator's key."""
        own = {"PLC_EDGE_CENTRAL_URL": self.url, "PLC_EDGE_CENTRAL_KEY": self.key}
        path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "COLUMNS": "200"}
        return subprocess.run(
            [*PLC_EDGE, "central", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env={**path, **own, **(env or {})},
        )

    def faults(self) -> list[str]:
        """What is wrong with the audit."""
        with self.database.reading(None) as session:
            return list(self.chain.faults(session))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.service is not None:
            if error is not None:
                sys.stderr.write(self.service.stderr())
            self.service.end()
        self.database.close()
        shutil.rmtree(self.folder, ignore_errors=True)
