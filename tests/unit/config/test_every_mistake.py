"""One mistake hides no other: any of them together are told all, in the order of lines, and nothing
besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.runtime import central_config, config, loader
from services.runtime.errors import ConfigError, Problem

BASE = """\
site: planta-sp
locatario: acme
clock_sync: auto
quotas:
  acme: 5000
  beta: 500
paths: {state: /tmp/s, runtime: /tmp/r}
plcs:
  - id: prensa-01
    host: 192.168.0.10
    slot: 1
    timeout: 2s
    groups:
      - name: db500
        db: 500
        scan: 500ms
        layout: db500.yaml
        machines: {count: 4, stride: 20}
        raw: true
        timestamp: quando
        trend: [velocidade]
      - name: avulsos
        db: 7
        publish: on_change
        trend: [nivel]
        fields:
          - {name: nivel, address: "DB1.DBD0:REAL"}
          - {name: bomba, address: "M10.3"}
          - {name: vazao, type: REAL, offset: 4}
          - {name: carga, type: INT, offset: 8, scale: 0.1}
  - id: forno-02
    locatario: beta
    host: 192.168.0.11
    port: 102
    groups:
      - name: g1
        scan: 1s
        fields: [{name: x1, address: "MW20:INT"}]
      - name: g2
        fields: [{name: x1, address: "MW22:INT"}]
mirrors:
  - name: copia
    source: {plc: prensa-01, group: db500}
    target: {host: 192.168.0.20, db: 600}
    commit: {begin: 400, end: 402}
  - name: outra
    source: {plc: prensa-01, group: db500}
    target: {host: 192.168.0.21, db: 601}
outputs:
  - name: central
    type: mqtt
    host: broker
    username: box
    password: ${PE_TEST_SECRET}
    qos: 1
    tls: {}
    locatarios: [acme, beta]
  - name: backup
    type: http
    url: https://example.com
    batch: 500
  - name: console
    type: stdout
store:
  max_size: 2GiB
  max_age: 5d
metrics:
  host: 127.0.0.1
  port: 9108
infra:
  plan: {acme: pro}
"""
LAYOUT = """\
name: db500
fields:
  - {name: velocidade, type: REAL, offset: 0}
  - {name: ciclos, type: DINT, offset: 4}
  - {name: quando, type: DT, offset: 8}
