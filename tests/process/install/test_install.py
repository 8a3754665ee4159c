"""The life of an industrial PC: installed offline from the bundle, started, upgraded, rolled back,
removed. One machine; the tests follow one another in this order.

Its network has loopback alone, its PID 1 is systemd with the unit as it ships.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit import debian
from tests.kit.common import ROOT, until
from tests.kit.debian import Debian
from tests.kit.site import alarms

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("install"),
    pytest.mark.skipif(bool(debian.missing()), reason=debian.missing()),
]
SOURCES = ("pyproject.toml", "README.md", "supervisord.conf", "bus", "services", "infra", "deploy")
CONFIG = """\
site: planta-teste
locatario: acme
plcs:
  - id: prensa-01
    host: 127.0.0.1
    port: 1102
    groups:
      - {name: db500, db: 500, scan: 200ms, layout: layouts/db500.yaml}
outputs:
  - {name: console, type: stdout}
"""


def make_bundle(folder: Path, python: str, version: str = "", ruin: bool = False) -> Path:
    """A bundle of this checkout, or of a copy with another version (and a broken store)."""
    source = ROOT
    if version:
        source = folder / f"source-{version}"
        source.mkdir()
        for name in SOURCES:
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=ignore)
            else:
                shutil.copy(ROOT / name, source / name)
        project = source / "pyproject.toml"
        text = re.sub(r'(?m)^version = ".*"', f'version = "{version}"', project.read_text())
        project.write_text(text)
        if ruin:
            main = source / "services" / "store_forward" / "__main__.py"
            main.write_text("raise SystemExit('this version is broken')\n")
    file = folder / f"{version or 'own'}.tar.gz"
    command = ["nice", sys.executable, "-P", "-m", "services.cli.main", "bundle"]
    done = subprocess.run(
        [*command, "--out", str(file), "--python", python],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return file


@pytest.fixture(scope="module")
def machine() -> Iterator[Debian]:
    with Debian() as started:
        yield started


@pytest.fixture(scope="module")
def bundles(machine: Debian, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Version -> its installer in the machine: the present one, a newer one, a broken one."""
    folder = tmp_path_factory.mktemp("bundles")
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = machine.run("python3", "-c", code).stdout.strip()
    files = [
        make_bundle(folder, python),
        make_bundle(folder, python, "90.0.0"),
        make_bundle(folder, python, "91.0.0", ruin=True),
    ]
    for file in files:
        shutil.copy(file, machine.root / "root")
        machine.run("tar", "xf", f"/root/{file.name}", "-C", "/root")
    installers = [f"/root/{p.parent.name}/install.sh" for p in installers_in(machine)]
    assert len(installers) == 3
    return {re.findall(r"plc-edge-(.*?)/", path)[0]: path for path in installers}


def installers_in(machine: Debian) -> list[Path]:
    return sorted((machine.root / "root").glob("plc-edge-*/install.sh"))


@pytest.fixture(scope="module")
def own(bundles: dict[str, str]) -> str:
    """The version of this checkout."""
    return next(v for v in bundles if not v.startswith("9"))


def current(machine: Debian, link: str = "current") -> str:
    path = machine.root / "opt" / "plc-edge" / link
    return os.readlink(path).rpartition("/")[2] if path.is_symlink() else ""


def main_pid(machine: Debian) -> int:
    said = machine.run("systemctl", "show", "--property=MainPID", "--value", "plc-edge").stdout
    return int(said)


def status(machine: Debian) -> dict[str, Any]:
    done = machine.run("plc-edge", "status", "--json", check=False)
    return json.loads(done.stdout) if done.stdout.startswith("{") else {"plcs": [], "processes": []}


def wait_online(machine: Debian) -> dict[str, Any]:
    """The status, once the PLC is being read and every process is up."""
    found: dict[str, Any] = {}

    def online() -> bool:
        nonlocal found
        found = status(machine)
        up = bool(found["processes"]) and all(p["up"] for p in found["processes"])
        return up and [p["status"] for p in found["plcs"]] == ["online"]

    until(online, 30, lambda: json.dumps(found, indent=1) + "\n" + machine.logs())
    return found


