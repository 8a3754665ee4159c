"""Routes and MQTT receivers in ``config.yaml``: mistakes, what is rendered, and the manual's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from services.infra import model
from services.runtime import loader, render
from services.runtime.errors import ConfigError
from services.runtime.site import Site
from tests.kit import fleet
from tests.kit.common import ROOT

SITE = """\
site: planta-sp
locatario: acme
plcs:
  - id: p1
    host: 192.168.0.10
    groups: [{name: g1, fields: [{name: a, address: "DB1.DBD0:REAL"}]}]
  - id: p2
    locatario: beta
    host: 192.168.0.11
    groups: [{name: g1, fields: [{name: a, address: "DB1.DBD0:REAL"}]}]
outputs:
  - name: central
    type: mqtt
    host: broker.example
    accounts: {acme: {username: edge-acme}, beta: {username: edge-beta}}
  - {name: console, type: stdout}
alerts:
  timezone: Europe/Lisbon
  receivers:
    - {name: fone, type: webhook, url: "https://avisos.example/x", rate: {messages: 3, per: 10m}}
    - {name: chefe, type: email, host: smtp.example, from: c@x.example, to: [a@x.example]}
    - name: quadro
      type: mqtt
      output: central
      accounts:
        acme: {username: al-acme, password: segredo}
        beta: {username: al-beta}
  routes:
    noite:
      receivers: [fone, quadro]
      group: {wait: 5s, max: 20}
      escalate: [{after: 10m, to: [chefe]}, {after: 1h, to: [chefe, fone]}]
      quiet: [{days: [sat, sun], from: "22:30", to: "06:00", severities: [aviso]}]
  rules:
    - {name: mudo, type: absence, for: 1m, route: noite}
"""


def load(folder: Path, text: str = SITE) -> Site:
    file = folder / "config.yaml"
    file.write_text(text)
    return loader.load(file, {})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[fone, quadro]", "[fon, quadro]", ["routes.noite.receivers[0]", "did you mean `fone`?"]),
        ("to: [chefe]}", "to: [chef]}", ["escalate[0].to[0]", "did you mean `chefe`?"]),
        ("to: [chefe]}", "to: [quadro]}", ["escalate[0].to[0]", "nobody who can be told"]),
        ("after: 1h", "after: 10m", ["escalate[1].after", "not later than the step before"]),
        ("after: 1h", "after: 0s", ["escalate[1].after"]),
        ("wait: 5s", "wait: 0s", ["routes.noite.group.wait"]),
        ("wait: 5s", "wiat: 5s", ["routes.noite.group.wiat", "did you mean `wait`?"]),
        ("severities: [aviso]", "severities: [critica]", ["quiet[0].severities[0]"]),
        ('from: "22:30"', 'from: "25:30"', ["quiet[0].from", "hours and minutes"]),
        ("Europe/Lisbon", "Europe/Lisboa", ["alerts.timezone", "did you mean `Europe/Lisbon`?"]),
        ("messages: 3", "messages: 0", ["receivers[0].rate.messages"]),
        ("output: central", "output: centrl", ["receivers[2].output", "did you mean `central`?"]),
        ("output: central", "output: console", ["receivers[2].output", "no MQTT output is named"]),
        ("username: al-beta", "username: edge-acme",
         ["receivers[2].username", "is another connection's"]),
        ("        beta: {username: al-beta}\n", "",
         ["receivers[2].username", "has no account for beta"]),
        ("password: segredo", "password: '${NOT_THERE_AT_ALL}'",
         ["receivers[2].accounts.acme.password", "not set"]),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in SITE
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, SITE.replace(old, new))
    for word in words:
        assert word in str(refused.value)


def test_what_is_rendered(tmp_path: Path) -> None:
    paths = f"paths: {{state: {tmp_path}/s, runtime: {tmp_path}/r}}\n"
    site = load(tmp_path, paths + SITE)
    rendered = render.render(site)
    assert b"segredo" not in orjson.dumps(rendered)
    render.write_clear_secrets(site)
    alerts: dict[str, Any] = rendered["alerts"]
    assert alerts["routes"] == {
        "noite": {
            "receivers": ["fone", "quadro"],
            "group": [5_000, 20],
            "steps": [[600_000, ["chefe"]], [3_600_000, ["chefe", "fone"]]],
            "quiet": [[[5, 6], 1350, 360, ["aviso"]]],
        }
    }
    board = next(r for r in alerts["receivers"] if r["type"] == "mqtt")
    assert (board["hosts"], board["port"]) == (["broker.example"], 8883)
    assert {t: a["username"] for t, a in board["tenants"].items()} == {
        "acme": "al-acme", "beta": "al-beta"}  # fmt: skip
    secret = board["tenants"]["acme"]["password"]["file"]
    assert Path(secret).read_text() == "segredo"


def test_without_rules_a_board_is_still_cleared(tmp_path: Path) -> None:
    bare = SITE[: SITE.index("  routes:")]
    assert render.render(load(tmp_path, bare))["alerts"]["rules"] == []
    nobody = bare[: bare.index("    - name: quadro")]
    assert "alerts" not in render.render(load(tmp_path, nobody))


def test_boxes_of_a_tenant_must_not_share_a_topic(tmp_path: Path) -> None:
    folder = fleet.write_boxes(tmp_path)
    fleet.load(folder)
    for box in fleet.BOXES:
        file = folder / box / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["alerts"]["receivers"][0]["per_site"] = False
        file.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"(?s)alertas/acme/mudo is also written by .*per_site"):
        fleet.load(folder)


def test_an_account_is_one_connection(tmp_path: Path) -> None:
    folder = fleet.write_boxes(tmp_path)
    file = folder / fleet.BOXES[1] / "config.yaml"
    twin = f"alerts-{fleet.BOXES[0]}-acme"
    file.write_text(file.read_text().replace(f"alerts-{fleet.BOXES[1]}-acme", twin))
    with pytest.raises(ConfigError, match=f"broker account {twin} of tenant acme is also used by"):
        fleet.load(folder)


def test_secrets_of_alert_accounts_are_asked_for(tmp_path: Path) -> None:
    text = SITE.replace("password: segredo", "password: '${ALERTAS_PW}'")
    (tmp_path / "config.yaml").write_text(text)
    site = loader.load(tmp_path / "config.yaml", {}, check_secrets=False)
    assert ("ALERTAS_PW", "al-acme") in model.fleet([site]).box.secrets


def test_the_manuals_example_is_right(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ESPECIFICACAO_MOTOR_ALERTAS.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- notices example -->\n```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    for name in re.findall(r"(?:password|secret)_file: ([\w.-]+)", found[1]):
        (tmp_path / name).write_text("x")
    one_tenant = SITE[: SITE.index("outputs:")].replace("    locatario: beta\n", "")
    site = load(tmp_path, one_tenant + found[1])
    assert site.config.alerts.routes["mecanica"].escalate[0].after == 900
