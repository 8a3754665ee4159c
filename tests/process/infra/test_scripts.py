"""The scripts around the broker and the database, run for real; InfluxDB's CLI is stood in for."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kit.common import ROOT
from tests.kit.fleet_broker import SCRIPTS, run

# As the real CLI: tab-separated columns, an error where nothing is found, JSON with --json.
INFLUX = """\
#!/bin/bash
cd "$STATE" || exit 9
echo "$*" >>log
case "$1 $2" in
  "org list") [ -f "org-$4" ] && printf 'id-%s\\t%s\\n' "$4" "$4" ;;
  "org create") touch "org-$4"; printf 'id-%s\\t%s\\n' "$4" "$4" ;;
  "bucket list") [ -f "bucket-$4-$6" ] && printf 'id-%s\\t%s\\n' "$4-$6" "$6" ;;
  "bucket create") touch "bucket-$4-$6"; printf 'id-%s\\t%s\\n' "$4-$6" "$6" ;;
  "bucket update" | "task update") ;;
  "auth create")
    printf '{\\n\\t"id": "1",\\n\\t"token": "token-%s==",\\n\\t"x": 1\\n}\\n' "$RANDOM" ;;
  "task list") if [ -f "task-$4" ]; then cat "task-$4"; fi ;;
  "task create") name=$(sed -n 's/.*name: "\\([^"]*\\)".*/\\1/p' "$6")
    printf 'id-%s\\t%s\\t\\torg\\n' "$name" "$name" >>"task-$4" ;;
  *) exit 9 ;;
esac
"""


def _lines(log: Path, begin: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith(begin)]


def test_influx_setup_is_repeatable(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    program = tmp_path / "bin" / "influx"
    program.write_text(INFLUX)
    program.chmod(0o755)
    tokens = tmp_path / "tokens"
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "STATE": str(tmp_path / "state"),
        "TOKENS": str(tokens),
        "TASKS": str(ROOT / "infra" / "influxdb" / "tasks"),
    }
    script = ROOT / "infra" / "influxdb" / "initdb.d" / "10-plc-edge.sh"
    kept: dict[str, str] = {}
    for repeat in (False, True):
        done = subprocess.run([str(script)], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        written = {f.name: f.read_text() for f in tokens.iterdir()}
        assert not any(t in done.stdout + done.stderr for t in written.values())
        assert kept == written if repeat else not kept
        kept = written
    log = tmp_path / "state" / "log"
    assert len(_lines(log, "org create")) == 3
    assert len(_lines(log, "bucket create")) == 1 + 2 * 5
    assert len(_lines(log, "task create")) == len(_lines(log, "task update")) == 2 * 4
    rights = [[a for a in line.split() if a.endswith("-bucket")] for line in _lines(log, "auth")]
    # One token writes one bucket and reads none; one per organisation reads and writes none.
    writers = [r for r in rights if r == ["--write-bucket"]]
    readers = [r for r in rights if set(r) == {"--read-bucket"}]
    assert (len(writers), len(readers), len(rights)) == (7, 3, 10)
    variables = [line.split("=")[0] for line in kept["telegraf.env"].splitlines()]
    conf = (ROOT / "infra" / "telegraf" / "telegraf.conf").read_text()
    assert all(f"${{{v}:?" in conf for v in variables)
    assert conf.count("${INFLUX_TOKEN_") == len(variables)


def test_compose_secrets(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    arguments = ("--infra", str(ROOT / "infra"), "--secrets", str(secrets))
    run("compose-prepare.sh", *arguments)
    first = {f.name: f.read_bytes() for f in secrets.iterdir() if f.is_file()}
    run("compose-prepare.sh", *arguments)
    again = {f.name: f.read_bytes() for f in secrets.iterdir() if f.is_file()}
    # A new CRL and new salts of the hashes; everything else stays.
    assert {n for n in first if first[n] != again[n]} == {"crl.pem", "passwd"}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    compose = (ROOT / "deploy" / "docker-compose.yml").read_text()
    for line in compose.split("\nsecrets:\n")[1].splitlines():
        assert (secrets / line.split("/secrets}/")[1].rstrip('"}')).is_file(), line


def test_rotating_changes_one_password(tmp_path: Path) -> None:
    users = str(ROOT / "infra" / "mosquitto" / "users.txt")
    run("broker-users.sh", "--users", users, "--secrets", str(tmp_path))
    before = {f.name: f.read_text() for f in tmp_path.glob("*.pw")}
    run("broker-users.sh", "--users", users, "--secrets", str(tmp_path), "--rotate", "saude")
    after = {f.name: f.read_text() for f in tmp_path.glob("*.pw")}
    assert {n for n in before if before[n] != after[n]} == {"mqtt-saude.pw"}


@pytest.mark.parametrize("name", ["../x", "a b", "", "a/CN=b"])
def test_pki_refuses_odd_names(tmp_path: Path, name: str) -> None:
    run("pki.sh", str(tmp_path / "pki"), "create")
    command = [str(SCRIPTS / "pki.sh"), str(tmp_path / "pki"), "client", name]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_pki_with_a_passphrase_and_expiry(tmp_path: Path) -> None:
    pki, phrase = tmp_path / "pki", tmp_path / "phrase"
    phrase.write_text("frase longa\n")
    env = {"PKI_PASSPHRASE_FILE": str(phrase)}
    run("pki.sh", str(pki), "create", env=env)
    assert "ENCRYPTED" in (pki / "private" / "ca.key").read_text()
    run("pki.sh", str(pki), "client", "caixa", env=env)
    run("pki.sh", str(pki), "expiring")
    run("pki.sh", str(pki), "client", "curta", env={**env, "PKI_DAYS": "5"})
    command = [str(SCRIPTS / "pki.sh"), str(pki), "expiring"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "curta.pem" in done.stdout
    assert "caixa.pem" not in done.stdout
    old = (pki / "issued" / "curta.pem").read_bytes()
    run("pki.sh", str(pki), "renew", "curta", env=env)
    assert (pki / "issued" / "curta.pem").read_bytes() != old
    run("pki.sh", str(pki), "expiring")
