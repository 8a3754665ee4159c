"""A clean Debian machine for a test: debootstrap once (kept in ``.venv-debian-root``), then a copy
that boots its own systemd in namespaces of its own, without any network but loopback.

    with Debian() as machine:
        machine.run("systemctl", "is-system-running")
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.kit.common import ROOT, until

CACHE = ROOT / ".venv-debian-root"
# No pip, no ensurepip, no python3-venv: the bundle must do without.
PACKAGES = ("python3", "systemd", "systemd-sysv")
TOOLS = ("debootstrap", "unshare", "nsenter", "ip", "apt-get")
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


def missing() -> str:
    """Why such a machine cannot be had here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root (debootstrap, namespaces)"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if lacking := [t for t in TOOLS if shutil.which(t, path=path) is None]:
        return f"needs {', '.join(lacking)} (apt-get install debootstrap util-linux iproute2)"
    return ""


def _codename() -> str:
    release = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in release if "=" in line)["VERSION_CODENAME"]


def _mirror(codename: str) -> str:
    """The archive this machine itself uses."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    command += [f"Codename: {codename}", "Component: main"]
    return subprocess.check_output(command, text=True).split()[0]


def base() -> Path:
    """The clean root, made at the first call (a minute and a half)."""
    CACHE.mkdir(exist_ok=True)
    codename = _codename()
    root = CACHE / f"{codename}-{'-'.join(PACKAGES)}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            new = CACHE / "new"
            shutil.rmtree(new, ignore_errors=True)
            include = f"--include={','.join(PACKAGES)}"
            command = ["nice", "debootstrap", "--variant=minbase", include, codename, str(new)]
            done = subprocess.run(
                [*command, _mirror(codename)], capture_output=True, text=True, check=False,
                env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr
            new.rename(root)
    return root


class Debian:
    """One running machine; ``root`` is its file system as seen from here."""

    def __enter__(self) -> Self:
        origin = base()
        _sweep()
        self.root = Path(tempfile.mkdtemp(prefix=f"machine-{os.getpid()}-", dir=CACHE))
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, self.root, ignore_errors=True)
            copy = ["cp", "-a", "--reflink=auto", f"{origin}/.", str(self.root)]
            subprocess.run(copy, check=True)
            self._boot(undo, undo.enter_context(_cgroup()))
            self._undo = undo.pop_all()
        return self

    def _boot(self, undo: contextlib.ExitStack, join: list[Path]) -> None:
        self.console = self.root.with_suffix(".console")
        undo.callback(self.console.unlink, missing_ok=True)

        def enter() -> None:
            for procs in join:
                procs.write_text(str(os.getpid()))

        with self.console.open("wb") as log:
            unshare = ["unshare", "--pid", "--mount", "--net", "--ipc", "--uts", "--cgroup"]
            self._outer = subprocess.Popen(
                [*unshare, "--fork", "--kill-child", "bash",
                 str(Path(__file__).with_name("debian_boot.sh")), str(self.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=enter,
                env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
            )  # fmt: skip
        undo.callback(self._end)

        def booted() -> bool:
            assert self._outer.poll() is None, self.console.read_text()
            children = psutil.Process(self._outer.pid).children()
            if not children or children[0].name() != "systemd":
                return False
            self.pid = children[0].pid
            return self.run("systemctl", "is-system-running", check=False).stdout in (
                "running\n",
                "degraded\n",
            )

        until(booted, 60, self.console.read_text)

    def _end(self) -> None:
        self._outer.kill()  # --kill-child: PID 1 of its namespace goes, and with it everything
        self._outer.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def command(self, *arguments: str) -> list[str]:
        """What to execute here so that it runs there."""
        env = [f"{k}={v}" for k, v in _ENV.items()]
        return ["nsenter", f"--target={self.pid}", "--all", "env", "-i", *env, *arguments]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command as root of the machine; its output, both streams together."""
        done = subprocess.run(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL, check=False, timeout=180,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{arguments}: {done.returncode}\n{done.stdout}\n{self.logs()}"
        )
        return done

    def logs(self) -> str:
        """The end of what our services there have logged."""
        files = sorted((self.root / "var/lib/plc-edge/log").glob("*.log"))
        ends = ((f.name, f.read_text(errors="replace").splitlines()[-25:]) for f in files)
        return "\n".join("\n".join([f"--- {name}", *lines]) for name, lines in ends)


def _sweep() -> None:
    """Removes what tests left that were killed: a machine is half a gigabyte."""
    for left in CACHE.glob("machine-*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextlib.contextmanager
def _cgroup() -> Iterator[list[Path]]:
    """A control group of the machine's own; yields the files to which its first process writes
    itself."""
    base = Path("/sys/fs/cgroup")
    if ":name=systemd:" in Path("/proc/self/cgroup").read_text():
        base /= "systemd"
    group = Path(tempfile.mkdtemp(prefix="plc-edge-test-", dir=base))
    try:
        yield [group / "cgroup.procs"]
    finally:
        folders = [p for p in group.rglob("*") if p.is_dir()]
        for folder in [*sorted(folders, reverse=True), group]:
            # The kernel empties a group a moment after its last process has gone.
            until(lambda f=folder: _removed(f), 10, f"{folder} is still used")  # type: ignore[misc]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True
