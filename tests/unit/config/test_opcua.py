"""``type: opcua``: what is refused, and what its process gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli import doctor_opcua_server
from services.cli.doctor_opcua_server import SHOWN_MAX
from services.opcua import certificates
from services.opcua.certificates import TrustList
from services.runtime import loader, render
from services.runtime.config import OpcuaOutput
from services.runtime.errors import ConfigError
from services.runtime.site import Site
from tests.kit.common import free_port


def write(folder: Path, **output: Any) -> Path:
    (folder / "ana.pw").write_text("um-segredo-longo")
    users = [{"username": "ana", "password_file": "ana.pw", "locatarios": ["acme"]}]
    fields = [
        {"name": "temperatura", "type": "REAL", "offset": 0, "unit": "°C", "description": "molde"},
        {"name": "ciclos", "type": "DINT", "offset": 4},
    ]
    of_acme = {"locatario": "acme", "field": "temperatura"}
    config = {
        "site": "planta-sp",
        "locatario": "acme",
        "paths": {"state": str(folder / "s"), "runtime": str(folder / "r")},
        "plcs": [
            {"id": "prensa-01", "host": "h", "groups": [{"name": "g1", "db": 1, "fields": fields}]},
            {"id": "forno-02", "host": "h", "locatario": "beta",
             "groups": [{"name": "g1", "fields": [{"name": "x", "address": "M0.0"}]}]},
        ],
        "outputs": [{"name": "scada", "type": "opcua", "users": users, **output}],
        "alerts": {
            "rules": [
                {"name": "quente", "type": "threshold", "above": 90, "where": of_acme},
                {"name": "sumiu", "type": "absence", "for": "1m", "of": "plc"},
            ]
        },
    }  # fmt: skip
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=True))
    return file


@pytest.mark.parametrize(
    ("output", "key", "words"),
    [
        ({"users": []}, "outputs[0]", "nobody could sign in"),
        ({"insecure": True, "host": "0.0.0.0"}, "outputs[0]", "bind to 127.0.0.1"),
        ({"users": [{"username": "ana"}]}, "outputs[0].users[0]", "prove who he is"),
        ({"users": [{"username": "../x", "password": "${X}"}]}, "outputs[0].users[0].username", ""),
        ({"users": [{"username": "a", "password_file": "no.pw"}]},
         "outputs[0].users[0].password_file", "does not exist"),
        ({"users": [{"username": "a", "certificate": "no.der"}]},
         "outputs[0].users[0].certificate", "does not exist"),
        ({"users": [{"username": "a", "certificate": "ana.pw"}]},
         "outputs[0].users[0].certificate", "ana.pw is no certificate"),
        ({"users": 2 * [{"username": "a", "password_file": "ana.pw"}]}, "outputs[0]", "twice"),
        ({"users": [{"username": "a", "password_file": "ana.pw", "locatarios": ["gama"]}]},
         "outputs[0].users[0].locatarios", "shows nothing of 'gama'"),
        ({"locatarios": ["beta"]}, "outputs[0].users[0].locatarios", "shows nothing of 'acme'"),
        ({"username": "x"}, "outputs[0]", "`users:`"),
        ({"certificate": "a.der"}, "outputs[0]", "go together"),
        ({"policies": ["Basic256"]}, "outputs[0].policies[0]", "Basic256Sha256"),
        ({"policies": []}, "outputs[0].policies", ""),
        ({"modes": ["none"]}, "outputs[0].modes[0]", "sign"),
        ({"port": 0}, "outputs[0].port", ""),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, output: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as e:
        loader.load(write(tmp_path, **output), {})
    found = [p for p in e.value.problems if p.key == key]
    assert found, e.value.problems
    assert words in f"{found[0].message} {found[0].hint}"


def test_a_key_that_is_of_another_certificate(tmp_path: Path) -> None:
    """Whoever renews one of the two and forgets the other."""
    own, other = (certificates.own(tmp_path / n, f"urn:{n}", ["h"]) for n in ("own", "other"))
    pair = {"certificate": str(own.cert), "key": str(own.key)}
    loader.load(write(tmp_path, **pair), {})
    for key, words in (
        (other.key, "is not the key of"),
        (other.cert, "is no private key"),
    ):
        with pytest.raises(ConfigError) as e:
            loader.load(write(tmp_path, **{**pair, "key": str(key)}), {})
        (found,) = e.value.problems
        assert found.key == "outputs[0].key"
        assert words in found.message


def rendered(site: Site) -> dict[str, Any]:
    return render.render(site)["publisher-scada"]


def test_what_its_process_gets(tmp_path: Path) -> None:
    made = rendered(loader.load(write(tmp_path), {}))
    assert [p["id"] for p in made["plcs"]] == ["prensa-01", "forno-02"]
    (group,) = made["plcs"][0]["groups"]
    assert group["fields"] == [
        {"name": "temperatura", "type": "REAL", "unit": "°C", "description": "molde"},
        {"name": "ciclos", "type": "DINT"},
    ]
    assert (group["machines"], group["timezone"]) == ([None], "UTC")
    assert made["alarms"] == [
        {"locatario": "acme", "name": "quente"},
        {"locatario": "acme", "name": "sumiu"},
        {"locatario": "beta", "name": "sumiu"},
    ]
    assert "um-segredo-longo" not in json.dumps(made)
    assert made["output"]["users"][0]["password"]["file"] == str(tmp_path / "ana.pw")
    only = rendered(loader.load(write(tmp_path, locatarios=["acme"]), {}))
    assert [p["id"] for p in only["plcs"]] == ["prensa-01"]


def test_a_changed_field_or_rule_restarts_nobody_a_changed_user_does(tmp_path: Path) -> None:
    file = write(tmp_path)
    before = render.config_hash(rendered(loader.load(file, {})))
    text = file.read_text()
    file.write_text(text.replace("name: ciclos", "name: pecas").replace("quente", "morno"))
    assert render.config_hash(rendered(loader.load(file, {}))) == before
    file.write_text(text.replace("username: ana", "username: bia"))
    assert render.config_hash(rendered(loader.load(file, {}))) != before
    file.write_text(text)
    (tmp_path / "ana.pw").write_text("outro")
    assert render.config_hash(rendered(loader.load(file, {}))) != before


def test_a_password_in_clear_goes_to_a_file_of_its_own(tmp_path: Path) -> None:
    site = loader.load(write(tmp_path, users=[{"username": "ana", "password": "em-claro"}]), {})
    assert any("in clear" in w for w in site.config.warnings)
    assert "em-claro" not in json.dumps(rendered(site))
    render.write_clear_secrets(site)
    reference = rendered(site)["output"]["users"][0]["password"]["file"]
    assert Path(reference).read_text() == "em-claro"


def test_doctor(tmp_path: Path) -> None:
    """Nobody may connect yet; who tried is named, with what to do."""
    site = loader.load(write(tmp_path, port=free_port()), {})
    (output,) = site.config.outputs
    assert isinstance(output, OpcuaOutput)

    def findings() -> list[tuple[str, str]]:
        return [(f.level, f.code) for f in doctor_opcua_server.check(site, output, "output scada")]

    assert findings() == [("warning", "trusted"), ("error", "refused")]
    lists = tmp_path / "s/opcua_server/scada"
    trust = TrustList(lists / "trusted", lists / "rejected")
    trust.make()
    client = certificates.own(tmp_path / "client", "urn:scada", ["localhost"])
    shown = client.cert.read_bytes()
    assert trust.refusal(shown) == "it is not on the list"
    kept = trust.keep_rejected(shown)
    assert kept is not None
    said = list(doctor_opcua_server.check(site, output, "output scada"))
    assert [(f.level, f.code) for f in said[:2]] == [
        ("warning", "trusted"), ("warning", "client_refused"),
    ]  # fmt: skip
    assert f"mv {kept} {lists / 'trusted'}/" in said[1].fix
    kept.rename(lists / "trusted" / kept.name)
    assert trust.refusal(shown) == ""
    assert findings() == [("error", "refused")]
    for i in range(SHOWN_MAX + 2):
        trust.keep_rejected(i.to_bytes(4))
    assert [code for _, code in findings()] == [*["client_refused"] * (SHOWN_MAX + 1), "refused"]
    for file in trust.newest_rejected():
        file.unlink()
    (lists / "trusted" / "lixo.der").write_bytes(b"\0\1")
    assert findings() == [("warning", "trusted"), ("error", "refused")]


def test_the_list_of_refused_certificates_has_an_end(tmp_path: Path) -> None:
    trust = TrustList(tmp_path / "trusted", tmp_path / "rejected")
    trust.make()
    count = certificates.REJECTED_MAX + 5
    for i in range(count):
        assert trust.keep_rejected(i.to_bytes(4))
        os.utime(trust.newest_rejected()[0], (i, i))  # in fewer than a clock's ticks
    kept = [int.from_bytes(f.read_bytes()) for f in trust.newest_rejected()]
    assert kept == [*range(count - 1, 4, -1)], "the newest, for a person who looks for one"
    assert "no certificate" in trust.refusal(b"\0")
