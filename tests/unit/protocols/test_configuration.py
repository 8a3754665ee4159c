"""``protocol:`` in the configuration: each has its own keys, and a mistake is told with its fix.

The second protocol here is a test's: how the loader tells them apart is the same for all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.runtime import render
from services.s7.types import ELEMENTARY
from tests.kit.toy_protocol import judge, plc


def fields(*given: Any) -> dict[str, Any]:
    return plc(groups=[{"name": "g1", "fields": list(given)}])


def test_two_protocols_side_by_side(tmp_path: Path) -> None:
    s7 = {"id": "p2", "host": "h2", "groups": [{"name": "g2", "fields": [
        {"name": "x", "address": "DB1.DBD0:REAL"}]}]}  # fmt: skip
    site, problems = judge(tmp_path, plc(), s7)
    assert problems == []
    assert [type(p).__name__ for p in site.config.plcs] == ["ToyPlc", "S7Plc"]
    rendered = render.render(site)
    tags, classic = rendered["reader-p1"], rendered["reader-p2"]
    assert (tags["plc"]["protocol"], classic["plc"]["protocol"]) == ("toy", "s7")
    assert tags["plc"]["file"] == str(tmp_path / "trust.pem")
    assert tags["groups"][0] == {
        "name": "g1", "measurement": "s7_db1", "db": None, "scan_s": 1.0, "publish": "on_change",
        "max_silence_s": 60.0, "timestamp": None, "timezone": None, "machines": [(None, 0)],
        "mode": "subscribe",
        "fields": [{"name": "t", "type": "REAL", "area": "TAG", "unit": "°C",
                    "deadband": {"abs": 0.5}, "tag": {"node": "n=t"}}],
    }  # fmt: skip
    assert rendered["metrics"]["plcs"][0]["groups"][0]["units"] == {"t": "°C"}


def test_a_layout_of_tags(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(
        "name: l\nfields:\n- {name: a, node: n=a, member: x, type: 'INT[1..4]'}\n"
    )
    site, problems = judge(tmp_path, plc(groups=[{"name": "g1", "layout": "l.yaml"}]))
    assert problems == []
    (field,) = site.fields["p1", "g1"]
    assert (field.tag, field.type) == ({"node": "n=a", "member": "x"}, "INT[1..4]")


def test_a_layout_of_a_block_is_none_of_tags(tmp_path: Path) -> None:
    (tmp_path / "l.yaml").write_text(
        "name: l\nrecord: 14\nfields:\n- {name: a, type: REAL, offset: 2}\n- {name: b, type: INT}\n"
    )
    _, problems = judge(tmp_path, plc(groups=[{"name": "g1", "layout": "l.yaml"}]))
    assert problems == [
        "record: tags lie in no record [this layout is of an S7 block; `plc-edge browse` makes one"
        " of tags]",
        "fields[0].offset: is for `protocol: s7`: tags have no address [remove it; a tag is given"
        " by `node:` and `type:`]",
        "fields[1]: `node` is missing [add `node:`]",
    ]


def test_an_unknown_protocol(tmp_path: Path) -> None:
    _, problems = judge(tmp_path, plc(protocol="modbus", hsot="x"))
    assert problems == [
        "plcs[0]: `protocol` is missing or unknown [give `protocol: s7` or `protocol: toy`]"
    ]
    _, problems = judge(tmp_path, plc(protocol=["s7"], timeout="never"))
    assert len(problems) == 2
    assert "plcs[0].timeout" in problems[1]


def test_a_key_of_another_protocol(tmp_path: Path) -> None:
    group = {**plc()["groups"][0], "db": 5, "raw": True, "machines": {"count": 2, "stride": 4}}
    _, problems = judge(tmp_path, plc(rack=0, slot=2, groups=[group]))
    assert sorted(problems) == [
        f"plcs[0].{key}: is a key of `protocol: s7` [{fix}]"
        for key, fix in (
            (k, "remove it: this one has `protocol: toy`")
            for k in ("groups[0].db", "groups[0].machines", "groups[0].raw", "rack", "slot")
        )
    ]
    _, problems = judge(tmp_path, {**plc(), "protocol": "s7", "doors": {}})
    assert [p for p in problems if "doors" in p] == [
        "plcs[0].doors: is a key of `protocol: toy` [remove it: this one has `protocol: s7`]"
    ]


def test_a_misspelt_key_is_still_told_as_one(tmp_path: Path) -> None:
    _, problems = judge(tmp_path, plc(timeuot="1s", doors={"clsoed": True}))
    assert sorted(problems) == [
        "plcs[0].doors.clsoed: unknown key [did you mean `closed`?]",
        "plcs[0].timeuot: unknown key [did you mean `timeout`?]",
    ]


def test_wrong_fields(tmp_path: Path) -> None:
    _, problems = judge(
        tmp_path,
        fields(
            {"name": "a", "address": "DB1.DBD0:REAL"},
            {"name": "b", "node": "b", "type": "REAL"},
            {"name": "c", "node": "n=c"},
            {"name": "d", "node": "n=d", "type": "FLOAT"},
            {"name": "e", "node": "n=e", "type": "STRING", "deadband": 1},
            {"name": "f", "node": "n=f", "type": "INT", "nodee": 1},
            {"name": "g", "node": "n=g", "type": "INT"},
            {"name": "g", "node": "n=h", "type": "INT"},
            "h",
        ),
    )
    at = "plcs[0].groups[0].fields"
    assert problems == [
        f"{at}[0].address: is for `protocol: s7`: tags have no address [remove it; a tag is given"
        " by `node:` and `type:`]",
        f"{at}[1].node: 'b' is no node [write `n=NAME`]",
        f"{at}[2]: `type` is missing [add `type:`, e.g. REAL, DINT, STRING, INT[1..4]]",
        f"{at}[3].type: unknown type 'FLOAT' [known types: {_known_types()}]",
        f"{at}[4].deadband: STRING[254] is no number [remove `deadband:`: any change is published]",
        f"{at}[5].nodee: unknown key [did you mean `node`?]",
        f"{at}[8]: is 'h' [a field is {{name: …, node: …}}]",
        f"{at}[7].name: 'g' stands twice [rename one]",
    ]


def _known_types() -> str:
    return ", ".join([*ELEMENTARY, "STRING", "WSTRING"])


def test_a_mirror_of_tags(tmp_path: Path) -> None:
    mirror = {"name": "m1", "source": {"plc": "p1", "group": "g1"},
              "target": {"host": "h9", "db": 1}}  # fmt: skip
    _, problems = judge(tmp_path, plc(), mirrors=[mirror])
    assert problems == [
        "mirrors[0].source.plc: a mirror copies bytes, and `protocol: toy` of 'p1' reads none"
        " [read that PLC with `protocol: s7`, or remove the mirror]"
    ]


def test_trend_names_a_field(tmp_path: Path) -> None:
    group = {**plc()["groups"][0], "trend": ["tt"]}
    _, problems = judge(tmp_path, plc(groups=[group]))
    assert problems == ["plcs[0].groups[0].trend[0]: no field is named 'tt' [did you mean `t`?]"]
