"""A configuration to be examined, and what stands around it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from services.cli.doctor import examine
from services.cli.doctor_finding import Finding
from services.runtime import loader
from tests.kit.common import free_port

GROUP = {"name": "db500", "db": 500, "scan": "1s", "layout": "db500.yaml",
         "machines": {"count": 4, "stride": 14}}  # fmt: skip
LAYOUT = """
name: db500
record: 14
fields:
  - {name: ligada, type: BOOL, offset: 0.2}
  - {name: corrente, type: REAL, offset: 2}
  - {name: contador, type: INT, offset: 12}
"""


def config(folder: Path, plc_port: int = 0, **more: Any) -> dict[str, Any]:
    """config.yaml as data: one PLC with one group of 56 bytes in DB500."""
    (folder / "db500.yaml").write_text(LAYOUT)
    return {
        "site": "planta-sp",
        "locatario": "acme",
        "paths": {"state": str(folder / "s"), "runtime": str(folder / "r")},
        "metrics": {"port": free_port()},
        "plcs": [
            {"id": "prensa-01", "host": "127.0.0.1", "port": plc_port or free_port(),
             "timeout": "500ms", "groups": [GROUP]},
        ],
        "outputs": [{"name": "console", "type": "stdout"}],
        **more,
    }  # fmt: skip


def write(folder: Path, data: dict[str, Any]) -> Path:
    """Writes it."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def findings(folder: Path, data: dict[str, Any]) -> list[Finding]:
    """What doctor finds."""
    return list(examine(loader.load(write(folder, data))))


def fault(found: list[Finding], code: str) -> Finding:
    """The one finding of this code; fails with all that was found instead."""
    ours = [f for f in found if f.code == code]
    assert len(ours) == 1, f"no {code} in:\n" + "\n".join(map(str, found))
    return ours[0]


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[int]:
    """A broker with these lines after its listener's; its port. User edge, password segredo."""
    port = free_port()
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "edge", "segredo"], check=True)
    acl = folder / "acl"
    acl.write_text(
        "user edge\ntopic write plc/acme/prensa-01\ntopic write edge/acme/planta-sp/status\n"
    )
    for file in (passwords, acl):
        file.chmod(0o600)
    file = folder / "mosquitto.conf"
    # Started as root it would change to a user who cannot read the test's files.
    head = ["user root", f"listener {port} 127.0.0.1", f"password_file {passwords}"]
    file.write_text("\n".join([*head, f"acl_file {acl}", *lines]) + "\n")
    log = (folder / "mosquitto.log").open("wb")
    broker = subprocess.Popen(["mosquitto", "-c", str(file)], stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + 10
        while b"running" not in (folder / "mosquitto.log").read_bytes():
            assert broker.poll() is None, (folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        yield port
    finally:
        broker.terminate()
        assert broker.wait(10) == 0
        log.close()


def mqtt(folder: Path, port: int, password: str = "segredo", **more: Any) -> dict[str, Any]:
    """An output to it."""
    file = folder / "mqtt.pw"
    file.write_text(password)
    file.chmod(0o600)
    return {"name": "central", "type": "mqtt", "host": "localhost", "port": port,
            "username": "edge", "password_file": str(file), "tls": False, **more}  # fmt: skip
