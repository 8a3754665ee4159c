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


def find(
    name: str, *, variable: str = "", version: tuple[str, ...] = ("--version",)
) -> Program | None:
    """A program on PATH (or where Debian puts servers), or the one that ``variable`` names.
    ``version``: the words with which it says its own.
    """
    named = os.environ.get(variable, "") if variable else ""
    path = shutil.which(named or name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        if named:
            raise PlcEdgeError(f"{variable}={named}: no such program")
        return None
    try:
        done = subprocess.run(
            [path, *version], capture_output=True, text=True, check=False, timeout=VERSION_S
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise PlcEdgeError(f"{path} cannot be run: {e}") from None
    found = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout + done.stderr)
    if found is None:
        raise PlcEdgeError(f"{path} does not say its version: is it {name}?")
    return Program(path, found[0])


def need(name: str, package: str, *, version: tuple[str, ...] = ("--version",)) -> Program:
    """The same of one without which nothing works. Raises PlcEdgeError with what to install."""
    found = find(name, version=version)
    if found is None:
        raise PlcEdgeError(
            f"`{name}` is not on PATH: apt-get install {package}, or run {INSTALLER}, which does"
        )
    return found
