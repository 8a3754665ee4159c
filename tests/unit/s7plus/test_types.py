"""Every S7 type as a CPU sends it by S7CommPlus -> the value that classic access gives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from s7commplus import codec, vlq

from services.protocols.s7plus.cpu import Cpu
from services.protocols.s7plus.plan import Tag, make_plan, values_of
from services.protocols.s7plus.values import ReplyError, Sent, parse_reply
from services.s7.types import parse_type
from tests.kit import s7plus_wire as wire
from tests.kit.common import free_port
from tests.kit.s7plus_cpu import SymbolCpu, Var, certificate

# Type, bytes as classic access has them (docs/ S7 layout), value.
VECTORS: list[tuple[str, str, object]] = [
    ("BOOL", "01", True),
    ("BOOL", "00", False),
    ("BYTE", "ff", 255),
    ("CHAR", "e7", "ç"),
    ("WCHAR", "03a9", "Ω"),
    ("WORD", "ffff", 65_535),
    ("DWORD", "ffffffff", 4_294_967_295),
    ("LWORD", "ffffffffffffffff", 2**64 - 1),
    ("SINT", "80", -128),
    ("USINT", "ff", 255),
    ("INT", "8000", -32_768),
    ("UINT", "ffff", 65_535),
    ("DINT", "80000000", -(2**31)),
    ("DINT", "ffffffc0", -64),
    ("UDINT", "ffffffff", 2**32 - 1),
    ("LINT", "8000000000000000", -(2**63)),
    ("LINT", "7fffffffffffffff", 2**63 - 1),
    ("LINT", "0020000000000001", 2**53 + 1),
    ("ULINT", "ffffffffffffffff", 2**64 - 1),
    ("ULINT", "0100000000000000", 2**56),
    ("REAL", "444ed333", 827.2999877929688),
    ("REAL", "00000001", 1.401298464324817e-45),
    ("LREAL", "419d6f34547e6b75", 123456789.12345679),
    ("TIME", "05283c7c", 86_523_004),
    ("TIME", "80000000", -(2**31)),
    ("LTIME", "8000000000000000", -(2**63)),
    ("LTIME", "00000000000000c8", 200),
    ("S5TIME", "3372", 3_720_000),
    ("DATE", "0fd3", "2001-02-03"),
    ("TOD", "0038d088", "01:02:03.400"),
    ("LTOD", "00004e94914effff", "23:59:59.999999999"),
    ("DT", "9902030102034004", "1999-02-03T01:02:03.400"),
    ("LDT", "00000000000000c8", "1970-01-01T00:00:00.000000200"),
    ("LDT", "7fffffffffffffff", "2262-04-11T23:47:16.854775807"),
    ("DTL", "07e4031803162c172af99640", "2020-03-24T22:44:23.721"),
    ("STRING[10]", "0a03c16de900000000000000", "Ámé"),
    ("WSTRING[4]", "0004000403a90073007400c4", "ΩstÄ"),
    ("INT[1..3]", "0001ffff7fff", [1, -1, 32_767]),
    ("DINT[0..2]", "00000001ffffffff80000000", [1, -1, -(2**31)]),
    ("LREAL[0..1]", "3ff0000000000000c000000000000000", [1.0, -2.0]),
    ("REAL[0..1]", "3f800000c0000000", [1.0, -2.0]),
    ("LINT[0..1]", "80000000000000000000000000000001", [-(2**63), 1]),
    ("DWORD[0..1]", "80000000ffffffff", [2**31, 2**32 - 1]),
    ("STRING[3][1..2]", "03026f6b00000303616263", ["ok", "abc"]),
    ("INT[0..1,0..2]", "000100020003000400050006", [[1, 2, 3], [4, 5, 6]]),
    ("INT[-1..0,5..6,1..2]", "00010002000300040005000600070008",
     [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    ("DTL[0..1]", "07e4031803162c172af9964007b2010105000000000000c8",
     ["2020-03-24T22:44:23.721", "1970-01-01T00:00:00.000000200"]),
]  # fmt: skip
# Of BOOL arrays the CPU's bytes are one for each element.
BITS: list[tuple[str, str, object]] = [
    ("BOOL[0..9]", "01000000000000000001", [True, *[False] * 8, True]),
    ("BOOL[0..1,0..2]", "010000000001", [[True, False, False], [False, False, True]]),
    ("BOOL[1..2,1..9]", "00" * 8 + "01" + "01" + "00" * 8,
     [[*[False] * 8, True], [True, *[False] * 8]]),
]  # fmt: skip
ALL = VECTORS + BITS


@pytest.fixture(params=["V1", "V2 and TLS"])
def cpu(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SymbolCpu, Cpu]:
    tags = [Var(f"v{n}", t) for n, (t, _, _) in enumerate(ALL)]
    has_tls = request.param != "V1"
    plc = SymbolCpu({"Tipos": tags}, version=2 if has_tls else 1, tags=[Var("Nível", "WORD")])
    port = free_port()
    if has_tls:
        cert, key = certificate(tmp_path)
        plc.start("127.0.0.1", port, use_tls=True, tls_cert=str(cert), tls_key=str(key))
    else:
        plc.start("127.0.0.1", port)
    client = Cpu("127.0.0.1", port, {"tls": "required" if has_tls else "off"}, 5.0)
    return plc, client


def test_every_type_has_the_value_of_classic_access(cpu: tuple[SymbolCpu, Cpu]) -> None:
    plc, client = cpu
    for n, (_, raw, _) in enumerate(ALL):
        plc.set(f"Tipos.v{n}", _unpadded(ALL[n][0], bytes.fromhex(raw)))
    plc.set("Nível", b"\x12\x34")
    tree = client.tree()
    seen = {symbol: str(t) for symbol, t in tree.variables()}
    assert seen == {f"Tipos.v{n}": t for n, (t, _, _) in enumerate(ALL)} | {"Nível": "WORD"}
    tags = [Tag(symbol, symbol, parse_type(t)) for symbol, t in seen.items()]
    plan = make_plan(tree, tags, client.qualifier_version)
    values, bad = values_of(plan, client.read(plan))
    assert not bad
    for n, (t, _, expected) in enumerate(ALL):
        assert values[f"Tipos.v{n}"] == expected, t
        assert type(values[f"Tipos.v{n}"]) is type(expected), t
    assert values["Nível"] == 0x1234


def _unpadded(text: str, raw: bytes) -> bytes:
    """Arrays of STRING[odd] have a byte between their elements in classic access only."""
    t = parse_type(text)
    if not t.dims or t.stride_bytes == t.element_bytes:
        return raw
    return b"".join(raw[n : n + t.element_bytes] for n in range(0, len(raw), t.stride_bytes))


def test_a_value_of_another_type_is_never_taken(cpu: tuple[SymbolCpu, Cpu]) -> None:
    """As a program that was changed under us sends it: as many bytes, another meaning."""
    plc, client = cpu
    tree = client.tree()
    of_size: dict[int, str] = {}
    for n, (text, _, _) in enumerate(VECTORS):
        t = parse_type(text)
        if not t.dims and t.base in ("REAL", "DINT", "LINT", "LREAL", "INT", "BOOL"):
            of_size[n] = text
    for n, text in of_size.items():
        for other in ("UDINT", "REAL", "DINT", "LREAL", "LINT", "INT", "UINT", "BOOL", "SINT"):
            t = parse_type(other)
            if other == text:
                continue
            plc.put(f"Tipos.v{n}", wire.value(t, bytes(t.element_bytes)))
            plan = make_plan(
                tree, [Tag("x", f"Tipos.v{n}", parse_type(text))], client.qualifier_version
            )
            values, bad = values_of(plan, client.read(plan))
            assert (values, bad) == ({}, {"x": "type_differs"}), (text, other)


def test_only_what_is_refused_is_bad(cpu: tuple[SymbolCpu, Cpu]) -> None:
    plc, client = cpu
    tree = client.tree()
    names = [f"Tipos.v{n}" for n in range(10)]
    tags = [Tag(name, name, parse_type(VECTORS[n][0])) for n, name in enumerate(names)]
    gone = Tag("x", "Tipos.v99", parse_type("INT"))
    plan = make_plan(tree, [*tags, gone], client.qualifier_version)
    plc.refuse_symbol("Tipos.v3")
    plc.refuse_symbol("Tipos.v4", 0x8009AB0000E4FFE4)
    values, bad = values_of(plan, client.read(plan))
    assert bad == {"Tipos.v3": "unknown_symbol", "Tipos.v4": "refused_ffe4", "x": "unknown_symbol"}
    assert len(values) == 8


def test_numbers_of_variable_length_are_read_as_they_are_written() -> None:
    """The library's decoders against our encoder, which knows nothing of them."""
    dice = random.Random(5)
    for name, bits, is_signed in (
        ("uint32", 32, False), ("int32", 32, True), ("uint64", 64, False), ("int64", 64, True)
    ):  # fmt: skip
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
        edges = [s * (1 << k) + d for k in range(bits) for s in (1, -1) for d in (-1, 0, 1)]
        for value in [low, high, *edges, *(dice.randint(low, high) for _ in range(5_000))]:
            if low <= value <= high:
                raw = (wire.signed if is_signed else wire.unsigned)(value, bits)
                decode = getattr(vlq, f"decode_{name}_vlq")
                assert decode(raw + b"\x55", 0) == (value, len(raw))


