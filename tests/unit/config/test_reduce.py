"""``reduce:`` of an output: what is refused, and what its process and the store get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import loader, render
from services.runtime.errors import ConfigError


def write(folder: Path, *outputs: dict[str, Any]) -> Path:
    fields = [
        {"name": "temperatura", "address": "DB1.DBD0:REAL"},
        {"name": "ciclos", "address": "DB1.DBW4:INT"},
        {"name": "pecas_total", "address": "DB1.DBW6:INT", "scale": 0.5},
        {"name": "serie", "address": "DB1.DBB8:LINT[0..1]"},
    ]
    config = {
        "site": "planta-sp",
        "locatario": "acme",
        "paths": {"state": str(folder / "s"), "runtime": str(folder / "r")},
        "plcs": [{"id": "prensa-01", "host": "h", "groups": [
            {"name": "g1", "scan": "1s", "max_silence": "30s", "fields": fields}]}],
        "outputs": list(outputs),
    }  # fmt: skip
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=True))
    return file


def test_what_its_process_gets(tmp_path: Path) -> None:
    web = {"type": "http", "url": "http://web/"}
    slow = {"name": "lenta", **web, "reduce": {"step": "5m"}}
    site = loader.load(write(tmp_path, slow, {"name": "toda", **web}))
    rendered = render.render(site)
    of = rendered["publisher-lenta"]
    assert of["output"]["reduce"] == {
        "step_ms": 300_000, "max_size_bytes": 256 * 2**20, "max_age_ms": 14 * 86_400_000,
    }  # fmt: skip
    (group,) = of["plcs"][0]["groups"]
    assert group["hold_ms"] == 36_000
    assert group["counters"] == {"ciclos": 65_536, "pecas_total": 0}
    assert group["wide"] == ["serie"]
    assert not of["history"]
    other = rendered["publisher-toda"]
    assert "reduce" not in other["output"]
    assert "counters" not in other["plcs"][0]["groups"][0]
    outputs = {o["name"]: o["strict"] for o in rendered["store_forward"]["outputs"]}
    assert outputs == {"lenta": True, "toda": False}


@pytest.mark.parametrize(
    ("output", "key", "words"),
    [
        ({"type": "stdout", "reduce": {"step": "70s"}}, "reduce", "whole number of steps"),
        ({"type": "stdout", "reduce": {"step": "5s"}}, "reduce.step", "10"),
        ({"type": "stdout", "reduce": {"step": "2h"}}, "reduce.step", "3600"),
        ({"type": "stdout", "reduce": {}}, "reduce.step", "is missing"),
        ({"type": "stdout", "reduce": {"step": "1m", "of": "max"}}, "reduce.of", "unknown key"),
        ({"type": "sparkplug", "host": "b", "reduce": {"step": "1m"}}, "", "`type: mqtt`"),
        (
            {"type": "opcua", "anonymous": True, "insecure": True, "reduce": {"step": "1m"}},
            "",
            "by its history read",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, output: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as e:
        loader.load(write(tmp_path, {"name": "lenta", **output}))
    (problem,) = e.value.problems
    assert problem.key == ".".join(filter(None, ("outputs[0]", key)))
    assert words in f"{problem.message} {problem.hint}"
