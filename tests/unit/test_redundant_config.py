"""``hosts:`` of a PLC: what environment, reader, panel and the mirrors' rules make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import loader, render
from services.runtime.errors import ConfigError

FIELDS = [{"name": "x", "address": "DB1.DBW0:INT"}]


def site(folder: Path, plc: dict[str, Any], **more: Any) -> Path:
    group = {"name": "g1", "db": 1, "fields": FIELDS, "raw": True}
    plcs = [{"id": "forno-h", "groups": [group], **plc}]
    file = folder / "config.yaml"
    paths = {"state": str(folder / "s"), "runtime": str(folder / "r")}
    file.write_text(
        yaml.safe_dump({"site": "s1", "locatario": "acme", "paths": paths, "plcs": plcs, **more})
    )
    return file


@pytest.mark.parametrize(
    ("plc", "environ", "hosts"),
    [
        ({"host": "a"}, {}, ["a"]),
        ({"hosts": ["a", "b"]}, {}, ["a", "b"]),
        ({"hosts": ["a", "b"]}, {"PLC_EDGE__PLCS__FORNO_H__HOSTS": "[c, d]"}, ["c", "d"]),
        ({}, {"PLC_EDGE__PLCS__FORNO_H__HOSTS": "[c]"}, ["c"]),
    ],
)
def test_what_is_rendered(
    tmp_path: Path, plc: dict[str, Any], environ: dict[str, str], hosts: list[str]
) -> None:
    rendered = render.render(loader.load(site(tmp_path, plc), environ))
    assert rendered["reader-forno-h"]["plc"]["hosts"] == hosts
    assert "host" not in rendered["reader-forno-h"]["plc"]
    # Until the first heartbeat tells which one is read.
    assert rendered["metrics"]["plcs"][0]["host"] == hosts[0]


def test_a_variable_that_makes_both_is_named(tmp_path: Path) -> None:
    environ = {"PLC_EDGE__PLCS__FORNO_H__HOST": "c"}
    with pytest.raises(ConfigError, match="PLC_EDGE__PLCS__FORNO_H__HOST"):
        loader.load(site(tmp_path, {"hosts": ["a", "b"]}), environ)


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_mirror_to_any_of_its_own_addresses_is_refused(tmp_path: Path, host: str) -> None:
    mirror = {"name": "m1", "source": {"plc": "forno-h", "group": "g1"},
              "target": {"host": host, "db": 1}}  # fmt: skip
    with pytest.raises(ConfigError, match="is the source itself"):
        loader.load(site(tmp_path, {"hosts": ["a", "b"]}, mirrors=[mirror]), {})
