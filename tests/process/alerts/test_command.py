"""`plc-edge alerts test`: the real command on recorded messages, as somebody else wrote them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kit.common import ROOT

T = 1_764_000_000_000
# As it stands in the issue.
RULES = """\
alerts:
  rules:
    - {name: corrente-alta, type: threshold, where: {plc: prensa-01, field: AI_Corrente},
       above: 80, returns_at: 75, for: 30s, cooldown: 5m, severity: critica}
    - {name: subida, type: rate_change, where: {field: temperatura}, above: 2, per: 1m, window: 5m}
    - {name: desvio, type: percentage, where: {field: pressao}, of: {mean: 1h}, above: 20}
    - {name: mudo, type: absence, where: {plc: "*"}, for: 2m}
"""
KEYS = {"ts", "rule", "plc_id", "machine", "field", "from", "to", "value", "notify", "reason"}


def run(
    folder: Path, lines: list[Any], *options: str, rules: str = RULES, stdin: bool = False
) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yaml").write_text(rules)
    text = "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)
    (folder / "data.jsonl").write_text(text)
    data = "-" if stdin else str(folder / "data.jsonl")
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", "alerts", "test", str(folder / "rules.yaml"),
         "--data", data, *options],
        cwd=ROOT, input=text if stdin else None, capture_output=True, text=True, check=False,
        timeout=50,
    )  # fmt: skip


class Recording:
    """Messages of one PLC as the contract has them."""

    def __init__(self, plc: str = "prensa-01", epoch: int = T) -> None:
        self.plc = plc
        self.epoch = epoch
        self.seq = 0

    def message(self, second: float, **values: Any) -> dict[str, Any]:
        self.seq += 1
        return {
            "topic": f"plc/acme/{self.plc}",
            "message": {
                "v": 1, "site": "planta-sp", "locatario_id": "acme", "plc_id": self.plc,
                "ip": "192.168.0.10", "db": 500, "group": "db500", "measurement": "s7_db1",
                "machine": "m03", "ts": T + round(second * 1_000), "epoch": self.epoch,
                "seq": self.seq, "quality": "good", "latency_ms": 2.41, "values": values,
            },
        }  # fmt: skip


def now(second: float) -> dict[str, int]:
    return {"now": T + round(second * 1_000)}


def said(done: subprocess.CompletedProcess[str]) -> list[tuple[Any, ...]]:
    assert done.returncode == 0, done.stderr
    out = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(x.keys() >= KEYS for x in out)
    return [
        ((x["ts"] - T) / 1_000, x["rule"], x["plc_id"], x["field"], x["from"], x["to"], x["value"],
         x["notify"]) for x in out
    ]  # fmt: skip


def test_the_example_rules(tmp_path: Path) -> None:
    r = Recording()
    lines = [r.message(s, AI_Corrente=85.5, temperatura=20 + s / 20, pressao=5.0)
             for s in range(0, 400, 10)]  # fmt: skip
    lines += [r.message(400, AI_Corrente=70, temperatura=40, pressao=7), now(521), now(701)]
    at = "prensa-01", "AI_Corrente"
    assert said(run(tmp_path, lines, "--json")) == [
        (30, "corrente-alta", *at, "ok", "disparando", 85.5, True),
        (300, "subida", "prensa-01", "temperatura", "ok", "disparando", 3.0, True),
        (400, "corrente-alta", *at, "disparando", "resfriando", 70, True),
        (400, "desvio", "prensa-01", "pressao", "ok", "disparando", 40.0, True),
        (520, "mudo", "prensa-01", None, "ok", "disparando", None, True),
        (700, "corrente-alta", *at, "resfriando", "ok", 70, False),
    ]


def test_a_person_reads_it_too(tmp_path: Path) -> None:
    r = Recording()
    done = run(tmp_path, [r.message(0, AI_Corrente=85), now(30)], stdin=True)
    assert done.returncode == 0
    assert "corrente-alta prensa-01/m03/AI_Corrente ok -> disparando notify" in done.stdout


@pytest.mark.parametrize("head", ["alerts:\n", ""])
def test_rules_alone_and_a_whole_configuration(tmp_path: Path, head: str) -> None:
    """The configuration's PLCs are missed although the file never heard of them."""
    shutil.copytree(ROOT / "deploy" / "layouts", tmp_path / "layouts")
    rule = "rules: [{name: mudo, type: absence, where: {plc: '*'}, for: 2m}]\n"
    rules = f"{head}{'  ' if head else ''}{rule}"
    assert said(run(tmp_path, [now(0), now(121)], "--json", rules=rules)) == []
    if head:
        rules += """\
site: planta-sp
locatario: acme
plcs:
  - {id: prensa-01, host: h1, groups: [{name: g1, db: 500, layout: layouts/db500.yaml}]}
outputs: [{name: central, type: mqtt, host: b, username: u, password_file: not-on-this-machine}]
"""
        assert said(run(tmp_path, [now(0), now(121)], "--json", rules=rules)) == [
            (120, "mudo", "prensa-01", None, "ok", "disparando", None, True)
        ]


