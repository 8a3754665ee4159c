"""VictoriaMetrics as `plc-edge infra render --database victoriametrics` configures it: a process
for each retention, vmauth before them with an account per tenant, bucket and direction.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

from services.cli.central_demo.boxes import MEASUREMENT, Box
from services.cli.central_demo.broker import ADDRESS
from services.cli.central_demo.database import Series
from services.cli.central_demo.parts import wait_listening
from services.cli.central_demo.programs import Program
from services.cli.children import Children
from services.runtime.clock import now_ms
from services.runtime.errors import PlcEdgeError

ASK_S, CONDENSE_S = 10.0, 60.0
MINUTE_MS = 60_000
# Account -> the bucket that it writes.
WRITERS = {"raw": "processo_raw", "processo": "processo", "plataforma": "platform_metrics"}
# What Telegraf makes of a good message: everything, and what the minutes are made of.
OF_A_MESSAGE = ("raw", "processo")


class VictoriaMetrics:
    """``ports``: vmauth takes the next, then each store."""

    name, rendered_for = "VictoriaMetrics", "victoriametrics"
    condensing = "plc-edge infra condense"

    def __init__(
        self, folder: Path, program: Program, vmauth: Program, ports: Iterator[int]
    ) -> None:
        self.program = program
        self._vmauth = vmauth
        self._folder = folder / "database"
        self._tokens = self._folder / "tokens"
        self._ports = ports
        self._port = next(ports)
        self._urls: dict[str, str] = {}
        self._rendered = Path()

    @property
    def how(self) -> str:
        """One for each retention."""
        stores = f"{len(self._urls)} stores, one for each retention"
        return f"{stores}, behind vmauth: an account per tenant, bucket and direction"

    def infra(self) -> dict[str, Any]:
        """Where Telegraf finds it."""
        return {"victoria_url": f"http://{ADDRESS}:{self._port}"}

    def start(self, children: Children, rendered: Path) -> None:
        """The rendered settings, accounts and passwords."""
        self._rendered = rendered / "victoriametrics"
        self._folder.mkdir()
        passwords = ["bash", str(self._rendered / "passwords.sh")]
        subprocess.run(
            passwords,
            check=True,
            capture_output=True,
            env={**os.environ, "TOKENS": str(self._tokens)},
        )
        ports: dict[str, int] = {}
        for variable, url in _settings(self._rendered / "urls.env").items():
            name = re.split(r"[/:]+", url)[1]
            ports[name] = next(self._ports)
            command = [
                self.program.path, "-envflag.enable", f"-storageDataPath={self._folder / name}",
                f"-httpListenAddr={ADDRESS}:{ports[name]}",
            ]  # fmt: skip
            children.start(name, command, _settings(self._rendered / f"{name}.env"))
            self._urls[variable] = f"http://{ADDRESS}:{ports[name]}"
        command = [
            self._vmauth.path, f"-auth.config={self._rendered / 'auth.yml'}",
            f"-httpListenAddr={ADDRESS}:{self._port}",
        ]  # fmt: skip
        environment = {**self._urls, **_settings(self._tokens / "vmauth.env")}
        children.start("vmauth", command, environment)
        wait_listening(children, {**ports, "vmauth": self._port})

    def direct(self, box: Box) -> list[dict[str, Any]]:
        """An output for each bucket."""
        return [
            {
                "name": f"banco-{kind}", "type": "http", "format": "influx", "from": "oldest",
                "url": f"http://{ADDRESS}:{self._port}/write",
                "username": f"{box.tenant}-{kind}-escrita",
                "password_file": str(self._tokens / f"{box.tenant}-{kind}-escrita"),
            }
            for kind in OF_A_MESSAGE
        ]  # fmt: skip

    def telegraf(self) -> dict[str, str]:
        """Its passwords."""
        return _settings(self._tokens / "telegraf.env")

    def write(self, box: Box, lines: list[str]) -> str:
        """It refuses nothing: what is too old is dropped and counted."""
        body = "\n".join(lines).encode()
        for kind in WRITERS:
            account = f"{box.tenant}-{kind}-escrita"
            reply = self._ask("POST", "/write", account, account, body)
            if reply.status != 204:
                return f"HTTP {reply.status}"
        return ""

    def stored(self, box: Box, since_ms: int) -> list[Series]:
        """Raw values, all fields."""
        prefix = f"{MEASUREMENT}:"
        found = self._query(f'{{plc_id="{box.plc}"}}', box.tenant, WRITERS["raw"], since_ms)
        return [Series(s.tags, s.field.removeprefix(prefix), s.values) for s in found]

    def seen(self, box: Box, reader: str, since_ms: int) -> int:
        """In three buckets; that of the platform lies beside the other tenant's in one store."""
        selector = f'{{plc_id="{box.plc}"}}'
        return sum(len(self._query(selector, reader, b, since_ms)) for b in WRITERS.values())

    def condense(self) -> None:
        """What the condenser does by itself, once a minute."""
        file = str(self._rendered / "condense.json")
        command = [sys.executable, "-P", "-m", "services.cli.main", "infra", "condense", file]
        done = subprocess.run(
            [*command, "--once", "minutes"], capture_output=True, text=True, check=False,
            timeout=CONDENSE_S, env={**os.environ, **self._urls},
        )  # fmt: skip
        if done.returncode:
            raise PlcEdgeError(f"infra condense: {(done.stderr or done.stdout).strip()}")

    def minutes(self, box: Box, since_ms: int) -> dict[str, dict[int, float]]:
        """A minute's points lie in the second before it begins (services/infra/condense.py)."""
        name = re.escape(f"{MEASUREMENT}:{box.field}").replace("\\", "\\\\")
        kinds = f'{{__name__=~"{name}_(mean|min|max|last)", plc_id="{box.plc}"}}'
        found: dict[str, dict[int, float]] = {}
        for series in self._query(kinds, box.tenant, "processo_1m", since_ms - MINUTE_MS):
            by_minute = found.setdefault(series.field.rpartition("_")[2], {})
            for stamp, value in series.values.items():
                by_minute[-(-stamp // MINUTE_MS) * MINUTE_MS] = value
        return found

    def _query(self, selector: str, tenant: str, bucket: str, since_ms: int) -> list[Series]:
        """As a tenant's reader of one bucket. Raises PlcEdgeError."""
        now = now_ms() + 1_000
        asked = {"query": f"{selector}[{now - since_ms}ms]", "time": now / 1_000, "nocache": 1}
        account, secret = f"{tenant}-{bucket}-leitura", f"{tenant}-leitura"
        reply = self._ask("GET", f"/api/v1/query?{urlencode(asked)}", account, secret)
        if reply.status != 200:
            raise PlcEdgeError(f"{account} is answered HTTP {reply.status}: {reply.data[:200]!r}")
        found = []
        for one in json.loads(reply.data)["data"]["result"]:
            tags = one["metric"]
            name = tags.pop("__name__")
            values = {round(at_s * 1_000): float(value) for at_s, value in one["values"]}
            found.append(Series(tags, name, values))
        return found

    def _ask(
        self, method: str, path: str, account: str, secret: str, body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        password = (self._tokens / secret).read_text().strip()
        return urllib3.request(
            method, f"http://{ADDRESS}:{self._port}{path}", body=body, timeout=ASK_S,
            headers=urllib3.make_headers(basic_auth=f"{account}:{password}"), retries=False,
        )  # fmt: skip


def _settings(file: Path) -> dict[str, str]:
    """NAME=value, or NAME='value', of each line."""
    lines = (line.partition("=") for line in file.read_text().splitlines() if "=" in line)
    return {name: value.strip("'") for name, _, value in lines}
