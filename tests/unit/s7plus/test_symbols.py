"""Names of a program: how they are written, found and listed; and programs that cannot be."""

from __future__ import annotations

import random
import time
from itertools import islice

import pytest

from services.protocols.s7plus.cpu import Cpu
from services.protocols.s7plus.symbols import (
    Member,
    Step,
    SymbolError,
    SymbolTree,
    parse_symbol,
    quoted,
)
from services.runtime.errors import PlcUnavailable
from tests.kit.common import free_port
from tests.kit.s7plus_cpu import SymbolCpu, Var

BLOCKS = {
    "Prensa 1": [
        Var("a", "INT[1..3]"),
        Var("eixo", members=[Var("x", "REAL"), Var("fim", "BOOL[0..1,0..9]")], dims=((-1, 1),)),
        Var("com.ponto", "DINT"),
        Var("dentro", members=[Var("mais", members=[Var("fundo", "LINT")])]),
    ]
}


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Motor.speed", [Step("Motor"), Step("speed")]),
        ('"Motor 1"."a.b"[3].x', [Step("Motor 1"), Step("a.b", (3,)), Step("x")]),
        ("Pressão.ê[-1, 2]", [Step("Pressão"), Step("ê", (-1, 2))]),
        ("Nivel", [Step("Nivel")]),
    ],
)
def test_symbols_as_tia_portal_writes_them(text: str, steps: list[Step]) -> None:
    assert list(parse_symbol(text)) == steps


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", 'a."b', "a[", "a[]", "a[1", "a[x]",
                                  "a[1]b", 'a"b"', "a[1..2]", " "])  # fmt: skip
def test_what_is_no_symbol(text: str) -> None:
    with pytest.raises(SymbolError) as e:
        parse_symbol(text)
    assert e.value.reason == "bad_symbol"
    assert repr(text) in str(e.value)


def test_a_name_is_quoted_where_it_must_be() -> None:
    for name in ("speed", "posição", "a b", "a.b", "1a", "x[1]", "Ω_2"):
        assert parse_symbol(f"B.{quoted(name)}") == (Step("B"), Step(name))


@pytest.fixture(scope="module")
def cpu() -> tuple[SymbolCpu, Cpu]:
    plc = SymbolCpu(BLOCKS, tags=[Var("Nivel", "WORD")])
    port = free_port()
    plc.start("127.0.0.1", port)
    return plc, Cpu("127.0.0.1", port, {"tls": "off"}, 2.0)


@pytest.mark.parametrize(
    ("symbol", "reason", "said"),
    [
        ("Prensa 2.a", "unknown_symbol", "no block or tag 'Prensa 2'"),
        ("Prensa 1.b", "unknown_symbol", "no 'b' in it"),
        ("Prensa 1.a[4]", "unknown_symbol", "has the elements [1..3]"),
        ("Prensa 1.a[1,1]", "unknown_symbol", "has the elements [1..3]"),
        ("Prensa 1.dentro[1].mais.fundo", "unknown_symbol", "is no array"),
        ("Prensa 1.eixo.x", "no_value", "say which element"),
        ("Prensa 1.eixo[2].x", "unknown_symbol", "has the elements [-1..1]"),
        ("Prensa 1", "no_value", "is a block"),
        ("Nivel.x", "unknown_symbol", "no 'x' in it"),
    ],
)
def test_what_there_is_not(cpu: tuple[SymbolCpu, Cpu], symbol: str, reason: str, said: str) -> None:
    with pytest.raises(SymbolError) as e:
        cpu[1].tree().find(symbol)
    assert e.value.reason == reason
    assert said in str(e.value)


def test_everything_listed_is_found_again(cpu: tuple[SymbolCpu, Cpu]) -> None:
    tree = cpu[1].tree()
    listed = dict(tree.variables())
    assert set(listed) == {
        '"Prensa 1".a', '"Prensa 1"."com.ponto"', '"Prensa 1".dentro.mais.fundo', "Nivel",
        *(f'"Prensa 1".eixo[{n}].{m}' for n in (-1, 0, 1) for m in ("x", "fim")),
    }  # fmt: skip
    for symbol, kind in listed.items():
        assert tree.find(symbol).member.type == kind
    assert list(dict(tree.variables("Prensa 1.eixo[0]"))) == [
        '"Prensa 1".eixo[0].x', '"Prensa 1".eixo[0].fim'
    ]  # fmt: skip


def test_rows_of_bits_begin_at_a_multiple_of_eight() -> None:
    bits = Member("b", 9, 40, dims=((0, 1), (0, 9)))
    assert [bits.number((0, 9)), bits.number((1, 0)), bits.number((1, 9))] == [9, 16, 25]
    words = Member("w", 9, 4, dims=((0, 1), (0, 9)))
    assert words.number((1, 0)) == 10


def test_a_program_that_cannot_be_is_listed_in_bounded_time() -> None:
    """Types that hold themselves, and arrays of a billion."""
    endless = (0, 2**31 - 1)
    types = {
        1: [Member("eu", 9, 17, struct=1), Member("vazio", 10, 17, dims=(endless,), struct=2)],
        2: [],
        3: [Member("muitos", 9, 17, dims=(endless, endless), struct=4)],
        4: [Member("x", 9, 5)],
    }
    tree = SymbolTree({"A": (0x8A0E0001, 1), "B": (0x8A0E0002, 3)}, types)
    begin_s = time.monotonic()
    assert len(list(islice(tree.variables(), 1_000))) == 1_000
    assert time.monotonic() - begin_s < 5


def test_a_damaged_description_is_an_error_and_no_end(cpu: tuple[SymbolCpu, Cpu]) -> None:
    plc, client = cpu
    dice = random.Random(3)
    plain = plc._handle_explore
    damage = 0

    def damaged(seq_num: int, session_id: int, request_data: bytes) -> bytes:
        reply = bytearray(plain(seq_num, session_id, request_data))
        for _ in range(damage):
            at = dice.randrange(10, len(reply))
            reply[at] = dice.randrange(256)
        if dice.random() < 0.2:
            del reply[dice.randrange(10, len(reply)) :]
        return bytes(reply)

    plc._handle_explore = damaged  # type: ignore[method-assign]
    codes: set[str] = set()
    try:
        for damage in (1, 2, 5) * 60:  # noqa: B007
            try:
                list(islice(client.tree().variables(), 1_000))
            except PlcUnavailable as e:
                codes.add(e.code)
    finally:
        plc._handle_explore = plain  # type: ignore[method-assign]
    assert "protocol" in codes
    assert codes <= {"protocol", "refused_by_cpu", "access_denied"}
    assert len(list(client.tree().variables())) == 10