def test_a_day_of_backlog_notifies_nobody(tmp_path: Path) -> None:
    """In one burst; its history is whole."""
    day_s = 86_400
    r = Recording()
    lines = [now(day_s)]
    for s in range(0, day_s - 600, 60):
        lines.append(r.message(s, AI_Corrente=90 if s % 7_200 < 300 else 50))
    out = said(run(tmp_path, lines, "--json"))
    assert not any(x[-1] for x in out)
    fired = [x[0] for x in out if x[5] == "disparando"]
    assert fired == [s + 30 for s in range(0, day_s - 600, 7_200)]


def test_messages_carry_more_and_less(tmp_path: Path) -> None:
    """No machine, site, group, epoch, seq or quality; keys that nobody knows; other topics."""
    lines = [
        {"topic": "plc/acme/prensa-01", "recorded_by": "somebody",
         "message": {"ts": T, "values": {"AI_Corrente": 90, "x": {}}}},
        {"topic": "$SYS/broker/uptime", "message": {"s": 3}},
        {"topic": "plc/acme/prensa-01/heartbeat", "message": {"ts": T, "status": "online"}},
        {"topic": "plc/acme/prensa-01", "message": {
            "ts": T + 30_000, "values": {"AI_Corrente": 91}, "new": [1], "plc_id": "prensa-01"}},
        "",
    ]  # fmt: skip
    done = run(tmp_path, lines, "--json")
    assert [x[:2] for x in said(done)] == [(30, "corrente-alta")]
    assert "topic $SYS/broker/uptime is not ours" in done.stderr


BAD_LINES: dict[str, tuple[Any, str]] = {
    "not JSON": ("{topic", "not JSON"),
    "NaN": ('{"now": NaN}', "not JSON"),
    "no object": ("[1]", "no JSON object"),
    "no topic": ({"message": {"ts": T, "values": {}}}, '{"topic": "plc/'),
    "message is text": ({"topic": "plc/acme/p", "message": "x"}, '{"topic": "plc/'),
    "no ts": ({"topic": "plc/acme/p", "message": {"values": {"a": 1}}}, "`ts`"),
    "ts is text": ({"topic": "plc/acme/p", "message": {"ts": "now", "values": {}}}, "`ts`"),
    "values is a list": ({"topic": "plc/acme/p", "message": {"ts": T, "values": [1]}}, "`values`"),
    "now is text": ({"now": "12:00"}, "`now`"),
    "status unknown": ({"topic": "edge/acme/s/status", "message": {"status": "?"}}, "`status`"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_named(tmp_path: Path, case: str) -> None:
    line, words = BAD_LINES[case]
    done = run(tmp_path, [now(0), line], "--json")
    assert done.returncode == 2
    assert f"{tmp_path}/data.jsonl:2: " in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (RULES.replace("above: 80", "abve: 80"), ["rules.yaml:4:", "alerts.rules[0].abve",
                                                 "did you mean `above`?"]),
        ("rules: [{name: a1, type: absence}]\n", ["rules.yaml:1:", "for", "is missing"]),
        ("rules: [{name: a1, type: none}]\n", ["rules.yaml:1:", "`type: threshold`"]),
        (RULES.replace("returns_at: 75", "returns_at: 90"), ["returns_at", "wrong side"]),
        ("alerts: {}\nrulez: 3\n", ["rules.yaml:2:", "rulez", "unknown key"]),
        ("rules: []\nother: 3\n", ["rules.yaml:2:", "other", "unknown key"]),
        ("site: x1\n", ["holds no alert rules", "begin with `rules:`"]),
        ("rules: 3\n", ["rules.yaml:1:", "rules"]),
    ],
)  # fmt: skip
def test_bad_rules_are_named(tmp_path: Path, rules: str, words: list[str]) -> None:
    done = run(tmp_path, [now(0)], rules=rules)
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path, [], "--data", str(tmp_path / "absent"))
    assert done.returncode == 2
    assert "absent: cannot be read" in done.stderr
