"""Large sites and whole blocks: ``check`` says yes or no, and soon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.common import ROOT

HEAD = "site: s1\nlocatario: acme\nplcs:\n  - id: p1\n    host: h\n    groups:\n"
# On an idle machine 1.3 s (0.5 s of it imports) at most; others may work beside us.
LIMIT_S = 20.0


def check(folder: Path, groups: str) -> subprocess.CompletedProcess[str]:
    (folder / "c.yaml").write_text(HEAD + groups)
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "services.cli.main", "check", "-c", str(folder / "c.yaml"),
         "--json"],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert time.monotonic() - began_s < LIMIT_S
    assert "Traceback" not in done.stderr
    return done


def test_a_thousand_groups(tmp_path: Path) -> None:
    fields = "[{name: a, type: INT, offset: 0}, {name: b, type: REAL, offset: 2}]"
    rows = (f"      - {{name: g{i}, db: {i + 1}, fields: {fields}}}\n" for i in range(1_000))
    done = check(tmp_path, "".join(rows))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"group"') == 1_000


def test_a_whole_block_is_planned(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(
        "fields:\n" + "".join(f"  - {{name: f{i}, type: REAL}}\n" for i in range(16_384))
    )
    done = check(tmp_path, "      - {name: g1, db: 1, layout: l.yaml, scan: 10s}\n")
    assert done.returncode == 0, done.stderr
    assert '"bytes": 65536' in done.stdout
    # Items of at most 942 bytes, whole REALs: 940.
    assert f'"requests": {-(-65_536 // 940)}' in done.stdout


@pytest.mark.parametrize(
    ("group", "line", "words"),
    [
        ("{name: g1, fields: [{name: x, address: 'DB1.DBW65535:INT'}]}", 7, "past byte 65535"),
        ("{name: g1, fields: [{name: x, address: DB1.DBX65536.0}]}", 7, "past byte 65535"),
        ("{name: g1, db: 1, fields: [{name: x, type: INT, offset: 65536}]}", 7, "is no offset"),
        ("{name: g1, db: 1, fields: [{name: x, type: DINT, offset: 65534}]}", 7, "byte 65537"),
        ("{name: g1, db: 1, fields: [{name: x, type: 'INT[0..32768]', offset: 0}]}", 7, "65537"),
        ("{name: g1, db: 1, machines: {count: 2, stride: 65534},"
         " fields: [{name: x, type: DINT, offset: 0}]}", 7, "byte 65537"),
        ("{name: g1, db: 1, raw: {start: 65000, length: 537},"
         " fields: [{name: x, type: INT, offset: 0}]}", 7, "ends at 65535"),
    ],
)  # fmt: skip
def test_what_lies_past_the_block_is_told(
    tmp_path: Path, group: str, line: int, words: str
) -> None:
    done = check(tmp_path, f"      - {group}\n")
    assert done.returncode == 2, done.stdout
    assert f"c.yaml:{line}:" in done.stderr
    assert words in done.stderr


def test_more_values_than_a_scan_can_take(tmp_path: Path) -> None:
    bits = ", ".join(f"{{name: b{i}, type: BOOL}}" for i in range(16))
    (tmp_path / "l.yaml").write_text(
        f"fields:\n  - {{name: s, array: '1..32', fields: [{bits}]}}\n"
    )
    machines = "machines: {count: 1000, stride: 64}"
    done = check(tmp_path, f"      - {{name: g1, db: 1, {machines}, layout: l.yaml}}\n")
    assert done.returncode == 2
    assert "has 512,000 values" in done.stderr
