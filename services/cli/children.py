"""What a demo starts: processes with a log each, in a folder of their own, gone when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from services.cli.common import console
from services.runtime.errors import PlcEdgeError
from services.runtime.process import PR_SET_PDEATHSIG

END_S = 15.0


class Children:
    """The processes; ``folder`` also holds whatever else the demo writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keep = False
        """The folder stays when all has ended."""
        self.interrupted = False
        """Somebody has ended it before its time."""
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Its output goes to ``<folder>/<name>.log``. ``environment`` is added to ours."""
        with self.log(name).open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then stops all in order.
            child = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=_die_with_parent, env={**os.environ, **(environment or {})},
            )  # fmt: skip
        self._running.append((name, child))
        return child

    def log(self, name: str) -> Path:
        """Where its output is."""
        return self.folder / f"{name}.log"

    def tail(self, name: str, lines: int = 12) -> str:
        """The end of its output."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raises PlcEdgeError where one has ended, though nobody has ended it."""
        for name, child in self._running:
            if child.poll() is not None:
                raise PlcEdgeError(f"{name} ended:\n{self.tail(name)}")

    def end(self) -> None:
        """Ends them, the newest first; returns when they have ended."""
        while self._running:
            _end(self._running.pop()[1])


@contextlib.contextmanager
def demonstration() -> Iterator[Children]:
    """Children in a new folder. Ctrl-C and SIGTERM end the block, not the command."""
    folder = Path(tempfile.mkdtemp(prefix="plc-edge-", dir="/tmp"))  # short: ipc paths
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children = Children(folder)
    try:
        yield children
    except KeyboardInterrupt:
        children.interrupted = True
        console.print("\nstopping …")
    finally:
        # A second Ctrl-C must not leave anything behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        children.end()
        if not children.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
