"""The programs of the centre on this machine: where each is, which version, or what to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from services.runtime.errors import PlcEdgeError

INSTALLER = "deploy/scripts/central-local.sh"
VERSION_S = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """One that is there."""

    path: str
    version: str
    """Empty where it was not asked."""


def find(name: str, asked: str = "--version") -> Program | None:
    """A program on PATH, or where Debian puts servers. ``asked``: the word to which it says its
    version; empty where it has none (Debian's VictoriaMetrics).
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        return None
    if not asked:
        return Program(path, "")
    try:
        done = subprocess.run(
            [path, asked], capture_output=True, text=True, check=False, timeout=VERSION_S
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PlcEdgeError(f"{path} cannot be run: {e}") from None
    found = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout + done.stderr)
    if found is None:
        raise PlcEdgeError(f"{path} does not say its version: is it {name}?")
    return Program(path, found[0])


def need(name: str, package: str, asked: str = "--version") -> Program:
    """The same of one without which nothing works. Raises PlcEdgeError with what to install."""
    found = find(name, asked)
    if found is None:
        raise PlcEdgeError(
            f"`{name}` is not on PATH: apt-get install {package}, or run {INSTALLER}, which does"
        )
    return found
