"""Every way to get the configuration wrong: exit 2, file, line, key, fix; never a traceback.

The real command in a real process, as the person at the machine runs it.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.pki import Ca, encrypt

GOOD = """\
site: planta-sp
locatario: acme
paths: {state: STATE, runtime: RUN}
plcs:
  - id: prensa-01
    host: 192.168.0.10
    groups:
      - name: db500
        db: 500
        scan: 500ms
        layout: db500.yaml
outputs:
  - name: central
    type: mqtt
    host: broker
    username: box
    password_file: mqtt.pw
"""
LAYOUT = """\
name: db500
fields:
  - {name: rodando, type: BOOL, offset: 0.0}
  - {name: velocidade, type: REAL, offset: 2}
"""


def edit(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


# name -> (configuration, what the message must hold besides the file: line, key, words of the fix)
CASES: dict[str, tuple[str | bytes, list[str]]] = {
    "wrong type": (edit("db: 500", "db: many"), [":9:", "plcs[0].groups[0].db", "integer"]),
    "text for a number": (edit("db: 500", 'db: "500"'), [":9:", "db"]),
    "unknown key": (edit("scan:", "scam:"), [":10:", "unknown key", "did you mean `scan`?"]),
    "unknown top key": (GOOD + "metrcs: {}\n", [":18:", "did you mean `metrics`?"]),
    "unknown output key": (edit("host: broker", "hots: [b]"), [":15:", "`hosts`"]),
    "unknown time zone": (
        edit("    groups:", "    timezone: america/sao paulo\n    groups:"),
        [":7:", "plcs[0].timezone", "did you mean `America/Sao_Paulo`?"],
    ),
    "time zone that is a path": (
        edit("    groups:", "    timezone: ../../etc/passwd\n    groups:"),
        [":7:", "plcs[0].timezone", "no time zone"],
    ),
    "time zone of no timestamp": (
        edit("        scan: 500ms", "        scan: 500ms\n        timezone: Europe/Berlin"),
        ["plcs[0].groups[0]", "`timestamp:`"],
    ),
    "host with an empty label": (
        edit("192.168.0.10", "plc..local"), [":6:", "plcs[0].host", "between two dots"],
    ),
    **{
        f"host {host}": (
            edit("192.168.0.10", f'"{host}"'), [":6:", "plcs[0].host", "the port stands in `port`"],
        )
        for host in (
            "http://plc", "10.0.0.0/24", "10.0.0.5:102", "plc/1", "192.168.0.300", "10.1", "[::1]",
            "plc 1", " plc", "", "plc?", "mqtt://",
        )
    },
    "broker as URL": (
        edit("host: broker", "host: mqtts://broker:8883"),
        [":15:", "outputs[0]", "is no host name or address (it is 'mqtts://", "stands in `port`"],
    ),
    "brokers as URLs": (
        edit("host: broker", "hosts: [broker-1, 'broker-2:8883']"),
        [":15:", "outputs[0].hosts[1]", "stands in `port`"],
    ),
    "target of a mirror as URL": (
        GOOD + "mirrors: [{name: m1, source: {plc: prensa-01, group: db500},"
        " target: {host: 's7://h', db: 6}}]\n",
        [":18:", "mirrors[0].target.host", "stands in `port`"],
    ),
    "two ways to give the address": (
        edit("host: 192.168.0.10", "host: a\n    hosts: [a, b]"), [":5:", "either `host:`"],
    ),
    "one address twice": (
        edit("host: 192.168.0.10", "hosts: [plc-a, plc-a]"), [":5:", "one address twice"],
    ),
    "a redundant target": (
        GOOD + "mirrors: [{name: m1, source: {plc: prensa-01, group: db500},"
        " target: {hosts: [a, b], db: 6}}]\n",
        [":18:", "mirrors[0].target.hosts", "did you mean `host`?"],
    ),
    "raw bytes past the block": (
        edit("scan: 500ms", "scan: 500ms\n        raw: {start: 60000, length: 6000}"),
        [":11:", "raw", "reaches byte 65999", "ends at 65535"],
    ),
    "an address past the block": (
        edit("layout: db500.yaml", "fields: [{name: a, address: DB500.DBW65535:INT}]"),
        [":11:", "past byte 65535", "64 KiB"],
    ),
    "no tenants": (
        edit("username: box", "locatarios: []\n    username: box"), [":16:", "locatarios"],
    ),
    "machine name of another object": (
        edit("scan: 500ms", 'scan: 500ms\n        machines: {count: 2, stride: 6, name: "{n.x}"}'),
        [":11:", "machines", "is no pattern"],
    ),
    "machine name without end": (
        edit("scan: 500ms", 'scan: 500ms\n        machines: {count: 2, stride: 6, name: "{n:70}"}'),
        [":11:", "machines", "more than 64 characters"],
    ),
    "duplicate id": (
        edit("outputs:", "  - {id: prensa-01, host: h, groups: [{name: g1, fields: [{name: x, "
             'address: "M1.0"}]}]}\noutputs:'),
        [":12:", "plcs[1].id", "'prensa-01' stands 2 times", "rename one"],
    ),
    "duplicate key": (
        edit("    host: 192.168.0.10\n", "    host: a\n    host: b\n"),
        [":7:", "twice"],
    ),
    "missing layout": (edit("db500.yaml", "db501.yaml"), [":11:", "db501.yaml does not exist"]),
    "overlapping machines": (
        edit("layout: db500.yaml", "layout: db500.yaml\n        machines: {count: 3, stride: 4}"),
        [":12:", "machines overlap", "`stride: 6`"],
    ),
    "machines past the block": (
        edit("layout: db500.yaml",
             "layout: db500.yaml\n        machines: {count: 9, stride: 9000}"),
        [":12:", "ends at byte 65535"],
    ),
    "machine names collide": (
        edit("layout: db500.yaml",
             "layout: db500.yaml\n        machines: {count: 3, stride: 6, name: m}"),
        [":12:", "two machines one name", "{n:02d}"],
    ),
    "bad address": (
        edit("        layout: db500.yaml",
             '        fields: [{name: x, address: "DB1.DBZ4"}]'),
        [":11:", "address", "DB1.DBZ4"],
    ),
    "port out of range": (edit("host: broker", "port: 70000\n    host: broker"), [":15:", "65535"]),
    "secret unreadable": (edit("mqtt.pw", "absent.pw"), [":17:", "secret file", "absent.pw"]),
    "variable not set": (
        edit("password_file: mqtt.pw", "password: ${PE_TEST_UNSET}"),
        [":17:", "PE_TEST_UNSET", "not set"],
    ),
    "not YAML": ("site: [planta\nplcs: }", [":2:", "not YAML"]),
    "empty": ("", ["is empty"]),
    "only a comment": ("# nothing yet\n", ["is empty"]),
    "a list": ("- site\n- plcs\n", ["not a list"]),
    "tabs": ("site: planta-sp\nplcs:\n\t- id: a\n", [":3:", "spaces instead of the tab"]),
    "not UTF-8": ("site: planta-s\xe3o\n".encode("latin-1"), [":1:", "0xe3", "UTF-8"]),
    "no unit": (edit("500ms", "500"), [":10:", "500ms, 2s"]),
    "scan too fast": (edit("500ms", "1ms"), [":10:", "0.01"]),
    "name in capitals": (edit("prensa-01", "Prensa 01"), [":5:", "no valid name", "a-z"]),
    "no host": (edit("    host: 192.168.0.10\n", ""), ["plcs[0]", "host", "is missing"]),
    "no groups": (edit("site: planta-sp", "site: x1\nstore: {max_size: 2}"), [":2:", "512MiB"]),
    "unknown output type": (edit("type: mqtt", "type: amqp"), [":13:", "type: mqtt"]),
    "mirror of nobody": (
        GOOD + "mirrors: [{name: m1, source: {plc: prensa-1, group: db500},"
        " target: {host: h, db: 6}}]\n",
        [":18:", "no plc is named 'prensa-1'", "`prensa-01`"],
    ),
    "layout and fields": (
        edit("layout: db500.yaml", "layout: db500.yaml\n        fields: []"),
        ["either `layout:`"],
    ),
    "open panel": (GOOD + "metrics: {host: 0.0.0.0}\n", [":18:", "reached from the network"]),
    "alias bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b]\n",
        ["unknown key"],
    ),
}  # fmt: skip


def run_check(
    folder: Path, config: str | bytes, **environ: str
) -> subprocess.CompletedProcess[str]:
    (folder / "db500.yaml").write_text(LAYOUT)
    (folder / "mqtt.pw").write_text("geheim-123\n")
    if isinstance(config, str):
        config = (
            config.replace("STATE", str(folder / "s")).replace("RUN", str(folder / "r")).encode()
        )
    (folder / "config.yaml").write_bytes(config)
    file = str(folder / "config.yaml")
    return subprocess.run(
        [sys.executable, "-P", "-m", "services.cli.main", "check", "-c", file],
        capture_output=True, text=True, check=False, timeout=30,
        env={**os.environ, "COLUMNS": "200", **environ},
    )  # fmt: skip


def test_the_good_one_is_good(tmp_path: Path) -> None:
    done = run_check(tmp_path, GOOD)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("case", CASES)
def test_bad_configuration(tmp_path: Path, case: str) -> None:
    config, expected = CASES[case]
    done = run_check(tmp_path, config)
    assert done.returncode == 2, done.stdout + done.stderr
    assert str(tmp_path / "config.yaml") in done.stderr
    for words in expected:
        assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert re.search(r"\d+ problems? found", done.stderr)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    config = edit("500ms", "500").replace("db: 500", "db: -1").replace("host: broker", "port: 0")
    done = run_check(tmp_path, config)
    for line in (":9:", ":10:", ":15:"):
        assert line in done.stderr


def test_a_problem_in_a_layout_names_the_layout(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(LAYOUT.replace("REAL", "RAEL"))
    done = run_check(tmp_path, edit("db500.yaml", "l.yaml"))
    assert done.returncode == 2
    assert f"{tmp_path}/l.yaml:4:" in done.stderr
    assert "REAL" in done.stderr


def test_environment_overrides_and_its_mistakes_name_the_variable(tmp_path: Path) -> None:
    assert run_check(tmp_path, GOOD, PLC_EDGE__OUTPUTS__CENTRAL__PORT="1884").returncode == 0
    done = run_check(tmp_path, GOOD, PLC_EDGE__OUTPUTS__CENTRAL__PORT="99999")
    assert done.returncode == 2
    assert "PLC_EDGE__OUTPUTS__CENTRAL__PORT" in done.stderr
    done = run_check(tmp_path, GOOD, PLC_EDGE__OUTPUTS__CENTRALE__PORT="1884")
    assert done.returncode == 2
    assert "use one of: CENTRAL" in done.stderr


# variables -> what the message must hold; the file itself is good
VARIABLES: dict[str, tuple[dict[str, str], list[str]]] = {
    "unknown top key": (
        {"PLC_EDGE__METRCS__PORT": "9108"},
        ["environment: PLC_EDGE__METRCS__PORT:", "`metrcs`: unknown key", "did you mean `metrics`"],
    ),
    "unknown top key alone": ({"PLC_EDGE__SIET": "x1"}, ["PLC_EDGE__SIET:", "`site`"]),
    "no key at all": ({"PLC_EDGE__": "x1"}, ["PLC_EDGE__:", "names no key"]),
    "unknown key further down": (
        {"PLC_EDGE__STORE__MAX_SICE": "1GiB"}, ["PLC_EDGE__STORE__MAX_SICE:", "`max_size`"],
    ),
    "wrong value": ({"PLC_EDGE__METRICS__PORT": "many"}, ["PLC_EDGE__METRICS__PORT:", "integer"]),
    "wrong value in a mapping": (
        {"PLC_EDGE__METRICS": "{port: 0}"}, ["PLC_EDGE__METRICS:", "`metrics.port`"],
    ),
    "half of a pair": (
        {"PLC_EDGE__METRICS__TLS__CERT": "a.pem"},
        ["PLC_EDGE__METRICS__TLS__CERT:", "`metrics.tls.key`: is missing"],
    ),
    "against a rule of the whole": (
        {"PLC_EDGE__METRICS__HOST": "0.0.0.0"},
        ["PLC_EDGE__METRICS__HOST", "reached from the network"],
    ),
    "against a rule of a whole in the file": (
        {"PLC_EDGE__OUTPUTS__CENTRAL__HOSTS": "[b]"},
        ["config.yaml:13:", "PLC_EDGE__OUTPUTS__CENTRAL__HOSTS", "`host:` or `hosts:`"],
    ),
    "missing file": (
        {"PLC_EDGE__PLCS__PRENSA_01__GROUPS__DB500__LAYOUT": "absent.yaml"},
        ["PLC_EDGE__PLCS__PRENSA_01__GROUPS__DB500__LAYOUT:", "absent.yaml does not exist"],
    ),
    "missing secret": (
        {"PLC_EDGE__OUTPUTS__CENTRAL__PASSWORD_FILE": "absent.pw"},
        ["PLC_EDGE__OUTPUTS__CENTRAL__PASSWORD_FILE:", "absent.pw"],
    ),
    "below a value": ({"PLC_EDGE__SITE__NAME": "x"}, ["PLC_EDGE__SITE__NAME:", "has no keys"]),
    "not YAML": ({"PLC_EDGE__SITE": "@geheim: ["}, ["PLC_EDGE__SITE:", "is not YAML", "quotes"]),
    "a key twice": ({"PLC_EDGE__METRICS": "{port: 1, port: 2}"}, ["__METRICS:", "is not YAML"]),
    "lists without end": ({"PLC_EDGE__SITE": "[" * 9_000}, ["PLC_EDGE__SITE:", "is not YAML"]),
    "two of them": (
        {"PLC_EDGE__METRICS__PORT": "many", "PLC_EDGE__SITE__NAME": "x", "PLC_EDGE__STORE__X": "1"},
        ["PLC_EDGE__METRICS__PORT:", "PLC_EDGE__SITE__NAME:", "PLC_EDGE__STORE__X:"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VARIABLES)
def test_a_wrong_variable_is_named(tmp_path: Path, case: str) -> None:
    environ, expected = VARIABLES[case]
    done = run_check(tmp_path, GOOD, **environ)
    assert done.returncode == 2, done.stdout + done.stderr
    for words in expected:
        assert words in done.stderr, done.stderr
    if "config.yaml:" not in expected[0]:
        assert "config.yaml" not in done.stderr, "said to stand in the file"
    assert "Traceback" not in done.stderr + done.stdout
    assert "geheim" not in done.stderr + done.stdout


def test_a_mistake_in_the_file_is_no_variable_s(tmp_path: Path) -> None:
    environ = {"PLC_EDGE__METRICS__PORT": "9109", "PLC_EDGE__OUTPUTS__CENTRAL__PORT": "1884"}
    done = run_check(tmp_path, edit("500ms", "500"), **environ)
    assert done.returncode == 2
    assert "config.yaml:10:" in done.stderr
    assert "PLC_EDGE__" not in done.stderr


def test_a_password_in_clear_is_warned_of_and_not_shown(tmp_path: Path) -> None:
    done = run_check(tmp_path, edit("password_file: mqtt.pw", "password: geheim-123"))
    assert done.returncode == 0
    assert "in clear" in done.stderr
    bad = run_check(tmp_path, edit("password_file: mqtt.pw", "password: [geheim-123]"))
    assert bad.returncode == 2
    assert "geheim-123" not in done.stderr + done.stdout + bad.stderr + bad.stdout


def test_hosts_that_are_good(tmp_path: Path) -> None:
    for host in ("plc", "PLC_1-a.local.", "10.0.0.5", "::1", "fe80::1%eth0", "máquina"):
        done = run_check(tmp_path, edit("192.168.0.10", f'"{host}"'))
        assert (done.returncode, done.stderr) == (0, ""), host


def test_a_password_in_a_url_is_not_shown(tmp_path: Path) -> None:
    done = run_check(tmp_path, edit("host: broker", "host: mqtt://box:geheim-123@broker"))
    assert done.returncode == 2
    assert "is no host name or address" in done.stderr
    assert "geheim-123" not in done.stderr + done.stdout


def test_an_encrypted_key_is_refused_without_asking_for_its_passphrase(tmp_path: Path) -> None:
    cert, key = Ca(tmp_path).issue("planta-sp")
    tls = f"tls: {{cert: {cert}, key: {key}}}"
    config = edit("host: broker", f"host: broker\n    {tls}") + f"metrics: {{{tls}}}\n"
    assert run_check(tmp_path, config).returncode == 0
    encrypt(key)
    primary, secondary = pty.openpty()
    try:
        # A terminal of its own, as where a person types: OpenSSL would ask there, and wait.
        done = subprocess.run(
            ["setsid", "--ctty", "--wait", sys.executable, "-P", "-m", "services.cli.main", "check",
             "-c", str(tmp_path / "config.yaml")],
            stdin=secondary, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    finally:
        os.close(primary)
        os.close(secondary)
    assert done.returncode == 2
    assert ":16: outputs[0].tls.key:" in done.stderr
    assert ":19: metrics.tls.key:" in done.stderr
    assert f"{key} is encrypted" in done.stderr
    assert f"openssl pkey -in {key}" in done.stderr


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        ("port: 1883", True),
        ("port: 1883\n    tls: {}", True),
        ("port: 1883\n    tls: false", False),
        ("port: 8883", False),
        ("port: 1884", False),
    ],
)
def test_a_plain_broker_s_port_with_tls_is_warned_of(
    tmp_path: Path, lines: str, warned: bool
) -> None:
    done = run_check(tmp_path, edit("host: broker", f"host: broker\n    {lines}"))
    assert done.returncode == 0, done.stderr
    if warned:
        assert "warning: " in done.stderr
        assert f"{tmp_path / 'config.yaml'}:16: outputs[0].port:" in done.stderr
        assert "`tls: false`" in done.stderr
        assert "8883" in done.stderr
    else:
        assert done.stderr == ""


def test_what_does_not_fit_one_telegram_is_told_beside_other_mistakes(tmp_path: Path) -> None:
    wide = "        consistent: true\n        raw: {start: 0, length: 2000}\n"
    config = edit("        scan: 500ms\n", f"        scan: 500ms\n{wide}")
    done = run_check(tmp_path, config.replace("type: mqtt", "type: amqp"))
    assert done.returncode == 2
    assert ":11: plcs[0].groups[0].consistent: needs 3 telegrams at PDU 960" in done.stderr
    assert ":15: outputs[0]: `type` is missing or unknown" in done.stderr


def test_no_file_at_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "services.cli.main", "check", "-c", str(tmp_path / "no.yaml")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no.yaml" in done.stderr
    assert "Traceback" not in done.stderr
