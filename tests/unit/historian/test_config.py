"""``history:`` is off unless it stands, is a consumer where it does, and says what it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime import render
from services.runtime.consumers import consumers
from services.runtime.errors import ConfigError
from services.runtime.loader import load

SITE = """\
site: planta-sp
locatario: acme
plcs:
  - id: prensa-01
    host: 127.0.0.1
    groups:
      - name: gg
        scan: 2s
        max_silence: 30s
        fields:
          - {name: pecas_total, address: "DB1.DBW0:INT"}
          - {name: t, address: "DB1.DBD2:REAL", unit: °C, scale: 0.5}
"""


def site(folder: Path, more: str = "") -> Path:
    file = folder / "config.yaml"
    file.write_text(SITE + more)
    return file


def test_it_is_off_unless_it_stands(tmp_path: Path) -> None:
    loaded = load(site(tmp_path))
    assert consumers(loaded.config) == []
    assert "historian" not in render.render(loaded)


def test_one_line_turns_it_on(tmp_path: Path) -> None:
    loaded = load(site(tmp_path, "history: {}\n"))
    assert consumers(loaded.config) == [
        {"name": "historian", "process": "historian", "type": "historian", "locatarios": None,
         "from": "now", "strict": True}
    ]  # fmt: skip
    rendered = render.render(loaded)
    made = rendered["historian"]
    assert "historian" in rendered["metrics"]["processes"]
    assert made["max_size_bytes"] == 8 * 2**30
    assert made["max_age_ms"]["raw"] == 31 * 86_400_000
    (group,) = made["groups"]
    assert (group["locatario"], group["plc"], group["hold_ms"]) == ("acme", "prensa-01", 37_000)
    assert group["fields"] == [
        {"name": "pecas_total", "type": "INT", "unit": "", "counts": True, "scaled": False},
        {"name": "t", "type": "REAL", "unit": "°C", "counts": False, "scaled": True},
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("history: {max_sizes: 1GiB}", "max_size"),
        ("history: {max_size: 1MiB}", "67108864"),
        ("history: {max_age: {raw: 400d}}", "raw ≤ minute ≤ hour"),
        ("history: {max_age: {raw: 1h}}", "7200"),
        ("outputs: [{name: historian, type: stdout}]", "takes messages itself"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        load(site(tmp_path, given + "\n"))
    assert [p.line for p in refused.value.problems] == [13]
