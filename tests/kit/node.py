"""Packages of npm that tests run, pinned, in a folder that git does not keep."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.common import ROOT

FOLDER = ROOT / ".venv-node"
NODE_OPCUA = ("node-opcua", "2.182.2")


def package(name: str, version: str) -> tuple[str, Path]:
    """(node, folder whose ``node_modules`` has it); skips where there is no Node.

    Each has a folder of its own: beside another's `long` of a later version, sparkplug-payload read
    negative integers as positive ones.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not here (apt-get install nodejs npm)")
    folder = FOLDER / name.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / name).is_dir():
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
            subprocess.run(
                [*command, f"{name}@{version}"], check=True, capture_output=True, timeout=300
            )
    return node, folder
