"""The real InfluxDB 2, where there is a program of it; else the stand-in.

with influx() as server:
    server.ask("POST", "/api/v2/orgs", {"name": "acme"})
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.kit.common import free_port, until
from tests.kit.influx_server import OPERATOR, Server
from tests.kit.influx_v2 import StandIn


def binary() -> str | None:
    """``PLC_EDGE_INFLUXD``, or ``influxd`` on PATH; None where neither is version 2."""
    found = os.environ.get("PLC_EDGE_INFLUXD") or shutil.which("influxd")
    if found is None:
        return None
    said = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout
    return found if re.search(r"InfluxDB (v?2\.|dev)", said) else None


class RealInflux(Server):
    """The real one, on a folder of its own."""

    real = True

    def __init__(self, program: str) -> None:
        self._program = program
        self.folder = Path(tempfile.mkdtemp(prefix="influx", dir="/tmp"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()
        form = {
            "username": "operador",
            "password": "geheim-operador",
            "org": "plataforma",
            "bucket": "platform_metrics",
            "token": OPERATOR,
        }
        reply = self.ask("POST", "/api/v2/setup", form)
        assert reply.status == 201, reply

    def start(self) -> None:
        """Returns when it answers."""
        where = [
            *("--bolt-path", f"{self.folder}/bolt", "--engine-path", f"{self.folder}/engine"),
            *("--sqlite-path", f"{self.folder}/sqlite"),
            *("--http-bind-address", f"127.0.0.1:{self.port}"),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, "run", *where, "--reporting-disabled", "--log-level", "error"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        # /health is well before the API is: newer versions refuse it with 503 while they start.
        until(lambda: self.ask("GET", "/api/v2/setup").status == 200, 60, self.log)

    def log(self) -> str:
        """Its last words."""
        return (self.folder / "log").read_text()[-2_000:]

    def stop(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """Ends it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def influx() -> Iterator[Server]:
    """The real one where there is a binary, else the stand-in."""
    program = binary()
    server: Server = RealInflux(program) if program else StandIn()
    try:
        yield server
    finally:
        server.close()
