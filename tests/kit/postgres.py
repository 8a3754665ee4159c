"""A PostgreSQL of our own: Debian's programs, a cluster in a short folder, a Unix socket, no port.

One cluster per test process, made when the first test asks; a database per test.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import psycopg

from tests.kit.common import until

_NAMES = itertools.count(1)


def _bin() -> Path:
    """Where Debian puts the server's programs: not on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL is missing: apt-get install postgresql (deploy/test.sh --all does)"
    return found[-1].parent


class Cluster:
    """One running server."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self._as: list[str] = []
        if os.getuid() == 0:  # which the server refuses to run as
            self._as = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(self.folder, "nobody", "nogroup")
        data = self.folder / "data"
        initdb = [f"{_bin()}/initdb", f"--pgdata={data}", "--username=central", "--auth=trust"]
        options = ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        subprocess.run(
            [*self._as, *initdb, *options], check=True, capture_output=True, cwd=self.folder
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        server = [f"{_bin()}/postgres", "-D", f"{self.folder}/data", "-k", f"{self.folder}"]
        settings = ["listen_addresses=", "fsync=off", "max_connections=80", "shared_buffers=32MB"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._as, *server, *(word for s in settings for word in ("-c", s))],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

        def answers() -> bool:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                return False
            return True

        until(answers, 20, lambda: (self.folder / "log").read_text()[-2_000:])

    def kill(self) -> None:
        """``kill -9`` of all its processes, whatever they do: every connection breaks."""
        assert self.process is not None
        # A backend that outlives the postmaster goes on with its statement, and holds up the next.
        backends = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGKILL)
        for backend in backends:
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.kill()
        self.process.wait(10)
        psutil.wait_procs(backends, 10)

    def url(self, database: str) -> str:
        """As central.yaml has it."""
        return f"postgresql://central@/{database}?host={self.folder}"

    def create(self) -> str:
        """A new, empty database; its URL."""
        name = f"central_{next(_NAMES)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def end(self) -> None:
        """Stops it, whatever it does, and forgets it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def cluster() -> Cluster:
    """The one of this test process."""
    made = Cluster()
    atexit.register(made.end)
    return made
