"""``plc-edge central`` as an operator uses it: check, init, run, and the commands of the API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from services.runtime import central_config
from tests.kit.centre import BOX_CONFIG, PLC_EDGE, Centre
from tests.kit.common import ROOT, free_port, until
from tests.kit.pki import Ca

SMALLEST = """\
{listen: {host: 127.0.0.1, port: PORT, tls: false}, database: "sqlite:///central.db"}
"""


def central(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command where ``central.yaml`` lies."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [*PLC_EDGE, "central", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60, env=env,
    )  # fmt: skip


def get(port: int, path: str, key: str) -> Any:
    headers = {"authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{port}{path}"
    return urllib3.request("GET", url, headers=headers, retries=False, timeout=5)


def test_the_smallest_configuration_from_nothing(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "central.yaml").write_text(SMALLEST.replace("PORT", str(port)))
    early = central(tmp_path, "run")
    assert (early.returncode, "plc-edge central init" in early.stderr) == (2, True), early
    made = central(tmp_path, "init", "-c", "central.yaml", "--json")
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["api_key"]
    again = central(tmp_path, "init")
    assert again.returncode == 0
    assert "there is an operator already" in again.stdout
    assert json.loads(central(tmp_path, "init", "--json").stdout)["api_key"] is None
    other = json.loads(central(tmp_path, "init", "--json", "--another-key").stdout)["api_key"]
    assert other != key
    for file in ("central.db", "central-state/audit.key"):
        assert (tmp_path / file).stat().st_mode & 0o077 == 0, file

    # Beside the configuration, or where that is too deep for a socket, in /tmp.
    runtime = central_config.load(tmp_path / "central.yaml", {}).runtime
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [*PLC_EDGE, "central", "run", "-c", "central.yaml"],
            cwd=tmp_path, stdout=log, stderr=log, env=env,
        )  # fmt: skip
    try:
        until(lambda: get(port, "/healthz", "").status == 200, 20, (tmp_path / "log").read_text)
        for each in (key, other):
            assert get(port, "/v1/me", each).json()["role"] == "operator"
        assert runtime.stat().st_mode & 0o077 == 0
        assert key not in (runtime / "conf" / "control_plane.json").read_text()
        os.kill(int((runtime / "control_plane.lock").read_text()), signal.SIGKILL)
        until(lambda: get(port, "/healthz", "").status == 200, 20, "back after kill -9")
        second = central(tmp_path, "run")
        assert (second.returncode, "already runs" in second.stderr) == (1, True)
        running.send_signal(signal.SIGTERM)
        assert running.wait(15) == 0
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()
        shutil.rmtree(runtime, ignore_errors=True)
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(port, "/healthz", "")


def test_a_server_with_tls(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    cert, secret = ca.issue("localhost")
    centre = Centre()
    try:
        tls = {"cert": str(cert), "key": str(secret)}
        given = yaml.safe_load(centre.file.read_text())
        given["listen"]["tls"] = tls
        centre.file.write_text(yaml.safe_dump(given))
        centre.reload()
        centre.start()
        env = {
            "PLC_EDGE_CENTRAL_URL": f"https://localhost:{centre.port}",
            "PLC_EDGE_CENTRAL_CA": str(ca.file),
        }
        listed = centre.cli("plans", "list", "--json", env=env)
        assert [p["id"] for p in json.loads(listed.stdout)] == ["enterprise", "free", "pro"]
        stranger = centre.cli("plans", "list", env={**env, "PLC_EDGE_CENTRAL_CA": ""})
        assert (stranger.returncode, "certificate" in stranger.stderr) == (1, True)
    finally:
        centre.__exit__(None, None, None)


BAD = {
    "open to the network": (
        "listen: {host: 0.0.0.0}\ndatabase: sqlite:///c.db\n", [":1:", "listen", "set `tls:"],
    ),
    "unknown key": ("databas: x\n", [":1:", "did you mean `database`?"]),
    "no database": ("listen: {}\n", ["database", "is missing"]),
    "another database": ("database: mysql://h/d\n", [":1:", "sqlite:///FILE"]),
    "no name of a database": ("database: postgresql://u@h\n", [":1:", "postgresql://user@host"]),
    "no certificate": (
        "listen: {host: 0.0.0.0, tls: {cert: a.pem, key: b.pem}}\ndatabase: sqlite:///c.db\n",
        [":1:", "listen.tls.cert", "cannot be read"],
    ),
    "no password file": (
        "database: postgresql://u@h/d\ndatabase_password_file: pw\n", [":2:", "cannot be read"],
    ),
    "a port that is none": ("listen: {port: 0}\ndatabase: sqlite:///c.db\n", [":1:", "port"]),
    "empty": ("", ["is empty", "`listen:` and `database:`"]),
    "a name too long for a socket": (
        "database: sqlite:///c.db\npaths: {runtime: /tmp/" + "x" * 100 + "}\n",
        [":2:", "too long", "/run/plc-edge-central"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_is_named_with_its_mend(tmp_path: Path, case: str) -> None:
    text, words = BAD[case]
    (tmp_path / "central.yaml").write_text(text)
    for command in ("check", "init", "run"):
        done = central(tmp_path, command)
        assert done.returncode == 2, done
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr, done.stderr
    assert not (tmp_path / "c.db").exists()


def test_a_folder_in_tmp_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    file = deep / "central.yaml"
    file.write_text("database: sqlite:///c.db\n")
    runtime = central_config.load(file, {}).runtime
    assert runtime.parent == Path("/tmp")
    runtime.mkdir(mode=0o777)
    runtime.chmod(0o777)
    try:
        refused = central(deep, "init")
    finally:
        runtime.rmdir()
    assert (refused.returncode, "is not yours alone" in refused.stderr) == (2, True), refused


def test_a_password_in_the_url_is_warned_of_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "central.yaml").write_text("database: postgresql://u:segredo@127.0.0.1:1/d\n")
    checked = central(tmp_path, "check")
    assert (checked.returncode, "in clear" in checked.stderr) == (0, True)
    away = central(tmp_path, "init")
    assert away.returncode == 1
    assert "postgresql://u@127.0.0.1:1/d" in away.stderr
    for said in (checked, away):
        assert "segredo" not in said.stdout + said.stderr
    secret = tmp_path / "central-state" / "secrets" / "database.password"
    assert (secret.read_text(), secret.stat().st_mode & 0o077) == ("segredo", 0)


def test_the_commands_of_the_api(tmp_path: Path) -> None:
    with Centre() as centre:

        def said(*words: str) -> Any:
            done = centre.cli(*words, "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        assert said("tenants", "create", "acme", "--plan", "free")["plan"] == "free"
        assert said("tenants", "change", "acme", "--plan", "pro", "--name", "Acme")["plan"] == "pro"
        assert said("sites", "create", "acme", "caixa-1")["id"] == "caixa-1"
        assert said("devices", "create", "acme", "clp-1", "--site", "caixa-1")["site"] == "caixa-1"
        made = said("credentials", "create", "--tenant", "acme", "--role", "reader")
        turned = said("credentials", "rotate", made["id"], "--tenant", "acme", "--overlap", "0")
        assert centre.call("GET", "/v1/me", key=made["secret"]).status == 401
        assert centre.call("GET", "/v1/me", key=turned["secret"]).status == 200

        layout = tmp_path / "layouts" / "db5.yaml"
        layout.parent.mkdir()
        layout.write_text("name: db5\nfields:\n  - {name: x, type: REAL, offset: 0}\n")
        file = tmp_path / "config.yaml"
        text = BOX_CONFIG.format(site="caixa-1", tenant="acme", plc="clp-1", scan="1s")
        file.write_text(text)
        assert said("configs", "push", "acme", "caixa-1", str(file))["version"] == 1
        file.write_text(
            text.split("        fields:")[0] + "        db: 5\n        layout: layouts/db5.yaml\n"
        )
        assert said("configs", "push", "acme", "caixa-1", str(file))["version"] == 2
        diff = centre.cli("configs", "diff", "acme", "caixa-1", "1", "2").stdout
        assert "+        layout: layouts/db5.yaml" in diff
        file.write_text(text.replace("scan", "scam"))
        refused = centre.cli("configs", "push", "acme", "caixa-1", str(file))
        assert refused.returncode == 1
        assert "config.yaml:8" in refused.stderr
        assert "fix: did you mean `scan`?" in refused.stderr

        table = centre.cli("tenants", "list").stdout
        assert all(word in table for word in ("acme", "pro", "active"))
        assert {r["limit"] for r in [said("usage", "limits", "acme")["devices"]]} == {20}
        assert said("usage", "list", "acme") == []
        assert said("audit", "list", "--tenant", "acme")[-1]["action"] == "tenant.create"
        assert said("plans", "list")[0]["id"] == "enterprise"
        assert said("tenants", "suspend", "acme")["state"] == "suspended"
        assert said("tenants", "resume", "acme")["state"] == "active"
        assert said("tenants", "delete", "acme")["state"] == "deleted"
        assert centre.cli("tenants", "purge", "acme").returncode == 0
        assert said("tenants", "list") == []

        gone = centre.cli("sites", "list", "acme")
        assert (gone.returncode, gone.stderr.startswith("Not found")) == (1, True)
        keyless = centre.cli("tenants", "list", env={"PLC_EDGE_CENTRAL_KEY": ""})
        assert (keyless.returncode, "--key-file" in keyless.stderr) == (1, True)
        wrong = centre.cli("tenants", "list", env={"PLC_EDGE_CENTRAL_KEY": "nada"})
        assert (wrong.returncode, wrong.stderr.startswith("No valid key")) == (1, True)


def test_a_centre_that_is_away_is_named() -> None:
    centre = Centre()
    try:
        away = centre.cli("tenants", "list")
    finally:
        centre.__exit__(None, None, None)
    assert away.returncode == 1
    assert f"http://127.0.0.1:{centre.port} cannot be reached" in away.stderr
