"""Receivers and routes in ``config.yaml``, and what is rendered of them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from services.runtime import loader, render
from services.runtime.errors import ConfigError
from services.runtime.site import Site

SITE = """\
site: planta-sp
locatario: acme
plcs:
  - id: p1
    host: 192.168.0.10
    groups: [{name: g1, fields: [{name: a, address: "DB1.DBD0:REAL"}]}]
"""
ALERTS = """\
alerts:
  receivers:
    - {name: fone, type: webhook, url: "https://avisos.example/x", secret: segredo}
    - {name: turno, type: email, host: smtp.example, from: c@x.example, to: [a@x.example]}
  routes:
    todos: [fone, turno]
  rules:
    - {name: mudo, type: absence, for: 1m, route: todos}
"""


def load(folder: Path, text: str) -> Site:
    file = folder / "config.yaml"
    file.write_text(text)
    return loader.load(file, {})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("route: todos", "route: todso", ["rules[0].route", "did you mean `todos`?"]),
        ("[fone, turno]", "[fone, turn]", ["routes.todos.receivers[1]", "did you mean `turno`?"]),
        ("name: turno", "name: fone", ["receivers[1].name", "stands 2 times"]),
        ("secret: segredo", "secret: a, secret_file: b", ["receivers[0]", "not both"]),
        ("https://", "ftp://", ["receivers[0].url"]),
        ("type: email", "type: sms", ["receivers[1]", "`type: email` or `type: mqtt`"]),
        ("[a@x.example]", "[a.x.example]", ["receivers[1].to[0]"]),
        ("[a@x.example]", "[]", ["receivers[1].to"]),
        ("secret: segredo", "secret: '${NOT_THERE_AT_ALL}'", ["receivers[0].secret", "not set"]),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in ALERTS
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, SITE + ALERTS.replace(old, new))
    for word in words:
        assert word in str(refused.value)


def test_without_rules_there_is_no_process(tmp_path: Path) -> None:
    plain = render.render(load(tmp_path, SITE))
    assert "alerts" not in plain
    assert plain["store_forward"]["outputs"] == []
    receivers_only = ALERTS.partition("  rules:")[0]
    assert render.render(load(tmp_path, SITE + receivers_only)) == plain


def test_no_secret_is_rendered(tmp_path: Path) -> None:
    paths = f"paths: {{state: {tmp_path}/s, runtime: {tmp_path}/r}}\n"
    site = load(tmp_path, SITE + paths + ALERTS)
    assert any("secret: is in clear" in w for w in site.config.warnings)
    rendered = render.render(site)
    assert b"segredo" not in orjson.dumps(rendered)
    render.write(rendered, "config.yaml")
    render.write_clear_secrets(site)
    reference = rendered["alerts"]["receivers"][0]["secret"]
    assert Path(reference["file"]).read_text() == "segredo"
    program = (tmp_path / "r" / "supervisor.d" / "alerts.conf").read_text()
    assert "[program:alerts]" in program
