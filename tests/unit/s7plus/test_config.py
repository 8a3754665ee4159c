"""``protocol: s7plus`` in config.yaml: what is taken, what is told, and what is rendered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.runtime import loader, render
from services.runtime.errors import ConfigError
from services.runtime.site import Site

FIELD = {"name": "x", "symbol": '"Prensa 1".x[1,-2]', "type": "REAL"}


def load(folder: Path, *, field: dict[str, Any] | None = None, **plc: Any) -> Site:
    group = {"name": "tudo", "fields": [field or FIELD]}
    given = {"id": "prensa-01", "protocol": "s7plus", "host": "10.0.0.1", "groups": [group], **plc}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"site": "planta", "locatario": "acme", "plcs": [given]}))
    return loader.load(file, {})


def rendered(site: Site) -> dict[str, Any]:
    plc: dict[str, Any] = render.render(site)["reader-prensa-01"]["plc"]
    return plc


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    site = load(tmp_path)
    plc = rendered(site)
    assert (plc["port"], plc["tls"], plc["password"]) == (102, "auto", None)
    assert any("s7plus is experimental" in w for w in site.config.warnings)


def test_secrets_are_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLC_PW", "segredo")
    (tmp_path / "plc.pw").write_text("segredo")
    # An access level's password has no user.
    reference = rendered(load(tmp_path, password_file="plc.pw"))["password"]
    assert reference["file"] == str(tmp_path / "plc.pw")
    site = load(tmp_path, username="ana", password="${PLC_PW}")
    assert rendered(site)["password"]["env"] == "PLC_PW"
    clear = load(tmp_path, password="segredo-claro")
    assert "segredo-claro" not in json.dumps(render.render(clear))
    told = [w for w in clear.config.warnings if "clear" in w]
    assert told
    assert "segredo-claro" not in str(told)


def test_a_fingerprint_as_people_copy_it(tmp_path: Path) -> None:
    pairs = ":".join(["AB"] * 32)
    assert rendered(load(tmp_path, fingerprint=pairs))["fingerprint"] == "ab" * 32


@pytest.mark.parametrize(
    ("plc", "field", "said"),
    [
        ({"fingerprint": "abc"}, None, "is no SHA-256"),
        ({"tls": "off", "fingerprint": "ab" * 32}, None, "`tls:` is off"),
        ({"username": "ana"}, None, "`username:` needs `password:`"),
        ({"password": "a", "password_file": "config.yaml"}, None, "not both"),
        ({"ca": "falta.pem"}, None, "falta.pem"),
        ({"rack": 0}, None, "rack"),
        ({}, {"name": "x", "symbol": "a..b", "type": "INT"}, "is no symbol at character 3"),
        ({}, {"name": "x", "symbol": "a.b", "type": "INTT"}, "INTT"),
        ({}, {"name": "x", "type": "INT"}, "symbol"),
        ({}, {"name": "x", "address": "DB1.DBW0:INT"}, "address"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path, plc: dict[str, Any], field: dict[str, Any] | None, said: str
) -> None:
    with pytest.raises(ConfigError) as e:
        load(tmp_path, field=field, **plc)
    assert said in str(e.value)
    assert len(e.value.problems) == 1, str(e.value)
