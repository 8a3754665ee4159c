"""VictoriaMetrics as it is rendered: Debian's programs, a process for each store and vmauth before
them, started from the rendered files as they are, on free ports and a folder of their own.

with Victoria(files) as centre:
    centre.write("acme-raw-escrita", ["m x=1"])
    centre.read("acme-processo_raw-leitura", "/api/v1/query", {"query": "m:x"})
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import urllib3

from services.infra.render import Files, write
from tests.kit.common import free_ports, until

Params = Mapping[str, str] | Sequence[tuple[str, str]]


class Reply(NamedTuple):
    """What was answered."""

    status: int
    text: str

    @property
    def result(self) -> Any:
        """Of a query that went well."""
        assert self.status == 200, self
        return json.loads(self.text)["data"]


def program(name: str) -> str:
    """Debian's."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    assert found, f"{name} is missing: apt-get install victoria-metrics (deploy/test.sh --all does)"
    return found


def environment(file: Path) -> dict[str, str]:
    """NAME=value or NAME='value', line by line."""
    pairs = (line.partition("=") for line in file.read_text().splitlines() if line)
    return {name: value.strip("'") for name, _, value in pairs}


def force_merge(url: str, log: Path) -> None:
    """Has a store merge all it has; returns when it logs that it has done so."""
    ended = 'forced merge for partition_prefix="" has been successfully finished'
    before = log.read_text().count(ended)
    assert urllib3.request("GET", f"{url}/internal/force_merge").status == 200
    until(lambda: log.read_text().count(ended) > before, 300, "the merge does not end")


class Victoria:
    """Stores and vmauth."""

    def __init__(self, files: Files) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vm", dir="/tmp"))
        self.infra = self.folder / "infra"
        write(files, self.infra)
        rendered = self.infra / "victoriametrics"
        self.stores = [f.stem for f in sorted(rendered.glob("vm-*.env"))]
        ports = free_ports(len(self.stores) + 1)
        self.urls = dict(zip(self.stores, (f"http://127.0.0.1:{p}" for p in ports), strict=False))
        self.url = f"http://127.0.0.1:{ports[-1]}"
        told = json.loads((rendered / "condense.json").read_text())
        self.variables = {told["stores"][name]: url for name, url in self.urls.items()}
        self.tokens = self.folder / "tokens"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self.stores:
                self.start(name)
            self.passwords()
            self.start_vmauth()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def passwords(self) -> None:
        """Runs the rendered script."""
        script = self.infra / "victoriametrics" / "passwords.sh"
        env = {**os.environ, "TOKENS": str(self.tokens)}
        done = subprocess.run([script], env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def start(self, name: str) -> None:
        """One store; returns when it answers."""
        env = environment(self.infra / "victoriametrics" / f"{name}.env")
        address = self.urls[name].removeprefix("http://")
        flags = ["-envflag.enable", f"-storageDataPath={self.folder / name}"]
        flags += [f"-httpListenAddr={address}", "-memory.allowedBytes=64MB"]
        self._run(name, [program("victoria-metrics"), *flags], env)
        self._answers(name, self.urls[name])

    def start_vmauth(self) -> None:
        """Returns when it answers."""
        config = self.infra / "victoriametrics" / "auth.yml"
        address = self.url.removeprefix("http://")
        flags = ["-envflag.enable", f"-auth.config={config}", f"-httpListenAddr={address}"]
        env = {**environment(self.tokens / "vmauth.env"), **self.variables}
        self._run("vmauth", [program("vmauth"), *flags], env)
        self._answers("vmauth", self.url)

    def _run(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        with self.log_file(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env={**os.environ, **env}, stdout=log, stderr=log, cwd=self.folder
            )

    def _answers(self, name: str, url: str) -> None:
        def well() -> bool:
            assert self.processes[name].poll() is None, self.log(name)
            return self._send("GET", f"{url}/health", None, {}).status == 200

        until(well, 30, lambda: self.log(name))

    def log(self, name: str) -> str:
        """Its last words."""
        return self.log_file(name).read_text()[-3_000:]

    def log_file(self, name: str) -> Path:
        """Where it logs."""
        return self.folder / f"{name}.log"

    def kill(self, name: str) -> None:
        """``kill -9``."""
        self.processes[name].kill()
        self.processes[name].wait(10)

    def close(self) -> None:
        """Ends all."""
        for process in self.processes.values():
            process.kill()
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- as a user of vmauth ------------------------------------------------------------------

    def password(self, account: str) -> str:
        """Of one account: a tenant's reader has one for all of its buckets."""
        tenant = account.split("-")[0]
        file = f"{tenant}-leitura" if account.endswith("-leitura") else account
        return (self.tokens / file).read_text()

    def ask(
        self,
        account: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        form: Params | None = None,
        password: str | None = None,
    ) -> Reply:
        """One request; ``path`` goes as it is, query and all."""
        secret = self.password(account) if password is None else password
        headers = urllib3.make_headers(basic_auth=f"{account}:{secret}")
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(
                list(form.items()) if isinstance(form, Mapping) else list(form)
            ).encode()
        return self._send(method, self.url + path, body, headers)

    def write(self, account: str, lines: Sequence[str], query: str = "") -> Reply:
        """As Telegraf's InfluxDB output does."""
        return self.ask(account, "POST", f"/write{query}", "\n".join(lines).encode())

    def read(self, account: str, path: str, params: Params) -> Reply:
        """As Grafana does. Again where the answer is cut: on a busy machine vmauth has once ended
        one in the middle of a number with status 200, and as if it were whole.
        """
        for _ in range(3):
            reply = self.ask(account, "POST", path, form=params)
            if reply.status != 200 or reply.text.endswith("}"):
                break
        return reply

    # -- past vmauth ---------------------------------------------------------------------------

    def store(self, name: str, path: str, body: bytes | None = None) -> Reply:
        """One store, as only vmauth and the condenser reach it."""
        return self._send("POST" if body is not None else "GET", self.urls[name] + path, body, {})

    def settle(self) -> None:
        """What was written can be read."""
        for name in self.stores:
            assert self.store(name, "/internal/force_flush").status == 200

    def held(self, name: str) -> list[dict[str, Any]]:
        """Every series of a store, with all its points."""
        # Without an end it is the last whole second.
        end_s = int(time.time()) + 3_600
        text = self.store(name, f'/api/v1/export?match[]={{__name__!=""}}&start=0&end={end_s}').text
        return [json.loads(line) for line in text.splitlines()]

    @staticmethod
    def _send(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        address, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(address, timeout=30)
        try:
            # Nothing of the path is made tidy on the way: some are meant to be odd.
            connection.request(method, f"/{path}", body, dict(headers))
            response = connection.getresponse()
            return Reply(response.status, response.read().decode(errors="replace"))
        finally:
            connection.close()
