"""Packages of npm that tests run, pinned, in one folder that git does not keep."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.common import ROOT

FOLDER = ROOT / ".venv-node"
# Client and server come of one version: two in one folder do not know each other's classes.
NODE_OPCUA = ("node-opcua", "2.182.2")


def package(name: str, version: str) -> tuple[str, Path]:
    """(node, folder whose ``node_modules`` has it); skips where there is no Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not here (apt-get install nodejs npm)")
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed(name) != version:
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER)]
            subprocess.run(
                [*command, f"{name}@{version}"], check=True, capture_output=True, timeout=120
            )
    return node, FOLDER


def _installed(name: str) -> str:
    """Its version; empty where it is not there."""
    try:
        about = json.loads((FOLDER / "node_modules" / name / "package.json").read_bytes())
    except FileNotFoundError:
        return ""
    return str(about["version"])
