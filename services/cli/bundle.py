"""``plc-edge bundle``: one file with everything that an industrial PC without internet installs.

``plc-edge-<version>/`` in a tar.gz: ``install.sh``, the unit, the example, ``wheels/`` (every
locked package for each asked Python, our own wheel, pip itself), ``requirements.txt`` (the lock
and our wheel, all with hashes), ``BUNDLE`` (what it was made for) and ``SHA256SUMS``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from services.cli.common import console, fail
from services.runtime.errors import EXIT_USAGE

ROOT = Path(__file__).resolve().parents[2]
# Debian 12, Ubuntu 24.04, Debian 13.
PYTHONS = ("3.11", "3.12", "3.13")
ARCHITECTURES = ("x86_64", "aarch64")
# What a wheel may ask of the C library: Debian 12 has 2.36.
_GLIBC_MINOR = range(36, 4, -1)
_OLD_MANYLINUX = ("manylinux2014", "manylinux2010", "manylinux1")
# What the wheel is made from (pyproject.toml), without what an earlier build left.
_SOURCES = ("pyproject.toml", "README.md", "supervisord.conf", "bus", "services", "infra", "deploy")
_NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.egg-info", "secrets", "build", "*.so")
# File in deploy/ -> mode in the bundle.
_FILES = {
    "install.sh": 0o755,
    "plc-edge.sh": 0o755,
    "plc-edge.service": 0o644,
    "config.example.yaml": 0o644,
}


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command(help="Make the offline installation bundle (from a checkout).")(bundle)


def bundle(
    out: Annotated[
        Path | None, typer.Option(help="File; default plc-edge-<version>-<arch>.tar.gz.")
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(help=f"Python of the PC, may repeat; default {' '.join(PYTHONS)}."),
    ] = None,
    arch: Annotated[str, typer.Option(help="Processor of the PC.")] = platform.machine(),
) -> None:
    """Downloads what is locked, builds our wheel, packs both with the installer."""
    if not (ROOT / "deploy" / "install.sh").is_file():
        fail("bundle works only in a checkout of plc-edge: there it is `deploy/bundle.sh`", 2)
    pythons = python or list(PYTHONS)
    if wrong := [p for p in pythons if p not in PYTHONS]:
        fail(f"--python {wrong[0]}: must be one of {', '.join(PYTHONS)}", EXIT_USAGE)
    if arch not in ARCHITECTURES:
        fail(f"--arch {arch}: must be one of {', '.join(ARCHITECTURES)}", EXIT_USAGE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name = f"plc-edge-{version}"
    target = out or Path(f"{name}-{arch}.tar.gz")
    if not target.parent.is_dir():
        fail(f"--out {target}: {target.parent} is no folder; make it first", EXIT_USAGE)
    with tempfile.TemporaryDirectory(prefix="plc-edge-bundle-") as temporary:
        folder = Path(temporary) / name
        wheels = folder / "wheels"
        wheels.mkdir(parents=True)
        for version_of_python in pythons:
            console.print(f"wheels for Python {version_of_python}, {arch}", highlight=False)
            _download(ROOT / "deploy" / "requirements.lock", version_of_python, arch, wheels)
        _download(ROOT / "deploy" / "requirements-pip.lock", pythons[0], arch, wheels)
        console.print(f"wheel of {name}", highlight=False)
        own = _build(wheels, arch)
        lock = (ROOT / "deploy" / "requirements.lock").read_text()
        (folder / "requirements.txt").write_text(
            f"{lock}plc-edge=={version} --hash=sha256:{_sha256(own)}\n"
        )
        for file, mode in _FILES.items():
            shutil.copy(ROOT / "deploy" / file, folder / file)
            (folder / file).chmod(mode)
        shutil.copytree(ROOT / "deploy" / "layouts", folder / "layouts")
        (folder / "BUNDLE").write_text(
            f"version={version}\npython={' '.join(pythons)}\narch={arch}\n"
        )
        _sums(folder)
        _pack(folder, target)
    size_mib = target.stat().st_size / 2**20
    console.print(f"{target}: {size_mib:.0f} MiB", highlight=False, soft_wrap=True)
    console.print(f"on the PC: tar xf {target.name} && sudo {name}/install.sh", highlight=False)


def _run(*arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        fail(f"pip {arguments[0]} failed; making a bundle needs the package index:\n{done.stderr}")


def _download(lock: Path, python: str, arch: str, wheels: Path) -> None:
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in _GLIBC_MINOR]
    platforms += [f"{old}_{arch}" for old in _OLD_MANYLINUX]
    tag = f"cp{python.replace('.', '')}"
    _run(
        *("download", "--require-hashes", "--only-binary", ":all:", "--no-deps"),
        *("-r", str(lock), "-d", str(wheels), "--python-version", python),
        *("--implementation", "cp", "--abi", tag, "--abi", "abi3", "--abi", "none"),
        *(part for p in platforms for part in ("--platform", p)),
    )


def _build(wheels: Path, arch: str) -> Path:
    """Our wheel, from a copy: an old build/ in the checkout would slip into it. For another
    processor it comes without the compiled part: plain Python decodes the same values there.
    """
    words = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    environment = {}
    if arch != platform.machine():
        words.append(f"--config-settings=--build-option=--plat-name=linux_{arch}")
        environment["CC"] = "false"
    with tempfile.TemporaryDirectory(prefix="plc-edge-source-") as temporary:
        for source in _SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, Path(temporary) / source, ignore=_NOT_SOURCES)
            else:
                shutil.copy(ROOT / source, Path(temporary) / source)
        _run(*words, temporary, **environment)
    (own,) = wheels.glob("plc_edge-*.whl")
    return own


def _sums(folder: Path) -> None:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    lines = [f"{_sha256(f)}  {f.relative_to(folder)}\n" for f in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _pack(folder: Path, target: Path) -> None:
    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    # Beside, then in place: a bundle is whole or not there. Wheels are compressed already.
    unfinished = target.with_name(f"{target.name}.new")
    try:
        with tarfile.open(unfinished, "w:gz", compresslevel=1) as tar:
            tar.add(folder, folder.name, filter=anonymous)
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
