"""What the wheel holds, and that its metadata keeps it from being uploaded."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.kit.common import ROOT


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths in a wheel built from what git would take along."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as z:
        return set(z.namelist())


@pytest.mark.timeout(180)
def test_every_module_is_in_the_wheel(names: set[str]) -> None:
    for top in ("bus", "services"):
        for file in (ROOT / top).rglob("*.py"):
            assert str(file.relative_to(ROOT)) in names, "add its package to pyproject.toml"


def test_the_compiled_part_is_in_the_wheel(names: set[str]) -> None:
    """One for every CPython from 3.11 on."""
    assert "services/s7/_native.abi3.so" in names


def test_data_files_are_in_the_wheel(names: set[str]) -> None:
    shared = {n.split(".data/data/", 1)[1] for n in names if ".data/data/" in n}
    expected = {"supervisord.conf", "config.example.yaml"}
    expected |= {"scripts/broker-users.sh", "scripts/pki.sh"}  # which `central demo` runs
    expected |= {f"layouts/{f.name}" for f in (ROOT / "deploy" / "layouts").glob("*.yaml")}
    for file in (ROOT / "infra" / "templates").rglob("*"):
        expected |= {str(file.relative_to(ROOT))} if file.is_file() else set()
    assert {f"share/plc-edge/{n}" for n in expected} <= shared
    for folder in ("metrics/static", "runtime/static", "control_plane/pages"):
        for file in (ROOT / "services" / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert str(file.relative_to(ROOT)) in names, "add it to pyproject's package-data"


def test_nothing_else_is_in_the_wheel(names: set[str]) -> None:
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.startswith("plc_edge-")} == {"bus", "services"}


def test_the_distribution_cannot_be_uploaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]
