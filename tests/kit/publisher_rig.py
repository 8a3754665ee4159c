"""Rendered configurations of a publisher, and its run directory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SILENT_S = 600.0
"""Interval of heartbeats that no test sends: after three of them the PLC is taken for offline, and
a test on a busy machine takes more than 30 s.
"""
PLC = {"id": "prensa-01", "locatario": "acme", "host": "192.168.0.10", "heartbeat_s": SILENT_S}
TOPIC = "plc/acme/prensa-01"


@contextmanager
def run_folder() -> Iterator[Path]:
    """A short one: ipc paths hold 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="pe", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config(run: Path, output: dict[str, Any], plcs: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {
        "process": f"publisher-{output['name']}",
        "folder": "publisher",
        "item": output["name"],
        "site": "planta-sp",
        "locatario": "acme",
        "runtime": str(run),
        "state": str(run),
        "output": output,
        "plcs": [PLC] if plcs is None else plcs,
    }


def mqtt_config(
    run: Path, port: int, plcs: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    """An MQTT output named ``central``, as ``plc-edge apply`` renders it."""
    output = {
        "name": "central",
        "type": "mqtt",
        "locatarios": None,
        "hosts": ["127.0.0.1"],
        "port": port,
        "version": 5,
        "qos": 1,
        "client_id": None,
        "keepalive": 15.0,
        "window": 100,
        "tls": False,
        "accounts": {},
        "username": None,
        "password": None,
        **options,
    }
    return _config(run, output, plcs)


def http_config(run: Path, url: str, **options: Any) -> dict[str, Any]:
    """An HTTP output named ``web``."""
    output = {
        "name": "web",
        "type": "http",
        "locatarios": None,
        "url": url,
        "format": "json",
        "gzip": True,
        "batch": 50,
        "timeout": 2.0,
        "headers": {},
        "token": None,
        "username": None,
        "password": None,
        "tls": {"ca": None, "cert": None, "key": None},
        **options,
    }
    return _config(run, output, None)


def stdout_config(run: Path) -> dict[str, Any]:
    """A stdout output named ``console``."""
    return _config(run, {"name": "console", "type": "stdout", "locatarios": None}, None)
