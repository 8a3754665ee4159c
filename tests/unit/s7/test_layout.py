"""Layouts: classic placement, options, and every mistake named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.s7.field import Field
from services.s7.layout import LayoutError, resolve_inline, resolve_layout
from services.s7.types import S7Type
from tests.unit.s7.strategies import types

LAYOUTS = Path(__file__).parents[3] / "deploy" / "layouts"


def layout(*fields: dict[str, Any], **more: Any) -> list[Field]:
    return resolve_layout({"name": "x", "fields": list(fields), **more}, db=7)


def member(name: str, type_: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def places(fields: list[Field]) -> list[tuple[str, int, int]]:
    return [(f.name, f.byte, f.bit) for f in fields]


def problems(*fields: dict[str, Any], **more: Any) -> dict[str, str]:
    with pytest.raises(LayoutError) as e:
        layout(*fields, **more)
    return {p.path: f"{p.message} | {p.hint}" for p in e.value.problems}


# --- the two of the plant ------------------------------------------------------------


def test_db500() -> None:
    fields = resolve_layout(yaml.safe_load((LAYOUTS / "db500.yaml").read_text()), db=500)
    assert [(f.name, f.type, f.byte, f.bit) for f in fields] == [
        ("pecas_ruim", "BOOL", 0, 0),
        ("pecas_boas", "BOOL", 0, 1),
        ("maquina_ligada", "BOOL", 0, 2),
        ("AI_Corrente", "REAL", 2, 0),
        ("AI_Vibracao", "REAL", 6, 0),
        ("contador_bom", "INT", 10, 0),
        ("contador_ruim", "INT", 12, 0),
    ]
    assert {(f.area, f.db) for f in fields} == {("DB", 500)}


def test_db500_maquinas() -> None:
    fields = resolve_layout(yaml.safe_load((LAYOUTS / "db500_maquinas.yaml").read_text()), db=500)
    at = {f.name: (f.type, f.byte, f.bit) for f in fields}
    assert at["status_maquina"] == ("BOOL", 0, 2)
    for n in range(1, 6):
        assert at[f"sensor.{n}.valor"] == ("REAL", 2 + 6 * (n - 1), 0)
        assert at[f"sensor.{n}.flags"] == ("BYTE", 6 + 6 * (n - 1), 0)
    assert at["contador_bom"] == ("INT", 62, 0)
    assert at["contador_ruim"] == ("INT", 64, 0)
    assert max(f.byte + f.size_bytes for f in fields) == 66


# --- placement ------------------------------------------------------------


def test_without_offsets_members_follow_the_classic_rules() -> None:
    fields = layout(
        member("a", "BOOL"),
        member("b", "BOOL"),
        member("c", "BYTE"),
        member("d", "BOOL"),
        member("e", "INT"),
        member("f", "SINT"),
        member("g", "REAL"),
        member("h", "STRING[3]"),
        member("i", "LREAL"),
        member("j", "BYTE[0..2]"),
        member("k", "BYTE"),
        *(member(f"b{n}", "BOOL") for n in range(9)),
        member("l", "BOOL[0..9]"),
        member("m", "BOOL"),
        member("n", "BOOL[0..1,0..8]"),
        member("o", "DTL"),
    )
    assert places(fields) == [
        ("a", 0, 0),
        ("b", 0, 1),
        ("c", 1, 0),
        ("d", 2, 0),
        ("e", 4, 0),
        ("f", 6, 0),
        ("g", 8, 0),
        ("h", 12, 0),
        ("i", 18, 0),
        ("j", 26, 0),
        ("k", 30, 0),
        *((f"b{n}", 31 + n // 8, n % 8) for n in range(9)),
        ("l", 34, 0),
        ("m", 36, 0),
        ("n", 38, 0),
        ("o", 42, 0),
    ]


def test_structs_and_arrays_of_structs() -> None:
    axis = [member("on", "BOOL"), member("position", "REAL"), member("state", "BYTE")]
    fields = layout(
        member("first", "BYTE"),
        {"name": "motor", "fields": [member("on", "BOOL"), {"name": "deep", "fields": axis}]},
        {"name": "axis", "type": "STRUCT[-1..0]", "fields": axis},
        {"name": "grid", "array": "0..1,1..2", "fields": [member("v", "BYTE")]},
        member("last", "BOOL"),
    )
    assert places(fields) == [
        ("first", 0, 0),
        ("motor.on", 2, 0),
        ("motor.deep.on", 4, 0),
        ("motor.deep.position", 6, 0),
        ("motor.deep.state", 10, 0),
        ("axis.-1.on", 12, 0),
        ("axis.-1.position", 14, 0),
        ("axis.-1.state", 18, 0),
        ("axis.0.on", 20, 0),
        ("axis.0.position", 22, 0),
        ("axis.0.state", 26, 0),
        ("grid.0.1.v", 28, 0),
        ("grid.0.2.v", 30, 0),
        ("grid.1.1.v", 32, 0),
        ("grid.1.2.v", 34, 0),
        ("last", 36, 0),
    ]


def test_offsets_of_members_count_from_their_struct() -> None:
    inner = [member("a", "BOOL", offset=0.3), member("b", "INT", offset="4")]
    fields = layout({"name": "s", "offset": 10, "fields": inner}, member("after", "INT"))
    assert places(fields) == [("s.a", 10, 3), ("s.b", 14, 0), ("after", 16, 0)]


@pytest.mark.parametrize(
    ("offset", "byte", "bit"),
    [(0.2, 0, 2), (2, 2, 0), ("10.7", 10, 7), (4.0, 4, 0), ("6", 6, 0), (100.5, 100, 5)],
)
def test_offset_as_yaml_may_give_it(offset: Any, byte: int, bit: int) -> None:
    assert places(layout(member("x", "BOOL", offset=offset))) == [("x", byte, bit)]


def place_again(members: list[S7Type]) -> list[int]:
    """First bits, by a second reading of the rules: one bit at a time."""
    at, out = 0, []
    for t in members:
        if t.base == "BOOL" and not t.dims:
            out.append(at)
            at += 1
            continue
        while at % 8 or (t.align == 2 and at % 16):
            at += 1
        out.append(at)
        at += 8 * t.size_bytes
        while t.dims and at % 16:
            at += 1
    return out


@settings(deadline=None)
@given(st.lists(types(), min_size=1, max_size=20))
def test_computed_offsets_and_the_same_given(members: list[S7Type]) -> None:
    fields = layout(*(member(f"f{i}", str(t)) for i, t in enumerate(members)))
    assert [f.byte * 8 + f.bit for f in fields] == place_again(members)
    again = layout(
        *(member(f.name, f.type, offset=f"{f.byte}.{f.bit}") for f in fields[::-1]),
    )
    assert again[::-1] == fields
    assert [Field.from_dict(f.to_dict()) for f in fields] == fields


# --- options ------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "scale"),
    [
        ({"factor": 0.1, "bias": -5}, (0.1, -5.0)),
        ({"factor": 2}, (2.0, 0.0)),
        ({"bias": 3}, (1.0, 3.0)),
        (0.1, (0.1, 0.0)),
        ({"raw": [0, 27648], "eu": [0, 100]}, (100 / 27648, 0.0)),
        ({"raw": [4, 20], "eu": [-10, 10]}, (1.25, -15.0)),
    ],
)
def test_scale(given_: Any, scale: tuple[float, float]) -> None:
    (field,) = layout(member("x", "INT", scale=given_))
    assert field.scale == pytest.approx(scale)
    assert Field.from_dict(field.to_dict()) == field


@pytest.mark.parametrize(
    ("given_", "deadband"),
    [
        (0.5, {"abs": 0.5}),
        ("2%", {"percent": 2.0}),
        ({"abs": 1}, {"abs": 1.0}),
        ({"percent": 1.5}, {"percent": 1.5}),
    ],
)
def test_deadband(given_: Any, deadband: dict[str, float]) -> None:
    assert layout(member("x", "REAL", deadband=given_))[0].deadband == deadband


# --- mistakes ------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "path", "says"),
    [
        (member("x", "REEL"), "fields[0].type", "did you mean REAL"),
        (member("x", "INT", ofset=2), "fields[0].ofset", "did you mean `offset`"),
        (member("x", "INT", offset=3), "fields[0].offset", "even byte"),
        (member("x", "INT", offset=2.1), "fields[0].offset", "only a BOOL"),
        (member("x", "BOOL", offset=0.8), "fields[0].offset", "byte.bit"),
        (member("x", "BOOL", offset=-1), "fields[0].offset", "no offset"),
        (member("x", "REAL", offset=65_534), "fields[0].offset", "block ends"),
        (member("x y", "INT"), "fields[0].name", "valid field name"),
        ({"name": "x"}, "fields[0]", "`type` is missing"),
        ({"type": "INT"}, "fields[0]", "`name` is missing"),
        ("x", "fields[0]", "a field is"),
        (member("x", "INT", scale={"factor": 0}), "fields[0].scale", "factor"),
        (member("x", "INT", scale={"raw": [1, 1], "eu": [0, 1]}), "fields[0].scale", "eu"),
        (member("x", "BOOL", scale=2), "fields[0].scale", "no number"),
        (member("x", "INT", deadband=-1), "fields[0].deadband", "{abs: 0.5}"),
        (member("x", "STRING[4]", deadband=1), "fields[0].deadband", "no number"),
        (member("x", "INT", encoding="utf-8"), "fields[0].encoding", "only STRING"),
        (member("x", "STRING[4]", encoding="klingon"), "fields[0].encoding", "unknown"),
        ({"name": "s", "fields": []}, "fields[0].fields", "at least one"),
        ({"name": "s", "type": "INT", "fields": [member("a", "INT")]}, "fields[0].type", "STRUCT"),
        ({"name": "s", "array": "4..1", "fields": [member("a", "INT")]}, "fields[0].array", "1..4"),
        (
            {"name": "s", "array": "1..9", "fields": [member("a", "RAEL")]},
            "fields[0].fields[0].type",
            "REAL",
        ),
    ],
)
def test_mistakes_are_named(wrong: Any, path: str, says: str) -> None:
    found = problems(wrong)
    assert list(found) == [path]
    assert says in found[path]


def test_all_mistakes_at_once() -> None:
    found = problems(
        member("a", "REEL"), member("b", "INT", offset="x"), member("b", "BOOL"), fieldz=1
    )
    assert set(found) == {"fieldz", "fields[0].type", "fields[1].offset", "fields[2].name"}


def test_record_is_checked() -> None:
    assert "record: 6" in problems(member("x", "REAL"), member("y", "INT"), record=4)["record"]
    assert layout(member("x", "REAL"), record=20)
    assert "size in bytes" in problems(member("x", "REAL"), record="14")["record"]


@pytest.mark.parametrize("doc", [None, [], "x", {"name": "x"}, {"name": "x", "fields": {}}])
def test_no_layout_at_all(doc: Any) -> None:
    with pytest.raises(LayoutError):
        resolve_layout(doc, db=1)


def test_inline_fields() -> None:
    fields = resolve_inline(
        [
            {"name": "temperatura", "address": "DB1.DBD0:REAL", "unit": "°C", "scale": 0.1,
             "deadband": 0.5},
            {"name": "bomba_ligada", "address": "M10.3"},
        ]
    )  # fmt: skip
    assert fields == [
        Field("temperatura", "REAL", "DB", 1, 0, unit="°C", scale=(0.1, 0.0),
              deadband={"abs": 0.5}),
        Field("bomba_ligada", "BOOL", "M", 0, 10, 3),
    ]  # fmt: skip


def test_inline_mistakes() -> None:
    with pytest.raises(LayoutError) as e:
        resolve_inline(
            [
                {"name": "a", "address": "DB1.DBX0"},
                {"name": "b", "adress": "M0.0"},
                {"name": "c", "address": "M0.0"},
                {"name": "c", "address": "M0.1"},
            ]
        )
    assert [p.path for p in e.value.problems] == ["[0].address", "[1].adress", "[1]", "[3].name"]


def test_a_field_is_not_called_as_an_arrays_element_is() -> None:
    """Both would be one field of a database, one metric of Sparkplug."""
    for name in ("nivel.0", "nivel.1.2"):
        said = problems(member("nivel", "INT[0..1,0..3]"), member(name, "REAL"))
        (text,) = said.values()
        assert f"{name!r} is what an element of the array 'nivel' is called" in text
    assert len(layout(member("nivel", "INT[0..1]"), member("nivel.alto", "REAL"))) == 2
