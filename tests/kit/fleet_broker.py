"""A real Mosquitto with the rendered files, over TLS, with certificates of the small CA."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from services.cli.central_demo.broker import CentralBroker, Ports
from services.infra import render
from tests.kit import fleet
from tests.kit.broker import PLUGIN
from tests.kit.common import BUSY_S, ROOT, free_ports

SCRIPTS = ROOT / "deploy" / "scripts"
LISTENERS = (8883, 8083, 8884)


def run(script: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What a script of deploy/scripts prints."""
    done = subprocess.run(
        [str(SCRIPTS / script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Broker:
    """Mosquitto for the two boxes of tests/kit/fleet.py; with its plugin for a control plane."""

    def __init__(self, *, control_plane: bool = False) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("mosquitto is not installed")
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        broker = CentralBroker(self.folder / "mosquitto", Ports(*self.ports.values()))
        self.pki, self.secrets = broker.pki, broker.secrets
        self.files = fleet.rendered(
            self.folder / "boxes", control_plane=control_plane, broker=broker.settings()
        )
        infra = self.folder / "infra"
        render.write(self.files, infra)
        self.process: subprocess.Popen[bytes] | None = None
        self.conf = broker.conf
        if not control_plane:
            broker.prepare(infra)
            return
        broker.prepare(infra, "--dynsec", str(infra / "mosquitto" / "dynamic-security.json.in"))
        shutil.copy(self.secrets / "dynamic-security.json", broker.folder / "data")
        conf = self.files["mosquitto/mosquitto.conf"]
        # The container's place; Debian has another.
        assert "/usr/lib/mosquitto_dynamic_security.so" in conf
        self.conf.write_text(conf.replace("/usr/lib/mosquitto_dynamic_security.so", PLUGIN))

    def __enter__(self) -> Self:
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [self.program, "-c", str(self.conf)], stdout=log, stderr=log
            )
        deadline_s = time.monotonic() + 10
        for port in self.ports.values():
            while True:
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < deadline_s, self.log()
                time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.process is not None:
                self.process.terminate()
                # It listens before it minds signals: one that comes between ends it as any process.
                assert self.process.wait(BUSY_S) in (0, -signal.SIGTERM), self.log()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
            shutil.rmtree(self.folder)

    def log(self) -> str:
        """What Mosquitto said."""
        return (self.folder / "log").read_text(errors="replace")

    def password(self, account: str) -> str:
        """The one that broker-users.sh made."""
        return (self.secrets / f"mqtt-{account}.pw").read_text().strip()

    def reload(self) -> None:
        """As after a change of CRL, ACL or passwords."""
        assert self.process is not None
        self.process.send_signal(1)
