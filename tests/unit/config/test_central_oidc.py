"""The section `oidc` of central.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from services.runtime import central_config
from services.runtime.errors import ConfigError

GOOD = {
    "issuer": "https://login.example.com/realms/fabrica",
    "url": "https://centro.example.com/",
    "client_id": "plc-edge",
    "client_secret_file": "oidc.secret",
    "roles": {
        "plc-edge-operadores": {"role": "operator"},
        "0f2c-ACME": {"role": "admin", "tenant": "acme"},
    },
}


def load(folder: Path, **changed: object) -> central_config.Centre:
    (folder / "oidc.secret").write_text("segredo\n")
    file = folder / "central.yaml"
    content = {"database": "sqlite:///c.db", "oidc": {**GOOD, **changed}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return central_config.load(file, {})


def test_what_the_process_reads(tmp_path: Path) -> None:
    (rendered,) = central_config.render(load(tmp_path)).values()
    oidc = rendered["oidc"]
    assert oidc["redirect"] == "https://centro.example.com/admin/oidc/callback"
    assert oidc["client_secret"] == {"file": str(tmp_path / "oidc.secret")}
    assert "segredo" not in str(rendered)
    assert oidc["scope"] == "openid profile email"
    assert list(oidc["roles"]) == list(GOOD["roles"]), "the first that fits counts"


@pytest.mark.parametrize(
    ("changed", "key", "says"),
    [
        ({"issuer": "http://login.example.com"}, "oidc.issuer", "https://"),
        ({"issuer": "login.example.com"}, "oidc.issuer", "https://"),
        ({"issuer": "https://a:b@login.example.com"}, "oidc.issuer", "no address"),
        ({"issuer": "https://x.example:nada"}, "oidc.issuer", "no address"),
        ({"url": "https://x.example/?a=1"}, "oidc.url", "no address"),
        ({"url": "http://10.0.0.1"}, "oidc.url", "https://"),
        ({"client_secret_file": "nada"}, "oidc.client_secret_file", "cannot be read"),
        ({"ca": "nada.pem"}, "oidc.ca", "cannot be read"),
        ({"roles": {}}, "oidc.roles", "at least 1"),
        ({"roles": {"g": {"role": "admin"}}}, "oidc.roles", "`tenant:`"),
        ({"roles": {"g": {"role": "operator", "tenant": "acme"}}}, "oidc.roles", "`tenant:`"),
        ({"roles": {"g": {"role": "box", "tenant": "acme"}}}, "oidc.roles", "operator"),
        ({"client_secret": "x"}, "oidc.client_secret", "unknown"),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, changed: dict[str, object], key: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, **changed)
    (problem,) = refused.value.problems
    assert problem.key.startswith(key)
    assert says.lower() in f"{problem.message} {problem.hint}".lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_http_to_this_machine_is_allowed(tmp_path: Path, host: str) -> None:
    centre = load(tmp_path, issuer=f"http://{host}:9000", url=f"http://{host}:8443")
    assert centre.config.oidc is not None
