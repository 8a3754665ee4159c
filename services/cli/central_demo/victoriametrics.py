"""VictoriaMetrics, single node: one process a tenant, each with its own retention and password."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from services.cli.central_demo.boxes import BOXES, MEASUREMENT, Box
from services.cli.central_demo.broker import ADDRESS
from services.cli.central_demo.database import Denied, Series
from services.cli.central_demo.parts import start_listening
from services.cli.central_demo.programs import Program
from services.cli.children import Children
from services.runtime.clock import now_ms

ASK_S = 10.0


class VictoriaMetrics:
    """``ports``: the next for each tenant."""

    name = "VictoriaMetrics"
    condensing = "vmalert, recording rules"
    condensed_s = 30.0

    def __init__(self, folder: Path, program: Program, ports: dict[str, int]) -> None:
        self.program = program
        self._folder = folder / "database"
        self._ports = ports
        self._passwords = {tenant: secrets.token_urlsafe(18) for tenant in ports}

    @property
    def how(self) -> str:
        """One a tenant."""
        places = ", ".join(f"{b.tenant} ({b.raw_days} d)" for b in BOXES)
        return f"a process a tenant, each with its password and retention: {places}"

    def infra(self) -> dict[str, Any]:
        """Nothing: nobody but the boxes writes here."""
        return {}

    def start(self, children: Children, _rendered: Path) -> None:
        """Its passwords are in its environment, which other users cannot read, not in its flags."""
        for box in BOXES:
            port = self._ports[box.tenant]
            self._password_file(box.tenant)
            command = [
                self.program.path,
                f"-storageDataPath={self._folder / box.tenant}",
                f"-httpListenAddr={ADDRESS}:{port}",
                f"-retentionPeriod={box.raw_days}d",
                "-envflag.enable",
            ]
            environment = {
                "httpAuth_username": box.tenant,
                "httpAuth_password": self._passwords[box.tenant],
            }
            start_listening(children, f"database-{box.tenant}", command, port, environment)

    def _password_file(self, tenant: str) -> Path:
        file = self._folder / f"{tenant}.pw"
        self._folder.mkdir(exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(self._passwords[tenant])
        return file

    def direct(self, box: Box) -> dict[str, Any]:
        """``from: oldest``: what was read before the output's first word is there too."""
        return {
            "name": "banco", "type": "http", "format": "influx", "from": "oldest",
            "url": f"{self._url(box.tenant)}/api/v2/write",
            "username": box.tenant, "password_file": str(self._password_file(box.tenant)),
        }  # fmt: skip

    def write(self, box: Box, lines: list[str]) -> str:
        """It refuses nothing: what is too old is dropped and counted."""
        body = "\n".join(lines).encode()
        reply = self._ask(box.tenant, box.tenant, "POST", "/api/v2/write", body)
        return "" if reply.status == 204 else f"HTTP {reply.status}"

    def stored(self, box: Box, reader: str, since_ms: int) -> list[Series]:
        """Every series of the box's PLC."""
        window = {"start": since_ms / 1_000, "end": now_ms() / 1_000 + 1}
        query = urlencode({"match[]": f'{{plc_id="{box.plc}"}}', **window})
        reply = self._ask(box.tenant, reader, "GET", f"/api/v1/export?{query}")
        if reply.status != 200:
            raise Denied(f"HTTP {reply.status}")
        found = []
        for line in reply.data.splitlines():
            one = json.loads(line)
            tags = one["metric"]
            field = tags.pop("__name__").removeprefix(f"{MEASUREMENT}_")
            values = dict(zip(one["timestamps"], one["values"], strict=True))
            found.append(Series(tags, field, values))
        return found

    def _url(self, tenant: str) -> str:
        return f"http://{ADDRESS}:{self._ports[tenant]}"

    def _ask(
        self, whose: str, who: str, method: str, path: str, body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        headers = urllib3.make_headers(basic_auth=f"{who}:{self._passwords[who]}")
        return urllib3.request(
            method, self._url(whose) + path, body=body, headers=headers, timeout=ASK_S,
            retries=False,
        )  # fmt: skip
