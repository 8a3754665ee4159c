"""Faults of the box: directories, disk, clock, port, what is left over from before."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.common import ROOT, until
from tests.kit.metrics_rig import Rig
from tests.process.doctor.kit import config, fault, findings


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short: sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="pe", dir="/tmp") as name:
        yield Path(name)


def test_runtime_directory_open_to_others(folder: Path) -> None:
    (folder / "r").mkdir()
    (folder / "r").chmod(0o777)
    found = fault(findings(folder, config(folder)), "permission")
    assert "open to others (mode 777)" in found.text
    assert found.fix == f"`chmod 700 {folder / 'r'}`"


def test_runtime_directory_not_ours(folder: Path) -> None:
    """As another user: root may write everywhere."""
    (folder / "r").mkdir(mode=0o700)
    folder.chmod(0o755)
    code = (
        "import os; from pathlib import Path; from services.cli.doctor_box import directory;"
        "os.setgid(65534); os.setuid(65534);"
        f"print(directory('runtime directory', Path({str(folder / 'r')!r}), True))"
    )
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "permission" in done.stdout, done.stderr
    assert "uid 65534" in done.stdout
    assert "chown plc-edge" in done.stdout


def test_disk_nearly_full(folder: Path) -> None:
    data = config(folder, store={"min_free": "900TiB"})
    found = fault(findings(folder, data), "disk_full")
    assert found.level == "error"
    assert "store.min_free" in found.text
    data = config(folder, store={"max_size": "900TiB"})
    assert fault(findings(folder, data), "disk_small").level == "warning"


def test_clock_has_gone_back(folder: Path) -> None:
    (folder / "s").mkdir()
    (folder / "s" / "0001.db").touch()
    os.utime(folder / "s" / "0001.db", (time.time() + 86_400,) * 2)
    found = fault(findings(folder, config(folder)), "clock_back")
    assert "has gone back" in found.text
    assert "NTP" in found.fix


def test_port_held_by_another_program(folder: Path) -> None:
    data = config(folder)
    with socket.create_server(("127.0.0.1", data["metrics"]["port"])):
        found = fault(findings(folder, data), "port")
    assert found.level == "error"
    assert f"process {os.getpid()}" in found.text
    assert "metrics.port" in found.fix


def test_stale_process(folder: Path) -> None:
    (folder / "r").mkdir(mode=0o700)
    # A reader's lock, and that of `plc-edge run`, which is no service.
    code = (
        "import sys, time; from pathlib import Path;"
        "from services.runtime.process import take_lock;"
        f"runtime = Path({str(folder / 'r')!r});"
        "take_lock(runtime, 'run'); take_lock(runtime, 'reader-prensa-01');"
        "print('READY', flush=True);"
        "time.sleep(60)"
    )
    left = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert left.stdout is not None
        assert left.stdout.readline() == "READY\n"
        found = fault(findings(folder, config(folder)), "stale_process")
        assert found.subject == "process reader-prensa-01"
        assert f"`kill {left.pid}`" in found.fix
    finally:
        left.kill()
        left.wait()
        left.stdout.close()  # type: ignore[union-attr]
    assert [f.code for f in findings(folder, config(folder))].count("no_stale") == 1


def test_a_process_that_is_down(folder: Path) -> None:
    fake = {"publisher-backup": "/bin/sh -c 'sleep 1.5; exit 78'"}
    with Rig(fake=fake, plcs=1) as rig:
        until(lambda: rig.problem("process_config"), 10, "permanent")
        data = config(folder, metrics={"port": rig.port})
        data["paths"]["runtime"] = str(rig.folder)
        found = findings(folder, data)
        down = fault(found, "process_down")
        assert down.subject == "process publisher-backup"
        assert "EXITED (exit status 78)" in down.text
        assert fault(found, "metrics").level == "ok"
        # The one that supervisord knows is not taken for left over.
        assert fault(found, "no_stale").level == "ok"


def test_supervisord_killed_but_its_socket_left(folder: Path) -> None:
    with Rig(plcs=1) as rig:
        assert rig.supervisord is not None
        metrics = rig.pid("metrics") or until(lambda: rig.pid("metrics"), 10, "pid")
        rig.supervisord.kill()
        rig.supervisord.wait()
        until(lambda: not Path(f"/proc/{metrics}").exists(), 10, "died with it")
        data = config(folder)
        data["paths"]["runtime"] = str(rig.folder)
        found = fault(findings(folder, data), "not_running")
        assert "has ended and left its socket behind" in found.text
        # Its idle programs are no services and do not die with it.
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    line = Path(f"/proc/{name}/cmdline").read_bytes()
                    cwd = os.readlink(f"/proc/{name}/cwd")
                except OSError:
                    continue
                if line.startswith(b"/bin/sleep") and cwd == str(rig.folder):
                    os.kill(int(name), signal.SIGKILL)
