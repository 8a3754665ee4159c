"""Every shell script and the unit, by the tools that know them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.common import ROOT


def scripts() -> list[Path]:
    """What git knows, or would take, that is shell."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.sh", ".ci/*"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).split()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="apt-get install shellcheck")
def test_every_shell_script_passes_shellcheck() -> None:
    files = scripts()
    assert {"install.sh", "bundle.sh", "common.sh"} <= {f.name for f in files}
    done = subprocess.run(
        ["shellcheck", "--external-sources", *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    # Its only legitimate complaint on this machine is the program, which is not installed here.
    text = (ROOT / "deploy" / "plc-edge.service").read_text()
    unit = tmp_path / "plc-edge.service"
    unit.write_text(re.sub(r"(?m)^(Exec\w+)=\S+", r"\1=/bin/true", text))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    score = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", str(unit)]
    done = subprocess.run(score, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
