"""Checks Flux for syntax and types with its own compiler (npm @influxdata/flux-lsp-node)."""

from __future__ import annotations

import json
import subprocess

from tests.kit.common import ROOT
from tests.kit.node import package

# Pinned: what it knows of the standard library changes with it.
PACKAGE = ("@influxdata/flux-lsp-node", "0.8.40")
SCRIPT = ROOT / "tests" / "unit" / "infra" / "check_flux.js"


def check(queries: dict[str, str]) -> dict[str, list[str]]:
    """name -> errors (``line: text``) of each query; skips where there is no Node."""
    node, folder = package(*PACKAGE)
    given = json.dumps([{"name": n, "source": s} for n, s in queries.items()])
    done = subprocess.run(
        [node, str(SCRIPT), str(folder)],
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
