"""Libraries of Maven Central that tests run, pinned by a pom; git does not keep them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.common import ROOT

FOLDER = ROOT / ".venv-java"


def jars(pom: Path) -> tuple[str, str]:
    """(java, class path) with what the pom names; skips where there is no Java 17 or Maven."""
    java, maven = shutil.which("java"), shutil.which("mvn")
    if java is None or maven is None or shutil.which("javac") is None:
        pytest.skip("a JDK and Maven are not here (apt-get install default-jdk-headless maven)")
    folder = FOLDER / pom.parent.name
    folder.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / ".pom"
        if not stamp.exists() or stamp.read_bytes() != pom.read_bytes():
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
            command = [maven, "-q", "-B", "-f", str(pom), *goal]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
            stamp.write_bytes(pom.read_bytes())
    return java, f"{folder}/*"