def write_config(machine: Debian, text: str) -> None:
    # In place: owner and mode stay what install.sh made them.
    (machine.root / "etc/plc-edge/config.yaml").write_text(text)


def mode(machine: Debian, path: str) -> str:
    return machine.run("stat", "-c", "%U:%G %a", path).stdout.strip()


def test_the_machine_has_no_network_and_no_pip(machine: Debian) -> None:
    assert machine.run("ls", "/sys/class/net").stdout.split() == ["lo"]
    assert machine.run("python3", "-m", "pip", "--version", check=False).returncode != 0


def test_a_damaged_bundle_is_refused(machine: Debian, bundles: dict[str, str], own: str) -> None:
    machine.run("cp", "-a", f"/root/plc-edge-{own}", "/root/damaged")
    wheel = next((machine.root / "root/damaged/wheels").glob("pyzmq*"))
    raw = bytearray(wheel.read_bytes())
    raw[len(raw) // 2] ^= 1
    wheel.write_bytes(raw)
    done = machine.run("/root/damaged/install.sh", check=False)
    assert done.returncode == 1
    assert wheel.name in done.stdout
    assert "is damaged" in done.stdout
    assert current(machine) == ""
    # Nor does a wheel get in whose sum was mended together with it: the lock's hash stands.
    sums = machine.root / "root/damaged/SHA256SUMS"
    machine.run("sh", "-c", f"cd /root/damaged && sha256sum wheels/{wheel.name} >/tmp/sum")
    line = machine.run("cat", "/tmp/sum").stdout
    sums.write_text(re.sub(rf"(?m)^.*{re.escape(wheel.name)}\n", line, sums.read_text()))
    done = machine.run("/root/damaged/install.sh", check=False)
    assert done.returncode == 1
    assert "hashes" in done.stdout.lower()
    assert current(machine) == ""
    assert not (machine.root / "opt/plc-edge" / own).exists()
    shutil.rmtree(machine.root / "root/damaged")


def test_install_offline(machine: Debian, bundles: dict[str, str], own: str) -> None:
    said = machine.run(bundles[own]).stdout
    assert "still the example, so nothing was started" in said
    assert current(machine) == own
    assert machine.run("plc-edge", "version").stdout.startswith(f"plc-edge {own}\n")
    assert mode(machine, "/etc/plc-edge") == "root:plc-edge 750"
    assert mode(machine, "/etc/plc-edge/config.yaml") == "root:plc-edge 640"
    assert mode(machine, "/etc/plc-edge/environment") == "root:plc-edge 640"
    assert mode(machine, "/var/lib/plc-edge") == "plc-edge:plc-edge 700"
    assert mode(machine, "/opt/plc-edge/current/") == "root:root 755"
    assert machine.run("systemctl", "is-enabled", "plc-edge").stdout == "enabled\n"
    assert machine.run("systemctl", "is-active", "plc-edge", check=False).stdout == "inactive\n"
    package = machine.root / "opt/plc-edge" / own / "lib"
    sources = list(package.rglob("services/**/*.py"))
    assert len(sources) > 50
    assert len(list(package.rglob("services/**/*.pyc"))) == len(sources)
    # The same again changes nothing.
    again = machine.run(bundles[own]).stdout
    assert f"Version {own} is installed already" in again


def test_start_hardened_as_its_own_user(machine: Debian, bundles: dict[str, str], own: str) -> None:
    write_config(machine, CONFIG)
    environment = machine.root / "etc/plc-edge/environment"
    environment.write_text(environment.read_text() + "PLC_EDGE__METRICS__PORT=9208\n")
    assert machine.run("plc-edge", "check").returncode == 0
    release = f"/opt/plc-edge/{own}"
    simulate = [f"{release}/bin/plc-edge", "simulate", "-c", "/etc/plc-edge/config.yaml"]
    machine.run("systemd-run", "--quiet", "--unit=simulator", *simulate)
    said = machine.run(bundles[own]).stdout
    assert f"plc-edge {own} runs" in said
    found = wait_online(machine)
    assert alarms((machine.root / "var/lib/plc-edge/log/supervisord.log").read_text()) == []
    pids = [main_pid(machine), *(p["pid"] for p in found["processes"])]
    assert len(pids) == 5  # run, metrics, store_forward, publisher, reader
    for pid in pids:
        text = machine.run("cat", f"/proc/{pid}/status").stdout
        facts = dict(re.findall(r"(?m)^(\w+):\s*(.*)$", text))
        user = machine.run("id", "-u", "plc-edge").stdout.strip()
        assert set(facts["Uid"].split()) == {user}
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert mode(machine, "/run/plc-edge") == "plc-edge:plc-edge 700"
    metrics = json.loads(machine.run("cat", "/run/plc-edge/conf/metrics.json").stdout)
    assert metrics["metrics"]["port"] == 9208, "from /etc/plc-edge/environment"
    assert (machine.root / "var/lib/plc-edge/log/metrics.log").exists()


def test_root_may_apply_without_leaving_files_of_root(machine: Debian) -> None:
    write_config(machine, CONFIG.replace("200ms", "300ms"))
    assert "restarted reader-prensa-01" in machine.run("plc-edge", "apply").stdout
    find = ["find", "/run/plc-edge", "/var/lib/plc-edge", "-not", "-user", "plc-edge"]
    assert machine.run(*find).stdout == ""
    wait_online(machine)


def test_it_comes_back_after_a_kill_and_keeps_its_rings(machine: Debian) -> None:
    pid = main_pid(machine)
    machine.run("sh", "-c", f"kill -9 {pid}")
    until(lambda: main_pid(machine) not in (0, pid), 15, "systemd did not start it again")
    wait_online(machine)
    log = (machine.root / "var/lib/plc-edge/log/publisher-console.log").read_text()
    epochs = set(re.findall(r'"epoch":(\d+)', log))
    assert len(epochs) == 1, "a new epoch means that the ring was lost"


def test_upgrade(machine: Debian, bundles: dict[str, str], own: str) -> None:
    said = machine.run(bundles["90.0.0"]).stdout
    assert f"Changing from {own} to 90.0.0" in said
    assert (current(machine), current(machine, "previous")) == ("90.0.0", own)
    assert "plc-edge 90.0.0" in machine.run("plc-edge", "version").stdout
    wait_online(machine)
    assert machine.run("readlink", f"/proc/{main_pid(machine)}/cwd").stdout == "/etc/plc-edge\n"
    text = machine.run("cat", f"/proc/{main_pid(machine)}/environ").stdout
    assert "PLC_EDGE_PYTHON=/opt/plc-edge/" in text
    pid = main_pid(machine)
    assert "runs already; nothing to do" in machine.run(bundles["90.0.0"]).stdout
    assert main_pid(machine) == pid


def test_a_version_that_refuses_the_configuration_changes_nothing(
    machine: Debian, bundles: dict[str, str], own: str
) -> None:
    pid = main_pid(machine)
    write_config(machine, CONFIG.replace("scan:", "skan:"))
    done = machine.run(bundles["91.0.0"], check=False)
    assert done.returncode == 1
    assert "skan" in done.stdout
    assert "90.0.0 goes on" in done.stdout
    write_config(machine, CONFIG)
    assert (current(machine), current(machine, "previous")) == ("90.0.0", own)
    assert main_pid(machine) == pid


def test_a_version_that_is_not_healthy_is_rolled_back(
    machine: Debian, bundles: dict[str, str], own: str
) -> None:
    done = machine.run(bundles["91.0.0"], check=False)
    assert done.returncode == 1
    assert "going back to 90.0.0" in done.stdout
    assert "store_forward" in done.stdout
    assert "90.0.0 runs again" in done.stdout
    assert (current(machine), current(machine, "previous")) == ("90.0.0", own)
    assert not (machine.root / "opt/plc-edge/91.0.0").exists()
    wait_online(machine)


def test_rollback_by_hand(machine: Debian, own: str) -> None:
    installer = "/opt/plc-edge/current/install.sh"
    assert f"plc-edge {own} runs" in machine.run(installer, "--rollback").stdout
    assert (current(machine), current(machine, "previous")) == (own, "90.0.0")
    wait_online(machine)


def test_stop_is_in_good_order(machine: Debian) -> None:
    machine.run("systemctl", "stop", "plc-edge")
    show = machine.run("systemctl", "show", "--property=Result", "--value", "plc-edge").stdout
    assert show == "success\n", "killed after TimeoutStopSec"
    log = machine.root / "var/lib/plc-edge/log/supervisord.log"
    assert "stopped: publisher-console (exit status 0)" in log.read_text()


def test_without_systemd_it_says_how_to_start(
    machine: Debian, bundles: dict[str, str], own: str
) -> None:
    hidden = "mount -t tmpfs tmpfs /run/systemd && exec "
    command = ["unshare", "--mount", "sh", "-c"]
    said = machine.run(*command, hidden + bundles[own]).stdout
    assert "No systemd runs here" in said
    hint = next(line.strip() for line in said.splitlines() if "&& plc-edge run" in line)
    running = subprocess.Popen(machine.command(*command, f"{hint} & echo $! && wait $!"))
    try:
        found = wait_online(machine)
        user = machine.run("stat", "-c", "%U", f"/proc/{found['processes'][0]['pid']}").stdout
        assert user == "plc-edge\n"
        refused = machine.run(*command, f"{hidden}{bundles[own]} --uninstall", check=False)
        assert refused.returncode == 1
        assert "still runs" in refused.stdout
        lock = machine.run("cat", "/run/plc-edge/run.lock").stdout
        machine.run("sh", "-c", f"kill {lock}")
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()


def test_uninstall_keeps_what_was_not_installed(
    machine: Debian, bundles: dict[str, str], own: str
) -> None:
    machine.run("systemctl", "start", "plc-edge")
    said = machine.run(bundles[own], "--uninstall").stdout
    assert "Kept: /etc/plc-edge" in said
    assert (machine.root / "etc/plc-edge/config.yaml").read_text() == CONFIG
    assert list((machine.root / "var/lib/plc-edge").iterdir())
    for gone in ("opt/plc-edge", "usr/local/bin/plc-edge", "etc/systemd/system/plc-edge.service"):
        assert not os.path.lexists(machine.root / gone)
    assert machine.run("systemctl", "is-active", "plc-edge", check=False).returncode != 0
    # And it can come back, with everything.
    assert f"plc-edge {own} runs" in machine.run(bundles[own]).stdout
    # The simulator ran from a folder that is gone; the PLC may be away: that is no fault.
    machine.run(bundles[own], "--uninstall", "--purge")
    for gone in ("opt/plc-edge", "etc/plc-edge", "var/lib/plc-edge"):
        assert not (machine.root / gone).exists()
    assert machine.run("getent", "passwd", "plc-edge", check=False).returncode == 2
    assert "plc-edge" not in machine.run("systemctl", "list-unit-files").stdout


def test_bad_usage(machine: Debian, bundles: dict[str, str], own: str) -> None:
    done = machine.run(bundles[own], "--purge", check=False)
    assert done.returncode == 2
    assert "--uninstall --purge" in done.stdout
    done = machine.run(bundles[own], "--rollback", check=False)
    assert done.returncode == 1
    assert "no previous version" in done.stdout
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    machine.run("cp", "-a", f"/root/plc-edge-{own}", "/tmp/bundle")
    done = machine.run(*as_nobody, "/tmp/bundle/install.sh", check=False)
    assert done.returncode == 1
    assert "must run as root" in done.stdout
