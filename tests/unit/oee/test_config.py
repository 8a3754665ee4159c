"""``shifts:`` and ``oee:``: what is wrong is told with its line, what is right becomes plain."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from services.oee.core.calendar import Calendar
from services.runtime import loader, render
from services.runtime.errors import ConfigError
from services.runtime.site import Site

HEAD = """\
site: planta-sp
locatario: acme
history: {}
plcs:
  - id: p1
    host: 127.0.0.1
    groups:
      - name: g1
        db: 1
        machines: {count: 2, stride: 20}
        fields:
          - {name: rodando, type: BOOL, offset: 0.0}
          - {name: velocidade, type: REAL, offset: 2}
          - {name: boas, type: UINT, offset: 6}
          - {name: ruins, type: DINT, offset: 8}
          - {name: lotes, type: INT, offset: 12, scale: 0.5}
          - {name: codigo, type: INT, offset: 14}
"""
SHIFTS = """\
shifts:
  timezone: America/Sao_Paulo
  week:
    - {name: manha, days: [mon, tue], from: 06:00, to: 14:00, breaks: [{from: 10:00, to: 10:30}]}
    - {name: noite, from: "22:00", to: "06:00", breaks: [{from: "01:00", to: "02:00"}]}
    - {name: vespera, days: [], from: "06:00", to: "12:00"}
  exceptions:
    - {date: 2026-12-24, shifts: [vespera]}
    - {from: 2026-12-25, to: 2027-01-03, name: férias}
"""
MACHINE = """\
oee:
  - name: prensa
    plc: p1
    group: g1
    running: {field: velocidade, above: 0.5}
    good: boas
    bad: {field: ruins, counter: any}
    ideal_cycle: 2500ms
    reason: codigo
    reasons: {3: falta de material}
    planned: [7]
"""


def load(path: Path, *parts: str) -> Site:
    file = path / "config.yaml"
    file.write_text("".join(parts))
    return loader.load(file, {})


def test_it_becomes_plain(tmp_path: Path) -> None:
    site = load(tmp_path, HEAD, SHIFTS, MACHINE)
    spec = render.render(site)["historian"]["oee"]
    calendar = Calendar.from_spec(spec["shifts"], ZoneInfo(spec["shifts"]["timezone"]))

    def names(day: str) -> list[str]:
        return [s.name for s in calendar.of_day(date.fromisoformat(day))]

    assert names("2026-12-21") == ["manha", "noite"]
    assert names("2026-12-23") == ["noite"]
    assert names("2026-12-24") == ["vespera"]
    assert names("2026-12-25") == names("2027-01-03") == []
    (night,) = (s for s in calendar.of_day(date(2026, 12, 23)))
    assert (night.end_ms - night.begin_ms, len(night.breaks)) == (8 * 3_600_000, 1)
    first, second = spec["machines"]
    assert (first["name"], second["name"]) == ("prensa-m00", "prensa-m01")
    assert second["running"] == {
        "series": ["acme", "p1", "g1", "m01", "velocidade"], "op": "above", "limit": 0.5
    }  # fmt: skip
    assert second["counters"]["good"]["counter"] == "UINT"
    assert second["counters"]["bad"]["counter"] == "any"
    assert second["ideal_ms"] == 2_500
    assert (second["words"], second["planned"]) == ({"3": "falta de material"}, ["7"])


def test_fields_of_another_group(tmp_path: Path) -> None:
    """One that has no machines is the same for each of them."""
    group = (
        "      - {name: linha, fields: [{name: ligada, address: M0.0}, {name: n, address: MW2}]}\n"
    )
    machine = MACHINE.replace("{field: velocidade, above: 0.5}", "{field: ligada, group: linha}")
    spec = render.render(load(tmp_path, HEAD, group, SHIFTS, machine))["historian"]["oee"]
    for one, name in zip(spec["machines"], ("m00", "m01"), strict=True):
        assert one["running"]["series"] == ["acme", "p1", "linha", "", "ligada"]
        assert one["counters"]["good"]["series"] == ["acme", "p1", "g1", name, "boas"]


def test_a_scaled_counter_does_not_wrap_by_its_type(tmp_path: Path) -> None:
    machine = MACHINE.replace("good: boas", "good: lotes")
    machine = machine.replace("group: g1", "group: g1\n    machine: m00")
    spec = render.render(load(tmp_path, HEAD, SHIFTS, machine))["historian"]["oee"]
    (only,) = spec["machines"]
    assert only["name"] == "prensa"
    assert only["counters"]["good"]["counter"] == "any"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("group: g1\n    running", "group: g2\n    running", "oee[0].group: p1 has no group 'g2'"),
        ("plc: p1", "plc: p2", "oee[0].plc: no PLC is named 'p2'"),
        ("good: boas", "good: boass", "oee[0].good: no field of p1/g1 is named 'boass'"),
        ("reason: codigo", "reason: [codigo, motivo]", "oee[0].reason"),
        ("    reason: codigo\n", "", "are codes of `reason:`"),
        ("    bad: {field: ruins, counter: any}\n", "", "give `good:` and `bad:`"),
        ("running: {field: velocidade, above: 0.5}", "running: {above: 0.5}", "running.field"),
        ("ideal_cycle: 2500ms", "ideal_cycle: 0s", "ideal_cycle"),
        ("history: {}\n", "", "oee: needs `history:`"),
        ("from: 06:00, to: 14:00", "from: 06:00, to: 23:00", "'noite' begins"),
        (
            "{from: 10:00, to: 10:30}",
            "{from: 13:30, to: 14:30}",
            "13:30 to 14:30 is not within its shift, 06:00 to 14:00",
        ),
        ("shifts: [vespera]", "shifts: [vesperas]", "no shift is named 'vesperas'"),
        ("{date: 2026-12-24,", "{date: 2026-12-26,", "is an exception already"),
        ("to: 2027-01-03", "to: 2026-01-03", "`to:` is `from:` or later"),
        ("name: vespera", "name: manha", "'manha' is there twice"),
        ("timezone: America/Sao_Paulo", "timezone: America/Sao_Paolo", "America/Sao_Paulo"),
        ("days: [mon, tue]", "days: [seg]", "shifts.week[0].days[0]"),
    ],
)
def test_each_mistake_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = HEAD + SHIFTS + MACHINE
    assert old in text
    with pytest.raises(ConfigError) as e:
        load(tmp_path, text.replace(old, new, 1))
    problems = [str(p) for p in e.value.problems]
    assert any(said in p for p in problems), problems
    assert len(problems) <= 2, problems


def test_oee_needs_shifts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs `shifts:`"):
        load(tmp_path, HEAD, MACHINE)


def test_the_mail_password_is_a_reference(tmp_path: Path) -> None:
    (tmp_path / "smtp.pw").write_text("segredo\n")
    email = (
        "  email: {host: mail.example.com, username: caixa, password_file: smtp.pw,"
        " from: caixa@example.com, to: [chefe@example.com]}\n"
    )
    spec = render.render(load(tmp_path, HEAD, SHIFTS, email, MACHINE))["historian"]["oee"]
    assert spec["email"]["password"]["file"] == str(tmp_path / "smtp.pw")
    assert "segredo" not in str(spec)
    (tmp_path / "smtp.pw").unlink()
    with pytest.raises(ConfigError, match=r"shifts\.email\.password_file"):
        load(tmp_path, HEAD, SHIFTS, email, MACHINE)
