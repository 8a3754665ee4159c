"""System calls of a running process that answer otherwise than the kernel would (strace)."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.common import until

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@contextlib.contextmanager
def tampered(pid: int, calls: str, how: str) -> Iterator[None]:
    """Meanwhile ``calls`` of a process go as ``how`` says, in the words of strace's ``inject``."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid),
         "-e", f"trace={calls}", "-e", f"inject={calls}:{how}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        status = Path(f"/proc/{pid}/status")
        until(lambda: "TracerPid:\t0\n" not in status.read_text(), 10, "strace not attached")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
