"""``influxdb`` and ``grafana`` of central.yaml: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import central_config
from services.runtime.errors import ConfigError

INFLUX = {"url": "http://127.0.0.1:8086", "token_file": "token"}
GRAFANA = {"url": "http://127.0.0.1:3000", "password_file": "token"}


def write(folder: Path, **sections: Any) -> Path:
    (folder / "token").write_text("geheim\n")
    file = folder / "central.yaml"
    file.write_text(yaml.safe_dump({"database": "sqlite:///c.db", **sections}))
    return file


def test_what_is_rendered_names_files_and_holds_no_secret(tmp_path: Path) -> None:
    file = write(tmp_path, influxdb=INFLUX, grafana=GRAFANA)
    centre = central_config.load(file, {})
    (rendered,) = central_config.render(centre).values()
    token = {"file": str(tmp_path / "token")}
    assert rendered["influxdb"] == {"url": INFLUX["url"], "token": token, "ca": None}
    assert rendered["grafana"] == {
        "url": GRAFANA["url"],
        "username": "admin",
        "password": token,
        "ca": None,
        "influxdb_url": INFLUX["url"],
    }
    assert "geheim" not in str(rendered)
    assert centre.config.warnings == []


def test_without_them_nothing_is_asked(tmp_path: Path) -> None:
    (rendered,) = central_config.render(central_config.load(write(tmp_path), {})).values()
    assert (rendered["influxdb"], rendered["grafana"]) == (None, None)


@pytest.mark.parametrize(
    ("sections", "key", "words"),
    [
        ({"grafana": GRAFANA}, "", "set `influxdb:` too"),
        ({"influxdb": {**INFLUX, "token_file": "nope"}}, "influxdb.token_file", "cannot be read"),
        ({"influxdb": {**INFLUX, "ca": "nope"}}, "influxdb.ca", "cannot be read"),
        ({"influxdb": {**INFLUX, "url": "influx:8086"}}, "influxdb.url", "is no address"),
        ({"influxdb": {**INFLUX, "url": "http://a:b@x"}}, "influxdb.url", "keys of their own"),
        ({"influxdb": {**INFLUX, "token": "x"}}, "influxdb.token", "unknown key"),
        (
            {"influxdb": INFLUX, "grafana": {**GRAFANA, "url": "http://x/?y"}},
            "grafana.url",
            "is no address",
        ),
    ],
)
def test_a_mistake_is_said_with_its_key(
    tmp_path: Path, sections: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        central_config.load(write(tmp_path, **sections), {})
    (problem,) = caught.value.problems
    assert (problem.key, words in problem.message) == (key, True), problem


def test_a_secret_that_would_go_in_clear_is_warned_of(tmp_path: Path) -> None:
    file = write(tmp_path, influxdb={**INFLUX, "url": "http://influx.example.com:8086"})
    (warning,) = central_config.load(file, {}).config.warnings
    assert "influx.example.com:8086" in warning
