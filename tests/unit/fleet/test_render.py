"""What ``fleet:`` means to the rest of the box: one process more, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import loader, render
from services.runtime.errors import ConfigError

BASE: dict[str, Any] = {
    "site": "planta-sp",
    "locatario": "acme",
    "plcs": [
        {
            "id": "prensa-01",
            "host": "10.0.0.1",
            "groups": [{"name": "g1", "fields": [{"name": "a", "address": "M10.3"}]}],
        }
    ],
}


def rendered(tmp_path: Path, **more: Any) -> render.Rendered:
    paths = {"state": str(tmp_path / "s"), "runtime": str(tmp_path / "r")}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**BASE, "paths": paths, **more}))
    return render.render(loader.load(file, {}))


def test_a_site_without_it_runs_what_it_ran_before(tmp_path: Path) -> None:
    assert set(rendered(tmp_path)) == {"reader-prensa-01", "store_forward", "metrics"}


def test_with_it_there_is_one_process_more_and_the_others_are_the_same(tmp_path: Path) -> None:
    plain = rendered(tmp_path)
    (tmp_path / "ca.pem").write_text("x")
    with_fleet = rendered(tmp_path, fleet={"url": "https://centre:8443", "ca": "ca.pem"})
    fleet = with_fleet.pop("fleet")
    assert fleet["url"] == "https://centre:8443"
    assert fleet["ca"] == str(tmp_path / "ca.pem")
    assert fleet["config_file"] == str(tmp_path / "config.yaml")
    assert {n: render.config_hash(c) for n, c in plain.items()} == {
        n: render.config_hash(c) for n, c in with_fleet.items()
    }
    assert "fleet" in with_fleet["metrics"]["processes"]
    assert with_fleet["store_forward"] == {**plain["store_forward"], "fleet": True}
    assert "fleet" not in plain["store_forward"]


def test_while_a_configuration_without_it_is_watched_the_process_stays(tmp_path: Path) -> None:
    kept = tmp_path / "s" / render.FLEET_KEPT
    kept.parent.mkdir(parents=True)
    fleet = rendered(tmp_path, fleet={"url": "https://centre:8443"})["fleet"]
    kept.write_text(json.dumps(fleet))
    assert rendered(tmp_path)["fleet"] == fleet
    assert rendered(tmp_path)["store_forward"]["fleet"] is True
    kept.unlink()
    assert "fleet" not in rendered(tmp_path)


@pytest.mark.parametrize(
    ("fleet", "words"),
    [
        ({"url": "http://centre:8443"}, "https://"),
        ({"url": "https://user:pw@centre:8443"}, "url"),
        ({"url": "https://centre/path"}, "url"),
        ({"url": "centre"}, "url"),
        ({}, "url"),
        ({"url": "https://centre", "watch": "1s"}, "watch"),
        ({"url": "https://centre", "ca": "missing.pem"}, "missing.pem"),
        ({"url": "https://centre", "watc": "60s"}, "did you mean"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, fleet: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rendered(tmp_path, fleet=fleet)


def test_plain_http_goes_to_this_machine_only(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:8443", "http://localhost:1"):
        assert rendered(tmp_path, fleet={"url": url})["fleet"]["url"] == url
