"""A real Mosquitto with the rendered files, over TLS, with certificates of the small CA."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.kit import fleet
from tests.kit.broker import PLUGIN
from tests.kit.common import ROOT, free_port

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
        self.pki, self.secrets = self.folder / "pki", self.folder / "secrets"
        self.ports = {listener: free_port() for listener in LISTENERS}
        self.files = fleet.rendered(self.folder / "boxes", control_plane=control_plane)
        self.process: subprocess.Popen[bytes] | None = None
        names = ("dynamic-security.json.in" if control_plane else "acl", "users.txt")
        for name in names:
            (self.folder / name).write_text(self.files[f"mosquitto/{name}"])
        run("pki.sh", str(self.pki), "create")
        run("pki.sh", str(self.pki), "server", "localhost", "127.0.0.1")
        users = str(self.folder / "users.txt")
        words = ["--users", users, "--secrets", str(self.secrets)]
        (self.folder / "data").mkdir()
        if control_plane:
            run("broker-users.sh", *words, "--dynsec", str(self.folder / names[0]))
            shutil.copy(self.secrets / "dynamic-security.json", self.folder / "data")
            its_own = [("/usr/lib/mosquitto_dynamic_security.so", PLUGIN)]
        else:
            run("broker-users.sh", *words)
            its_own = [
                ("/mosquitto/config/", f"{self.folder}/"),
                ("/mosquitto/secrets/", f"{self.secrets}/"),
            ]
        conf = self.files["mosquitto/mosquitto.conf"]
        for container, here in (
            ("/mosquitto/certs/server.", f"{self.pki}/issued/localhost."),
            ("/mosquitto/certs/", f"{self.pki}/"),
            *its_own,
            ("/mosquitto/data/", f"{self.folder}/data/"),
            ("log_dest stdout", "log_dest stderr"),
        ):
            assert container in conf
            conf = conf.replace(container, here)
        for listener, port in self.ports.items():
            assert f"\nlistener {listener}\n" in conf
            conf = conf.replace(f"\nlistener {listener}\n", f"\nlistener {port} 127.0.0.1\n")
        # Run as root, Mosquitto would become its own user, which cannot read a folder of ours.
        (self.folder / "mosquitto.conf").write_text(f"user root\n{conf}")

    def __enter__(self) -> Self:
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [self.program, "-c", str(self.folder / "mosquitto.conf")], stderr=log
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
                assert self.process.wait(10) == 0, self.log()
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
