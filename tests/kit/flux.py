"""Checks Flux for syntax and types with its own compiler (npm @influxdata/flux-lsp-node)."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess

import pytest

from tests.kit.common import ROOT

# Pinned: what it knows of the standard library changes with it.
PACKAGE = "@influxdata/flux-lsp-node@0.8.40"
FOLDER = ROOT / ".venv-node"
SCRIPT = ROOT / "tests" / "unit" / "infra" / "check_flux.js"


def check(queries: dict[str, str]) -> dict[str, list[str]]:
    """name -> errors (``line: text``) of each query; skips where there is no Node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not here (apt-get install nodejs npm)")
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / "node_modules" / "@influxdata" / "flux-lsp-node").is_dir():
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), PACKAGE]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
    given = json.dumps([{"name": n, "source": s} for n, s in queries.items()])
    done = subprocess.run(
        [node, str(SCRIPT), str(FOLDER)],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The compiler writes a line of its own before ours.
    results = json.loads(done.stdout[done.stdout.index("[{") :])
    return {r["name"]: r["errors"] for r in results}