"""


@dataclass(frozen=True)
class Mistake:
    """``old`` is a whole line (without its indentation), once in the file; ``new`` takes its
    place. Expected: the keys that are told."""

    old: str
    new: str
    keys: tuple[str, ...]


def one(old: str, new: str, *keys: str) -> Mistake:
    return Mistake(old, new, keys)


PLC0, GROUP0, GROUP1 = "plcs[0]", "plcs[0].groups[0]", "plcs[0].groups[1]"
MISTAKES = [
    one("site: planta-sp", "site: Planta SP", "site"),
    one("clock_sync: auto", "clock_sync: perhaps", "clock_sync"),
    one("clock_sync: auto", "clok_sync: auto", "clok_sync"),
    one("slot: 1", "slot: 99", f"{PLC0}.slot"),
    one("slot: 1", "zzz: 1", f"{PLC0}.zzz"),
    one("timeout: 2s", "timeout: 2", f"{PLC0}.timeout"),
    one("host: 192.168.0.10", "host: 192.168.0.300", f"{PLC0}.host"),
    one("scan: 500ms", "scam: 500ms", f"{GROUP0}.scam"),
    one("scan: 500ms", "scan: 1ms", f"{GROUP0}.scan"),
    one("layout: db500.yaml", "layout: absent.yaml", f"{GROUP0}.layout"),
    one("layout: db500.yaml", "layout: .", f"{GROUP0}.layout"),
    one("timestamp: quando", "timestamp: ciclos", f"{GROUP0}.timestamp"),
    one("timestamp: quando", "timestamp: nunca", f"{GROUP0}.timestamp"),
    one("trend: [velocidade]", "trend: [velocidde]", f"{GROUP0}.trend[0]"),
    one("machines: {count: 4, stride: 20}", "machines: {count: 4, stride: 10}",
        f"{GROUP0}.machines"),
    one("machines: {count: 4, stride: 20}", "machines: {count: 9, stride: 9000}",
        f"{GROUP0}.machines"),
    one("machines: {count: 4, stride: 20}", 'machines: {count: 4, stride: 20, name: "{n.x}"}',
        f"{GROUP0}.machines"),
    one("publish: on_change", "publish: often", f"{GROUP1}.publish"),
    one("trend: [nivel]", "trend: [nunca]", f"{GROUP1}.trend[0]"),
    one('- {name: nivel, address: "DB1.DBD0:REAL"}', '- {name: nivel, address: "DB1.DBZ0"}',
        f"{GROUP1}.fields[0].address"),
    one('- {name: bomba, address: "M10.3"}', "- 5", f"{GROUP1}.fields[1]"),
    one('- {name: bomba, address: "M10.3"}', '- {name: bomba, address: "M10.3", type: BOOL}',
        f"{GROUP1}.fields[1]"),
    one('- {name: bomba, address: "M10.3"}', '- {name: bomba, address: "M10.3", deadband: 5}',
        f"{GROUP1}.fields[1].deadband"),
    one("- {name: vazao, type: REAL, offset: 4}", "- {name: vazao, type: RAEL, offset: 4}",
        f"{GROUP1}.fields[2].type"),
    one("- {name: vazao, type: REAL, offset: 4}", "- {name: vazao, type: REAL, offset: 5}",
        f"{GROUP1}.fields[2].offset"),
    one("- {name: carga, type: INT, offset: 8, scale: 0.1}",
        "- {name: carga, type: INT, offset: 8, scale: 0}", f"{GROUP1}.fields[3].scale"),
    one("- id: forno-02", "- id: Forno 02", "plcs[1].id"),
    one("- id: forno-02", "- id: prensa-01", "plcs[1].id"),
    one("port: 102", "port: 0", "plcs[1].port"),
    one("port: 102", "port: 102\n    port: 103", "plcs[1].port"),
    one('fields: [{name: x1, address: "MW20:INT"}]', "db: 3", "plcs[1].groups[0]"),
    one('fields: [{name: x1, address: "MW20:INT"}]', "layout: db500.yaml", "plcs[1].groups[0]"),
    one('fields: [{name: x1, address: "MW20:INT"}]', "fields: [{name: x1, type: INT, offset: 0}]",
        "plcs[1].groups[0].fields[0]"),
    one("- name: g2", "- name: g1", "plcs[1].groups[1].name"),
    one("source: {plc: prensa-01, group: db500}", "source: {plc: prensa-9, group: db500}",
        "mirrors[0].source.plc"),
    one("source: {plc: prensa-01, group: db500}", "source: {plc: prensa-01, group: db5}",
        "mirrors[0].source.group"),
    one("target: {host: 192.168.0.20, db: 600}", "target: {host: 192.168.0.10, db: 500}",
        "mirrors[0].target.db"),
    one("target: {host: 192.168.0.20, db: 600}",
        "target: {host: 192.168.0.20, db: 600, start: 65530}", "mirrors[0].target.start"),
    one("commit: {begin: 400, end: 402}", "commit: {begin: 400}", "mirrors[0].commit"),
    one("- name: outra", "- name: copia", "mirrors[1].name"),
    one("type: mqtt", "type: amqp", "outputs[0]"),
    one("host: broker", "host: mqtt://broker", "outputs[0].host"),
    one("host: broker", "hots: [broker]", "outputs[0].hots"),
    one("username: box", "client_id: box", "outputs[0]"),
    one("password: ${PE_TEST_SECRET}", "password: ${PE_TEST_ABSENT}", "outputs[0].password"),
    one("qos: 1", "qos: 2", "outputs[0].qos"),
    one("tls: {}", "tls: {ca: absent.pem}", "outputs[0].tls.ca"),
    one("tls: {}", "tls: {cert: here.pem}", "outputs[0].tls"),
    one("tls: {}", "tls: {caa: x}", "outputs[0].tls.caa"),
    one("locatarios: [acme, beta]", "locatarios: [acme, gama]", "outputs[0].locatarios"),
    one("beta: 500", "betta: 500", "quotas.betta"),
    one("url: https://example.com", "url: ftp://example.com", "outputs[1].url"),
    one("batch: 500", "batch: many", "outputs[1].batch"),
    one("- name: console", "- name: backup", "outputs[2].name"),
    one("max_size: 2GiB", "max_size: 2", "store.max_size"),
    one("max_age: 5d", "max_age: 12d", "store.max_age"),
    one("host: 127.0.0.1", "host: 0.0.0.0", "metrics"),
    one("port: 9108", "port: 70000", "metrics.port"),
]  # fmt: skip

# What cannot be judged while another thing is wrong (one of the second hides any of the first):
# whose bytes, whose tenant, in which block, how long.
HIDDEN_BY = [
    # What lies in a layout that is not there.
    ({"timestamp: ciclos", "timestamp: nunca", "trend: [velocidde]",
      "machines: {count: 4, stride: 10}",
      "target: {host: 192.168.0.20, db: 600, start: 65530}"},
     {"layout: absent.yaml", "layout: ."}),
    # Whether a tenant has a PLC, or a mirror its source, when one of the PLCs has no known name.
    ({"source: {plc: prensa-9, group: db500}"}, {"- id: Forno 02"}),
    # The names of a group in which one field has none.
    ({"trend: [nunca]"}, {"- 5"}),
    # What a mirror copies of a source that does not exist.
    ({"target: {host: 192.168.0.10, db: 500}",
      "target: {host: 192.168.0.20, db: 600, start: 65530}"},
     {"source: {plc: prensa-9, group: db500}", "source: {plc: prensa-01, group: db5}"}),
    # A PLC whose address is wrong is nobody's target.
    ({"target: {host: 192.168.0.10, db: 500}"}, {"host: 192.168.0.300"}),
    # The keys of an output of no known type: its name and user only.
    ({"host: mqtt://broker", "hots: [broker]", "qos: 2", "tls: {ca: absent.pem}",
      "tls: {cert: here.pem}", "tls: {caa: x}"}, {"type: amqp"}),
    # Which bytes a mirror copies, of a group whose own are not clear.
    ({"target: {host: 192.168.0.20, db: 600, start: 65530}"},
     {"machines: {count: 4, stride: 10}", "machines: {count: 9, stride: 9000}"}),
]  # fmt: skip


def edited(mistakes: list[Mistake]) -> str:
    text = BASE
    for m in mistakes:
        assert text.count(m.old + "\n") >= 1, m.old
        text = text.replace(m.old + "\n", m.new + "\n", 1)
    return text


def told(folder: Path, text: str) -> list[Problem]:
    file = folder / "config.yaml"
    file.write_text(text)
    (folder / "db500.yaml").write_text(LAYOUT)
    (folder / "here.pem").write_text("")
    try:
        loader.load(file, {})
    except ConfigError as e:
        return e.problems
    return []


def visible(mistakes: list[Mistake]) -> set[str]:
    news = {m.new for m in mistakes}
    hidden = {new for those, by in HIDDEN_BY if news & by for new in those}
    return {key for m in mistakes if m.new not in hidden for key in m.keys}


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PE_TEST_SECRET", "geheim")


def test_no_model_is_judged_as_a_whole() -> None:
    """A pydantic model validator is not asked where any key of its model is wrong: what it would
    say comes at the next try. A method with ``@rule`` is (services/runtime/judged.py).
    """
    models = [
        m
        for module in (config, central_config)
        for m in vars(module).values()
        if isinstance(m, type) and issubclass(m, config.Model)
    ]
    assert len(models) > 20
    judged = {m.__name__: list(vars(m)["__pydantic_decorators__"].model_validators) for m in models}
    assert not {name: found for name, found in judged.items() if found}


def test_the_base_is_right(tmp_path: Path) -> None:
    assert told(tmp_path, BASE) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.new.replace("\n", "|"))
def test_one_mistake_is_one_problem(tmp_path: Path, mistake: Mistake) -> None:
    problems = told(tmp_path, edited([mistake]))
    assert [p.key for p in problems] == list(mistake.keys), problems
    assert all(p.line for p in problems)


@given(st.lists(st.sampled_from(MISTAKES), min_size=2, max_size=20, unique_by=lambda m: m.old))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_together_they_are_told_all_and_nothing_besides(
    tmp_path: Path, mistakes: list[Mistake]
) -> None:
    problems = told(tmp_path, edited(mistakes))
    assert {p.key for p in problems} == visible(mistakes), "\n".join(map(str, problems))
    lines = [p.line for p in problems if p.line]
    assert lines == sorted(lines)
    assert len(lines) == len(problems)
    assert len(set(problems)) == len(problems)


def test_all_of_them_at_once(tmp_path: Path) -> None:
    by_line = {m.old: m for m in MISTAKES}
    mistakes = list(by_line.values())
    assert len(mistakes) > 30
    assert {p.key for p in told(tmp_path, edited(mistakes))} == visible(mistakes)
