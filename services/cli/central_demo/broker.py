"""Mosquitto as `plc-edge infra render` configures it, on this machine: the rendered files as they
are, with certificates and passwords from the scripts of an operator.
"""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.runtime import assets
from services.runtime.errors import PlcEdgeError

ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Of its three listeners."""

    tls: int
    websocket: int
    certificate: int


class CentralBroker:
    """Its folder: what is ``/mosquitto`` in the container."""

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        self.pki = folder / "pki"
        self.secrets = folder / "secrets"
        self.ca = folder / "certs" / "ca.pem"
        self.conf = folder / "config" / "mosquitto.conf"

    def settings(self) -> dict[str, Any]:
        """``infra.broker`` of the boxes."""
        return {
            "folder": str(self.folder),
            # Else root's Mosquitto would become its own user, which cannot read a folder of ours.
            "user": getpass.getuser(),
            "listen": ADDRESS,
            "port": self.ports.tls,
            "websocket_port": self.ports.websocket,
            "certificate_port": self.ports.certificate,
        }

    def prepare(self, rendered: Path, *options: str) -> None:
        """Certificates, and a password for each account of the rendered files. ``options`` go to
        broker-users.sh.
        """
        for name in ("certs", "data"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "config").symlink_to(rendered / "mosquitto")
        script("pki.sh", str(self.pki), "create")
        script("pki.sh", str(self.pki), "server", "localhost", ADDRESS)
        # Links, so that a renewed certificate and a fresh CRL need a SIGHUP only.
        certificate = self.pki / "issued" / "localhost"
        for name, file in (
            ("ca.pem", self.pki / "ca.pem"),
            ("crl.pem", self.pki / "crl.pem"),
            ("server.pem", certificate.with_suffix(".pem")),
            ("server.key", certificate.with_suffix(".key")),
        ):
            (self.folder / "certs" / name).symlink_to(file)
        users = str(rendered / "mosquitto" / "users.txt")
        script("broker-users.sh", "--users", users, "--secrets", str(self.secrets), *options)

    def password_file(self, account: str) -> Path:
        """Where its password lies once it is prepared."""
        return self.secrets / f"mqtt-{account}.pw"

    def password(self, account: str) -> str:
        """The password itself."""
        return self.password_file(account).read_text().strip()


def script(name: str, *words: str) -> None:
    """Runs one of deploy/scripts. Raises PlcEdgeError with what it said."""
    command: Sequence[str] = ["bash", str(assets.path(f"scripts/{name}")), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise PlcEdgeError(f"{name} {words[0]}: {(done.stderr or done.stdout).strip()}")
