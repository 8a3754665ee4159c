"""What `plc-edge infra render` writes: the same each time, no secret, no clash between boxes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from services.infra import model, render, tenant
from services.runtime import loader
from services.runtime.errors import ConfigError
from tests.kit import fleet
from tests.kit.common import ROOT

SCRIPTS = sorted((ROOT / "deploy" / "scripts").glob("*.sh"))


def _example() -> model.Fleet:
    return model.fleet([loader.load(ROOT / "deploy/config.example.yaml", check_secrets=False)])


def test_files_in_the_repository_are_what_the_example_renders() -> None:
    """If this fails: plc-edge infra render -c deploy/config.example.yaml --out infra, and so on."""
    files = render.render(_example())
    compose = render.render(_example(), infra_dir="../infra", root_dir="..")["docker-compose.yml"]
    assert (ROOT / "deploy/docker-compose.yml").read_text() == compose
    del files["docker-compose.yml"]
    for name, text in files.items():
        assert (ROOT / "infra" / name).read_text() == text, name
    kept = {str(f.relative_to(ROOT / "infra")) for f in (ROOT / "infra").rglob("*") if f.is_file()}
    assert {k for k in kept if not k.startswith("templates/")} == set(files)


def test_command_is_deterministic_and_holds_no_secret(tmp_path: Path) -> None:
    boxes = fleet.write_boxes(tmp_path / "boxes")
    secret = "segredo-que-nao-pode-sair"
    for file in boxes.glob("*/config.yaml"):
        data = yaml.safe_load(file.read_text())
        for account in data["outputs"][0]["accounts"].values():
            account["password"] = secret
        file.write_text(yaml.safe_dump(data))
    outs = [tmp_path / "one", tmp_path / "two"]
    for seed, out in enumerate(outs):
        command = [sys.executable, "-P", "-m", "services.cli.main", "infra", "render"]
        command += ["--fleet", str(boxes), "--out", str(out)]
        env = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
    names = sorted(str(f.relative_to(outs[0])) for f in outs[0].rglob("*") if f.is_file())
    assert len(names) > 20
    for name in names:
        text = (outs[0] / name).read_bytes()
        assert text == (outs[1] / name).read_bytes(), name
        assert secret.encode() not in text, name


@pytest.mark.parametrize(
    ("change", "key", "hint"),
    [
        (lambda d: d.update(site="planta-sp"), "site", "name of its own"),
        (lambda d: d["plcs"][0].update(id="prensa-01"), "plcs", "rename"),
        (lambda d: d["infra"]["plan"].update(acme="free"), "infra.plan", "one plan"),
        (
            lambda d: d["outputs"][0]["accounts"]["beta"].update(username="edge-planta-rj-acme"),
            "outputs",
            "accounts:",
        ),
        (lambda d: d.update(site="planta_sp"), "site", "share one variable"),
    ],
)
def test_clashes_are_refused(tmp_path: Path, change, key: str, hint: str) -> None:  # type: ignore[no-untyped-def]
    boxes = fleet.write_boxes(tmp_path)
    file = boxes / "planta-rj" / "config.yaml"
    data = yaml.safe_load(file.read_text())
    change(data)
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError) as caught:
        fleet.load(boxes)
    assert any(p.key == key and hint in p.hint for p in caught.value.problems)


def test_a_broker_without_containers(tmp_path: Path) -> None:
    """Files and listeners are where the configuration says; nothing of the container is left."""
    broker = {
        "folder": "/etc/mosquitto/plc-edge", "user": "mqtt", "listen": "10.0.0.5", "port": 1,
        "websocket_port": 2, "certificate_port": 3,
    }  # fmt: skip
    boxes = fleet.write_boxes(tmp_path, broker)
    for file in boxes.glob("*/config.yaml"):
        data = yaml.safe_load(file.read_text())
        data["infra"]["metrics_url"] = "http://10.0.0.9:7/metrics"
        file.write_text(yaml.safe_dump(data))
    files = render.render(fleet.load(boxes))
    conf = files["mosquitto/mosquitto.conf"].splitlines()
    assert [line for line in conf if line.startswith(("listener", "user"))] == [
        "user mqtt", "listener 1 10.0.0.5", "listener 2 10.0.0.5", "listener 3 10.0.0.5",
    ]  # fmt: skip
    named = [w for line in conf if not line.startswith("#") for w in line.split() if w[0] == "/"]
    assert len(named) > 8
    assert all(n.startswith("/etc/mosquitto/plc-edge/") for n in named)
    assert "${MQTT_URL:-ssl://mosquitto:1}" in files["telegraf/telegraf.conf"]
    assert "METRICS_URL_PLANTA_SP:-http://10.0.0.9:7/metrics}" in files["telegraf/telegraf.conf"]
    (job, _) = yaml.safe_load(files["prometheus/prometheus.yml"])["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["10.0.0.9:7"]
    assert job["scheme"] == "http"


def test_retention_of_the_plans() -> None:
    days = {p: [b.days for b in model.Tenant("x", p).buckets] for p in tenant.RETENTION_DAYS}
    assert days == {
        "free": [3, 7, 30, 365, 30],
        "pro": [7, 30, 180, 365, 30],
        "enterprise": [30, 90, 365, 365, 30],
    }


def test_kinds_of_fields_come_from_the_layouts() -> None:
    example = _example()
    assert "status_maquina" in example.booleans
    assert "contador_bom" in example.counters
    assert "AI_Corrente" not in example.booleans + example.counters


def test_dashboards() -> None:
    uids, titles = set(), set()
    for file in (ROOT / "infra" / "grafana").glob("dashboards*/*.json"):
        board = json.loads(file.read_text())
        assert board["id"] is None
        uids.add(board["uid"])
        titles.add(board["title"])
        cells: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] in ("plc-edge-influx", "plc-edge-prometheus")
            assert panel["targets"]
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            area = {
                (place["x"] + dx, place["y"] + dy)
                for dx in range(place["w"])
                for dy in range(place["h"])
            }
            assert not area & cells, f"{file.name}: {panel['title']} lies on another"
            cells |= area
    assert len(uids) == len(titles) == 6


def test_provisioning_uses_organisations_that_init_makes() -> None:
    folder = ROOT / "infra" / "grafana"
    made = (folder / "init-orgs.sh").read_text()
    for file in folder.glob("provisioning/*/*.yaml"):
        text = file.read_text()
        yaml.safe_load(text)
        for variable in ("ORG_ACME", "ORG_BETA"):
            assert f"${variable}" in text, file
            assert f"export {variable}=" in made


@pytest.mark.parametrize("profile", ["demo", "edge", "central"])
def test_compose_file_parses(profile: str) -> None:
    program = Path(sys.executable).with_name("docker-compose")
    command = [str(program), "-f", str(ROOT / "deploy/docker-compose.yml")]
    command += ["--profile", profile, "config", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_file_passes_the_linter() -> None:
    program = Path(sys.executable).with_name("compose-lint")
    command = [str(program), str(ROOT / "deploy/docker-compose.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_for_a_control_plane_the_compose_file_is_as_good(tmp_path: Path) -> None:
    """And mounts nothing of the way that it replaces."""
    loaded = loader.load(ROOT / "deploy/config.example.yaml", check_secrets=False)
    files = render.render(model.fleet([loaded], control_plane=True))
    assert "mosquitto/acl" not in files
    assert "password_file" not in files["mosquitto/mosquitto.conf"]
    file = tmp_path / "docker-compose.yml"
    file.write_text(files["docker-compose.yml"])
    for name, *words in (
        ("docker-compose", "-f", str(file), "--profile", "demo", "config", "-q"),
        ("compose-lint", str(file)),
    ):
        program = str(Path(sys.executable).with_name(name))
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    services = yaml.safe_load(file.read_text())
    assert "mqtt_passwd" not in services["secrets"]
    assert services["services"]["volumes"]["secrets"] == ["dynsec_json"]


def test_containers_are_hardened() -> None:
    services = yaml.safe_load((ROOT / "deploy/docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] != "0" or name == "volumes", name
        assert service["mem_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert ":latest" not in service["image"], name
    published = {n for n, s in services.items() if "ports" in s}
    assert published == {"mosquitto", "grafana"}


@pytest.mark.parametrize(
    "script", [*SCRIPTS, *(ROOT / "infra").rglob("*.sh")], ids=lambda p: p.name
)
def test_shell_scripts(script: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not here (apt-get install shellcheck)")
    done = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)