@pytest.mark.parametrize(
    ("base", "raws"),
    [
        ("DWORD", ["80000000", "ffffffff"]),
        ("LWORD", ["8000000000000000", "00000000000000ff"]),
        ("DINT", ["ffffffff", "00000001"]),
        ("LINT", ["8000000000000000", "0000000000000001"]),
        ("UDINT", ["ffffffff", "00000000"]),
        ("REAL", ["3f800000", "c0000000"]),
    ],
)
def test_a_whole_array_is_read_where_the_library_is_wrong(base: str, raws: list[str]) -> None:
    sent = wire.array(base, [bytes.fromhex(r) for r in raws])
    reply = b"\0\1" + sent + b"\2" + wire.value(parse_type("INT"), b"\x12\x34") + b"\0\0"
    first, second = parse_reply(reply, 2)
    assert isinstance(first, Sent)
    assert isinstance(second, Sent)
    assert first.raw.hex() == "".join(raws)
    assert second.raw == b"\x12\x34"


def test_what_the_library_makes_of_arrays() -> None:
    """docs/s7plus.md says so: when this fails, it has been mended there."""
    two = [bytes.fromhex("80000000"), bytes.fromhex("ffffffff")]
    sent = wire.array("DWORD", two)
    try:
        raw, size = codec.decode_pvalue_to_bytes(sent + bytes(8), 0)
    except ValueError:
        return
    assert (raw, size) != (b"".join(two), len(sent))


def test_no_reply_is_half_taken_and_none_kills() -> None:
    """Cut at every byte, and with every byte changed: a list of all items, or ReplyError."""
    body = b"".join(
        wire.unsigned(n + 1) + wire.value(parse_type(t), _unpadded(t, bytes.fromhex(raw)))
        for n, (t, raw, _) in enumerate(VECTORS)
        if not parse_type(t).dims
    )
    count = sum(not parse_type(t).dims for t, _, _ in VECTORS)
    reply = b"\0" + body + b"\0\0"
    whole = parse_reply(reply, count)
    for cut in range(len(reply) - 1):
        with pytest.raises(ReplyError):
            parse_reply(reply[:cut], count)
    for at in range(len(reply)):
        for flip in (1, 0x10, 0x80, 0xFF):
            broken = bytearray(reply)
            broken[at] ^= flip
            try:
                found = parse_reply(bytes(broken), count)
            except ReplyError:
                continue
            assert len(found) == len(whole)
