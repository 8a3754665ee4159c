"""A group's own list: fields with an address, and fields as a layout has them."""

from __future__ import annotations

from typing import Any

import pytest

from services.s7.field import Field
from services.s7.layout import LayoutError, resolve_inline, resolve_layout

AS_IN_A_LAYOUT: list[dict[str, Any]] = [
    {"name": "rodando", "type": "BOOL", "offset": 0.0},
    {"name": "parado", "type": "BOOL", "offset": 0.1, "description": "botão"},
    {"name": "velocidade", "type": "REAL", "offset": 2, "unit": "m/min", "deadband": "2%"},
    {"name": "nivel", "type": "INT", "offset": 6, "scale": {"raw": [0, 27648], "eu": [0, 100]}},
    {"name": "receita", "type": "STRING[10]", "offset": 8, "encoding": "cp1252"},
    {"name": "pesos", "type": "INT[1..4]", "offset": 20},
    {"name": "motor", "offset": 28, "fields": [{"name": "corrente", "type": "REAL"}]},
    {"name": "eixo", "type": "STRUCT[1..2]", "fields": [{"name": "x", "type": "DINT"}]},
    {"name": "depois", "type": "WORD"},
]


def test_what_a_layout_takes_a_group_takes() -> None:
    assert resolve_inline(AS_IN_A_LAYOUT, db=7) == resolve_layout({"fields": AS_IN_A_LAYOUT}, db=7)
    assert resolve_inline(AS_IN_A_LAYOUT, db=7)[-1] == Field("depois", "WORD", "DB", 7, 40)


def test_both_kinds_in_one_list() -> None:
    mixed = [
        {"name": "aa", "type": "INT", "offset": 0},
        {"name": "fora", "address": "M10.3"},
        {"name": "bb", "type": "INT"},
        {"name": "outro", "address": "DB9.DBW0:INT"},
    ]
    assert resolve_inline(mixed, db=1) == [
        Field("aa", "INT", "DB", 1, 0),
        Field("fora", "BOOL", "M", 0, 10, 3),
        Field("bb", "INT", "DB", 1, 2),
        Field("outro", "INT", "DB", 9, 0),
    ]


@pytest.mark.parametrize(
    ("field", "db", "path", "words"),
    [
        ({"name": "aa", "address": "DB1.DBD0", "type": "REAL"}, 1, "[0]",
         "has both `address:` and `type:`"),
        ({"name": "aa", "address": "DB1.DBD0", "offset": 4}, 1, "[0]",
         "has both `address:` and `offset:`"),
        ({"name": "aa", "type": "INT", "offset": 0}, None, "[0]",
         "need the group's `db:`"),
        ({"name": "aa", "fields": [{"name": "x", "type": "INT"}]}, None, "[0]",
         "need the group's `db:`"),
        ({"name": "aa", "offset": 0}, 1, "[0]", "`type` is missing"),
        ({"name": "aa", "type": "INT", "offset": 3}, 1, "[0].offset", "byte 3 is odd"),
        ({"name": "aa", "type": "DWORD", "offset": 65_534}, 1, "[0].offset", "65537"),
        ({"name": "aa", "type": "INT", "offset": 65_536}, 1, "[0].offset", "no offset"),
        ({"name": "aa", "type": "LREAL", "offset": 65_530}, 1, "[0].offset", "65537"),
        ({"name": "aa", "type": "RAEL", "offset": 0}, 1, "[0].type", "RAEL"),
        ({"name": "aa", "type": "INT", "ofset": 0}, 1, "[0].ofset", "unknown key"),
        ({"name": "aa"}, 1, "[0]", "`address` is missing"),
        (7, 1, "[0]", "is 7"),
    ],
)  # fmt: skip
def test_mistakes(field: Any, db: int | None, path: str, words: str) -> None:
    with pytest.raises(LayoutError) as e:
        resolve_inline([field], db=db)
    (problem,) = e.value.problems
    assert problem.path == path
    assert words in problem.message
    assert problem.hint


@pytest.mark.parametrize("given", ["undefined", "a\0b", "x" * 10_000, "rot13", 5, [1]])
def test_an_encoding_that_python_cannot_use_is_told(given: Any) -> None:
    field = {"name": "aa", "type": "STRING[4]", "offset": 0, "encoding": given}
    with pytest.raises(LayoutError, match="unknown encoding"):
        resolve_inline([field], db=1)


@pytest.mark.parametrize(
    "scale",
    [{"raw": [0, 1e-308], "eu": [0, 1e308]}, {"factor": float("inf")}, {"bias": float("nan")}],
)
def test_a_scale_without_an_end_is_told(scale: Any) -> None:
    with pytest.raises(LayoutError, match="no scale"):
        resolve_inline([{"name": "aa", "type": "INT", "offset": 0, "scale": scale}], db=1)


def test_numbers_of_thousands_of_digits_are_told() -> None:
    digits = "9" * 5_000
    fields: list[dict[str, Any]] = [
        {"name": "a1", "type": "INT", "offset": digits},
        {"name": "a2", "type": f"STRING[{digits}]", "offset": 2},
        {"name": "a3", "type": f"INT[1..{digits}]", "offset": 2},
        {"name": "a4", "array": f"1..{digits}", "fields": [{"name": "x", "type": "INT"}]},
        {"name": "a5", "address": f"DB1.DBW{digits}"},
        {"name": "a6", "address": f"DB{digits}.DBW0"},
        {"name": "a7", "type": "INT", "offset": 4, "deadband": f"{digits}%"},
    ]
    with pytest.raises(LayoutError) as e:
        resolve_inline(fields, db=1)
    assert [p.path for p in e.value.problems] == [
        "[0].offset", "[1].type", "[2].type", "[3].array", "[4].address", "[5].address",
        "[6].deadband",
    ]  # fmt: skip


def test_a_layout_of_too_many_fields_is_told_early() -> None:
    bits = [{"name": f"b{i}", "type": "BOOL"} for i in range(16)]
    with pytest.raises(LayoutError, match="more than 65,536"):
        resolve_layout({"fields": [{"name": "s", "array": "1..32768", "fields": bits}]}, db=1)
