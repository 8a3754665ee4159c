"""What `check` says of wrong rules: line, key, mend; and that right ones become the engine's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.alerts.core.rule import HEARTBEAT, Rule, Shift
from services.alerts.core.watch import WORDS
from services.runtime import alert_layouts, alert_model, alert_rules, loader
from services.runtime.errors import ConfigError, Problem
from services.runtime.measured import COUNTER_BITS
from services.runtime.site import Site
from tests.kit.common import ROOT

SITE = """\
site: planta-sp
locatario: acme
plcs:
  - id: prensa-01
    host: 192.168.0.10
    groups:
      - {name: db500, db: 500, scan: 2s, layout: layouts/db500.yaml}
      - {name: outro, db: 501, layout: layouts/db500_maquinas.yaml,
         machines: {count: 5, stride: 66}, publish: always}
      - {name: nomes, fields: [{name: receita, address: "DB1.DBB0:STRING[8]"}]}
alerts:
  rules:
    - """
GOOD = (
    "{name: r1, type: threshold, where: {plc: prensa-01, field: AI_Corrente}, above: 80,"
    " returns_at: 75, for: 30s, cooldown: 5m, severity: critica, unit: A, route: plantao,"
    ' message: "{value} {unit} em {plc}"}'
)


def load(folder: Path, rule: str) -> Site:
    shutil.copytree(ROOT / "deploy" / "layouts", folder / "layouts", dirs_exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(SITE + rule + "\n")
    return loader.load(file, {})


def problems(folder: Path, rule: str) -> list[Problem]:
    try:
        load(folder, rule)
    except ConfigError as e:
        return e.problems
    return []


def edit(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def rule(text: str) -> str:
    return f"{{name: r1, {text}}}"


# what is wrong → (the rule, key, words of the message and the mend)
CASES: dict[str, tuple[str, str, list[str]]] = {
    "unknown key": (edit("cooldown", "cooldwn"), "cooldwn", ["did you mean `cooldown`?"]),
    "unknown type": (edit("threshold", "treshold"), "", ["`type: threshold`"]),
    "no unit of time": (edit("for: 30s", "for: 30"), "for", ["500ms, 2s, 5m"]),
    "a name that is none": (edit("r1", "Corrente Alta"), "name", ["no valid name"]),
    "the same name twice": (f"{GOOD}\n    - {GOOD}", "[1].name", ["stands 2 times", "rename"]),
    "no limit": (edit("above: 80, returns_at: 75", "severity: aviso").replace(
        "severity: critica, ", ""), "", ["says no limit", "`above:`"]),
    "two limits": (edit("above: 80", "above: 80, below: 3"), "below", ["one rule for each"]),
    "text for a number": (edit("above: 80", 'above: "80"'), "above", ["number"]),
    "returns on the wrong side": (edit("75", "85"), "returns_at", ["wrong side of `above`: 80"]),
    "returns below a lower limit": (
        edit("above: 80", "below: 80"), "returns_at", ["wrong side of `below`", "higher"]),
    "returns outside": (
        edit("above: 80, returns_at: 75", "outside: [1, 5], returns_at: [0, 4]"), "returns_at",
        ["within `outside`"]),
    "a number where two belong": (
        edit("above: 80", "outside: [1, 5]"), "returns_at", ["[low, high]"]),
    "bounds the wrong way round": (
        edit("above: 80, returns_at: 75", "outside: [5, 1]"), "outside", ["lower one first"]),
    "equal returns nowhere": (edit("above: 80", "equal: 80"), "returns_at", ["remove it"]),
    "unknown PLC": (
        edit("prensa-01", "prensa-1"), "where.plc", ["'prensa-1'", "did you mean `prensa-01`?"]),
    "unknown field": (
        edit("AI_Corrente", "AI_Corente"), "where.field", ["did you mean `AI_Corrente`?"]),
    "unknown group": (
        edit("field:", "group: db50, field:"), "where.group", ["did you mean `db500`?"]),
    "unknown machine": (
        edit("field: AI_Corrente", 'machine: m07, field: "sensor.1.valor"'), "where.machine",
        ["'m07'", "did you mean `m0"]),
    "a field of another group": (
        edit("field:", "group: outro, field:"), "where.field", ["'AI_Corrente'"]),
    "unknown tenant": (edit("plc:", "locatario: acm, plc:"), "where.locatario", ["`acme`?"]),
    "another site": (edit("plc:", "site: planta-rj, plc:"), "where.site", ["planta-sp"]),
    "a pattern that matches nothing": (
        edit("AI_Corrente", '"temp*"'), "where.field", ["matches no field", "AI_Corrente"]),
    "no field": (edit(", field: AI_Corrente", ""), "where", ["names no field", "every field"]),
    "shorter than the scan": (
        edit("30s", "1s"), "for", ["shorter than the scan of prensa-01/db500: 2 s"]),
    "another unit": (edit("unit: A", "unit: mA"), "unit", ["AI_Corrente's unit", ": A"]),
    "text has no limit": (
        rule("type: threshold, where: {field: receita}, above: 3"), "where.field",
        ["STRING[8]", "`equal:`"]),
    "a template that names what there is not": (
        edit("{value}", "{valor}"), "message", ["{valor}", "did you mean `value`?"]),
    "a template that is none": (edit("{value}", "{value"), "message", ["template"]),
    "a template that reaches inside": (edit("{value}", "{value.__class__}"), "message", ["knows"]),
    "no window": (rule("type: rate_change, where: {field: AI_Corrente}, above: 2"), "window",
                  ["is missing"]),
    "counter of another type": (
        rule("type: rate_change, where: {field: contador_bom}, window: 5m, below: 1,"
             " counter: DINT"),
        "counter", ["`counter: INT`"]),
    "percentage of nothing": (
        rule("type: percentage, where: {field: AI_Corrente}, of: {}, above: 20"), "of",
        ["of what", "mean"]),
    "percentage of two": (
        rule("type: percentage, where: {field: AI_Corrente}, of: {mean: 1h, value: 3}, above: 20"),
        "of", ["`value`", "`mean`"]),
    "percentage of zero": (
        rule("type: percentage, where: {field: AI_Corrente}, of: {value: 0}, above: 20"),
        "of.value", ["`threshold`"]),
    "percentage of an unknown field": (
        rule("type: percentage, where: {field: AI_Corrente}, of: {field: AI_Vibrcao}, above: 20"),
        "of.field", ["`AI_Vibracao`?"]),
    "increase alone": (
        rule("type: percentage, where: {field: contador_ruim}, of: {increase: 1h}, above: 5"), "of",
        ["`with`"]),
    "samples of no kind": (
        rule("type: percentage, where: {field: pecas_ruim}, of: {samples: 1h}, above: 5"), "of",
        ["says no limit"]),
    "absence for no time": (rule("type: absence, where: {plc: prensa-01}"), "for", ["is missing"]),
    "absence shorter than values are silent": (
        rule("type: absence, where: {field: AI_Corrente}, for: 30s"), "for",
        ["prensa-01/db500", "60 s", "max_silence"]),
    "a box has no machines": (
        rule("type: absence, of: box, where: {machine: m01}, for: 2m"), "where.machine",
        ["means nothing", "site"]),
    "state for no time": (
        rule("type: state_for, where: {field: maquina_ligada}, equal: false"), "for", ["missing"]),
    "longer than the shift": (
        rule('type: state_for, where: {field: maquina_ligada}, equal: false, for: 9h,'
             ' during: {from: "06:00", to: "14:00"}'), "for", ["never fire"]),
    "no time of day": (
        rule('type: state_for, where: {field: maquina_ligada}, for: 1h,'
             ' during: {from: "6h", to: "14:00"}'), "during.from", ["06:00"]),
    "several with one": (
        rule("type: all, of: [{type: absence, for: 2m}]"), "of", ["at least 2"]),
    "several PLCs in one rule": (
        rule("type: all, of: [{type: absence, for: 2m}, {type: threshold,"
             " where: {plc: prensa-01, field: AI_Corrente}, above: 3}]"), "of[1].where.plc",
        ["the same PLC", "own `where:`"]),
    "several fields in one condition": (
        rule("type: any, of: [{type: absence, for: 2m}, {type: threshold,"
             ' where: {field: "AI_*"}, above: 3}]'), "of[1].where.field", ["without `*`"]),
    "a heartbeat's field": (
        rule("type: threshold, where: {group: heartbeat, field: pendng}, above: 3"), "where.field",
        ["`pending`?"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_rule_is_told_with_its_mend(tmp_path: Path, case: str) -> None:
    text, key, words = CASES[case]
    found = problems(tmp_path, text)
    assert len(found) == 1, "\n".join(map(str, found))
    problem = found[0]
    assert problem.file == str(tmp_path / "config.yaml")
    assert problem.line is not None
    assert problem.line >= 13
    at = key if key.startswith("[") else f"[0].{key}".rstrip(".")
    assert problem.key == f"alerts.rules{at}"
    for word in words:
        assert word in str(problem)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        rule("type: absence, where: {plc: '*'}, for: 2m"),
        rule("type: absence, of: link, for: 10s"),
        rule("type: threshold, where: {field: '*'}, equal: 3"),
        rule("type: threshold, where: {group: outro, machine: 'm*', field: 'sensor.*.valor'},"
             " outside: [1, 5], returns_at: [2, 4]"),
        rule("type: state_for, where: {field: receita}, equal: [A, B], for: 5s"),
        rule("type: all, where: {group: outro}, for: 5s, of: [{type: state_for, for: 5s,"
             " where: {field: status_maquina}, equal: true}, {type: threshold,"
             " where: {field: contador_bom}, below: 3}]"),
    ],
)  # fmt: skip
def test_a_right_rule_reaches_the_engine(tmp_path: Path, text: str) -> None:
    site = load(tmp_path, text)
    (made,) = map(Rule.from_spec, alert_model.specs(site.config.alerts, alert_rules.units(site)))
    assert made.name == "r1"


def test_the_unit_comes_from_the_layout(tmp_path: Path) -> None:
    site = load(tmp_path, edit("unit: A, ", ""))
    (spec,) = alert_model.specs(site.config.alerts, alert_rules.units(site))
    assert spec["unit"] == "A"


def test_a_changed_rule_has_another_digest(tmp_path: Path) -> None:
    digests = set()
    for text in (GOOD, GOOD, edit("80", "81"), edit("30s", "31s")):
        alerts = load(tmp_path, text).config.alerts
        digests.add(Rule.from_spec(alert_model.specs(alerts)[0]).digest)
    assert len(digests) == 3


def test_words_that_stand_twice_are_the_same() -> None:
    assert alert_rules.WORDS == WORDS
    assert alert_layouts.HEARTBEAT == HEARTBEAT
    counters = alert_model.Counter.__args__  # type: ignore[attr-defined]
    assert set(counters) == {"any", *COUNTER_BITS}


# --- shifts ------------------------------------------------------------------------------------

MONDAY = 1_763_942_400_000  # 2025-11-24 00:00 UTC
HOUR, MINUTE = 3_600_000, 60_000


@pytest.mark.parametrize(
    ("shift", "since_h", "for_min", "due_h"),
    [
        (Shift(frozenset(range(7)), 360, 840), 7, 10, 7 + 10 / 60),
        (Shift(frozenset(range(7)), 360, 840), 3, 10, 6 + 10 / 60),  # counts from the beginning
        (Shift(frozenset(range(7)), 360, 840), 13.95, 10, 30 + 10 / 60),  # and not across its end
        (Shift(frozenset({1}), 360, 840), 7, 10, 30 + 10 / 60),  # tuesdays
        (Shift(frozenset({6}), 360, 840), 7, 10, 6 * 24 + 6 + 10 / 60),
        (Shift(frozenset(range(7)), 1320, 360), 2, 60, 3),  # a night shift that began yesterday
        (Shift(frozenset({0}), 1320, 360), 2, 60, 23),  # not on sundays
        (Shift(frozenset(range(7)), 360, 840, -180), 3, 10, 9 + 10 / 60),  # 06:00 is 09:00 UTC
        (Shift(frozenset(range(7)), 360, 840), 7, 480, None),
        (Shift(frozenset(range(7)), 0, 0), 23.5, 60, 25),  # all day: each begins anew at midnight
    ],
)
def test_shift(shift: Shift, since_h: float, for_min: int, due_h: float | None) -> None:
    due = shift.due_ms(MONDAY + round(since_h * HOUR), for_min * MINUTE)
    assert due == (None if due_h is None else MONDAY + round(due_h * HOUR))
