"""``plc-edge demo`` and ``plc-edge central demo`` as somebody at a terminal sees them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.kit.common import ROOT
from tests.kit.site import PLC_EDGE


def start(*words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Runs it; both of its streams come as one."""
    return subprocess.Popen(
        [*PLC_EDGE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, "COLUMNS": "300", **(environment or {})},
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """What it says up to a line with ``pattern``."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"no {pattern}:\n{seen}")


def folder_of(seen: str) -> Path:
    """The folder of this run, where its output names it."""
    match = re.search(r"(/tmp/plc-edge-\w+)", seen)
    assert match, seen
    return Path(match[1])


def of_demo(folder: Path) -> list[psutil.Process]:
    """Every process that lives of a run in ``folder``."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        if any(str(folder) in w for w in words):
            found.append(process)
    return found
