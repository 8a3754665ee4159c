"""supervisord under `plc-edge run`: it starts without a word of alarm, and only who may read the
runtime directory may command it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from supervisor.xmlrpc import SupervisorTransport

from services.runtime import supervisor_access
from tests.kit.box import plc
from tests.kit.common import free_ports, until
from tests.kit.site import Site, alarms

# As in a container with `user: 60123`, whom no passwd knows. It may read everything: the
# interpreter may lie in root's own folder.
UID = "60123"
READS_ALL = "+dac_read_search"
SOMEBODY = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
            f"--inh-caps={READS_ALL}", f"--ambient-caps={READS_ALL}")  # fmt: skip


def site(launcher: Sequence[str] = ()) -> Site:
    plc_port, panel_port = free_ports(2)
    return Site(
        {
            "site": "planta-sp",
            "locatario": "acme",
            "plcs": [plc("prensa-01", plc_port)],
            "outputs": [{"name": "console", "type": "stdout"}],
            "metrics": {"port": panel_port},
        },
        launcher,
    )


def supervisorctl(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("supervisorctl")), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("launcher", [(), SOMEBODY], ids=["own user", "another user"])
def test_a_normal_start_alarms_nobody(launcher: Sequence[str]) -> None:
    """Root is told of its rights, and everybody of a socket without a password, unless …"""
    if launcher and os.getuid() != 0:
        pytest.skip("only root may start a process of another user")
    box = site(launcher)
    for path in (box.folder, box.file) if launcher else ():
        os.chown(path, int(UID), int(UID))
    with box:
        if not launcher:
            # The interpreter may lie in a folder that supervisord does not find open to the other.
            box.wait_running()
        file = box.state / "log" / "supervisord.log"
        log = until(lambda: t if "spawn" in (t := file.read_text()) else "", 10, box.logs)
        assert "supervisord started with pid" in log
        assert alarms(log) == []
        assert alarms((box.folder / "run.log").read_text()) == []
        assert box.stop() == 0


def test_the_socket_wants_the_password_of_the_file_beside_it() -> None:
    with site() as box:
        box.wait_running()
        file = box.runtime / supervisor_access.ACCESS
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        user, password = supervisor_access.read(box.runtime / supervisor_access.SOCKET)
        assert user
        assert password
        # supervisorctl with the file, `status`, and nobody without it.
        assert "reader-prensa-01" in supervisorctl("-c", str(file), "status").stdout
        table = {row["name"] for row in box.rpc.getAllProcessInfo()}
        assert "store_forward" in table
        bare = SupervisorTransport(None, None, f"unix://{box.runtime / 'supervisor.sock'}")
        with pytest.raises(xmlrpc.client.ProtocolError, match="401"):
            xmlrpc.client.ServerProxy("http://localhost", transport=bare).supervisor.getState()
        until(lambda: "prensa-01" in box.run("status").stdout, 20, "status")
        # It stands in that file only.
        for process in box.descendants():
            words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
            assert not any(password in word for word in words), process
        for log in (box.state / "log").glob("*.log"):
            assert password not in log.read_text(errors="replace"), log
        rendered = [f for f in box.runtime.rglob("*") if f.is_file() and f != file]
        assert rendered
        for other in rendered:
            assert password.encode() not in other.read_bytes(), other
        everybody = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
        assert not any(password in " ".join(words) for words in everybody)
